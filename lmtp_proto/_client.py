"""The client role: commands out, replies in, matched in order; octets only.

The client walks the table of the server twice. `state` follows the replies that have come; a second
cursor runs ahead as if all commands in flight will be accepted, and decides what may be said. When
a refusal parts the two, the second one is set anew.
"""

import re
from collections import deque
from dataclasses import dataclass
from typing import Final

from ._buffer import InputBuffer, LineFault
from ._command import encode_command
from ._content import DotEncoder
from ._errors import LocalProtocolError, RemoteProtocolError
from ._events import (
    NEED_DATA,
    Bdat,
    Command,
    ConnectionClosed,
    Data,
    Help,
    Lhlo,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Recipient,
    Rset,
    Signal,
    StartTls,
    Vrfy,
)
from ._limits import Limits
from ._reply import Reply, ReplyReader
from ._state import TRANSITIONS, State, Verb

_VERBS: Final[dict[type[Command], Verb]] = {
    Lhlo: Verb.LHLO,
    Mail: Verb.MAIL,
    Rcpt: Verb.RCPT,
    Data: Verb.DATA,
    Bdat: Verb.BDAT,
    Rset: Verb.RSET,
    Noop: Verb.NOOP,
    Vrfy: Verb.VRFY,
    Help: Verb.HELP,
    Quit: Verb.QUIT,
    StartTls: Verb.STARTTLS,
}
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Replied:
    """The server's reply to a command; None is the greeting, or a 421 out of turn."""

    command: Command | None
    reply: Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientReplied:
    """The server's final word on one recipient."""

    recipient: Recipient
    reply: Reply


ClientEvent = Replied | RecipientReplied | ConnectionClosed


