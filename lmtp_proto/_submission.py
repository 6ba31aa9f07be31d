"""The client's conversation: hands a message to a server and gathers each recipient's reply.

Generators of effects, as the server's conversation is, so that a client runs on every runtime. A
recipient always gets a reply: where the server gave none, a 4xx says why (RFC 3463 4.4.2, 4.4.1).

A content goes by BDAT where the server offers CHUNKING, as Exim does it: octets arrive as they are,
with nothing to stuff and no line end that two sides could read in two ways. No chunk is said before
each RCPT has its reply: it costs no round trip beside DATA, which has to wait for 354, and content
for which nobody was accepted is not sent, which some servers would take for commands. For the same
reason, and because servers differ in how often they answer it, BDAT LAST is said when every chunk
before it was accepted.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ._address import Address
from ._client import ClientConnection, ClientEvent, Dialect, RecipientReplied, Replied
from ._command import CommandError, decode_base64, encode_command
from ._effects import Effect, Handshake, Receive, Run, Send, Wait, is_job
from ._errors import LocalProtocolError, RemoteProtocolError
from ._events import (
    Auth,
    AuthResponse,
    Bdat,
    Command,
    ConnectionClosed,
    Data,
    Lhlo,
    Mail,
    Quit,
    Rcpt,
    Recipient,
    Rset,
    Signal,
    StartTls,
)
from ._handler import Answer
from ._limits import Limits
from ._offered_limits import OfferedLimits, read_limits
from ._parameters import NO_MAIL_PARAMETERS, Body, MailParameters
from ._policy import OUTGOING_CONTENT, ContentPolicy, PolicyFilter
from ._reply import Reply
from ._sasl_client import ClientMechanism
from ._state import State, Verb

_LOST: Final = Reply(451, "the connection was lost", enhanced="4.4.2")
_TIMED_OUT: Final = Reply(451, "the server did not answer in time", enhanced="4.4.2")
_NOT_UNDERSTOOD: Final = Reply(451, "the server broke the protocol", enhanced="4.5.0")
_ABANDONED: Final = Reply(451, "the client gave up amid its conversation", enhanced="4.3.0")
_ANSWERED_EARLY: Final = Reply(
    451, "the server answered before the content was complete", enhanced="4.4.2"
)
_NO_HANDSHAKE: Final = Reply(451, "the TLS handshake failed", enhanced="4.7.0")
# What the server would say, had it been asked (RFC 9422 5.1 to 5.3, RFC 5321 4.5.3.1.10).
_TOO_MANY_MESSAGES: Final = Reply(
    451, "the server takes no more messages in this session", enhanced="4.5.3"
)
_TOO_MANY_RECIPIENTS: Final = Reply(
    452, "too many recipients for the server: not sent", enhanced="4.5.3"
)
_TOO_MANY_DOMAINS: Final = Reply(
    452, "too many recipient domains for the server: not sent", enhanced="4.5.3"
)

_CHUNK_SIZE: Final = 262_144
# RFC 5321 4.5.3.1.4, RFC 4954 4: the longest command line, CRLF included.
_COMMAND_LINE: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How it went for one recipient: the server's reply, or a 4xx where it gave none."""

    recipient: Recipient
    reply: Reply
    verb: Verb | None = None
    """What `reply` answered: MAIL, RCPT, DATA (no 354), BDAT (a chunk), END (the content). None:
    the session ended before there was a reply. MAIL and RCPT also where they were not said because
    the server's LIMITS do not allow it; the reply is 451 or 452 with 4.5.3 then."""


_NO_LIMITS: Final = OfferedLimits()


