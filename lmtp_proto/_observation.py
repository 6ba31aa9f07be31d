"""A connection that tells an observer what happens on it.

Everything that is read and answered passes through the connection anyway, so a conversation without
an observer pays nothing, and one with an observer is the same conversation.
"""

from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Final, ParamSpec

from ._command import CommandParser
from ._effects import Effect, Log, Send, Severity
from ._events import (
    Auth,
    AuthResponse,
    Bdat,
    Content,
    Data,
    EndOfChunk,
    Fault,
    Help,
    Lhlo,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Recipient,
    RecipientReply,
    RemainingReply,
    Rset,
    ServerEvent,
    Signal,
    StartTls,
    Vrfy,
    XClient,
    XForward,
)
from ._handler import Session, Transaction
from ._observer import Observer
from ._policy import ContentPolicy
from ._reply import Reply
from ._server import ServerConnection

P = ParamSpec("P")

_VERBS: Final[dict[type, str]] = {
    Lhlo: "LHLO",
    Mail: "MAIL",
    Rcpt: "RCPT",
    Data: "DATA",
    Bdat: "BDAT",
    Rset: "RSET",
    Noop: "NOOP",
    Vrfy: "VRFY",
    Help: "HELP",
    Quit: "QUIT",
    StartTls: "STARTTLS",
    Auth: "AUTH",
    AuthResponse: "AUTH",
    XClient: "XCLIENT",
    XForward: "XFORWARD",
}
_KNOWN: Final = frozenset(_VERBS.values())
_NO_COMMANDS: Final = (Signal, EndOfChunk)


