"""How a connection begins: the PROXY header, TLS, then the conversation."""

from collections.abc import Callable, Generator, Sequence
from typing import TypeAlias

from lmtp_proto import (
    TOO_MANY_CONNECTIONS,
    Effect,
    Handshake,
    Log,
    ProxyEndpoint,
    ProxyHeader,
    ProxyHeaderReader,
    ProxyProtocolError,
    Receive,
    Service,
    Session,
    Severity,
)

from ._listener import Listener
from ._peers import ConnectionLimit, within
from ._tls import TlsLayer

_Conversation: TypeAlias = Generator[Effect, None, None]


class Reception:
    """Makes the conversations of the connections that come in at one listener.

    `clock` gives the seconds of the runtime, which never go back. `limits`, shared by the listeners
    of a server, stand beside the listener's own.
    """

    __slots__ = ("_clock", "_limits", "_listener", "_service")

    def __init__(
        self,
        service: Service,
        listener: Listener,
        clock: Callable[[], float],
        limits: Sequence[ConnectionLimit] = (),
    ) -> None:
        self._service = service
        self._listener = listener
        self._clock = clock
        self._limits = (*limits, *listener.limits)

    def converse(self, peer: str, client_ip: str | None) -> _Conversation:
        """The conversation with a new client, as `lmtp_sockets.peer_name()` names it."""
        session = Session(peer=peer, client_ip=client_ip, listener=self._listener.name)
        if self._listener.is_proxy(client_ip):
            return self._behind_proxy(session)
        return self._received(session)

    @property
    def is_shared(self) -> bool:
        """Whether other processes accept at this listener, too."""
        return self._listener.shared

    @property
    def too_many(self) -> bytes:
        """What is written to a connection that is one too many: nothing where TLS would have to be
        done for it first."""
        return b"" if self._listener.implicit_tls else TOO_MANY_CONNECTIONS.wire

    def _received(self, session: Session, first: bytes = b"") -> _Conversation:
        """The conversation; `first` are octets that have been read already."""
        if self._listener.tls is not None:
            return self._over_tls(session, first)
        conversation = self._admitted(session, starttls=False)
        return _after(first, conversation) if first else conversation

    def _admitted(self, session: Session, *, starttls: bool) -> _Conversation:
        conversation = self._service.converse(session, self._clock, starttls=starttls)
        if not self._limits:
            return conversation
        return within(self._limits, session, conversation, self._deadline())

    def _behind_proxy(self, session: Session) -> _Conversation:
        reader = ProxyHeaderReader()
        receive = Receive()
        receive.deadline = self._deadline()
        header: ProxyHeader | None = None
        while header is None:
            yield receive
            outcome = receive.outcome
            if not isinstance(outcome, bytes) or not outcome:
                why = "the end" if isinstance(outcome, bytes) else outcome.value
                yield Log(Severity.WARNING, f"{session.peer}: no PROXY header: {why}")
                return
            try:
                header = reader.feed(outcome)
            except ProxyProtocolError as error:
                # Nothing is answered: it may be no LMTP client at all (section 2.1).
                yield Log(Severity.WARNING, f"{session.peer}: no PROXY header: {error}")
                return
        session.proxy = header
        if isinstance(header.source, ProxyEndpoint):
            session.peer = str(header.source)
            session.client_ip = header.source.host
        yield from self._received(session, reader.rest)

    def _over_tls(self, session: Session, first: bytes) -> _Conversation:
        certificates = self._listener.tls
        assert certificates is not None
        layer = TlsLayer(certificates.context, server_side=True, clock=self._clock)
        if self._listener.implicit_tls:
            layer.feed(first)
            first = b""
            handshake = Handshake()
            handshake.deadline = self._deadline()
            yield from layer.shake_hands(handshake)
            if handshake.outcome is None:
                yield Log(
                    Severity.WARNING, f"{session.peer}: TLS handshake failed: {handshake.error}"
                )
                return
            session.tls = handshake.outcome
            session.certificate = handshake.certificate
        conversation = self._admitted(session, starttls=not self._listener.implicit_tls)
        yield from layer.over(_after(first, conversation) if first else conversation)
        yield from layer.leave()

    def _deadline(self) -> float:
        return self._clock() + self._service.limits.handshake_timeout


def _after(first: bytes, conversation: _Conversation) -> _Conversation:
    """`conversation`, whose first reading finds `first`."""
    try:
        for effect in conversation:
            if isinstance(effect, Receive):
                effect.outcome = first
                break
            yield effect
        yield from conversation
    finally:
        conversation.close()