class _Content:
    """A content as it is to be sent, in blocks of no more than `block_size` octets.

    The policy is carried out here, where the octets of a chunk are not counted yet. None is for
    what is no text.
    """

    __slots__ = ("_block_size", "_filter", "_over", "_piece", "_position", "_read")

    def __init__(
        self, read: Callable[[], Answer[bytes]], block_size: int, policy: ContentPolicy | None
    ) -> None:
        self._read = read
        self._block_size = block_size
        self._filter = None if policy is None else PolicyFilter(policy)
        self._over = False
        # What was read last, and how much of it is used.
        self._piece = b""
        self._position = 0

    def next_block(self) -> Generator[Effect, None, bytes]:
        """The next octets, `b""` at the end."""
        while self._position >= len(self._piece) and not self._over:
            yield from self._next_piece()
        start = self._position
        self._position = start + self._block_size
        return self._piece[start : self._position]

    def _next_piece(self) -> Generator[Effect, None, None]:
        answer: object = self._read()
        if is_job(answer):
            run = Run(answer)
            yield run
            if not run.done:
                yield Wait(run)
            answer = run.outcome()
        if not isinstance(answer, bytes):
            raise TypeError(f"read() gave {answer!r}: octets are awaited")
        self._over = not answer
        if self._filter is not None:
            answer = self._filter.feed(answer) if answer else self._filter.finish()
            if self._filter.refusal is not None:
                raise LocalProtocolError(f"the content policy says {self._filter.refusal}")
        self._piece = answer
        self._position = 0


