"""The server role: octets in, events out, replies back, octets out.

The number of replies belongs to this machine: one for each command, one for each accepted
recipient after the content, in RCPT order. A caller cannot send one too few or too many.
"""

from collections.abc import Sequence
from typing import Final

from ._buffer import InputBuffer, LineFault
from ._command import CommandError, CommandParser
from ._content import DotDecoder
from ._errors import LocalProtocolError
from ._events import (
    NEED_DATA,
    PAUSED,
    Bdat,
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
from ._limits import Limits
from ._parameters import STANDARD_EXTENSIONS, Extension
from ._reply import Reply
from ._state import TRANSITIONS, State, Verb

_LINE_FAULTS: Final = {
    LineFault.TOO_LONG: Reply(500, "line too long", enhanced="5.5.2"),
    LineFault.BARE_LF: Reply(500, "bare LF: a line ends with CRLF", enhanced="5.5.2"),
}
_SEQUENCE: Final = {
    State.GREETED: Reply(503, "LHLO first", enhanced="5.5.1"),
    State.READY: Reply(503, "MAIL first", enhanced="5.5.1"),
    State.CHUNK: Reply(503, "BDAT or RSET is awaited", enhanced="5.5.1"),
    State.BROKEN: Reply(503, "a chunk was refused: RSET first", enhanced="5.5.1"),
}
_NESTED_MAIL: Final = Reply(503, "a transaction is open", enhanced="5.5.1")
# RFC 2033 4.2: not the 554 of SMTP.
_NO_RECIPIENTS: Final = Reply(503, "no valid recipients", enhanced="5.5.1")
_UNDER_TLS: Final = Reply(503, "TLS is active", enhanced="5.5.1")
# RFC 5321 4.5.3.1.10.
_TOO_MANY_RECIPIENTS: Final = Reply(452, "too many recipients", enhanced="4.5.3")
_TOO_MUCH: Final = Reply(421, "too much refused content", enhanced="4.7.0")


class ServerConnection:
    """The server's side of one connection, without any I/O.

    Give it what was read with `receive_data()`, take `next_event()` until it says NEED_DATA, and
    write what `send()` returns. The first thing to send is the greeting.
    """

    __slots__ = (
        "_answers",
        "_chunk",
        "_chunk_left",
        "_closed",
        "_decoder",
        "_discarded",
        "_dot_read",
        "_eof",
        "_fault_owed",
        "_input",
        "_owed",
        "_owed_event",
        "_parser",
        "_refusal",
        "_size",
        "_skip",
        "_tls",
        "_told",
        "mail",
        "recipients",
        "state",
    )

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        extensions: frozenset[Extension] = STANDARD_EXTENSIONS,
        parser: CommandParser | None = None,
    ) -> None:
        """`parser` may be shared by all connections that have the same limits and extensions."""
        self._parser = parser or CommandParser(limits or Limits(), extensions)
        self._input = InputBuffer()
        self._eof = False
        self._closed = False
        self._tls = False
        self.state = State.CONNECTED
        """Where the session stands; read-only."""
        self.mail: Mail | None = None
        """The MAIL command of the transaction, None outside of one; read-only."""
        self.recipients: list[Recipient] = []
        """The accepted recipients in RCPT order; read-only."""
        # The verb whose reply is owed, and its event.
        self._owed: Verb | None = Verb.CONNECT
        self._owed_event: ServerEvent | None = None
        self._fault_owed: Fault | None = None
        # Octets to drop before the next line: those of a BDAT that was refused by its line.
        self._skip = 0
        self._chunk: Bdat | None = None
        self._chunk_left = 0
        self._decoder: DotDecoder | None = None
        # The dot has come, its end of content is not told yet.
        self._dot_read = False
        self._size = 0
        self._discarded = 0
        self._refusal: Reply | None = None
        # Of state STATUS: what each recipient is told, and how many have been told.
        self._answers: dict[Recipient, bytes | None] = {}
        self._told = 0

    @property
    def limits(self) -> Limits:
        """The limits this connection keeps."""
        return self._parser.limits

    @property
    def unanswered(self) -> Sequence[Recipient]:
        """In state STATUS: the recipients that have no final reply yet, in RCPT order."""
        if self.state is not State.STATUS:
            return ()
        return [recipient for recipient, wire in self._answers.items() if wire is None]

    @property
    def content_flows(self) -> bool:
        """Whether the next octets are content."""
        return self._decoder is not None or self._chunk is not None

    def keywords(self) -> list[str]:
        """The lines of the LHLO reply behind the host name (RFC 5321 4.1.1.1)."""
        lines = []
        for extension in Extension:
            if extension not in self._parser.extensions:
                continue
            if extension is Extension.SIZE:
                lines.append(f"SIZE {self.limits.message_size}")
            # RFC 3207 4.2: not under TLS.
            elif extension is not Extension.STARTTLS or not self._tls:
                lines.append(extension.value)
        return lines

    def receive_data(self, data: bytes) -> None:
        """Keep octets that were read; `next_event()` looks at them."""
        if self._eof:
            raise LocalProtocolError("receive_data() after receive_eof()")
        # What comes behind QUIT or a 421 is not executed (RFC 5321 4.1.1.10).
        if data and self.state is not State.CLOSED:
            self._input.feed(data)

    def receive_eof(self) -> None:
        """The peer sends no more. What it sent before is still served."""
        self._eof = True

    def next_event(self) -> ServerEvent | Signal:
        """The next event; NEED_DATA when more octets are needed, PAUSED while an answer is owed."""
        if self._owed is not None or self._fault_owed is not None:
            return PAUSED
        while self._skip:
            dropped = len(self._input.take(self._skip))
            if not dropped:
                return self._wait()
            self._skip -= dropped
        if self._decoder is not None:
            return self._content_by_dot(self._decoder)
        if self._dot_read:
            return self._end_of_content(Verb.END)
        if self._chunk is not None:
            return self._content_by_chunk(self._chunk)
        if self.state is State.CLOSED:
            return self._end()
        if self.state is State.STATUS or self.state is State.TLS:
            return PAUSED
        line = self._input.next_line(self.limits.command_line)
        if line is None:
            return self._wait()
        if isinstance(line, LineFault):
            return self._fault(b"", _LINE_FAULTS[line])
        try:
            verb, command = self._parser.parse(line)
        except CommandError as error:
            return self._fault(line, error.reply, error.skip, fatal=error.fatal)
        if (self.state, verb) not in TRANSITIONS:
            skip = command.size if isinstance(command, Bdat) else 0
            return self._fault(line, self._out_of_sequence(verb), skip)
        if isinstance(command, Bdat):
            return self._begin_chunk(command)
        if verb is Verb.RCPT and len(self.recipients) >= self.limits.recipients:
            return self._fault(line, _TOO_MANY_RECIPIENTS)
        if verb is Verb.STARTTLS and self._tls:
            return self._fault(line, _UNDER_TLS)
        self._owed = verb
        self._owed_event = command
        return command

    def _wait(self) -> ServerEvent | Signal:
        """More octets are needed: do any come?"""
        return self._end() if self._eof else NEED_DATA

    def _end(self) -> ServerEvent | Signal:
        if self._closed:
            return PAUSED
        self._closed = True
        mid_transaction = self.mail is not None
        self.state = State.CLOSED
        self._forget_transaction()
        self._decoder = None
        self._chunk = None
        return ConnectionClosed(mid_transaction=mid_transaction)

    def _fault(self, line: bytes, reply: Reply, skip: int = 0, *, fatal: bool = False) -> Fault:
        if skip > self.limits.message_size + self.limits.discard:
            # RFC 3030 2 wants the octets swallowed; nobody has this much patience.
            reply, skip, fatal = _TOO_MUCH, 0, True
        self._skip = skip
        fault = Fault(line=line, reply=reply, fatal=fatal or reply.code == 421)
        self._fault_owed = fault
        return fault

    def _out_of_sequence(self, verb: Verb) -> Reply:
        if verb is Verb.MAIL and self.mail is not None:
            return _NESTED_MAIL
        if self.state is State.MAIL:
            return _NO_RECIPIENTS
        return _SEQUENCE.get(self.state, _NESTED_MAIL)

    def _content_by_dot(self, decoder: DotDecoder) -> ServerEvent | Signal:
        while True:
            data = self._input.take()
            if not data:
                return self._wait()
            content, used = decoder.decode(data)
            if used >= 0:
                self._input.put_back(data, used)
                self._decoder = None
                self._dot_read = True
            event = self._content(content)
            if event is not None:
                return event
            if self._dot_read:
                return self._end_of_content(Verb.END)

    def _begin_chunk(self, command: Bdat) -> ServerEvent:
        self._chunk = command
        self._chunk_left = command.size
        too_big = self._size + command.size > self.limits.message_size
        if too_big and self._refusal is None:
            self._refuse_size()
        if self.state is State.MAIL:
            # No recipient: the octets are dropped and nobody is told (RFC 2033 4.3).
            self._refusal = _NO_RECIPIENTS
        if self._refusal is not None and (
            self._discarded + command.size > self.limits.message_size + self.limits.discard
        ):
            self._chunk = None
            self._fault_owed = Fault(line=b"BDAT", reply=_TOO_MUCH, fatal=True)
            return self._fault_owed
        return command

    def _content_by_chunk(self, chunk: Bdat) -> ServerEvent | Signal:
        while self._chunk_left:
            data = self._input.take(self._chunk_left)
            if not data:
                return self._wait()
            self._chunk_left -= len(data)
            event = self._content(data)
            if event is not None:
                return event
        self._chunk = None
        if chunk.last:
            return self._end_of_content(Verb.BDAT_LAST)
        self._owed = Verb.BDAT
        self._owed_event = EndOfChunk(size=chunk.size)
        return self._owed_event

    def _content(self, data: bytes) -> Content | Fault | None:
        """Count content; the event it makes, or None when there is nothing to tell."""
        if not data:
            return None
        self._size += len(data)
        if self._refusal is None:
            if self._size <= self.limits.message_size:
                return Content(data=data)
            # RFC 1870 6.3: it is read to its end and refused then.
            self._refuse_size()
        self._discarded += len(data)
        if self._discarded > self.limits.message_size + self.limits.discard:
            self._decoder = None
            self._chunk = None
            self._fault_owed = Fault(line=b"", reply=_TOO_MUCH, fatal=True)
            return self._fault_owed
        return None

    def _refuse_size(self) -> None:
        most = self.limits.message_size
        self._refusal = Reply(552, f"message size exceeds {most} octets", enhanced="5.3.4")

    def _end_of_content(self, verb: Verb) -> EndOfContent:
        self._dot_read = False
        self.state = TRANSITIONS[self.state, verb].accepted
        self._answers = dict.fromkeys(self.recipients)
        event = EndOfContent(
            recipients=tuple(self.recipients), size=self._size, refusal=self._refusal
        )
        if not self.recipients:
            self._settle()
        return event

    def refuse_content(self, reply: Reply) -> None:
        """Drop the rest of the content, and answer with `reply` when it is over.

        The answer is for the chunk, or for every recipient, and is sent by the caller as always.
        Raises LocalProtocolError when no content is flowing or `reply` is positive.
        """
        if self._decoder is None and self._chunk is None and not self._dot_read:
            raise LocalProtocolError("refuse_content() while no content flows")
        if reply.accepted:
            raise LocalProtocolError(f"{reply} does not refuse")
        if self._refusal is None:
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
        if isinstance(answer, Reply):
            return self._answer_command(answer)
        if self.state is not State.STATUS:
            raise LocalProtocolError("recipients are answered after the end of the content")
        _check_final(answer.reply)
        wire = answer.reply.wire
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
        return self._ready_answers()

    def _ready_answers(self) -> bytes:
        """The answers whose turn has come, in RCPT order."""
        ready = []
        for index in range(self._told, len(self.recipients)):
            wire = self._answers[self.recipients[index]]
            if wire is None:
                break
            ready.append(wire)
        self._told += len(ready)
        if self._told == len(self.recipients):
            self._settle()
        return b"".join(ready)

    def _answer_command(self, reply: Reply) -> bytes:
        fault = self._fault_owed
        if fault is not None:
            if reply.accepted:
                raise LocalProtocolError(f"{reply} for a fault")
            self._fault_owed = None
            if fault.fatal or reply.code == 421:
                self._shut()
            return reply.wire
        verb = self._owed
        if verb is None:
            raise LocalProtocolError("no reply is owed")
        _check_code(verb, reply)
        self._owed = None
        step = TRANSITIONS[self.state, verb]
        event = self._owed_event
        self._owed_event = None
        if not reply.accepted:
            if reply.code == 421:
                self._shut()
            else:
                self._enter(step.refused)
            return reply.wire
        if isinstance(event, Mail):
            self.mail = event
        elif isinstance(event, Rcpt):
            self.recipients.append(event.recipient)
        self._enter(step.accepted)
        return reply.wire

    def _enter(self, state: State) -> None:
        self.state = state
        if state is State.READY or state is State.GREETED:
            if self.mail is not None:
                self._forget_transaction()
        elif state is State.DATA:
            self._decoder = DotDecoder()
        elif state is State.CLOSED:
            self._shut()
        elif state is State.TLS:
            # RFC 3207 4.2 and CVE-2011-0411: what was sent in the clear behind STARTTLS may be
            # another's; it is never executed.
            self._input.drop()

    def _settle(self) -> None:
        self._enter(TRANSITIONS[self.state, Verb.SETTLED].accepted)

    def _forget_transaction(self) -> None:
        self.mail = None
        self.recipients = []
        self._size = 0
        self._discarded = 0
        self._refusal = None
        self._answers = {}
        self._told = 0

    def _shut(self) -> None:
        self.state = State.CLOSED
        self._input.drop()
        self._skip = 0

    def shut_down(self, reply: Reply) -> bytes:
        """End the session at this place with a 421 `reply` (RFC 5321 3.8).

        It takes the place of the next reply, whatever that is; recipients that are owed one each
        get this one. Raises LocalProtocolError for another code.
        """
        if reply.code != 421:
            raise LocalProtocolError(f"a session is shut down with 421, not {reply.code}")
        if self.state is State.CLOSED:
            return b""
        self._owed = None
        self._owed_event = None
        self._fault_owed = None
        self._decoder = None
        self._chunk = None
        self._dot_read = False
        self._shut()
        return reply.wire

    def tls_established(self) -> None:
        """The handshake behind STARTTLS is done: both sides begin anew (RFC 3207 4.2).

        Raises LocalProtocolError when no handshake was awaited.
        """
        if self.state is not State.TLS:
            raise LocalProtocolError("no TLS handshake was awaited")
        self._tls = True
        self._enter(TRANSITIONS[self.state, Verb.SECURED].accepted)


_REPLY_CODE: Final = {
    Verb.CONNECT: 220,
    Verb.DATA: 354,
    Verb.STARTTLS: 220,
    Verb.QUIT: 221,
}


def _check_code(verb: Verb, reply: Reply) -> None:
    """Raise LocalProtocolError for a positive code that means something else after `verb`."""
    if not reply.accepted:
        return
    wanted = _REPLY_CODE.get(verb)
    if wanted is None:
        if reply.code >= 300 or reply.code in (220, 221):
            raise LocalProtocolError(f"{reply.code} does not answer {verb.value}")
    elif reply.code != wanted:
        raise LocalProtocolError(f"{reply.code} does not answer {verb.value}; {wanted} does")


def _check_final(reply: Reply) -> None:
    """Raise LocalProtocolError for a code that is no final word on a recipient."""
    if not (250 <= reply.code < 300 or reply.code >= 400):
        raise LocalProtocolError(f"{reply.code} is no final reply to a recipient")
