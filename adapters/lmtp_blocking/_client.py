"""A client on a blocking socket: hands messages over, one result for each recipient.

A connection on which a message was left incomplete is cut, so that no server takes it for complete.
"""

import select
import socket
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from types import TracebackType
from typing import Final, TypeVar, assert_never

from lmtp_proto import (
    Address,
    Body,
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
    RemoteProtocolError,
    Reply,
    Result,
    Run,
    Send,
    Submission,
    Wait,
)
from lmtp_sockets import Stream, connect, parse_address

T = TypeVar("T")

_BLOCK: Final = 65_536
_NO_PARAMETERS: Final = MailParameters()


class Channel:
    """A connected socket, which is this object's to close, on which conversations are held."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._stream = Stream(sock, self._wait)

    def hold(self, conversation: Generator[Effect, None, T]) -> T:
        """Perform the effects of `conversation` to its end, and give its result."""
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
                raise NotImplementedError("lmtp_blocking has no TLS")
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
    most octets of a BDAT chunk, 0 sends by DATA alone. Whatever
    the server says or fails to say becomes a reply for each recipient. Raises ValueError for an
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
        self._channel = Channel(connect(parse_address(address), connect_timeout))
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
    def usable(self) -> bool:
        """Whether the session goes on: another message can be submitted."""
        return self._submission.usable

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
        Raises LocalProtocolError, before anything is sent, where `parameters`, those of a recipient
        or an address need an extension that the server does not offer. Raises what `content`
        raises: the connection is cut then and every further result is 451.
        """
        try:
            return self._channel.hold(
                self._submission.submit(
                    reverse_path,
                    recipients,
                    _reader(content),
                    size=size,
                    body=body,
                    parameters=parameters,
                )
            )
        finally:
            if not self._submission.usable:
                self._channel.cut()

    def close(self) -> None:
        """Take leave, where the session goes on, and close the connection."""
        try:
            if self._submission.usable:
                self._channel.hold(self._submission.close())
            else:
                self._channel.cut()
        finally:
            self._channel.close()

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
