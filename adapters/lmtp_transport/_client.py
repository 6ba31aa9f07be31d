"""A client's session as its runtime's `Client` shows it: all of it but reading, writing, waiting.

Conversations are made here, and each is held by the runtime.
"""

import ssl
from collections.abc import Callable, Generator
from typing import TypedDict, TypeVar

from lmtp_proto import (
    Dialect,
    Effect,
    Limits,
    OfferedLimits,
    Receive,
    RemoteProtocolError,
    Reply,
    Rset,
    Send,
    Submission,
)
from lmtp_sockets import TcpAddress, parse_address

from ._tls import TlsLayer

T = TypeVar("T")


class ClientOptions(TypedDict, total=False):
    """How a client connects and what it says: what `Client` takes behind the address."""

    domain: str
    limits: Limits | None
    connect_timeout: float
    dialect: Dialect
    chunk_size: int
    tls: ssl.SSLContext | None
    server_hostname: str | None


class ClientTls:
    """A client's TLS over one connection: in the clear until prepared, and a handshake is done.

    `clock` gives seconds that never go back.
    """

    __slots__ = ("_clock", "_layer")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._layer: TlsLayer | None = None

    def prepare(self, context: ssl.SSLContext | None, server_hostname: str | None) -> None:
        """The conversation held next may do a handshake; `context` None trusts whom the system
        trusts. Raises ValueError where a name is to be verified and there is none."""
        if self._layer is None or not self._layer.active:
            self._layer = TlsLayer(
                context or ssl.create_default_context(),
                server_side=False,
                server_hostname=server_hostname,
                clock=self._clock,
            )

    def over(self, conversation: Generator[Effect, None, T]) -> Generator[Effect, None, T]:
        """`conversation` as it is to be held."""
        return conversation if self._layer is None else self._layer.over(conversation)

    def leave(self) -> Generator[Effect, None, None]:
        """Say under TLS that nothing more comes."""
        if self._layer is not None:
            yield from self._layer.leave()


class ClientSession:
    """What a `Client` knows of its session.

    Raises ValueError for an address that is none, and where `tls` verifies a name and there is
    none. `clock` gives seconds that never go back.
    """

    def __init__(
        self,
        address: str,
        clock: Callable[[], float],
        *,
        domain: str = "localhost",
        limits: Limits | None = None,
        dialect: Dialect = Dialect.LMTP,
        chunk_size: int = 262_144,
        tls: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
    ) -> None:
        self._place = parse_address(address)
        self._clock = clock
        self._implicit_tls = tls is not None
        self._server_hostname = server_hostname
        self._tls = ClientTls(clock)
        if tls is not None:
            self._prepare_tls(tls, None)
        self._submission = Submission(
            domain, clock=clock, limits=limits, dialect=dialect, chunk_size=chunk_size
        )
        self._greeting: Reply | None = None

    @property
    def greeting(self) -> Reply:
        """The reply to LHLO, or the one that has ended the session before."""
        assert self._greeting is not None
        return self._greeting

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

    def _prepare_tls(self, context: ssl.SSLContext | None, server_hostname: str | None) -> None:
        host = self._place.host if isinstance(self._place, TcpAddress) else None
        self._tls.prepare(context, server_hostname or self._server_hostname or host)

    def _opening(self) -> Generator[Effect, None, None]:
        self._greeting = yield from self._submission.open(implicit_tls=self._implicit_tls)

    def _resetting(self, timeout: float | None) -> Generator[Effect, None, Reply]:
        """RSET and its reply, within `timeout` seconds if that is not None."""
        saying = self._submission.say(Rset())
        return (yield from saying if timeout is None else self._within(timeout, saying))

    def _leaving(self, timeout: float) -> Generator[Effect, None, None]:
        """QUIT, its reply and the end of TLS within `timeout` seconds, as octets of the wire."""
        yield from self._tls.over(self._within(timeout, self._submission.close()))
        yield from self._within(timeout, self._tls.leave())

    def _within(
        self, timeout: float, conversation: Generator[Effect, None, T]
    ) -> Generator[Effect, None, T]:
        """`conversation` with no deadline that is later."""
        deadline = self._clock() + timeout
        try:
            while True:
                try:
                    effect = next(conversation)
                except StopIteration as end:
                    result: T = end.value
                    return result
                if isinstance(effect, Receive | Send):
                    effect.deadline = min(effect.deadline, deadline)
                yield effect
        finally:
            conversation.close()
