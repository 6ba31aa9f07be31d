"""The client for runtimes that wait in place, such as threads and greenlets.

A connection on which a message was left incomplete is cut, so that no server takes it for complete.
"""

import socket
import ssl
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from types import TracebackType
from typing import ClassVar, Final, Self, TypeVar, assert_never

from lmtp_proto import (
    Address,
    Body,
    ClientMechanism,
    Dialect,
    Effect,
    GiveWay,
    Handshake,
    Interrupt,
    Limits,
    Log,
    MailParameters,
    Receive,
    Recipient,
    Reply,
    Result,
    Run,
    Send,
    Wait,
)
from lmtp_sockets import Stream, Waiting, connect

from ._client import ClientSession

T = TypeVar("T")

_BLOCK: Final = 65_536
_NO_PARAMETERS: Final = MailParameters()


class Channel:
    """A connected socket, which is this object's to close, on which conversations are held."""

    def __init__(self, sock: socket.socket, waiting: Waiting) -> None:
        self._sock = sock
        self._stream = Stream(sock, lambda writing, until: waiting.wait(sock, writing, until))
        self._busy = False

    def hold(self, conversation: Generator[Effect, None, T]) -> T:
        """Perform the effects of `conversation` to its end, and give its result.

        Raises RuntimeError while another one is held.
        """
        if self._busy:
            raise RuntimeError("another thread or greenlet is using this connection")
        self._busy = True
        try:
            while True:
                try:
                    effect = next(conversation)
                except StopIteration as end:
                    result: T = end.value
                    return result
                self._perform(effect)
        finally:
            self._busy = False
            # Where performing has raised, the conversation learns that it is over.
            conversation.close()

    def cut(self) -> None:
        """End reading and writing at once."""
        self._stream.cut()

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Receive():
                octets = self._stream.receive(effect.deadline)
                if octets is None:
                    effect.outcome = Interrupt.TIMEOUT
                else:
                    effect.outcome = octets or self._last_words()
            case Send():
                self._stream.send(effect.data, effect.deadline)
            case Run():
                effect.run()
            case Wait() | GiveWay() | Log():
                # Nothing runs beside this client in its place, and it has nothing to log.
                pass
            case Handshake():
                raise RuntimeError("no layer of this connection does TLS")
            case _:
                assert_never(effect)

    def _last_words(self) -> bytes:
        """What the server said before it closed: where writing has failed it is not read yet."""
        try:
            return self._sock.recv(_BLOCK)
        except OSError:
            return b""