class Observation:
    """What is known of one session, for the observer of its server.

    `clock` gives seconds that never go back.
    """

    __slots__ = (
        "_clock",
        "_commanded",
        "_content_octets",
        "_event",
        "_logs",
        "_may_log",
        "_observer",
        "_octets_out",
        "_session",
        "_since",
        "_transaction",
        "_transaction_since",
        "octets_in",
    )

    def __init__(self, observer: Observer, session: Session, clock: Callable[[], float]) -> None:
        self._observer = observer
        # Most that is told is told of commands, and not all want to know.
        watches = type(observer).commanded is not Observer.commanded
        self._commanded = observer.commanded if watches else None
        self._session = session
        self._clock = clock
        # Log effects that wait for a place where they can be yielded.
        self._logs: list[Log] = []
        # A session that is cut off yields nothing more.
        self._may_log = True
        self.octets_in = 0
        self._octets_out = 0
        # What the next answer is to, and since when; None is the greeting.
        self._event: ServerEvent | None = None
        self._since = clock()
        self._transaction: Transaction | None = None
        self._transaction_since = 0.0
        self._content_octets = 0

    def around(self, conversation: Generator[Effect, None, None]) -> Generator[Effect, None, None]:
        """The whole session: `conversation`, which is observed."""
        begun = self._clock()
        self._tell(self._observer.connected, self._session)
        over = False
        try:
            for effect in conversation:
                if self._logs:
                    yield from self._logged()
                if isinstance(effect, Send):
                    self._octets_out += len(effect.data)
                yield effect
            over = True
            self._disconnected(begun)
            yield from self._logged()
        finally:
            if not over:
                self._may_log = False
                try:
                    conversation.close()
                finally:
                    self._disconnected(begun)

    def _disconnected(self, begun: float) -> None:
        self.end_transaction()
        seconds = self._clock() - begun
        told = self._observer.disconnected
        self._tell(told, self._session, self.octets_in, self._octets_out, seconds)

    def happened(self, event: ServerEvent | Signal) -> None:
        """The connection has given `event`."""
        if isinstance(event, Content):
            self._content_octets += len(event.data)
        # What is answered at the end of a chunk is its command.
        elif not isinstance(event, _NO_COMMANDS):
            self._event = event
            self._since = self._clock()

    def begin_transaction(self, transaction: Transaction) -> None:
        """MAIL was accepted."""
        self._transaction = transaction
        self._transaction_since = self._clock()
        self._content_octets = 0
        self._tell(self._observer.transaction_begun, transaction)

    def end_transaction(self) -> None:
        """There is no transaction any more, if there was one."""
        transaction = self._transaction
        if transaction is not None:
            self._transaction = None
            seconds = self._clock() - self._transaction_since
            told = self._observer.transaction_ended
            self._tell(told, transaction, self._content_octets, seconds)

    def answered(self, reply: Reply) -> None:
        """The last event, or the client that has connected, has its reply."""
        event = self._event
        if self._commanded is not None:
            seconds = self._clock() - self._since
            self._tell(self._commanded, self._session, _verb(event), reply, seconds)
        transaction = self._transaction
        if transaction is not None and isinstance(event, Rcpt) and not reply.accepted:
            self._tell(self._observer.recipient_refused, transaction, event.recipient, reply)

    def answered_recipients(self, recipients: Sequence[Recipient], reply: Reply) -> None:
        """Recipients have their final reply."""
        # There are no recipients without a transaction.
        assert self._transaction is not None
        seconds = self._clock() - self._since
        told = self._observer.recipient_answered
        for recipient in recipients:
            self._tell(told, self._transaction, recipient, reply, seconds)

    def shut_down(self, reply: Reply) -> None:
        """The session ends by the server's own 421."""
        self._tell(self._observer.shut_down, self._session, reply)

    def _tell(self, method: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            left = method(*args, **kwargs)
            if left is not None and isinstance(left, Coroutine):
                left.close()
                raise TypeError("an observer's methods are not awaited")
        except Exception as error:
            session = self._session
            name = getattr(method, "__name__", "a method")
            if self._may_log and _is_first_failure(self._observer, name):
                text = f"{session.id} {session.peer}: {name}() of the observer failed"
                self._logs.append(Log(Severity.ERROR, text, error))

    def _logged(self) -> Generator[Effect, None, None]:
        logs, self._logs = self._logs, []
        yield from logs


class ObservedConnection(ServerConnection):
    """The server's side of a connection that is observed; all else is as in its base class."""

    __slots__ = ("observation",)

    def __init__(
        self, observation: Observation, parser: CommandParser, policy: ContentPolicy, *, tls: bool
    ) -> None:
        super().__init__(parser=parser, content_policy=policy, tls=tls)
        self.observation = observation
        """Where everything is told."""

    def receive_data(self, data: bytes) -> None:
        """Keep octets that were read."""
        self.observation.octets_in += len(data)
        super().receive_data(data)

    def next_event(self) -> ServerEvent | Signal:
        """The next event, or why there is none."""
        event = super().next_event()
        self.observation.happened(event)
        if self.mail is None:
            # A content that nobody is to have ends without an answer.
            self.observation.end_transaction()
        return event

    def send(self, answer: Reply | RecipientReply | RemainingReply) -> bytes:
        """Answer what is owed."""
        unanswered = self.unanswered if isinstance(answer, RemainingReply) else ()
        octets = super().send(answer)
        if isinstance(answer, Reply):
            self.observation.answered(answer)
        elif isinstance(answer, RecipientReply):
            self.observation.answered_recipients((answer.recipient,), answer.reply)
        else:
            self.observation.answered_recipients(unanswered, answer.reply)
        if self.mail is None:
            self.observation.end_transaction()
        return octets

    def shut_down(self, reply: Reply) -> bytes:
        """End the session with a 421."""
        octets = super().shut_down(reply)
        if octets:
            self.observation.shut_down(reply)
        return octets


def _verb(event: ServerEvent | None) -> str:
    if event is None:
        return "CONNECT"
    if isinstance(event, Fault):
        # What the client has made up is not for the keys of a table.
        word = event.line.partition(b" ")[0].decode("latin-1").upper()
        return word if word in _KNOWN else ""
    return _VERBS[type(event)]


def _is_first_failure(observer: Observer, name: str) -> bool:
    """Whether `name` of this observer fails for the first time, in whatever session."""
    # Kept by the observer, as it is in every session: in its dictionary, frozen or not.
    failed: set[str] = getattr(observer, "__dict__", {}).setdefault("_failed", set())
    if name in failed:
        return False
    failed.add(name)
    return True