class ClientConnection:
    """The client's side of one connection, without any I/O.

    Write what `send()` and `send_content()` return, give what was read to `receive_data()`, take
    `next_event()` until it says NEED_DATA. The first event is the greeting.
    """

    __slots__ = (
        "_accepted",
        "_ahead",
        "_chunk_left",
        "_closed",
        "_encoder",
        "_eof",
        "_in_flight",
        "_input",
        "_limits",
        "_owed",
        "_reader",
        "keywords",
        "state",
    )

    def __init__(self, *, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._input = InputBuffer()
        self._reader = ReplyReader(self._limits.reply)
        self._eof = False
        self._closed = False
        self.state = State.CONNECTED
        """Where the replies so far have led; read-only."""
        self.keywords: dict[str, str] = {}
        """What the LHLO reply offered: keyword in upper case to its parameters; read-only."""
        self._ahead = State.CONNECTED
        self._in_flight: deque[tuple[Verb, Command | None]] = deque([(Verb.CONNECT, None)])
        # Recipients the server has accepted, and those whose final reply has not come.
        self._accepted: list[Recipient] = []
        self._owed: deque[Recipient] = deque()
        self._encoder: DotEncoder | None = None
        # Octets of the announced chunk that are not sent yet.
        self._chunk_left = 0

    @property
    def in_flight(self) -> int:
        """How many commands have no reply yet, the greeting included."""
        return len(self._in_flight)

    @property
    def accepted(self) -> list[Recipient]:
        """The recipients of the transaction that the server has accepted, in RCPT order."""
        return list(self._accepted)

    @property
    def owed(self) -> list[Recipient]:
        """After the content: the recipients whose final reply has not come, in RCPT order."""
        return list(self._owed)

    def send(self, command: Command) -> bytes:
        """Say `command`: the octets to write.

        Raises LocalProtocolError, and changes nothing, for a command that cannot follow what has
        been said, for a second command in flight when the server does not offer PIPELINING, and
        for text that would break the line or needs an extension the server does not offer.
        """
        verb = _VERBS[type(command)]
        if isinstance(command, Bdat):
            if "CHUNKING" not in self.keywords:
                raise LocalProtocolError("the server does not offer CHUNKING (RFC 3030 2)")
            if command.last:
                verb = Verb.BDAT_LAST
        step = TRANSITIONS.get((self._ahead, verb))
        if step is None or self._chunk_left:
            raise LocalProtocolError(f"{verb.value} cannot be said when {self._ahead.value}")
        if self._in_flight and "PIPELINING" not in self.keywords:
            raise LocalProtocolError("the server does not offer PIPELINING (RFC 2920 3.1)")
        octets = encode_command(command)
        if _CONTROL.search(octets, 0, len(octets) - 2):
            raise LocalProtocolError(f"{verb.value} has a control character in its text")
        if not octets.isascii():
            raise LocalProtocolError(f"{verb.value} is not ASCII and needs SMTPUTF8 (RFC 6531 3.1)")
        self._ahead = step.accepted
        self._in_flight.append((verb, command))
        if isinstance(command, Bdat):
            self._chunk_left = command.size
        return octets

    def send_content(self, data: bytes) -> bytes:
        """The octets to write for the next `data` of the content.

        Behind DATA the dots are stuffed. Behind BDAT the octets go as they are. Raises
        LocalProtocolError before 354 has come, or for more than the chunk has room for.
        """
        if self._encoder is not None:
            return self._encoder.encode(data)
        if len(data) > self._chunk_left:
            raise LocalProtocolError(f"{len(data)} octets, {self._chunk_left} are awaited")
        self._chunk_left -= len(data)
        return data

    def end_content(self) -> bytes:
        """The octets that end the content behind DATA.

        A content that does not end in CRLF gets one: the dot stands on a line of its own. Raises
        LocalProtocolError when no content flows.
        """
        if self._encoder is None:
            raise LocalProtocolError("no content flows behind DATA")
        octets = self._encoder.finish()
        self._encoder = None
        self.state = self._ahead = TRANSITIONS[self.state, Verb.END].accepted
        self._owed.extend(self._accepted)
        return octets

    def receive_data(self, data: bytes) -> None:
        """Keep octets that were read; `next_event()` looks at them."""
        if self._eof:
            raise LocalProtocolError("receive_data() after receive_eof()")
        if data:
            self._input.feed(data)

    def receive_eof(self) -> None:
        """The server sends no more."""
        self._eof = True

    def next_event(self) -> ClientEvent | Signal:
        """The next event, NEED_DATA when more octets are needed.

        Raises RemoteProtocolError for what is no reply or answers nothing; the connection is of
        no more use then.
        """
        while not self._closed:
            # Lines beyond RFC 5321 4.5.3.1.5 are seen: only the whole reply is bounded.
            line = self._input.next_line(self._limits.reply)
            if isinstance(line, LineFault):
                raise RemoteProtocolError(f"in a reply: {line.value}")
            if line is None:
                if not self._eof:
                    return NEED_DATA
                self._closed = True
                self.state = self._ahead = State.CLOSED
                return ConnectionClosed(mid_transaction=bool(self._in_flight or self._owed))
            reply = self._reader.add(line)
            if reply is not None:
                return self._match(reply)
        return NEED_DATA

    def _match(self, reply: Reply) -> ClientEvent:
        if self._owed:
            recipient = self._owed.popleft()
            if reply.code < 250 or 300 <= reply.code < 400:
                raise RemoteProtocolError(f"{reply} is no final reply to a recipient")
            if not self._owed:
                self._settle()
            return RecipientReplied(recipient=recipient, reply=reply)
        if not self._in_flight:
            if reply.code == 421:
                # RFC 5321 3.8: a server that ends may say so at any time.
                self.state = self._ahead = State.CLOSED
                return Replied(command=None, reply=reply)
            raise RemoteProtocolError(f"{reply} answers nothing")
        verb, command = self._in_flight.popleft()
        step = TRANSITIONS.get((self.state, verb))
        if verb is Verb.BDAT_LAST and step is not None and reply.code != 421:
            # RFC 2033 4.3: not one reply, but one for each accepted recipient.
            self.state = step.accepted
            self._owed.extend(self._accepted)
            return self._match(reply)
        self._move(verb, command, reply)
        self._pass_unanswered()
        return Replied(command=command, reply=reply)

    def _pass_unanswered(self) -> None:
        """A last chunk that no accepted recipient waits for has no reply (RFC 2033 4.3)."""
        while self.state is State.MAIL and self._in_flight:
            verb, _ = self._in_flight[0]
            if verb is not Verb.BDAT_LAST:
                break
            self._in_flight.popleft()
            self._enter(TRANSITIONS[self.state, verb].accepted)
            self._enter(TRANSITIONS[self.state, Verb.SETTLED].accepted)
            self._look_ahead()

    def _move(self, verb: Verb, command: Command | None, reply: Reply) -> None:
        if reply.code == 421:
            self.state = self._ahead = State.CLOSED
            return
        step = TRANSITIONS.get((self.state, verb))
        if step is None:
            # A command before it was refused, so this one had to be.
            if reply.accepted:
                raise RemoteProtocolError(f"{reply} accepts {verb.value} when {self.state.value}")
            return
        if not reply.accepted:
            self._enter(step.refused)
            self._look_ahead()
            return
        if (reply.code == 354) != (verb is Verb.DATA):
            raise RemoteProtocolError(f"{reply} does not answer {verb.value}")
        if isinstance(command, Rcpt):
            self._accepted.append(command.recipient)
        elif verb is Verb.LHLO:
            self._learn(reply)
        elif verb is Verb.DATA:
            if not self._accepted:
                # RFC 2033 4.2: the reply must be 503.
                raise RemoteProtocolError(f"{reply} although no recipient was accepted")
            self._encoder = DotEncoder()
        self._enter(step.accepted)
        if verb is Verb.CONNECT:
            self._ahead = self.state

    def _look_ahead(self) -> None:
        """Set the cursor that runs ahead anew, from where the replies have led."""
        state = self.state
        for verb, _ in self._in_flight:
            step = TRANSITIONS.get((state, verb))
            if step is not None:
                state = step.accepted
        self._ahead = state

    def _enter(self, state: State) -> None:
        self.state = state
        if state is State.READY or state is State.GREETED:
            self._accepted = []

    def _settle(self) -> None:
        self._enter(TRANSITIONS[self.state, Verb.SETTLED].accepted)
        self._ahead = self.state

    def _learn(self, reply: Reply) -> None:
        """Keep what the LHLO reply offers (RFC 5321 4.1.1.1)."""
        self.keywords = {}
        for line in reply.lines[1:]:
            keyword, _, parameters = line.partition(" ")
            self.keywords[keyword.upper()] = parameters

    def tls_established(self) -> None:
        """The handshake behind STARTTLS is done: both sides begin anew (RFC 3207 4.2).

        Raises LocalProtocolError when no handshake was awaited, RemoteProtocolError when the
        server had sent something behind its 220: it may be another's.
        """
        if self.state is not State.TLS:
            raise LocalProtocolError("no TLS handshake was awaited")
        if self._input.drop():
            raise RemoteProtocolError("the server sent octets in the clear before the handshake")
        self.keywords = {}
        self._enter(TRANSITIONS[self.state, Verb.SECURED].accepted)
        self._ahead = self.state
