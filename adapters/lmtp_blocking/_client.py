"""A client on a blocking socket: hands messages over, one result for each recipient.

A connection on which a message was left incomplete is cut, so that no server takes it for complete.
"""

import select
import socket
import ssl
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from types import TracebackType
from typing import Final, TypeVar, assert_never

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
    OfferedLimits,
    Receive,
    Recipient,
    RemoteProtocolError,
    Reply,
    Result,
    Run,
    Send,
    Submission,
    Wait,
)
from lmtp_sockets import Stream, TcpAddress, connect, parse_address
from lmtp_transport import TlsLayer

T = TypeVar("T")

_BLOCK: Final = 65_536
_NO_PARAMETERS: Final = MailParameters()


class Channel:
    """A connected socket, which is this object's to close, on which conversations are held."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._stream = Stream(sock, self._wait)
        self._tls: TlsLayer | None = None

    def prepare_tls(self, context: ssl.SSLContext | None, server_hostname: str | None) -> None:
        """The conversation held next may do a handshake; `context` None trusts whom the system
        trusts. Raises ValueError where a name is to be verified and there is none."""
        if self._tls is None or not self._tls.active:
            self._tls = TlsLayer(
                context or ssl.create_default_context(),
                server_side=False,
                server_hostname=server_hostname,
                clock=time.monotonic,
            )

    def hold(self, conversation: Generator[Effect, None, T]) -> T:
        """Perform the effects of `conversation` to its end, and give its result."""
        return self._run(conversation if self._tls is None else self._tls.over(conversation))

    def _run(self, conversation: Generator[Effect, None, T]) -> T:
        try:
            while True:
                try:
                    effect = next(conversation)
                except StopIteration as end:
                    result: T = end.value
                    return result
                self._perform(effect)
        finally:
            # Where performing has raised, the conversation learns that it is over.
            conversation.close()

    def cut(self) -> None:
        """End reading and writing at once."""
        self._stream.cut()

    def close(self) -> None:
        """Close the connection."""
        try:
            if self._tls is not None:
                self._run(self._tls.leave())
        finally:
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
                # Nothing runs beside a blocking client, and it has nothing to log.
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

    def _wait(self, writing: bool, deadline: float) -> bool:
        # poll(), unlike select(), takes descriptors beyond 1023.
        poll = select.poll()
        poll.register(self._sock, select.POLLOUT if writing else select.POLLIN)
        left = max(deadline - time.monotonic(), 0.0)
        return bool(poll.poll(left * 1000))


class Client:
    """One connection to a server, for any number of messages, one after the other.

    Connects to `address` (`HOST:PORT`, `[IPV6]:PORT`, `unix:PATH`) within `connect_timeout` seconds
    and says LHLO as `domain`; with `Dialect.SMTP` it speaks to an SMTP server. `chunk_size` is the
    most octets of a BDAT chunk, 0 sends by DATA alone. Whatever the server says or fails to say
    becomes a reply for each recipient. Raises ValueError for an
    address that is none, OSError where connecting fails.
    """

    def __init__(
        self,
        address: str,
        *,
        domain: str = "localhost",
        limits: Limits | None = None,
        connect_timeout: float = 30.0,
        dialect: Dialect = Dialect.LMTP,
        chunk_size: int = 262_144,
    ) -> None:
        place = parse_address(address)
        self._host = place.host if isinstance(place, TcpAddress) else None
        self._channel = Channel(connect(place, connect_timeout))
        self._submission = Submission(
            domain, clock=time.monotonic, limits=limits, dialect=dialect, chunk_size=chunk_size
        )
        try:
            greeting = self._channel.hold(self._submission.open())
        except BaseException:
            self._channel.cut()
            self._channel.close()
            raise
        self.greeting: Reply = greeting
        """The reply to LHLO, or the one that has ended the session before."""

    @property
    def failure(self) -> RemoteProtocolError | None:
        """How the server has broken the protocol, None while it has not."""
        return self._submission.failure

    @property
    def keywords(self) -> dict[str, str]:
        """What the server offers: keyword in upper case to its parameters."""
        return self._submission.keywords

    @property
    def offered_limits(self) -> OfferedLimits:
        """The limits that the server offers (RFC 9422). `submit()` keeps them."""
        return self._submission.offered_limits

    @property
    def tls(self) -> str | None:
        """Protocol and cipher, None in the clear."""
        return self._submission.tls

    @property
    def usable(self) -> bool:
        """Whether another message can be submitted: the session goes on, and the server takes one
        more. If not, `refusal` says why, and a new connection is needed."""
        return self._submission.usable

    @property
    def refusal(self) -> Reply | None:
        """What every recipient of another message would be told without its being sent, None while
        one can be submitted."""
        return self._submission.refusal

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
        self._channel.prepare_tls(context, server_hostname or self._host)
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
                _reader(content),
                size=size,
                body=body,
                parameters=parameters,
            )
        )

    def close(self) -> None:
        """Take leave, where the session goes on, and close the connection."""
        try:
            if self._submission.over:
                self._channel.cut()
            else:
                self._channel.hold(self._submission.close())
        finally:
            self._channel.close()

    def _hold(self, conversation: Generator[Effect, None, T]) -> T:
        """Hold a conversation, and cut the connection if it was the last."""
        try:
            return self._channel.hold(conversation)
        finally:
            if self._submission.over:
                self._channel.cut()

    def __enter__(self) -> "Client":
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
            self._channel.cut()
            self._channel.close()


def _reader(pieces: Iterable[bytes]) -> Callable[[], bytes]:
    iterator = iter(pieces)

    def read() -> bytes:
        for piece in iterator:
            # An empty piece is not the end.
            if piece:
                return piece
        return b""

    return read
