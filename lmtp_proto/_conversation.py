"""The server's conversation, written once for every runtime.

`converse()` is a generator of effects. It owns the policy of a session: what is answered when, when
octets leave (before each wait, so one write a turn), how long is waited, how many faults are borne,
what a stopping server says, and that a delivery once begun is finished although the client has
gone.
"""

import errno
from collections.abc import Callable, Generator
from functools import partial
from typing import Final, TypeAlias, TypeGuard, assert_never

from ._command import CommandParser
from ._effects import (
    Effect,
    GiveWay,
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
from ._errors import HandlerError, LocalProtocolError
from ._events import (
    Auth,
    AuthResponse,
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
    Signal,
    StartTls,
    Vrfy,
    XClient,
    XForward,
)
from ._handler import Handler, Session, Settings, Sink, Transaction
from ._identification import NOT_TRUSTED, Identification
from ._misuse import escape, lacks, misuse
from ._observation import Observation, ObservedConnection
from ._quota import Quota
from ._reply import Reply
from ._sasl import Credentials
from ._server import ServerConnection
from ._state import State

_Rest: TypeAlias = Generator[Effect, None, None]

_CLOSED: Final = State.CLOSED

_OK: Final = Reply(250, "OK", enhanced="2.0.0")
_SENDER_OK: Final = Reply(250, "sender OK", enhanced="2.1.0")
_RECIPIENT_OK: Final = Reply(250, "recipient OK", enhanced="2.1.5")
_CANNOT_VERIFY: Final = Reply(252, "try RCPT", enhanced="2.5.2")
_START_CONTENT: Final = Reply(354, "end with a dot on a line of its own")
_AUTHENTICATED: Final = Reply(235, "authenticated", enhanced="2.7.0")
_START_TLS: Final = Reply(220, "begin TLS", enhanced="2.0.0")
_BYE: Final = Reply(221, "bye", enhanced="2.0.0")
_NO_SERVICE: Final = Reply(421, "internal error", enhanced="4.3.0")
_OWN_FAULT: Final = Reply(451, "internal error", enhanced="4.3.0")
_NO_SPACE: Final = Reply(452, "insufficient system storage", enhanced="4.3.1")
_TOO_MANY_FAULTS: Final = Reply(421, "too many invalid commands", enhanced="4.7.0")
_TIMED_OUT: Final = Reply(421, "timed out", enhanced="4.4.2")
STOPPING: Final = Reply(421, "the server is shutting down", enhanced="4.3.2")
TOO_MANY_CONNECTIONS: Final = Reply(421, "too many connections", enhanced="4.3.2")

# Replies in one write: a peer that sends many commands at once stalls nobody else.
_TURN: Final = 100
_GIVE_WAY: Final = GiveWay()

_GREETINGS: Final = frozenset({220, 421, 554})
# The replies that say the client does not know what it does (as Dovecot counts them).
_COUNTED: Final = frozenset({500, 501, 502, 503})
_BEHIND_MAIL: Final = frozenset({b"RCPT", b"DATA", b"BDAT"})


class StopFlag:
    """Says to all sessions of a server that it stops.

    `requested`: they end at their next command. `retiring`: as soon as they have had a transaction
    and are not amid another.
    """

    __slots__ = ("requested", "retiring")

    def __init__(self) -> None:
        self.requested = False
        self.retiring = False


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
    conversation = _Conversation(handler, session, settings, parser, clock, stop)
    effects = conversation.run()
    observation = conversation.observation
    if observation is not None:
        effects = observation.around(effects)
    return effects if settings.around is None else settings.around(session, effects)


class _Conversation:
    """The state of one session beside that of the protocol."""

    __slots__ = (
        "_clock",
        "_connection",
        "_faults",
        "_handler",
        "_identification",
        "_mail_refused",
        "_out",
        "_quota",
        "_receive",
        "_send",
        "_session",
        "_settings",
        "_sink",
        "_stop",
        "_transaction",
        "_waited",
        "_write_timeout",
        "observation",
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
        self._clock = clock
        self._stop = stop
        policy = settings.content_policy
        tls = session.tls is not None
        self.observation: Observation | None = None
        if settings.observer is None:
            self._connection = ServerConnection(parser=parser, content_policy=policy, tls=tls)
        else:
            self.observation = Observation(settings.observer, session, clock)
            self._connection = ObservedConnection(self.observation, parser, policy, tls=tls)
        self._transaction: Transaction | None = None
        # Seconds for which the content of the transaction was waited for.
        self._waited = 0.0
        self._sink: Sink | None = None
        self._faults = 0
        self._mail_refused = False
        self._identification = Identification(handler, session, settings)
        self._receive = Receive()
        self._send = Send()
        self._write_timeout = settings.limits.write_timeout
        # Replies that wait for the next write.
        self._out: list[bytes] = []
        self._quota = Quota(settings.limits, clock) if Quota.needed(settings.limits) else None

    def run(self) -> Generator[Effect, None, None]:
        """The whole session."""
        connection = self._connection
        next_event = connection.next_event
        serve = self._serve
        receive = self._receive
        out = self._out
        clock = self._clock
        stop = self._stop
        limits = self._settings.limits
        quota = self._quota
        session = self._session
        try:
            yield from self._greet()
            while connection.state is not _CLOSED:
                event = next_event()
                if isinstance(event, Signal):
                    receive.resting = connection.mail is None and session.transactions > 0
                    if stop.requested or (stop.retiring and receive.resting):
                        self._shut_down(STOPPING)
                        continue
                    if out:
                        yield self._gathered()
                    begun = 0.0
                    if connection.content_flows:
                        begun = clock()
                        receive.deadline = begun + self._content_patience()
                    elif not receive.deadline:
                        # A command has one deadline, however slowly its octets come.
                        receive.deadline = clock() + limits.command_timeout
                        if quota is not None and self._sink is None:
                            receive.deadline = quota.deadline(receive.deadline)
                    yield receive
                    if begun:
                        self._waited += clock() - begun
                    outcome = receive.outcome
                    if isinstance(outcome, bytes) and outcome:
                        # A session that waits holds no octets.
                        receive.outcome = b""
                        connection.receive_data(outcome)
                        del outcome
                    else:
                        yield from self._interrupted()
                    continue
                if quota is not None and self._is_spent(quota, event):
                    continue
                rest = serve(event)
                if rest is not None:
                    yield from rest
                if len(out) >= _TURN:
                    yield self._gathered()
                    yield _GIVE_WAY
                # Content on its way is taken, nothing new is begun.
                if stop.requested and not (connection.content_flows or isinstance(event, Content)):
                    self._shut_down(STOPPING)
            yield from self._flush()
        finally:
            # Nothing can be yielded any more: what these raise is the runtime's to log.
            try:
                if self._sink is not None:
                    _end("close", self._sink.close)
            finally:
                disconnect: Callable[[Session], object] = self._handler.disconnect
                _end("disconnect", lambda: disconnect(self._session))

    def _content_patience(self) -> float:
        """Seconds in which more content has to come."""
        limits = self._settings.limits
        rate = limits.content_rate
        if not rate:
            return limits.content_timeout
        # A peer that sends an octet now and then holds a connection for less than for ever.
        ahead = self._connection.content_size / rate - self._waited
        return limits.content_timeout + min(ahead, 0.0)

    def _greet(self) -> _Rest:
        reply: object
        name = "trusts"
        try:
            trusts: Callable[[Session], object] = self._handler.trusts
            trusted = trusts(self._session)
            if not isinstance(trusted, bool):
                # A job is true as well: whoever has not been judged would be believed.
                raise misuse(name, trusted, "True or False")
            self._session.trusted = trusted
            name = "connect"
            reply = self._handler.connect(self._session)
            if is_job(reply):
                reply = yield from self._finish(reply)
        except Exception as error:
            yield self._failure(name, error)
            reply = _NO_SERVICE
        # RFC 5321 4.3.2: only 220, 421 and 554 greet.
        if reply is not None and not (isinstance(reply, Reply) and reply.code in _GREETINGS):
            yield self._misuse("connect", reply, "None, 220, 421 or 554")
            reply = _NO_SERVICE
        if reply is None or reply.accepted:
            # RFC 5321 4.2: the host name comes first. RFC 2034 4: without an enhanced status code.
            reply = self._greeting(self._settings.greeting if reply is None else reply.text)
        self._answer(STOPPING if self._stop.requested else reply)

    def _greeting(self, words: str) -> Reply:
        return Reply(220, f"{self._settings.hostname} {words}", enhanced="")

    def _interrupted(self) -> _Rest:
        """The peer sends no more, has not sent in time, or the server stops."""
        outcome = self._receive.outcome
        if self._stop.requested or outcome is Interrupt.STOP:
            self._shut_down(STOPPING)
        elif outcome is Interrupt.TIMEOUT:
            state = self._connection.state
            quota = self._quota
            overtime = None
            if quota is not None and not self._amid_content:
                # The deadline was that of the session, if it is the earlier one.
                overtime = quota.overtime(self._receive.deadline)
            self._shut_down(overtime or _TIMED_OUT)
            yield self._log(Severity.INFO, f"timed out: {state.value}")
        else:
            self._connection.receive_eof()

    def _is_spent(self, quota: Quota, event: ServerEvent) -> bool:
        """Whether `event` is one too many or comes too late: the session is ended then."""
        refusal = quota.refusal(event, amid_content=self._amid_content)
        if refusal is not None:
            self._shut_down(refusal)
        return refusal is not None

    @property
    def _amid_content(self) -> bool:
        """Whether a content has begun, in which there may be commands: BDAT."""
        return self._sink is not None or self._connection.content_flows

    def _serve(self, event: ServerEvent) -> _Rest | None:
        """Answer one event. What cannot be done at once is given back as the rest to do."""
        if isinstance(event, Content):
            return self._content(event.data)
        # The next command has its own deadline.
        self._receive.deadline = 0.0
        if isinstance(event, Fault):
            return self._fault(event)
        self._faults = 0
        match event:
            case Mail():
                return self._mail(event)
            case Rcpt():
                return self._rcpt(event.recipient)
            case Data():
                return self._data()
            case EndOfContent():
                return self._deliver(event)
            case Bdat():
                return self._begin_chunk()
            case EndOfChunk(size=size):
                refusal = self._connection.refusal
                self._answer(refusal or Reply(250, f"{size} octets received", enhanced="2.0.0"))
            case Lhlo(domain=domain):
                return self._lhlo(domain)
            case Rset():
                self._answer(_OK)
                return self._end_transaction()
            case Noop():
                self._answer(_OK)
            case Quit():
                self._answer(_BYE)
            case Vrfy(text=text):
                return self._vrfy(text)
            case Help():
                verbs = " ".join(self._connection.verbs)
                self._answer(Reply(214, verbs, "RFC 2033 has the rest", enhanced="2.0.0"))
            case StartTls():
                return self._start_tls()
            case Auth(mechanism=mechanism, response=response):
                return self._identify(lambda: self._identification.begin(mechanism, response))
            case AuthResponse(response=response):
                return self._identify(lambda: self._identification.go_on(response))
            case XClient(attributes=attributes):
                refusal = self._identification.stand_for(attributes)
                self._answer(refusal or self._greeting(self._settings.greeting))
            case XForward(attributes=attributes):
                self._answer(self._identification.keep_origin(attributes))
            case ConnectionClosed(mid_transaction=mid_transaction):
                if mid_transaction:
                    return self._tell(Severity.INFO, "the client went away amid a transaction")
            case _:
                assert_never(event)
        return None

    def _lhlo(self, domain: str) -> _Rest | None:
        try:
            answer = self._handler.lhlo(self._session, domain)
        except Exception as error:
            return self._decide_lhlo(domain, error)
        if answer is None:
            self._end_lhlo(domain, _OK)
            return self._end_transaction()
        return self._decide_lhlo(domain, answer)

    def _decide_lhlo(self, domain: str, answer: object) -> _Rest:
        yield from self._decide("lhlo", answer, lambda reply: self._end_lhlo(domain, reply), _OK)
        # RFC 5321 4.1.4: a LHLO amid a transaction drops it, unless it is refused.
        if self._connection.mail is None:
            rest = self._end_transaction()
            if rest is not None:
                yield from rest

    def _end_lhlo(self, domain: str, reply: Reply) -> None:
        if not reply.accepted:
            self._answer(reply)
            return
        if reply.code != 250:
            raise LocalProtocolError(f"{reply.code} does not answer LHLO; 250 does")
        # RFC 5321 4.1.1.1: the host name comes first, then words of greeting.
        words = "" if reply is _OK else f" {' '.join(reply.lines)}"
        keywords = self._connection.keywords(self._identification.words())
        self._answer(Reply(250, f"{self._settings.hostname}{words}", *keywords, enhanced=""))
        self._session.lhlo_domain = domain

    def _mail(self, event: Mail) -> _Rest | None:
        try:
            answer = self._handler.mail(self._session, event)
        except Exception as error:
            return self._decide("mail", error, self._end_mail)
        if answer is None:
            self._end_mail(_SENDER_OK)
            return None
        return self._decide("mail", answer, self._end_mail, _SENDER_OK)

    def _end_mail(self, reply: Reply) -> None:
        self._answer(reply)
        mail = self._connection.mail
        self._mail_refused = mail is None
        if mail is not None:
            session = self._session
            session.transactions += 1
            number = session.transactions
            self._waited = 0.0
            self._transaction = Transaction(
                session=session,
                id=session.id if number == 1 else f"{session.id}:T{number}",
                mail=mail,
                recipients=[],
            )
            if self.observation is not None:
                self.observation.begin_transaction(self._transaction)

    def _rcpt(self, recipient: Recipient) -> _Rest | None:
        if recipient.parameters.forward is not None and not self._session.trusted:
            self._answer(self._named(NOT_TRUSTED))
            return None
        try:
            answer = self._handler.rcpt(self._current(), recipient)
        except Exception as error:
            return self._decide_rcpt(recipient, error)
        if answer is None:
            self._answer(_RECIPIENT_OK)
            self._current().recipients.append(recipient)
            return None
        return self._decide_rcpt(recipient, answer)

    def _decide_rcpt(self, recipient: Recipient, answer: object) -> _Rest:
        answered: list[Reply] = []
        yield from self._decide("rcpt", answer, partial(self._end_rcpt, answered), _RECIPIENT_OK)
        if answered[0].accepted:
            self._current().recipients.append(recipient)
        elif self._settings.logs_refusals:
            yield self._log(Severity.INFO, f"refused <{recipient}>: {answered[0]}")

    def _end_rcpt(self, answered: list[Reply], reply: Reply) -> None:
        reply = self._named(reply)
        self._answer(reply)
        answered.append(reply)

    def _vrfy(self, text: str) -> _Rest:
        answer: object
        try:
            answer = self._handler.vrfy(self._session, text)
        except Exception as error:
            answer = error
        yield from self._decide("vrfy", answer, self._answer, _CANNOT_VERIFY)

    def _decide(
        self,
        name: str,
        answer: object,
        end: Callable[[Reply], None],
        default: Reply = _OWN_FAULT,
    ) -> _Rest:
        """Answer a command as the handler says; `answer` may be the exception it raised."""
        reply: object = answer
        try:
            if is_job(answer):
                reply = yield from self._finish(answer)
        except Exception as error:
            reply = error
        if isinstance(reply, Exception):
            yield self._failure(name, reply)
            reply = _reply_to(reply)
        elif reply is None:
            reply = default
        elif not isinstance(reply, Reply):
            yield self._misuse(name, reply, "None or a reply")
            reply = _OWN_FAULT
        try:
            end(reply)
        except LocalProtocolError:
            yield self._misuse(name, reply, "a reply that fits the command")
            end(_OWN_FAULT)

    def _data(self) -> _Rest | None:
        """Answer 354 when there is a sink for the content, else why there is none."""
        answer: object
        try:
            answer = self._handler.open(self._current())
        except Exception as error:
            return self._open_for_data(error)
        if not _is_sink(answer):
            return self._open_for_data(answer)
        self._sink = answer
        self._answer(_START_CONTENT)
        return None

    def _open_for_data(self, answer: object) -> _Rest:
        refusal = yield from self._open_sink(answer)
        self._answer(_START_CONTENT if refusal is None else refusal)

    def _begin_chunk(self) -> _Rest | None:
        """Open a sink at the first chunk; a refusal is told when the chunk is over."""
        if self._sink is not None or self._connection.refusal is not None:
            return None
        return self._open_for_chunk()

    def _open_for_chunk(self) -> _Rest:
        answer: object
        try:
            answer = self._handler.open(self._current())
        except Exception as error:
            answer = error
        refusal = yield from self._open_sink(answer)
        if refusal is not None:
            self._connection.refuse_content(refusal)

    def _open_sink(self, answer: object) -> Generator[Effect, None, Reply | None]:
        """Keep the sink that open() has given; why there is none otherwise."""
        try:
            if is_job(answer):
                run = Run(answer)
                yield run
                try:
                    answer = yield from self._result(run)
                except GeneratorExit:
                    # The session is cut off, but the sink that comes has to be closed.
                    if run.done:
                        _close_late(run.value)
                    run.abandoned = _close_late
                    raise
        except Exception as error:
            answer = error
        if isinstance(answer, Exception):
            yield self._failure("open", answer)
            return _reply_to(answer)
        if isinstance(answer, Reply) and not answer.accepted:
            return answer
        if not _is_sink(answer):
            yield self._misuse("open", answer, "a sink or a refusal")
            return _OWN_FAULT
        self._sink = answer
        return None

    def _content(self, data: bytes) -> _Rest | None:
        sink = self._sink
        assert sink is not None, "no content is told of a message that has no sink"
        try:
            answer = sink.write(data)
        except Exception as error:
            return self._written(error)
        return None if answer is None else self._written(answer)

    def _written(self, answer: object) -> _Rest:
        """See whether the sink has taken the octets."""
        try:
            if is_job(answer):
                answer = yield from self._finish(answer)
        except Exception as error:
            answer = error
        if answer is None:
            return
        if isinstance(answer, Exception):
            yield self._sink_failure("write", answer)
            answer = _reply_to(answer)
        elif not isinstance(answer, Reply) or answer.accepted:
            yield self._misuse("write", answer, "None or a refusal")
            answer = _OWN_FAULT
        self._connection.refuse_content(answer)

    def _deliver(self, event: EndOfContent) -> _Rest | None:
        """Answer every recipient. From here on the client may go, the delivery is finished."""
        sink = self._sink
        if event.refusal is not None or sink is None:
            return self._refuse_all(event)
        if len(event.recipients) == 1:
            # By far the most frequent: one recipient, answered at once.
            recipient = event.recipients[0]
            try:
                answer: object = sink.deliver(recipient)
            except Exception as error:
                answer = error
            if isinstance(answer, Reply) and _is_final(answer):
                reply = self._named(answer)
                octets = self._connection.send(RecipientReply(recipient=recipient, reply=reply))
                self._out.append(octets)
                return self._end_transaction()
            return self._deliver_to([(recipient, answer)])
        answers: list[tuple[Recipient, object]] = []
        for recipient in event.recipients:
            try:
                answers.append((recipient, sink.deliver(recipient)))
            except Exception as error:
                answers.append((recipient, error))
        return self._deliver_to(answers)

    def _deliver_to(self, answers: list[tuple[Recipient, object]]) -> _Rest:
        """Run all jobs at the same time, and answer in RCPT order as their results come."""
        runs: list[object] = []
        for _, answer in answers:
            if not isinstance(answer, Reply) and is_job(answer):
                answer = Run(answer)
                yield answer
            runs.append(answer)
        for (recipient, _), answer in zip(answers, runs, strict=True):
            reply: object = answer
            if isinstance(answer, Run):
                try:
                    reply = yield from self._result(answer)
                except Exception as error:
                    reply = error
            if isinstance(reply, Exception):
                yield self._sink_failure("deliver", reply)
                reply = _reply_to(reply)
            elif not isinstance(reply, Reply) or not _is_final(reply):
                yield self._misuse("deliver", reply, "a final reply")
                reply = _OWN_FAULT
            named = self._named(reply)
            octets = self._connection.send(RecipientReply(recipient=recipient, reply=named))
            self._out.append(octets)
        rest = self._end_transaction()
        if rest is not None:
            yield from rest

    def _refuse_all(self, event: EndOfContent) -> _Rest:
        if event.recipients:
            refusal = self._named(event.refusal or _OWN_FAULT)
            self._out.append(self._connection.send(RemainingReply(reply=refusal)))
            if self._settings.logs_refusals:
                yield self._log(Severity.INFO, f"content refused: {refusal}")
        rest = self._end_transaction()
        if rest is not None:
            yield from rest

    def _end_transaction(self) -> _Rest | None:
        """The protocol has ended the transaction: let the sink go."""
        self._transaction = None
        sink = self._sink
        if sink is not None:
            self._sink = None
            try:
                _end("close", sink.close)
            except Exception as error:
                return self._report("close", error)
        return None

    def _report(self, name: str, error: Exception) -> _Rest:
        yield self._failure(name, error)

    def _identify(self, question: Callable[[], Reply | Credentials]) -> _Rest | None:
        """AUTH: answer, or have the handler judge what the client gave."""
        try:
            outcome = question()
        except Exception as error:
            return self._decide("mechanism", error, self._answer)
        if isinstance(outcome, Credentials):
            return self._judge(outcome)
        self._answer(outcome)
        return None

    def _judge(self, credentials: Credentials) -> _Rest:
        session = self._session
        answer: object
        try:
            answer = self._handler.authenticate(session, credentials)
        except Exception as error:
            answer = error
        yield from self._decide("authenticate", answer, self._end_auth, _AUTHENTICATED)
        if self._connection.authenticated:
            session.user = credentials.authorization_id or credentials.authentication_id
        else:
            yield self._log(
                Severity.WARNING, f"authentication as {credentials.authentication_id} failed"
            )

    def _end_auth(self, reply: Reply) -> None:
        if reply.code == 334:
            raise LocalProtocolError("a challenge is the mechanism's to give")
        self._answer(reply)

    def _start_tls(self) -> _Rest:
        self._answer(_START_TLS)
        yield from self._flush()
        effect = Handshake()
        effect.deadline = self._clock() + self._settings.limits.handshake_timeout
        yield effect
        if effect.outcome is None:
            # Nobody could read a reply now.
            self._connection.shut_down(_TIMED_OUT)
            yield self._log(Severity.WARNING, f"the TLS handshake failed: {effect.error}")
            return
        self._session.tls = effect.outcome
        self._session.certificate = effect.certificate
        self._session.lhlo_domain = None
        self._connection.tls_established()

    def _fault(self, event: Fault) -> _Rest:
        verb = event.line[:4].upper()
        if verb == b"MAIL":
            self._mail_refused = self._connection.mail is None
        code = event.reply.code
        if code in _COUNTED and not (code == 503 and self._could_not_know(verb)):
            self._faults += 1
        if self._faults > self._settings.limits.faults:
            self._shut_down(_TOO_MANY_FAULTS)
            yield self._log(Severity.WARNING, "too many invalid commands")
            return
        self._answer(self._named(event.reply) if verb == b"RCPT" else event.reply)
        line = event.line
        if verb == b"AUTH":
            # A secret may stand behind the mechanism.
            line = b" ".join(line.split()[:2])
        yield self._log(Severity.INFO, f"answered {event.reply} to: {line.decode('latin-1')}")

    def _could_not_know(self, verb: bytes) -> bool:
        """Whether the client may have said it before it was told that it is of no use any more:
        behind a refused MAIL (RFC 2920 3.1), or a refused chunk (RFC 3030 2)."""
        if self._connection.state is State.BROKEN:
            return verb == b"BDAT"
        return self._mail_refused and verb in _BEHIND_MAIL

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

    def _answer(self, reply: Reply) -> None:
        self._out.append(self._connection.send(reply))

    def _named(self, reply: Reply) -> Reply:
        """A refusal of a recipient, with the id of the transaction if it is to be there."""
        transaction = self._transaction
        if reply.accepted or transaction is None or not self._settings.names_refusals:
            return reply
        first = reply.lines[0]
        if transaction.id in first:
            return reply
        path, end, text = first.partition("> ")
        if end and path.startswith("<"):
            first = f"{path}> {transaction.id} {text}"
        else:
            first = f"{transaction.id} {first}"
        return Reply(reply.code, first, *reply.lines[1:], enhanced=reply.enhanced)

    def _shut_down(self, reply: Reply) -> None:
        octets = self._connection.shut_down(reply)
        if octets:
            self._out.append(octets)

    def _flush(self) -> _Rest:
        """Write what has gathered: one write before each wait."""
        if self._out:
            yield self._gathered()

    def _gathered(self) -> Send:
        """All replies that wait, as one write."""
        out = self._out
        send = self._send
        send.data = b"".join(out)
        out.clear()
        send.deadline = self._clock() + self._write_timeout
        return send

    def _current(self) -> Transaction:
        assert self._transaction is not None, "the protocol lets nothing in without MAIL"
        return self._transaction

    def _tell(self, severity: Severity, text: str) -> _Rest:
        yield self._log(severity, text)

    def _log(self, severity: Severity, text: str, error: Exception | None = None) -> Log:
        session = self._session
        return Log(severity, f"{session.id} {session.peer}: {escape(text)}", error)

    def _failure(self, name: str, error: Exception) -> Log:
        text = f"{name}() of the handler failed"
        if isinstance(error, HandlerError):
            text = f"{text}: {error}"
        elif _is_want_of_space(error):
            # Where in the code that showed helps nobody, and it shows with every message.
            return self._log(Severity.ERROR, f"{text}: {error}")
        return self._log(Severity.ERROR, text, error)

    def _misuse(self, name: str, answer: object, awaited: str) -> Log:
        error = misuse(name, answer, awaited)
        return self._log(Severity.ERROR, str(error), error)

    def _sink_failure(self, name: str, error: Exception) -> Log:
        """A sink has raised `error`, if it is one: only a call shows it."""
        if lacks(self._sink, "write", "deliver", "close"):
            return self._misuse("open", self._sink, "a sink or a refusal")
        return self._failure(name, error)


def _end(name: str, action: Callable[[], object]) -> None:
    """Call a method that ends something. Raises HandlerError when it hands back work: nobody waits
    for that any more."""
    left = action()
    if left is not None and is_job(left):
        raise misuse(name, left, "None")


def _close_late(answer: object) -> None:
    if _is_sink(answer):
        _end("close", answer.close)


def _is_sink(answer: object) -> TypeGuard[Sink]:
    """Whether open() has given a sink: anything but what it gives otherwise.

    Checking a protocol class at run time would cost more than the rest of the command.
    """
    return not (answer is None or isinstance(answer, Reply) or is_job(answer))


def _is_final(reply: Reply) -> bool:
    """Whether a recipient can be told this after the content."""
    return 250 <= reply.code < 300 or reply.code >= 400


def _reply_to(error: Exception) -> Reply:
    """Our own fault is never the sender's: 4xx (RFC 5321 4.2.1)."""
    return _NO_SPACE if _is_want_of_space(error) else _OWN_FAULT


def _is_want_of_space(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