class SocketClient(ClientSession):
    """One connection to a server, for any number of messages, one after the other.

    Connects to `address` (`HOST:PORT`, `[IPV6]:PORT`, `unix:PATH`) within `connect_timeout` seconds
    and says LHLO as `domain`; with `Dialect.SMTP` it speaks to an SMTP server. `chunk_size` is the
    most octets of a BDAT chunk, 0 sends by DATA alone. With `tls` there is TLS from the first
    octet; the certificate has to be for `server_hostname`, by default the host connected to.

    Whatever the server says or fails to say becomes a reply for each recipient. Raises ValueError
    for an address that is none and where `tls` verifies a name and there is none, OSError where
    connecting fails, ssl.SSLError, ConnectionError or TimeoutError where the handshake does.
    """

    waiting: ClassVar[Waiting]
    """How the runtime waits."""

    def __init__(
        self,
        address: str,
        *,
        domain: str = "localhost",
        limits: Limits | None = None,
        connect_timeout: float = 30.0,
        dialect: Dialect = Dialect.LMTP,
        chunk_size: int = 262_144,
        tls: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
    ) -> None:
        super().__init__(
            address,
            time.monotonic,
            domain=domain,
            limits=limits,
            dialect=dialect,
            chunk_size=chunk_size,
            tls=tls,
            server_hostname=server_hostname,
        )
        sock = connect(self._place, connect_timeout, self.waiting)
        self._channel = Channel(sock, self.waiting)
        try:
            self._hold(self._opening())
        except BaseException:
            self.abort()
            raise

    def start_tls(
        self, context: ssl.SSLContext | None = None, *, server_hostname: str | None = None
    ) -> Reply:
        """Say STARTTLS, do the handshake and say LHLO anew: the reply that decided.

        Where that is not positive there is no TLS: a server that refuses leaves the session in the
        clear, `tls` is None then. `context` None trusts the system's certificates; they are to be
        for `server_hostname`, by default the host that was connected to. Raises LocalProtocolError,
        before anything is sent, where the server does not offer STARTTLS or TLS is active, and
        ValueError where `context` verifies a name and there is none, as on a UNIX socket. Raises
        ssl.SSLError where the handshake fails, as for a certificate that is not trusted,
        ConnectionError or TimeoutError; the connection is cut then.
        """
        self._prepare_tls(context, server_hostname)
        return self._hold(self._submission.start_tls())

    def authenticate(self, mechanism: ClientMechanism) -> Reply:
        """Prove who the client is (RFC 4954); the reply that decided, 235 when it is believed.

        `PlainClient` and `LoginClient` show the password to whoever listens: they are for TLS and
        UNIX sockets, which is not checked here. A refusal changes nothing. Raises
        LocalProtocolError, before anything is sent, where the server does not offer the mechanism.
        Raises what `mechanism` raises; amid the exchange the connection is cut then.
        """
        return self._hold(self._submission.authenticate(mechanism))

    def submit(
        self,
        reverse_path: Address | None,
        recipients: Sequence[Recipient],
        content: Iterable[bytes],
        *,
        size: int | None = None,
        body: Body | None = None,
        parameters: MailParameters = _NO_PARAMETERS,
    ) -> list[Result]:
        """Send one message: a result for each of `recipients`, in their order.

        `reverse_path` None is the null reverse-path. `content` gives the octets in any pieces,
        lines end in CRLF. `size` (octets) and `body` are declared where the server takes them.
        Recipients beyond what its LIMITS allow are not sent: their reply is `452 4.5.3`. Raises
        LocalProtocolError, before anything is sent, where `parameters`, those of a recipient or an
        address need an extension that the server does not offer. Raises what `content` raises: the
        connection is cut then and every further result is 451.
        """
        return self._hold(
            self._submission.submit(
                reverse_path,
                recipients,
                read_pieces(content),
                size=size,
                body=body,
                parameters=parameters,
            )
        )

    def reset(self, *, timeout: float | None = None) -> Reply:
        """Say RSET, which changes nothing between two messages: 250 says that the server is there.

        Waits `timeout` seconds for the reply, None: as for any other. Without a reply the session
        is over.
        """
        return self._hold(self._resetting(timeout))

    def close(self) -> None:
        """Take leave, where the session goes on, and close the connection."""
        try:
            if self._submission.over:
                self._channel.cut()
            else:
                self._channel.hold(self._tls.over(self._submission.close()))
                self._channel.hold(self._tls.leave())
        finally:
            self._channel.close()

    def leave(self, timeout: float) -> None:
        """Take leave as `close()` does, but close the connection after `timeout` seconds at most,
        whatever the server does."""
        try:
            if not self._submission.over:
                self._channel.hold(self._leaving(timeout))
        finally:
            self.abort()

    def abort(self) -> None:
        """Close the connection at once, without leave."""
        self._channel.cut()
        self._channel.close()

    def _hold(self, conversation: Generator[Effect, None, T]) -> T:
        """Hold a conversation, and cut the connection if it was the last."""
        try:
            return self._channel.hold(self._tls.over(conversation))
        finally:
            if self._submission.over:
                self._channel.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            # Amid a message there is no leave to take: the server must not take it for complete.
            self.abort()


def read_pieces(pieces: Iterable[bytes]) -> Callable[[], bytes]:
    """What gives the next of `pieces`, `b""` at their end."""
    iterator = iter(pieces)

    def read() -> bytes:
        for piece in iterator:
            # An empty piece is not the end.
            if piece:
                return piece
        return b""

    return read