class Submission:
    """A client's conversation over one connection: `open()`, any number of `submit()`, `close()`.

    Each is a generator of effects that the runtime performs to its end. `failure` tells what ended
    the session early: a RemoteProtocolError, or None while all is well or the connection was lost.

    A `Receive` whose deadline has come is a look: the runtime gives the octets that are there, or
    `Interrupt.TIMEOUT` at once.
    """

    __slots__ = (
        "_block_size",
        "_chunk_size",
        "_clock",
        "_connection",
        "_content_policy",
        "_dialect",
        "_domain",
        "_domains",
        "_ended",
        "_final",
        "_goodbye",
        "_limits",
        "_receive",
        "_send",
        "_transactions",
        "failure",
        "tls",
    )

    def __init__(
        self,
        domain: str,
        *,
        clock: Callable[[], float],
        limits: Limits | None = None,
        dialect: Dialect = Dialect.LMTP,
        chunk_size: int = _CHUNK_SIZE,
        content_policy: ContentPolicy = OUTGOING_CONTENT,
    ) -> None:
        """`domain` is the client's name for LHLO. `clock` gives seconds that never go back.

        `chunk_size` is the most octets of a BDAT chunk; 0 sends every content by DATA, as Postfix
        does. `content_policy` is for every content but those with BODY=BINARYMIME.
        """
        self._limits = limits or Limits()
        # The content is seen to before it gets there.
        self._connection = ClientConnection(
            limits=self._limits, dialect=dialect, content_policy=ContentPolicy()
        )
        self._content_policy = content_policy
        self._dialect = dialect
        self._domain = domain
        self._clock = clock
        self._chunk_size = chunk_size
        self._block_size = chunk_size or _CHUNK_SIZE
        # Why no more can be said: the reply for whoever has none.
        self._ended: Reply | None = None
        # A 421 after which replies to other recipients may still come.
        self._goodbye: Reply | None = None
        self._final: dict[Recipient, Result] = {}
        # What LIMITS may bound in a session: MAIL commands, and domains of recipients.
        self._transactions = 0
        self._domains: set[str] = set()
        self._receive = Receive()
        self._send = Send()
        self.failure: RemoteProtocolError | None = None
        self.tls: str | None = None
        """Protocol and cipher, None in the clear; read-only."""

    @property
    def keywords(self) -> dict[str, str]:
        """What the server offers: keyword in upper case to its parameters."""
        return self._connection.keywords

    @property
    def offered_limits(self) -> OfferedLimits:
        """The limits that the server offers (RFC 9422). `submit()` keeps them."""
        words = self._connection.keywords.get("LIMITS")
        return _NO_LIMITS if words is None else read_limits(words)

    @property
    def over(self) -> bool:
        """Whether nothing more can be said: the connection is to be closed without delay."""
        return self._ended is not None

    @property
    def refusal(self) -> Reply | None:
        """What every recipient of another message would be told without its being sent: the session
        is over, or has had as many messages as the server takes. None: one can be submitted."""
        if self._ended is not None:
            return self._ended
        most = self.offered_limits.transactions
        return _TOO_MANY_MESSAGES if most is not None and self._transactions >= most else None

    @property
    def usable(self) -> bool:
        """Whether another message can be submitted; if not, `refusal` says why.

        `close()` is still to be said where the session is not `over`.
        """
        return self.refusal is None

    def open(self, *, implicit_tls: bool = False) -> Generator[Effect, None, Reply]:
        """Read the greeting and say LHLO; the reply that decided, positive if all is well.

        With `implicit_tls` a handshake comes first (RFC 8314 3): raises what the runtime says of
        one that has failed.
        """
        if implicit_tls:
            self.tls = yield from self._shake_hands()
            if self._ended is not None:
                return self._ended
        greeting = yield from self.read_greeting()
        if not greeting.accepted:
            return self._end(greeting)
        reply = yield from self.hello()
        return reply if reply.accepted else self._end(reply)

    def read_greeting(self) -> Generator[Effect, None, Reply]:
        """The server's first reply."""
        return (yield from self._await_reply())

    def hello(self, domain: str | None = None) -> Generator[Effect, None, Reply]:
        """Say LHLO, or EHLO and, where that is refused for good, HELO (RFC 5321 3.2).

        `domain` None is the one that was given at first.
        """
        command = Lhlo(domain=domain or self._domain)
        reply = yield from self.say(command)
        if reply.code >= 500 and self._dialect is Dialect.SMTP:
            reply = yield from self.say(command)
        return reply

    def start_tls(self) -> Generator[Effect, None, Reply]:
        """Say STARTTLS, do the handshake and say LHLO anew: the reply that decided.

        Where it is not positive, either the session is `over`, or the server has refused and it
        goes on in the clear: `tls` is None then. Raises LocalProtocolError as `begin_tls()` does.
        """
        reply = yield from self.begin_tls()
        if not reply.accepted:
            return reply
        reply = yield from self.hello()
        return reply if reply.accepted else self._end(reply)

    def begin_tls(self) -> Generator[Effect, None, Reply]:
        """Say STARTTLS and do the handshake (RFC 3207 4); the reply to STARTTLS.

        What was known of the server is forgotten, `hello()` is to be called next (4.2). Whom the
        handshake has to convince is the runtime's to know. A handshake that fails, and octets
        behind the reply in the clear, which may be another's, end the session; the reply says so.
        Raises LocalProtocolError, before anything is sent, where the server does not offer STARTTLS
        or TLS is active. Raises what the runtime says of a handshake that has failed.
        """
        if self.tls is not None:
            raise LocalProtocolError("TLS is active: no STARTTLS (RFC 3207 4.2)")
        reply = yield from self.say(StartTls())
        if reply.accepted:
            # It has been read before the handshake, so it is not protected by it.
            self._check_silence()
            if self._ended is None:
                outcome = yield from self._shake_hands()
                try:
                    if outcome is not None:
                        self._connection.tls_established()
                        self.tls = outcome
                except RemoteProtocolError as error:
                    self._fail(error)
        return self._ended or reply

    def _shake_hands(self) -> Generator[Effect, None, str | None]:
        """Protocol and cipher, None where the session is over."""
        handshake = Handshake()
        handshake.deadline = self._clock() + self._limits.handshake_timeout
        try:
            yield handshake
        except BaseException:
            self._end(_ABANDONED)
            raise
        if handshake.outcome is None:
            self._end(_NO_HANDSHAKE)
            if handshake.error is not None:
                raise handshake.error
        return handshake.outcome

    def authenticate(self, mechanism: ClientMechanism) -> Generator[Effect, None, Reply]:
        """Prove who the client is (RFC 4954); the reply that decided, 235 when it is believed.

        Nothing here judges whether the connection is fit for it: PLAIN and LOGIN show the password
        to whoever listens, so the caller uses them under TLS (`tls` is not None) or on a UNIX
        socket alone. A refusal changes nothing, another mechanism may be tried. What the server
        offers stays what it was; `hello()` asks whether it offers more to those it knows.

        Raises LocalProtocolError, before anything is sent, where the server does not offer the
        mechanism. Raises what `mechanism` raises; amid the exchange the session is over then.
        """
        if self._ended is not None:
            return self._ended
        name = mechanism.name.upper()
        if name not in self.keywords.get("AUTH", "").upper().split():
            raise LocalProtocolError(f"the server does not offer AUTH {name}")
        # A response that waits for the server to ask for it.
        held = mechanism.respond(None)
        command = Auth(mechanism=name, response=held)
        if len(encode_command(command)) > _COMMAND_LINE:
            command = Auth(mechanism=name)
        else:
            held = None
        reply = yield from self.say(command)
        while 300 <= reply.code < 400:
            response = self._respond(mechanism, reply) if held is None else held
            held = None
            reply = yield from self.say(AuthResponse(response=response))
            if response is None and 300 <= reply.code < 400:
                return self._fail(RemoteProtocolError(f"{reply} does not end a cancelled exchange"))
        return reply

    def _respond(self, mechanism: ClientMechanism, challenge: Reply) -> bytes | None:
        """The response to a challenge, None to give up."""
        try:
            octets = decode_base64(challenge.text)
        except CommandError:
            return None
        try:
            return mechanism.respond(octets)
        except BaseException:
            self._end(_ABANDONED)
            raise

    def say(self, command: Command) -> Generator[Effect, None, Reply]:
        """Say one command between two messages, such as NOOP; its reply, or why there is none.

        Raises LocalProtocolError as `ClientConnection.send()` does.
        """
        yield from self._catch_up()
        if self._ended is None:
            yield from self._put([command])
        return (yield from self._await_reply())

    def submit(
        self,
        reverse_path: Address | None,
        recipients: Sequence[Recipient],
        read: Callable[[], Answer[bytes]],
        *,
        size: int | None = None,
        body: Body | None = None,
        parameters: MailParameters = NO_MAIL_PARAMETERS,
    ) -> Generator[Effect, None, list[Result]]:
        """Send one message; a result for each recipient, in the order given.

        `read()` gives the next octets of the content, `b""` at its end. `size` and `body` are
        declared where the server offers SIZE and 8BITMIME; `parameters` and those of the recipients
        go as they are. Raises LocalProtocolError, before anything is sent, where they or an address
        need an extension that the server does not offer, and for the same `Recipient` object given
        twice. Raises what `read()` raises, and LocalProtocolError for a content that the policy
        refuses: the message is then incomplete and the session `over`, so that the server never
        gets the end of it.

        Recipients beyond what the server's LIMITS allow are not sent: their reply is `452 4.5.3`.
        With as many messages as it takes, `usable` becomes False.
        """
        if len(set(recipients)) != len(recipients):
            raise LocalProtocolError("each recipient needs an object of its own")
        self._final = {}
        yield from self._catch_up()
        if recipients and self._ended is None:
            yield from self._begin(reverse_path, recipients, read, size, body, parameters)
        rest = self._ended or _LOST
        return [
            self._final.get(recipient) or Result(recipient=recipient, reply=rest)
            for recipient in recipients
        ]

    def close(self) -> Generator[Effect, None, Reply]:
        """Say QUIT and wait for the server's leave: its reply, or why there is none."""
        if self._ended is not None:
            return self._ended
        reply = yield from self.say(Quit())
        self._end(_LOST)
        return reply

    def _begin(
        self,
        reverse_path: Address | None,
        recipients: Sequence[Recipient],
        read: Callable[[], Answer[bytes]],
        size: int | None,
        body: Body | None,
        parameters: MailParameters,
    ) -> Generator[Effect, None, None]:
        keywords = self.keywords
        if size is not None and "SIZE" in keywords:
            parameters = replace(parameters, size=size)
        if body is not None and ("8BITMIME" in keywords or body is Body.BINARYMIME):
            parameters = replace(parameters, body=body)
        chunked = bool(self._chunk_size) and "CHUNKING" in keywords
        if parameters.body is Body.BINARYMIME and not chunked:
            raise LocalProtocolError("BODY=BINARYMIME goes with BDAT alone (RFC 3030 3)")
        mail = Mail(reverse_path=reverse_path, parameters=parameters)
        self._connection.check_recipients(mail, recipients)
        recipients = self._within_limits(recipients)
        if not recipients:
            return
        binary = parameters.body is Body.BINARYMIME
        content = _Content(read, self._block_size, None if binary else self._content_policy)
        try:
            said = self._connection.send(mail)
        except RemoteProtocolError as error:
            self._fail(error)
            return
        self._transactions += 1
        if self.offered_limits.domains is not None:
            self._domains.update(_domain(recipient) for recipient in recipients)
        try:
            yield from self._transact(said, recipients, content, chunked)
        except BaseException:
            # The runtime closes the connection amid the content: nobody takes it for complete.
            self._end(_ABANDONED)
            raise

    def _within_limits(self, recipients: Sequence[Recipient]) -> Sequence[Recipient]:
        """Those of `recipients` that the server's LIMITS allow; the others get their result."""
        limits = self.offered_limits
        if limits is _NO_LIMITS:
            return recipients
        refusal = self.refusal
        if refusal is not None:
            self._note_all(recipients, refusal, Verb.MAIL)
            return ()
        within: list[Recipient] = []
        domains = set(self._domains)
        for recipient in recipients:
            if limits.recipients is not None and len(within) >= limits.recipients:
                self._note(recipient, _TOO_MANY_RECIPIENTS, Verb.RCPT)
                continue
            domain = _domain(recipient)
            if limits.domains is not None and domain not in domains:
                if len(domains) >= limits.domains:
                    self._note(recipient, _TOO_MANY_DOMAINS, Verb.RCPT)
                    continue
                domains.add(domain)
            within.append(recipient)
        return within

    def _transact(
        self,
        said: bytes,
        recipients: Sequence[Recipient],
        content: _Content,
        chunked: bool,
    ) -> Generator[Effect, None, None]:
        """All behind MAIL, whose octets `said` are still to be written."""
        connection = self._connection
        commands: list[Command] = [Rcpt(recipient=recipient) for recipient in recipients]
        if not chunked:
            commands.append(Data())
        # One flight where it may be, in windows that cannot fill both sides' buffers.
        window = self._window
        # MAIL is the first command of the first flight.
        first, last = 0, window - 1
        start_of_content: Reply | None = None
        while last <= 0 or first < len(commands):
            flight = commands[first:last]
            if flight == [Data()] and not connection.accepted:
                break
            yield from self._put(flight, before=said)
            while connection.in_flight:
                event = yield from self._await_event(self._limits.reply_timeout)
                if not isinstance(event, Replied):
                    return
                if event.reply.code == 421:
                    self._end(event.reply)
                    return
                if isinstance(event.command, Data):
                    start_of_content = event.reply
                else:
                    self._note_envelope(event, recipients)
            if connection.state is State.READY:
                # MAIL was refused.
                return
            said = b""
            first, last = last, last + window
        if start_of_content is not None and start_of_content.accepted:
            yield from self._send_content(content)
        elif chunked and connection.accepted:
            yield from self._send_chunks(content)
        else:
            if start_of_content is not None:
                self._note_all(connection.accepted, start_of_content, Verb.DATA)
            yield from self._reset()

    @property
    def _window(self) -> int:
        """How many commands go in one flight."""
        return self._limits.window if "PIPELINING" in self.keywords else 1

    def _note_envelope(self, event: Replied, recipients: Sequence[Recipient]) -> None:
        """Keep the reply to MAIL or RCPT where it is the last word on a recipient."""
        reply = event.reply
        if reply.accepted:
            return
        command = event.command
        if isinstance(command, Mail):
            self._note_all(recipients, reply, Verb.MAIL)
        # Behind a refused MAIL it is not RCPT that is refused.
        elif isinstance(command, Rcpt) and command.recipient not in self._final:
            self._note(command.recipient, reply, Verb.RCPT)

    def _note(self, recipient: Recipient, reply: Reply, verb: Verb) -> None:
        self._final[recipient] = Result(recipient=recipient, reply=reply, verb=verb)

    def _note_all(self, recipients: Sequence[Recipient], reply: Reply, verb: Verb) -> None:
        """`reply` is the last word on all of `recipients`."""
        for recipient in recipients:
            self._note(recipient, reply, verb)

    def _reset(self) -> Generator[Effect, None, None]:
        """Drop the transaction."""
        yield from self._put([Rset()])
        yield from self._await_reply()

    def _send_content(self, content: _Content) -> Generator[Effect, None, None]:
        """The content behind 354, and the replies to it."""
        connection = self._connection
        # What came with the 354 is no answer to the content.
        event = self._take()
        if event is not None or self._ended is not None:
            yield from self._take_early_replies(event)
            return
        octets = b""
        # SMTP says 354 to nobody too: a dot alone ends that (RFC 2920 3.1).
        while connection.accepted:
            block = yield from content.next_block()
            if not block:
                break
            if octets:
                yield from self._write(octets)
                event = yield from self._look()
                if event is not None or self._ended is not None:
                    yield from self._take_early_replies(event)
                    return
            octets = connection.send_content(block)
        yield from self._write(octets + connection.end_content())
        yield from self._await_finals()

    def _take_early_replies(self, event: ClientEvent | None) -> Generator[Effect, None, None]:
        """The server has answered amid the content: keep what it has said, send no more."""
        while event is not None:
            self._note_final(event)
            if isinstance(event, Replied):
                # 421: what stands behind it means nothing.
                break
            event = yield from self._look()
        self._end(self._goodbye or _ANSWERED_EARLY)

    def _send_chunks(self, content: _Content) -> Generator[Effect, None, None]:
        """The content by BDAT, and the replies to it."""
        held: list[bytes] = []
        size = 0
        refusal: Reply | None = None
        while block := (yield from content.next_block()):
            if held and size + len(block) > self._chunk_size:
                yield from self._put([Bdat(size=size)], content=held)
                refusal = yield from self._read_chunk_replies(self._window - 1)
                if refusal is not None or self._ended is not None:
                    break
                held = []
                size = 0
            held.append(block)
            size += len(block)
        later = yield from self._read_chunk_replies(0)
        refusal = refusal or later
        if self._ended is not None:
            return
        if refusal is not None:
            self._note_all(self._connection.accepted, refusal, Verb.BDAT)
            yield from self._reset()
            return
        yield from self._put([Bdat(size=size, last=True)], content=held)
        yield from self._await_finals()

    def _read_chunk_replies(self, most: int) -> Generator[Effect, None, Reply | None]:
        """Read replies to chunks: those that are there, and until `most` are owed at most.

        Gives the first one that refuses.
        """
        connection = self._connection
        refusal: Reply | None = None
        while connection.in_flight and self._ended is None:
            if connection.in_flight > most:
                event = yield from self._await_event(self._limits.reply_timeout)
            else:
                event = yield from self._look()
            if not isinstance(event, Replied):
                break
            if event.reply.code == 421:
                self._end(event.reply)
            elif refusal is None and not event.reply.accepted:
                refusal = event.reply
        return refusal

    def _await_finals(self) -> Generator[Effect, None, None]:
        """Read the replies to the content."""
        connection = self._connection
        while connection.owed or connection.in_flight:
            event = yield from self._await_event(self._limits.final_reply_timeout)
            if event is None:
                return
            self._note_final(event)
        if self._goodbye is not None:
            self._end(self._goodbye)
        else:
            # A reply too many is not the answer to what is said next.
            self._check_silence()

    def _note_final(self, event: ClientEvent) -> None:
        if isinstance(event, RecipientReplied):
            self._note(event.recipient, event.reply, Verb.END)
            if event.reply.code == 421:
                self._goodbye = event.reply
        elif isinstance(event, Replied) and event.reply.code == 421:
            self._goodbye = event.reply

    def _put(
        self, commands: Sequence[Command], *, before: bytes = b"", content: Sequence[bytes] = ()
    ) -> Generator[Effect, None, None]:
        """Say `commands`, the last of them with the octets of its chunk, in one write."""
        connection = self._connection
        try:
            octets = [before, *map(connection.send, commands)]
        except RemoteProtocolError as error:
            self._fail(error)
            return
        octets += map(connection.send_content, content)
        yield from self._write(b"".join(octets))

    def _write(self, octets: bytes) -> Generator[Effect, None, None]:
        self._send.data = octets
        self._send.deadline = self._clock() + self._limits.write_timeout
        try:
            yield self._send
        except BaseException:
            self._end(_ABANDONED)
            raise

    def _catch_up(self) -> Generator[Effect, None, None]:
        """Before something is said on silence: has the server said anything unasked?"""
        event = yield from self._look()
        if isinstance(event, Replied):
            self._end(event.reply)

    def _check_silence(self) -> None:
        """As `_catch_up()`, of what was read already."""
        event = self._take()
        if isinstance(event, Replied):
            self._end(event.reply)

    def _await_reply(self) -> Generator[Effect, None, Reply]:
        """The next reply, or what stands in for it when the session has ended."""
        event = yield from self._await_event(self._limits.reply_timeout)
        if isinstance(event, Replied):
            if event.reply.code == 421:
                return self._end(event.reply)
            return event.reply
        return self._ended or self._end(_LOST)

    def _await_event(self, timeout: float) -> Generator[Effect, None, ClientEvent | None]:
        """The next event, None when the session has ended."""
        deadline = self._clock() + timeout
        event = self._take()
        while event is None and self._ended is None:
            if not (yield from self._read(deadline)):
                self._end(_TIMED_OUT)
                break
            event = self._take()
        return event

    def _look(self) -> Generator[Effect, None, ClientEvent | None]:
        """The next event if it is there already, or None."""
        event = self._take()
        while event is None and self._ended is None and (yield from self._read(self._clock())):
            event = self._take()
        return event

    def _take(self) -> ClientEvent | None:
        """The next event of what was read, None when there is none or the session has ended."""
        if self._ended is not None:
            return None
        try:
            event = self._connection.next_event()
        except RemoteProtocolError as error:
            self._fail(error)
            return None
        if isinstance(event, ConnectionClosed):
            self._end(self._goodbye or _LOST)
            return None
        return None if isinstance(event, Signal) else event

    def _read(self, deadline: float) -> Generator[Effect, None, bool]:
        """Read once; whether there was something, or the end."""
        receive = self._receive
        receive.deadline = deadline
        try:
            yield receive
        except BaseException:
            # Whoever asks next would get the reply that nobody waits for now.
            self._end(_ABANDONED)
            raise
        if not isinstance(receive.outcome, bytes):
            return False
        if receive.outcome:
            self._connection.receive_data(receive.outcome)
        else:
            self._connection.receive_eof()
        return True

    def _fail(self, error: RemoteProtocolError) -> Reply:
        self.failure = error
        return self._end(self._goodbye or _NOT_UNDERSTOOD)

    def _end(self, reply: Reply) -> Reply:
        """The session is over; the first reason counts."""
        if self._ended is None:
            self._ended = reply
        return reply


def _domain(recipient: Recipient) -> str:
    """The domain of a recipient: what differs in case alone is the same (RFC 5321 2.4)."""
    return recipient.address.domain.lower()
