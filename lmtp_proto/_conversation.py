"""The server's conversation, written once for every runtime.

`converse()` is a generator of effects. It owns the policy of a session: what is answered when, when
octets leave (before each wait, so one write a turn), how long is waited, how many faults are borne,
what a stopping server says, and that a delivery once begun is finished although the client has
gone.
"""

import errno
from collections.abc import Callable, Generator
from typing import Final, cast

from ._command import CommandParser
from ._effects import (
    Effect,
    Handshake,
    Interrupt,
    Job,
    Log,
    Receive,
    Run,
    Send,
    Severity,
    Wait,
    is_job,
)
from ._errors import LocalProtocolError
from ._events import (
    NEED_DATA,
    PAUSED,
    Bdat,
    ConnectionClosed,
    Content,
    Data,
    EndOfChunk,
    EndOfContent,
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
    StartTls,
    Vrfy,
)
from ._handler import Handler, Session, Settings, Sink, Transaction
from ._reply import Reply
from ._server import ServerConnection
from ._state import State

_OK: Final = Reply(250, "OK", enhanced="2.0.0")
_SENDER_OK: Final = Reply(250, "sender OK", enhanced="2.1.0")
_RECIPIENT_OK: Final = Reply(250, "recipient OK", enhanced="2.1.5")
_CANNOT_VERIFY: Final = Reply(252, "try RCPT", enhanced="2.5.2")
_HELP: Final = Reply(
    214,
    "LHLO MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT",
    "RFC 2033 has the rest",
    enhanced="2.0.0",
)
_START_CONTENT: Final = Reply(354, "end with a dot on a line of its own")
_START_TLS: Final = Reply(220, "begin TLS", enhanced="2.0.0")
_BYE: Final = Reply(221, "bye", enhanced="2.0.0")
_NO_SERVICE: Final = Reply(421, "internal error", enhanced="4.3.0")
_OWN_FAULT: Final = Reply(451, "internal error", enhanced="4.3.0")
_NO_SPACE: Final = Reply(452, "insufficient system storage", enhanced="4.3.1")
_TOO_MANY_FAULTS: Final = Reply(421, "too many invalid commands", enhanced="4.7.0")
_TIMED_OUT: Final = Reply(421, "timed out", enhanced="4.4.2")
STOPPING: Final = Reply(421, "the server is shutting down", enhanced="4.3.2")
TOO_MANY_CONNECTIONS: Final = Reply(421, "too many connections", enhanced="4.3.2")

# The replies that say the client does not know what it does (as Dovecot counts them).
_COUNTED: Final = frozenset({500, 501, 502, 503})


class StopFlag:
    """Says to all sessions of a server that it stops: they end at their next command."""

    __slots__ = ("requested",)

    def __init__(self) -> None:
        self.requested = False


def converse(
    handler: Handler,
    session: Session,
    settings: Settings,
    *,
    parser: CommandParser,
    clock: Callable[[], float],
    stop: StopFlag,
) -> Generator[Effect, None, None]:
    """Serve one connection: perform each effect and go on, until there are no more; then close.

    `clock` gives seconds that never go back; deadlines are in its time. `parser` fits `settings`
    and is shared by the sessions of a server. To cut a session off, close the generator.
    """
    return _Conversation(handler, session, settings, parser, clock, stop).run()


