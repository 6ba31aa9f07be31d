"""The server role: octets in, events out, replies back, octets out.

The number of replies belongs to this machine: one for each command, one for each accepted
recipient after the content, in RCPT order. A caller cannot send one too few or too many.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from ._buffer import InputBuffer, LineFault
from ._command import NOT_ASCII, CommandError, CommandParser, decode_base64
from ._content import DotDecoder
from ._errors import LocalProtocolError
from ._events import (
    NEED_DATA,
    PAUSED,
    AuthResponse,
    Bdat,
    Command,
    ConnectionClosed,
    Content,
    EndOfChunk,
    EndOfContent,
    Fault,
    Mail,
    Rcpt,
    Recipient,
    RecipientReply,
    RemainingReply,
    ServerEvent,
    Signal,
)
from ._extensions import STANDARD_EXTENSIONS, Extension
from ._limits import Limits
from ._parameters import Body
from ._policy import INCOMING_CONTENT, ContentPolicy, PolicyFilter
from ._reply import Reply
from ._state import TRANSITIONS, State, Verb

_LINE_FAULTS: Final = {
    LineFault.TOO_LONG: Reply(500, "line too long", enhanced="5.5.2"),
    LineFault.TLS: Reply(500, "this is not an LMTP client", enhanced="5.5.1"),
    LineFault.BARE_LF: Reply(500, "bare LF: a line ends with CRLF", enhanced="5.5.2"),
}
_SEQUENCE: Final = {
    State.REFUSED: Reply(503, "no service here: QUIT", enhanced="5.5.1"),
    State.GREETED: Reply(503, "LHLO first", enhanced="5.5.1"),
    State.READY: Reply(503, "MAIL first", enhanced="5.5.1"),
    State.CHUNK: Reply(503, "BDAT or RSET is awaited", enhanced="5.5.1"),
    State.BROKEN: Reply(503, "a chunk was refused: RSET first", enhanced="5.5.1"),
}
_NESTED_MAIL: Final = Reply(503, "a transaction is open", enhanced="5.5.1")
# RFC 2033 4.2: not the 554 of SMTP.
_NO_RECIPIENTS: Final = Reply(503, "no valid recipients", enhanced="5.5.1")
_AUTHENTICATED: Final = Reply(503, "already authenticated", enhanced="5.5.1")
# RFC 3030 3: content with octets of any kind only comes by BDAT.
_BINARY: Final = Reply(503, "BODY=BINARYMIME needs BDAT", enhanced="5.5.1")
_RESPONSE_TOO_LONG: Final = Reply(500, "authentication response too long", enhanced="5.5.6")
# RFC 9422 4: the number that LIMITS says is kept.
_TOO_MANY_TRANSACTIONS: Final = Reply(421, "too many messages in one session", enhanced="4.5.3")
# RFC 8689 4.1: it is offered, and means something, under TLS alone.
_NOT_UNDER_TLS: Final = Reply(555, "REQUIRETLS needs TLS", enhanced="5.5.4")
_UNDER_TLS: Final = Reply(503, "TLS is active", enhanced="5.5.1")
# RFC 5321 4.5.3.1.10.
_TOO_MANY_RECIPIENTS: Final = Reply(452, "too many recipients", enhanced="4.5.3")
# Looking a member up in its class costs more than a dictionary: the hot path has its own names.
_READY: Final = State.READY
_GREETED: Final = State.GREETED
_DATA: Final = State.DATA
_CLOSED: Final = State.CLOSED
_TLS: Final = State.TLS
_STATUS: Final = State.STATUS
_NO_WORDS: Final[Mapping[Extension, str]] = MappingProxyType({})
_WITH_WORDS: Final = frozenset(
    {
        Extension.AUTH,
        Extension.FUTURERELEASE,
        Extension.XCLIENT,
        Extension.XFORWARD,
        Extension.XRCPTFORWARD,
    }
)
# States that command lines are read in and that entering changes nothing else.
_PLAIN: Final = frozenset({State.REFUSED, State.MAIL, State.RCPT, State.CHUNK, State.BROKEN})
_RCPT: Final = Verb.RCPT
_END: Final = Verb.END
_SETTLED: Final = Verb.SETTLED
_BDAT_LINE: Final = re.compile(rb"BDAT[\x00-\x20]", re.IGNORECASE)
# RFC 4954 4: the longest line of an exchange.
_RESPONSE_LINE: Final = 12288

_TOO_MUCH: Final = Reply(421, "too much refused content", enhanced="4.7.0")


class ServerConnection:
    """The server's side of one connection, without any I/O.

    Give it what was read with `receive_data()`, take `next_event()` until it says NEED_DATA, and
    write what `send()` returns. The first thing to send is the greeting.
    """

    __slots__ = (
        "_answers",
        "_authenticated",
        "_chunk",
        "_chunk_left",
        "_decoder",
        "_ending",
        "_eof",
        "_filter",
        "_flow",
        "_found",
        "_input",
        "_most",
        "_owed",
        "_owed_event",
        "_parser",
        "_policy",
        "_recipients",
        "_refusal",
        "_size",
        "_skip",
        "_skipped",
        "_step",
        "_tls",
        "_told",
        "_transactions",
        "mail",
        "state",
    )

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        extensions: frozenset[Extension] = STANDARD_EXTENSIONS,
        parser: CommandParser | None = None,
        content_policy: ContentPolicy = INCOMING_CONTENT,
        tls: bool = False,
    ) -> None:
        """`parser` may be shared by all connections that have the same limits and extensions.

        `content_policy` is for text: what comes by BDAT with BODY=BINARYMIME stays as it is.
        `tls`: the connection is under TLS from its first octet.
        """
        self._parser = parser or CommandParser(limits or Limits(), extensions)
        self._most = self._parser.limits.message_size
        self._input = InputBuffer()
        self._eof = False
        self._tls = tls
        self._authenticated = False
        self._transactions = 0
        self.state = State.CONNECTED
        """Where the session stands; read-only."""
        self.mail: Mail | None = None
        """The MAIL command of the transaction, None outside of one; read-only."""
        self._recipients: list[Recipient] = []
        # What an answer is owed to: a verb with its event, or a fault.
        self._owed: Verb | Fault | None = Verb.CONNECT
        self._owed_event: ServerEvent | None = None
        # Where the answer leads.
        self._step = TRANSITIONS[State.CONNECTED, Verb.CONNECT]
        # What reads the next octets, None for command lines.
        self._flow: Callable[[], ServerEvent | Signal] | None = None
        # Octets to drop before the next line: those of a BDAT that was refused by its line.
        self._skip = 0
        self._skipped: Fault | None = None
        self._chunk: Bdat | None = None
        self._chunk_left = 0
        self._decoder: DotDecoder | None = None
        # None where all content is kept as it comes.
        self._policy = None if content_policy.keeps_all else content_policy
        self._filter: PolicyFilter | None = None
        self._size = 0
        self._refusal: Reply | None = None
        # The refusal that was found here, None where it is the caller's.
        self._found: Reply | None = None
        # Of state STATUS: what each recipient is told, and how many have been told.
        self._answers: dict[Recipient, bytes | None] = _NO_ANSWERS
        self._told = 0
        # A recipient was told 421: the session ends with the last status.
        self._ending = False

    @property
    def recipients(self) -> tuple[Recipient, ...]:
        """The accepted recipients of the transaction, in RCPT order."""
        return tuple(self._recipients)

    @property
    def limits(self) -> Limits:
        """The limits this connection keeps."""
        return self._parser.limits

    @property
    def verbs(self) -> list[str]:
        """The commands that are served (RFC 5321 4.1.1.8)."""
        return self._parser.verbs

    @property
    def unanswered(self) -> Sequence[Recipient]:
        """In state STATUS: the recipients that have no final reply yet, in RCPT order."""
        if self.state is not _STATUS:
            return ()
        return [recipient for recipient, wire in self._answers.items() if wire is None]

    @property
    def authenticated(self) -> bool:
        """Whether AUTH has succeeded since the session began (anew)."""
        return self._authenticated

    @property
    def content_flows(self) -> bool:
        """Whether the next octets are content."""
        return self._decoder is not None or self._chunk is not None or self._skip > 0

    @property
    def content_size(self) -> int:
        """Octets of the transaction's content that have come."""
        return self._size

    def keywords(self, words: Mapping[Extension, str] = _NO_WORDS) -> list[str]:
        """The lines of the LHLO reply behind the host name (RFC 5321 4.1.1.1).

        `words` are what stands behind a keyword. AUTH, XCLIENT, XFORWARD, XRCPTFORWARD and
        FUTURERELEASE are said only with theirs: they mean nothing, or are not for every client.
        """
        limits = self._parser.limits
        lines = []
        for extension in Extension:
            if extension not in self._parser.extensions:
                continue
            argument = words.get(extension, "")
            if extension in _WITH_WORDS and extension not in words:
                continue
            if extension is Extension.SIZE:
                argument = str(limits.message_size)
            elif extension is Extension.LIMITS:
                # RFC 9422 4: what is said is what is kept.
                argument = f"RCPTMAX={limits.recipients}"
                if limits.transactions is not None:
                    argument = f"MAILMAX={limits.transactions} {argument}"
            # RFC 3207 4.2: not under TLS. RFC 8689 3: only under TLS.
            elif (extension is Extension.STARTTLS and self._tls) or (
                extension is Extension.REQUIRETLS and not self._tls
            ):
                continue
            lines.append(f"{extension.value} {argument}".rstrip(" "))
        return lines

    def receive_data(self, data: bytes) -> None:
        """Keep octets that were read; `next_event()` looks at them."""
        if self._eof:
            raise LocalProtocolError("receive_data() after receive_eof()")
        # What comes behind QUIT or a 421 is not executed (RFC 5321 4.1.1.10).
        if data and self.state is not _CLOSED:
            self._input.feed(data)

    def receive_eof(self) -> None:
        """The peer sends no more. What it sent before is still served."""
        self._eof = True

    def next_event(self) -> ServerEvent | Signal:
        """The next event; NEED_DATA when more octets are needed, PAUSED while an answer is owed."""
        if self._owed is not None:
            return PAUSED
        flow = self._flow
        if flow is not None:
            return flow()
        parser = self._parser
        line = self._input.next_line(parser.limits.command_line)
        if line is None:
            return self._end() if self._eof else NEED_DATA
        if not isinstance(line, bytes):
            if _BDAT_LINE.match(self._input.faulty):
                self._miss_chunk()
            return self._fault(b"", _LINE_FAULTS[line], fatal=line is LineFault.TLS)
        try:
            verb, command = parser.parse(line)
        except CommandError as error:
            if error.verb is Verb.BDAT:
                self._miss_chunk()
            return self._fault(line, error.reply, error.skip, fatal=error.fatal)
        step = TRANSITIONS.get((self.state, verb))
        if step is None:
            skip = command.size if isinstance(command, Bdat) else 0
            return self._fault(line, self._out_of_sequence(verb), skip)
        if verb is _RCPT:
            if len(self._recipients) >= parser.limits.recipients:
                return self._fault(line, _TOO_MANY_RECIPIENTS)
            # RFC 6531 3.5: MAIL said whether the transaction may go beyond ASCII.
            if not line.isascii() and not (self.mail and self.mail.parameters.smtputf8):
                return self._fault(line, NOT_ASCII)
        elif verb in parser.guarded:
            if isinstance(command, Bdat):
                return self._begin_chunk(command)
            reply = self._forbidden(verb, command)
            if reply is not None:
                return self._fault(line, reply, fatal=reply.code == 421)
        self._owed = verb
        self._owed_event = command
        self._step = step
        return command

    def _miss_chunk(self) -> None:
        """A chunk whose line cannot be read is missing from the message (RFC 3030 2)."""
        step = TRANSITIONS.get((self.state, Verb.BDAT))
        if step is not None:
            self.state = step.refused

    def _forbidden(self, verb: Verb, command: Command) -> Reply | None:
        """Why a command cannot be served although the table allows it, None if it can."""
        if isinstance(command, Mail):
            if command.parameters.require_tls and not self._tls:
                return _NOT_UNDER_TLS
            most = self._parser.limits.transactions
            if most is not None and self._transactions >= most:
                return _TOO_MANY_TRANSACTIONS
        elif verb is Verb.DATA:
            if self._is_binary:
                return _BINARY
        elif verb is Verb.STARTTLS:
            if self._tls:
                return _UNDER_TLS
        elif self._authenticated:
            return _AUTHENTICATED
        return None

    def _read_response(self) -> ServerEvent | Signal:
        """A line of an authentication exchange, which is no command."""
        line = self._input.next_line(_RESPONSE_LINE)
        if line is None:
            return self._wait()
        if not isinstance(line, bytes):
            self._enter(TRANSITIONS[self.state, Verb.RESPONSE].refused)
            return self._fault(
                b"",
                _RESPONSE_TOO_LONG if line is LineFault.TOO_LONG else _LINE_FAULTS[line],
                fatal=line is LineFault.TLS,
            )
        response = None
        if line != b"*":
            try:
                response = decode_base64(line.decode("latin-1"))
            except CommandError as error:
                self._enter(TRANSITIONS[self.state, Verb.RESPONSE].refused)
                # The line may hold a password: it is not shown.
                return self._fault(b"", error.reply)
        self._owed = Verb.RESPONSE
        self._step = TRANSITIONS[self.state, Verb.RESPONSE]
        self._owed_event = AuthResponse(response=response)
        return self._owed_event

    def _wait(self) -> ServerEvent | Signal:
        """More octets are needed: do any come?"""
        return self._end() if self._eof else NEED_DATA

    def _end(self) -> ServerEvent | Signal:
        mid_transaction = self.mail is not None
        self._forget_transaction()
        self._decoder = None
        self._chunk = None
        self.state = _CLOSED
        self._flow = _pause
        return ConnectionClosed(mid_transaction=mid_transaction)

    def _fault(
        self, line: bytes, reply: Reply, skip: int = 0, *, fatal: bool = False
    ) -> ServerEvent | Signal:
        if skip > self._patience:
            # RFC 3030 2 wants the octets swallowed; nobody has this much patience.
            reply, skip, fatal = _TOO_MUCH, 0, True
        fault = Fault(line=line, reply=reply, fatal=fatal)
        if skip:
            # RFC 3030 2: the octets of a chunk are taken before it is refused.
            self._skip = skip
            self._skipped = fault
            self._flow = self._skip_octets
            return self._skip_octets()
        self._owed = fault
        return fault

    def _skip_octets(self) -> ServerEvent | Signal:
        while self._skip:
            dropped = len(self._input.take(self._skip))
            if not dropped:
                return self._wait()
            self._skip -= dropped
        self._flow = None
        self._owed = fault = self._skipped
        self._skipped = None
        assert fault is not None
        return fault

    def _out_of_sequence(self, verb: Verb) -> Reply:
        if verb is Verb.MAIL and self.mail is not None:
            return _NESTED_MAIL
        if self.state is State.MAIL:
            return _NO_RECIPIENTS
        return _SEQUENCE.get(self.state, _NESTED_MAIL)

    def _content_by_dot(self) -> ServerEvent | Signal:
        decoder = self._decoder
        assert decoder is not None
        while True:
            data = self._input.take()
            if not data:
                return self._end() if self._eof else NEED_DATA
            content, used = decoder.decode(data)
            if used >= 0:
                self._input.put_back(data, used)
                self._decoder = None
                self._flow = self._end_by_dot
            if content:
                event = self._content(content)
                if event is not None:
                    return event
            if used >= 0:
                return self._end_by_dot()

    def _end_by_dot(self) -> ServerEvent | Signal:
        return self._end_of_content(_END)

    def _begin_chunk(self, command: Bdat) -> ServerEvent:
        if self.state is State.MAIL:
            # No recipient: the octets are dropped; of the last ones nobody is told (RFC 2033 4.3).
            self._refusal = _NO_RECIPIENTS
        elif self._size + command.size > self._most:
            self._refuse_size()
        if self._refusal is not None and self._size + command.size > self._patience:
            return self._too_much()
        if self.state is State.RCPT and not self._is_binary:
            self._begin_filter()
        self._chunk = command
        self._chunk_left = command.size
        self._flow = self._content_by_chunk
        return command

    def _content_by_chunk(self) -> ServerEvent | Signal:
        chunk = self._chunk
        assert chunk is not None
        while self._chunk_left:
            data = self._input.take(self._chunk_left)
            if not data:
                return self._wait()
            self._chunk_left -= len(data)
            event = self._content(data)
            if event is not None:
                return event
        if chunk.last and self._filter is not None and self._refusal is None:
            # Nothing is held back any more when the rest has been told.
            event = self._permitted(self._filter.finish())
            if event is not None:
                return event
        self._chunk = None
        if chunk.last:
            return self._end_of_content(Verb.BDAT_LAST)
        self._flow = None
        self._owed = Verb.BDAT
        self._step = TRANSITIONS[self.state, Verb.BDAT]
        self._owed_event = EndOfChunk(size=chunk.size)
        return self._owed_event

    def _content(self, data: bytes) -> Content | Fault | None:
        """Count content; the event it makes, or None when there is nothing to tell."""
        self._size += len(data)
        if self._refusal is None:
            beyond = self._size - self._most
            if beyond <= 0 and self._filter is None:
                return Content(data=data)
            if beyond > 0:
                data = data[:-beyond]
            event = self._permitted(data if self._filter is None else self._filter.feed(data))
            if beyond > 0:
                # RFC 1870 4: it is read to its end and refused then.
                self._refuse_size()
            if event is not None:
                if self._size > self._patience:
                    self._flow = self._too_much
                return event
        return self._too_much() if self._size > self._patience else None

    def _permitted(self, data: bytes) -> Content | None:
        """The event for what the policy lets through; sees whether it refuses the rest."""
        if self._filter is not None:
            self._refusal = self._found = self._filter.refusal
        return Content(data=data) if data else None

    def _begin_filter(self) -> None:
        if self._policy is not None:
            self._filter = PolicyFilter(self._policy)

    @property
    def _is_binary(self) -> bool:
        """Whether the content is no text, but any octets (RFC 3030 3)."""
        return self.mail is not None and self.mail.parameters.body is Body.BINARYMIME

    @property
    def _patience(self) -> int:
        """How many octets of a content are read when it is refused."""
        return self._most + self._parser.limits.discard

    def _too_much(self) -> Fault:
        self._decoder = None
        self._chunk = None
        self._flow = None
        fault = Fault(line=b"", reply=_TOO_MUCH, fatal=True)
        self._owed = fault
        return fault

    def _refuse_size(self) -> None:
        if self._refusal is None:
            text = f"message size exceeds {self._most} octets"
            self._refusal = self._found = Reply(552, text, enhanced="5.3.4")

    def _end_of_content(self, verb: Verb) -> EndOfContent:
        recipients = self._recipients
        self._answers = dict.fromkeys(recipients)
        event = EndOfContent(recipients=tuple(recipients), size=self._size, refusal=self._refusal)
        self.state = TRANSITIONS[self.state, verb].accepted
        self._flow = _pause
        if not recipients:
            self._settle()
        return event

    def refuse_content(self, reply: Reply) -> None:
        """Drop the rest of the content, and answer with `reply` when it is over.

        The answer is for the chunk, or for every recipient, and is sent by the caller as always.
        Raises LocalProtocolError when no content is flowing or `reply` is positive.
        """
        if self._flow not in (self._content_by_dot, self._content_by_chunk, self._end_by_dot):
            raise LocalProtocolError("refuse_content() while no content flows")
        if reply.accepted:
            raise LocalProtocolError(f"{reply} does not refuse")
        # Whatever the pieces are: what the caller judges stood in front of what was found.
        if self._refusal is self._found:
            self._refusal = reply

    @property
    def refusal(self) -> Reply | None:
        """Why the content of this transaction is refused, None while it is not."""
        return self._refusal

    def send(self, answer: Reply | RecipientReply | RemainingReply) -> bytes:
        """Answer what is owed; the octets to write now, perhaps none.

        Replies to recipients may come in any order and leave in RCPT order. Raises
        LocalProtocolError, and changes nothing, for an answer that nothing asked for, a second one,
        or one whose code does not fit.
        """
        if not isinstance(answer, Reply):
            return self._answer_recipients(answer)
        owed = self._owed
        if owed is None:
            raise LocalProtocolError("no reply is owed")
        code = answer.code
        if isinstance(owed, Fault):
            if code < 400:
                raise LocalProtocolError(f"{answer} for a fault")
            self._owed = None
            if owed.fatal or code == 421:
                self._shut()
            return answer.wire
        if code != _REPLY_CODE.get(owed, 250):
            _check_code(owed, answer)
        event = self._owed_event
        if self._refusal is not None and code < 400 and isinstance(event, EndOfChunk):
            raise LocalProtocolError(f"{answer} for a chunk that is refused: {self._refusal}")
        self._owed = None
        self._owed_event = None
        step = self._step
        if code < 400:
            state = step.accepted
            if isinstance(event, Rcpt):
                self._recipients.append(event.recipient)
            elif isinstance(event, Mail):
                self.mail = event
                self._transactions += 1
            elif step.challenged is not None:
                self._authenticated = code != 334
                if code == 334:
                    state = step.challenged
        elif code == 421:
            self._shut()
            return answer.wire
        else:
            state = step.refused
        if state in _PLAIN:
            self.state = state
        else:
            self._enter(state)
        return answer.wire

    def _answer_recipients(self, answer: RecipientReply | RemainingReply) -> bytes:
        if self.state is not _STATUS:
            raise LocalProtocolError("recipients are answered after the end of the content")
        reply = answer.reply
        code = reply.code
        if code < 250 or 300 <= code < 400:
            raise LocalProtocolError(f"{code} is no final reply to a recipient")
        if code < 400 and self._refusal is not None:
            raise LocalProtocolError(f"{reply} for content that is refused: {self._refusal}")
        wire = reply.wire
        if isinstance(answer, RecipientReply):
            recipient = answer.recipient
            if recipient not in self._answers:
                raise LocalProtocolError(f"{recipient} is no recipient of this message")
            if self._answers[recipient] is not None:
                raise LocalProtocolError(f"{recipient} has its reply already")
            self._answers[recipient] = wire
        else:
            for recipient in self.unanswered:
                self._answers[recipient] = wire
        if code == 421:
            self._ending = True
        return self._ready_answers()

    def _ready_answers(self) -> bytes:
        """The answers whose turn has come, in RCPT order."""
        ready = []
        recipients = self._recipients
        for index in range(self._told, len(recipients)):
            wire = self._answers[recipients[index]]
            if wire is None:
                break
            ready.append(wire)
        self._told += len(ready)
        if self._told == len(recipients):
            self._settle()
        return b"".join(ready)

    def _enter(self, state: State) -> None:
        if state is self.state and state is not _READY:
            return
        self.state = state
        if state is _READY or state is _GREETED:
            self._flow = None
            if state is _GREETED:
                # RFC 3207 4.2 and XCLIENT: nothing the client has said before counts.
                self._authenticated = False
            if self.mail is not None:
                self._forget_transaction()
        elif state is _DATA:
            self._decoder = DotDecoder()
            self._begin_filter()
            self._flow = self._content_by_dot
        elif state is State.EXCHANGE:
            self._flow = self._read_response
        elif state is _TLS:
            # RFC 3207 4.2 and CVE-2011-0411: what was sent in the clear behind STARTTLS may be
            # another's; it is never executed.
            self._input.drop()
            self._flow = _pause
        else:
            self._shut()

    def _settle(self) -> None:
        self._enter(TRANSITIONS[self.state, _SETTLED].accepted)
        if self._ending:
            self._shut()

    def _forget_transaction(self) -> None:
        self.mail = None
        self._recipients = []
        self._filter = None
        self._size = 0
        self._refusal = None
        self._found = None
        self._answers = _NO_ANSWERS
        self._told = 0

    def _shut(self) -> None:
        self.state = _CLOSED
        self._decoder = None
        self._chunk = None
        self._input.drop()
        self._flow = self._end

    def shut_down(self, reply: Reply) -> bytes:
        """End the session at this place with a 421 `reply` (RFC 5321 3.8).

        It takes the place of the next reply, whatever that is; of the recipients that are owed one,
        each gets what is known, or this. Raises LocalProtocolError for another code.
        """
        if reply.code != 421:
            raise LocalProtocolError(f"a session is shut down with 421, not {reply.code}")
        if self.state is _CLOSED:
            return b""
        octets = reply.wire
        if self.state is _STATUS:
            owed = self._recipients[self._told :]
            octets = b"".join(self._answers[recipient] or octets for recipient in owed)
        self._owed = None
        self._owed_event = None
        self._shut()
        return octets

    def tls_established(self) -> None:
        """The handshake behind STARTTLS is done: both sides begin anew (RFC 3207 4.2).

        Raises LocalProtocolError when no handshake was awaited.
        """
        if self.state is not _TLS:
            raise LocalProtocolError("no TLS handshake was awaited")
        self._tls = True
        self._input.drop()
        self._enter(TRANSITIONS[self.state, Verb.SECURED].accepted)


def _pause() -> Signal:
    """Read nothing: an answer or the handshake is awaited, or nothing comes any more."""
    return PAUSED


_NO_ANSWERS: Final[dict[Recipient, bytes | None]] = {}

_REPLY_CODE: Final = {
    Verb.CONNECT: 220,
    Verb.DATA: 354,
    Verb.STARTTLS: 220,
    Verb.XCLIENT: 220,
    Verb.AUTH: 235,
    Verb.RESPONSE: 235,
    Verb.QUIT: 221,
}


def _check_code(verb: Verb, reply: Reply) -> None:
    """Raise LocalProtocolError for a positive code that means something else after `verb`."""
    if not reply.accepted:
        return
    if verb is Verb.AUTH or verb is Verb.RESPONSE:
        if reply.code not in (235, 334):
            raise LocalProtocolError(f"{reply.code} does not answer AUTH; 235 and 334 do")
        return
    wanted = _REPLY_CODE.get(verb)
    if wanted is None:
        if reply.code >= 300 or reply.code in (220, 221):
            raise LocalProtocolError(f"{reply.code} does not answer {verb.value}")
    else:
        raise LocalProtocolError(f"{reply.code} does not answer {verb.value}; {wanted} does")