class _Conversation:
    """The state of one session beside that of the protocol."""

    __slots__ = (
        "_clock",
        "_connection",
        "_faults",
        "_handler",
        "_limits",
        "_out",
        "_receive",
        "_send",
        "_session",
        "_settings",
        "_sink",
        "_stop",
        "_transaction",
    )

    def __init__(
        self,
        handler: Handler,
        session: Session,
        settings: Settings,
        parser: CommandParser,
        clock: Callable[[], float],
        stop: StopFlag,
    ) -> None:
        self._handler = handler
        self._session = session
        self._settings = settings
        self._limits = settings.limits
        self._clock = clock
        self._stop = stop
        self._connection = ServerConnection(parser=parser)
        self._transaction: Transaction | None = None
        self._sink: Sink | None = None
        self._faults = 0
        self._receive = Receive()
        self._send = Send()
        # Replies that wait for the next write.
        self._out: list[bytes] = []

    def run(self) -> Generator[Effect, None, None]:
        """The whole session."""
        try:
            yield from self._greet()
            while self._connection.state is not State.CLOSED:
                yield from self._turn()
            yield from self._flush()
        finally:
            # Nothing can be yielded any more: what these raise is the runtime's to log.
            try:
                if self._sink is not None:
                    self._sink.close()
            finally:
                self._handler.disconnect(self._session)

    def _greet(self) -> Generator[Effect, None, None]:
        reply = yield from self._ask("connect", lambda: self._handler.connect(self._session))
        if self._stop.requested:
            reply = STOPPING
        if reply is None:
            text = f"{self._settings.hostname} {self._settings.greeting}"
            reply = Reply(220, text, enhanced="")
        # RFC 5321 4.3.2: only 220, 421 and 554 greet.
        elif reply.code not in (220, 421, 554):
            yield self._misuse(f"connect() answered {reply}: 220, 421 or 554 is awaited")
            reply = _NO_SERVICE
        self._answer(reply)

    def _turn(self) -> Generator[Effect, None, None]:
        """Serve what has come in, then wait for more."""
        connection = self._connection
        while True:
            event = connection.next_event()
            if event is NEED_DATA:
                break
            if event is PAUSED:
                raise AssertionError("an event was not answered")
            if isinstance(event, Content):
                yield from self._content(event.data)
                continue
            self._receive.deadline = 0.0
            yield from self._serve(event)
            if connection.state is State.CLOSED:
                return
            if self._stop.requested:
                self._shut_down(STOPPING)
                return
        yield from self._await_octets()

    def _await_octets(self) -> Generator[Effect, None, None]:
        yield from self._flush()
        receive = self._receive
        limits = self._limits
        connection = self._connection
        if connection.content_flows:
            receive.deadline = self._clock() + limits.content_timeout
        elif not receive.deadline:
            # A command has one deadline, however slowly its octets come.
            receive.deadline = self._clock() + limits.command_timeout
        yield receive
        outcome = receive.outcome
        if isinstance(outcome, bytes):
            if outcome:
                connection.receive_data(outcome)
            elif self._stop.requested:
                self._shut_down(STOPPING)
            else:
                connection.receive_eof()
        elif outcome is Interrupt.STOP:
            self._shut_down(STOPPING)
        else:
            self._shut_down(_TIMED_OUT)
            yield self._log(Severity.INFO, f"timed out in state {connection.state.name}")

    def _serve(self, event: ServerEvent) -> Generator[Effect, None, None]:
        """Answer one event that is not content."""
        match event:
            case Mail():
                yield from self._mail(event)
            case Rcpt(recipient=recipient):
                yield from self._rcpt(recipient)
            case Data():
                if (yield from self._open()):
                    self._answer(_START_CONTENT)
            case EndOfContent():
                yield from self._deliver(event)
            case Bdat():
                yield from self._begin_chunk()
            case EndOfChunk(size=size):
                refusal = self._connection.refusal
                self._answer(refusal or Reply(250, f"{size} octets received", enhanced="2.0.0"))
            case Lhlo(domain=domain):
                self._session.lhlo_domain = domain
                self._answer(
                    Reply(
                        250,
                        self._settings.hostname,
                        *self._connection.keywords(),
                        enhanced="",
                    )
                )
            case Noop() | Rset():
                self._answer(_OK)
            case Quit():
                self._answer(_BYE)
            case Vrfy(text=text):
                reply = yield from self._ask(
                    "vrfy", lambda: self._handler.vrfy(self._session, text)
                )
                yield from self._answer_with(reply, _CANNOT_VERIFY)
            case Help():
                self._answer(_HELP)
            case StartTls():
                yield from self._start_tls()
            case Fault():
                yield from self._fault(event)
                return
            case ConnectionClosed(mid_transaction=mid_transaction):
                if mid_transaction:
                    yield self._log(Severity.INFO, "the client went away amid a transaction")
        self._faults = 0
        if self._connection.mail is None and self._transaction is not None:
            self._transaction = None
            yield from self._close_sink()

    def _mail(self, event: Mail) -> Generator[Effect, None, None]:
        reply = yield from self._ask("mail", lambda: self._handler.mail(self._session, event))
        yield from self._answer_with(reply, _SENDER_OK)
        connection = self._connection
        if connection.mail is not None:
            session = self._session
            session.transactions += 1
            number = session.transactions
            self._transaction = Transaction(
                session=session,
                id=session.id if number == 1 else f"{session.id}:T{number}",
                mail=event,
                recipients=connection.recipients,
            )

    def _rcpt(self, recipient: Recipient) -> Generator[Effect, None, None]:
        transaction = self._current()
        reply = yield from self._ask("rcpt", lambda: self._handler.rcpt(transaction, recipient))
        yield from self._answer_with(reply, _RECIPIENT_OK)
        if reply is not None and not reply.accepted:
            yield self._log(Severity.INFO, f"refused <{_escape(str(recipient))}>: {reply}")

    def _begin_chunk(self) -> Generator[Effect, None, None]:
        """Open a sink at the first chunk; a refusal is told when the chunk is over."""
        if self._sink is None and self._connection.refusal is None:
            refusal = yield from self._open_sink()
            if refusal is not None:
                self._connection.refuse_content(refusal)

    def _open(self) -> Generator[Effect, None, bool]:
        """Open a sink for DATA; False when DATA has been refused instead."""
        refusal = yield from self._open_sink()
        if refusal is None:
            return True
        self._answer(refusal)
        return False

    def _open_sink(self) -> Generator[Effect, None, Reply | None]:
        """None when there is a sink now, else why not."""
        answer: object
        try:
            answer = self._handler.open(self._current())
            if is_job(answer):
                answer = yield from self._finish(answer)
        except Exception as error:
            yield self._failure("open", error)
            return _reply_to(error)
        if isinstance(answer, Reply) and not answer.accepted:
            return answer
        if answer is None or isinstance(answer, Reply):
            yield self._misuse(f"open() answered {answer!r}: a sink or a refusal is awaited")
            return _OWN_FAULT
        # Checking a protocol class at run time costs more than the rest of the command.
        self._sink = cast(Sink, answer)
        return None

    def _content(self, data: bytes) -> Generator[Effect, None, None]:
        sink = self._sink
        if sink is None or self._connection.refusal is not None:
            return
        answer: object
        try:
            answer = sink.write(data)
            if answer is None:
                return
            if is_job(answer):
                answer = yield from self._finish(answer)
        except Exception as error:
            yield self._failure("write", error)
            answer = _reply_to(error)
        if isinstance(answer, Reply) and not answer.accepted:
            self._connection.refuse_content(answer)
        elif answer is not None:
            yield self._misuse(f"write() answered {answer!r}: None or a refusal is awaited")
            self._connection.refuse_content(_OWN_FAULT)

    def _deliver(self, event: EndOfContent) -> Generator[Effect, None, None]:
        """Answer every recipient. From here on the client may go, the delivery is finished."""
        connection = self._connection
        sink = self._sink
        if event.refusal is not None or sink is None:
            if event.recipients:
                refusal = event.refusal or _OWN_FAULT
                self._out.append(connection.send(RemainingReply(reply=refusal)))
                yield self._log(Severity.INFO, f"content refused: {refusal}")
            return
        answers: list[tuple[Recipient, object]] = []
        for recipient in event.recipients:
            try:
                answer: object = sink.deliver(recipient)
                if not isinstance(answer, Reply) and is_job(answer):
                    answer = Run(answer)
                    yield answer
            except Exception as error:
                yield self._failure("deliver", error)
                answer = _reply_to(error)
            answers.append((recipient, answer))
        for recipient, answer in answers:
            if isinstance(answer, Run):
                try:
                    answer = yield from self._result(answer)
                except Exception as error:
                    yield self._failure("deliver", error)
                    answer = _reply_to(error)
            if not isinstance(answer, Reply) or not _is_final(answer):
                yield self._misuse(f"deliver() answered {answer!r}: a final reply is awaited")
                answer = _OWN_FAULT
            octets = connection.send(RecipientReply(recipient=recipient, reply=answer))
            self._out.append(octets)

    def _start_tls(self) -> Generator[Effect, None, None]:
        self._answer(_START_TLS)
        yield from self._flush()
        effect = Handshake()
        effect.deadline = self._clock() + self._limits.command_timeout
        yield effect
        if effect.outcome is None:
            self._connection.shut_down(_TIMED_OUT)
            yield self._log(Severity.WARNING, "the TLS handshake failed")
            return
        self._session.tls = effect.outcome
        self._session.lhlo_domain = None
        self._connection.tls_established()

    def _fault(self, event: Fault) -> Generator[Effect, None, None]:
        if event.reply.code in _COUNTED:
            self._faults += 1
        if self._faults > self._limits.faults:
            self._shut_down(_TOO_MANY_FAULTS)
            yield self._log(Severity.WARNING, "too many invalid commands")
            return
        self._answer(event.reply)
        line = _escape(event.line[:200].decode("latin-1"))
        yield self._log(Severity.INFO, f'"{line}" answered {event.reply}')

    def _ask(
        self, name: str, question: Callable[[], object]
    ) -> Generator[Effect, None, Reply | None]:
        """The handler's reply, None when it leaves the words to the conversation."""
        try:
            answer = question()
            if answer is None or isinstance(answer, Reply):
                return answer
            if is_job(answer):
                answer = yield from self._finish(answer)
                if answer is None or isinstance(answer, Reply):
                    return answer
        except Exception as error:
            yield self._failure(name, error)
            return _reply_to(error)
        yield self._misuse(f"{name}() answered {answer!r}: None or a reply is awaited")
        return _OWN_FAULT

    def _finish(self, job: Job[object]) -> Generator[Effect, None, object]:
        """The value of a job; raises what the job raised."""
        run = Run(job)
        yield run
        return (yield from self._result(run))

    def _result(self, run: Run) -> Generator[Effect, None, object]:
        if not run.done:
            yield from self._flush()
            yield Wait(run)
        return run.outcome()

    def _answer_with(self, reply: Reply | None, default: Reply) -> Generator[Effect, None, None]:
        """Answer as the handler says, or with `default`."""
        if reply is not None:
            try:
                self._answer(reply)
                return
            except LocalProtocolError as error:
                yield self._misuse(str(error))
                default = _OWN_FAULT
        self._answer(default)

    def _answer(self, reply: Reply) -> None:
        self._out.append(self._connection.send(reply))

    def _shut_down(self, reply: Reply) -> None:
        self._out.append(self._connection.shut_down(reply))

    def _flush(self) -> Generator[Effect, None, None]:
        out = self._out
        if out:
            send = self._send
            send.data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            if send.data:
                send.deadline = self._clock() + self._limits.write_timeout
                yield send

    def _current(self) -> Transaction:
        if self._transaction is None:
            raise AssertionError("the protocol lets no RCPT or content in without MAIL")
        return self._transaction

    def _close_sink(self) -> Generator[Effect, None, None]:
        sink = self._sink
        if sink is not None:
            self._sink = None
            try:
                sink.close()
            except Exception as error:
                yield self._failure("close", error)

    def _log(self, severity: Severity, text: str, error: Exception | None = None) -> Log:
        return Log(severity, f"{self._session.id} {self._session.peer}: {text}", error)

    def _failure(self, name: str, error: Exception) -> Log:
        return self._log(Severity.ERROR, f"{name}() of the handler failed", error)

    def _misuse(self, text: str) -> Log:
        return self._log(Severity.ERROR, _escape(text))


def _is_final(reply: Reply) -> bool:
    """Whether a recipient can be told this after the content."""
    return 250 <= reply.code < 300 or reply.code >= 400


def _reply_to(error: Exception) -> Reply:
    """Our own fault is never the sender's: 4xx (RFC 5321 4.2.1)."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _NO_SPACE
    return _OWN_FAULT


def _escape(text: str) -> str:
    """Printable ASCII on one line, for the log."""
    return text.encode("unicode_escape").decode("ascii")
