"""The client role: commands out, replies in, matched in order; octets only.

The client walks the table of the server twice. `state` follows the replies that have come; a second
cursor runs ahead as if all commands in flight will be accepted, and decides what may be said. When
a refusal parts the two, the second one is set anew.

How many replies follow a content is decided in one place, `_await_finals()` and `_final()`: one
for each accepted recipient in LMTP, one for all of them in SMTP.
"""

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from ._buffer import InputBuffer, LineFault
from ._command import encode_command
from ._content import DotEncoder
from ._errors import LocalProtocolError, RemoteProtocolError
from ._events import (
    NEED_DATA,
    Auth,
    AuthResponse,
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
    XClient,
    XForward,
)
from ._limits import Limits
from ._parameters import NO_MAIL_PARAMETERS, NO_RCPT_PARAMETERS, Body
from ._policy import OUTGOING_CONTENT, ContentPolicy, PolicyFilter
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
    Auth: Verb.AUTH,
    AuthResponse: Verb.RESPONSE,
    XClient: Verb.XCLIENT,
    XForward: Verb.XFORWARD,
}
# Commands of an extension, by the keyword that offers it.
_OFFERED_BY: Final = {
    Verb.BDAT: "CHUNKING",
    Verb.BDAT_LAST: "CHUNKING",
    Verb.STARTTLS: "STARTTLS",
    Verb.AUTH: "AUTH",
    Verb.XCLIENT: "XCLIENT",
    Verb.XFORWARD: "XFORWARD",
}
# Parameters whose keyword is not that of the extension which defines them.
_DEFINED_BY: Final = {
    "BODY": "8BITMIME",
    "BODY=BINARYMIME": "BINARYMIME",
    "RET": "DSN",
    "ENVID": "DSN",
    "NOTIFY": "DSN",
    "ORCPT": "DSN",
    "BY": "DELIVERBY",
    "HOLDFOR": "FUTURERELEASE",
    "HOLDUNTIL": "FUTURERELEASE",
}
# RFC 2920 3.1, RFC 4954 4: what comes next depends on the reply to these.
_LAST_IN_GROUP: Final = frozenset({Verb.LHLO, Verb.AUTH, Verb.RESPONSE, Verb.XCLIENT})
# Positive codes that mean something of their own (RFC 5321 4.2.3): as an answer to anything else
# they show that the two sides are out of step. Of all others the first digit decides (4.2.1).
_OWN_MEANING: Final = {
    220: frozenset({Verb.CONNECT, Verb.STARTTLS, Verb.XCLIENT}),
    221: frozenset({Verb.QUIT}),
    235: frozenset({Verb.AUTH, Verb.RESPONSE}),
}
# RFC 2920 3.1: an SMTP server may answer DATA with 354 although it has refused all recipients.
_DATA_FOR_NOBODY: Final = TRANSITIONS[State.RCPT, Verb.DATA]._replace(refused=State.MAIL)
_SMTP_ANSWERED: Final = {**TRANSITIONS, (State.MAIL, Verb.DATA): _DATA_FOR_NOBODY}
# RFC 3030 2: in SMTP the last chunk has a reply for nobody too, and that is 503.
del _SMTP_ANSWERED[State.MAIL, Verb.BDAT_LAST]
# A chunk that nobody is to have is not said.
_SAID: Final = dict(TRANSITIONS)
del _SAID[State.MAIL, Verb.BDAT]
_SMTP_SAID: Final = {cell: step for cell, step in _SAID.items() if cell in _SMTP_ANSWERED}
# Looking a member up in its class costs more than a dictionary: the hot path has its own names.
_READY: Final = State.READY
_GREETED: Final = State.GREETED
_MAIL: Final = State.MAIL
_DATA: Final = Verb.DATA
_END: Final = Verb.END
_BDAT_LAST: Final = Verb.BDAT_LAST
# C0 and C1 control characters, the latter as UTF-8 has them.
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]|\xc2[\x80-\x9f]")


class Dialect(Enum):
    """What the server speaks; the value is the verb that opens the session."""

    LMTP = "LHLO"
    """RFC 2033: behind the content comes a reply for each accepted recipient."""
    SMTP = "EHLO"
    """RFC 5321: one reply for all of them. A server that refuses EHLO with 5xx is told HELO."""


@dataclass(slots=True, init=False, unsafe_hash=True, kw_only=True)
class Replied:
    """The server's reply to a command.

    `command` is None for the greeting, for a 421 out of turn, and for the reply to a content that
    nobody was to have (SMTP).
    """

    command: Final[Command | None]
    reply: Final[Reply]

    def __init__(self, *, command: Command | None, reply: Reply) -> None:
        self.command = command
        self.reply = reply


@dataclass(slots=True, init=False, unsafe_hash=True, kw_only=True)
class RecipientReplied:
    """The server's final word on one recipient."""

    recipient: Final[Recipient]
    reply: Final[Reply]

    def __init__(self, *, recipient: Recipient, reply: Reply) -> None:
        self.recipient = recipient
        self.reply = reply


ClientEvent = Replied | RecipientReplied | ConnectionClosed


class ClientConnection:
    """The client's side of one connection, without any I/O.

    Write what `send()` and `send_content()` return, give what was read to `receive_data()`, take
    `next_event()` until it says NEED_DATA. The first event is the greeting.
    """

    __slots__ = (
        "_accepted",
        "_ahead",
        "_amid_reply",
        "_answered",
        "_binary",
        "_checker",
        "_checks",
        "_chunk_last",
        "_chunk_left",
        "_closed",
        "_dialect",
        "_encoder",
        "_ending",
        "_eof",
        "_filter",
        "_hello",
        "_in_flight",
        "_input",
        "_limits",
        "_owed",
        "_policy",
        "_reader",
        "_said",
        "_shared",
        "_utf8",
        "keywords",
        "state",
    )

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        dialect: Dialect = Dialect.LMTP,
        content_policy: ContentPolicy = OUTGOING_CONTENT,
    ) -> None:
        """`content_policy` is for what `send_content()` is given, unless BODY=BINARYMIME.

        By default no bare CR and no bare LF is sent (RFC 5321 2.3.8): bare LF becomes CRLF, bare CR
        a space. Behind BDAT nothing can be replaced, since the size has been said: what would be is
        refused.
        """
        self._policy = content_policy
        self._checks = not content_policy.keeps_all
        self._limits = limits or Limits()
        self._dialect = dialect
        # The table as the dialect has it: of what can be said, and of what has been said when it is
        # answered.
        self._said, self._answered = _SAID, TRANSITIONS
        if dialect is Dialect.SMTP:
            self._said, self._answered = _SMTP_SAID, _SMTP_ANSWERED
        # What `Lhlo` is called on the wire.
        self._hello = dialect.value
        self._input = InputBuffer()
        self._reader = ReplyReader(self._limits.reply)
        # Lines of a reply have come, but not its last one.
        self._amid_reply = False
        self._eof = False
        self._closed = False
        self.state = State.CONNECTED
        """Where the replies so far have led; read-only."""
        self.keywords: dict[str, str] = {}
        """What the LHLO reply offered: keyword in upper case to its parameters; read-only."""
        self._ahead = State.CONNECTED
        self._in_flight: deque[tuple[Verb, Command | None]] = deque([(Verb.CONNECT, None)])
        # Of the transaction that was said last: SMTPUTF8, BODY=BINARYMIME.
        self._utf8 = False
        self._binary = False
        # Recipients the server has accepted, and those whose final reply has not come.
        self._accepted: list[Recipient] = []
        self._owed: deque[Recipient] = deque()
        # The one final reply of SMTP, while recipients are left that it is for.
        self._shared: Reply | None = None
        # The session is over with the last final reply.
        self._ending = False
        # What stuffs dots, and what carries out the policy in front of it.
        self._encoder: DotEncoder | None = None
        self._filter: PolicyFilter | None = None
        # What sees to the chunks of a content, once there is one.
        self._checker: PolicyFilter | None = None
        # Octets of the announced chunk that are not sent yet, and whether it ends the content.
        self._chunk_left = 0
        self._chunk_last = False

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

    def check_recipients(self, mail: Mail, recipients: Sequence[Recipient]) -> None:
        """Raise LocalProtocolError where `send()` would not take a RCPT behind `mail`.

        Only its octets are looked at, not its place in the session.
        """
        utf8 = mail.parameters.smtputf8
        for recipient in recipients:
            # An address holds no control characters.
            if recipient.parameters is not NO_RCPT_PARAMETERS or not str(recipient).isascii():
                self._encode(Rcpt(recipient=recipient), utf8=utf8)

    def send(self, command: Command) -> bytes:
        """Say `command`: the octets to write.

        Raises LocalProtocolError, and changes nothing, for a command that cannot follow what has
        been said, for a second command in flight when the server does not offer PIPELINING, and
        for text that would break the line or needs an extension the server does not offer; also
        for a last chunk of no octets behind a CR that the content policy does not permit. Raises
        RemoteProtocolError when the server has said something that answers nothing: take
        `next_event()` to NEED_DATA before a command that follows on silence.
        """
        verb = _VERBS[type(command)]
        if isinstance(command, Bdat) and command.last:
            verb = Verb.BDAT_LAST
        step = self._said.get((self._ahead, verb))
        if step is None or self._chunk_left:
            raise LocalProtocolError(f"{verb.value} cannot be said when {self._ahead.value}")
        keyword = _OFFERED_BY.get(verb)
        if keyword is not None and keyword not in self.keywords:
            raise LocalProtocolError(f"the server does not offer {keyword}: no {verb.value}")
        if verb is _DATA and self._binary:
            raise LocalProtocolError("BODY=BINARYMIME goes with BDAT alone (RFC 3030 3)")
        if self._in_flight:
            if "PIPELINING" not in self.keywords:
                raise LocalProtocolError("the server does not offer PIPELINING (RFC 2920 3.1)")
            last = self._in_flight[-1][0]
            if last in _LAST_IN_GROUP:
                raise LocalProtocolError(f"the reply to {last.value} is awaited (RFC 2920 3.1)")
        octets = self._encode(command, utf8=self._utf8)
        if not self._in_flight and not self._owed and (self._amid_reply or self._input.drop()):
            # It came before the command, so it cannot be the answer.
            self._close()
            raise RemoteProtocolError("the server said something that answers nothing")
        if isinstance(command, Mail):
            self._utf8 = command.parameters.smtputf8
            self._binary = command.parameters.body is Body.BINARYMIME
            self._checker = None
        elif isinstance(command, Bdat) and command.last and not command.size:
            self._check_chunk(b"", complete=True)
        self._ahead = step.accepted
        self._in_flight.append((verb, command))
        if isinstance(command, Bdat):
            self._chunk_left = command.size
            self._chunk_last = command.last
            self._pass_unanswered()
        return octets

    def _encode(self, command: Command, *, utf8: bool) -> bytes:
        """The octets of `command`; `utf8`: the transaction has SMTPUTF8.

        Raises LocalProtocolError for what would break the line or is not offered.
        """
        try:
            octets = encode_command(command)
        except UnicodeEncodeError:
            verb = _VERBS[type(command)].value
            raise LocalProtocolError(f"{verb} has text that is no Unicode") from None
        if _is_plain(command) and octets.isascii():
            return octets
        verb = _VERBS[type(command)].value
        match command:
            case Lhlo(domain=domain):
                if not domain or " " in domain:
                    raise LocalProtocolError(f"{domain!r} is no domain for {self._hello}")
                octets = octets.replace(b"LHLO", self._hello.encode(), 1)
            case Mail(reverse_path=path):
                self._check_parameters(octets, f"MAIL FROM:<{path or ''}>")
                utf8 = command.parameters.smtputf8
            case Rcpt(recipient=recipient):
                self._check_parameters(octets, f"RCPT TO:<{recipient}>")
            case Bdat(size=size):
                if size < 0:
                    raise LocalProtocolError(f"a chunk has no {size} octets")
        if _CONTROL.search(octets, 0, len(octets) - 2):
            raise LocalProtocolError(f"{verb} has a control character in its text")
        if not octets.isascii() and not (utf8 and isinstance(command, Mail | Rcpt)):
            raise LocalProtocolError(f"{verb} is not ASCII and needs SMTPUTF8 (RFC 6531 3.1)")
        return octets

    def _check_parameters(self, octets: bytes, before: str) -> None:
        """Raise LocalProtocolError for a parameter behind `before` that is not offered."""
        for item in octets[len(before.encode()) : -2].decode().split():
            keyword = item.partition("=")[0].upper()
            extension = _DEFINED_BY.get(item.upper()) or _DEFINED_BY.get(keyword, keyword)
            if extension not in self.keywords:
                raise LocalProtocolError(f"the server does not offer {extension}: no {keyword}")

    def send_content(self, data: bytes) -> bytes:
        """The octets to write for the next `data` of the content.

        Behind DATA the content policy is carried out and the dots are stuffed. Behind BDAT the
        octets go as they are. Raises LocalProtocolError before 354 has come, when the server has
        answered before the content was complete, for more than the chunk has room for, and for
        octets that the policy does not permit: the message cannot be completed then, and the
        connection only be closed.
        """
        if self._encoder is not None:
            if self._filter is not None:
                data = self._filter.feed(data)
                _check_policy(self._filter)
            return self._encoder.encode(data)
        if len(data) > self._chunk_left:
            raise LocalProtocolError(f"{len(data)} octets, {self._chunk_left} are awaited")
        left = self._chunk_left - len(data)
        self._check_chunk(data, complete=self._chunk_last and not left)
        self._chunk_left = left
        return data

    def _check_chunk(self, data: bytes, *, complete: bool) -> None:
        # RFC 3030 3: the content of BODY=BINARYMIME is no text.
        if self._binary or not self._checks:
            return
        checker = self._checker
        if checker is None:
            checker = self._checker = PolicyFilter(self._policy.without_changes())
        checker.feed(data)
        if complete:
            checker.finish()
        _check_policy(checker)

    def end_content(self) -> bytes:
        """The octets that end the content behind DATA.

        A content that does not end in CRLF gets one: the dot stands on a line of its own. Raises
        LocalProtocolError when no content flows, and when the content policy does not permit it.
        """
        if self._encoder is None:
            raise LocalProtocolError("no content flows behind DATA")
        octets = b""
        if self._filter is not None:
            octets = self._encoder.encode(self._filter.finish())
            _check_policy(self._filter)
        octets += self._encoder.finish()
        self._await_finals(Verb.END)
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
        try:
            if self._shared is not None:
                return self._final(self._shared)
            while not self._closed:
                # Lines beyond RFC 5321 4.5.3.1.5 are seen: only the whole reply is bounded.
                line = self._input.next_line(self._limits.reply)
                if line is None:
                    return self._end() if self._eof else NEED_DATA
                if isinstance(line, LineFault):
                    raise RemoteProtocolError(f"in a reply: {line.value}")
                reply = self._reader.add(line)
                self._amid_reply = reply is None
                if reply is not None:
                    return self._match(reply)
        except RemoteProtocolError:
            self._close()
            raise
        return NEED_DATA

    def _end(self) -> ConnectionClosed:
        amid = bool(self._in_flight or self._owed or self._encoder)
        self._closed = True
        self._close()
        return ConnectionClosed(mid_transaction=amid)

    def _match(self, reply: Reply) -> ClientEvent:
        if self._owed:
            return self._final(reply)
        if not self._in_flight:
            return self._unasked(reply)
        verb, command = self._in_flight.popleft()
        if verb is _END:
            # The content was nobody's.
            self._ending = reply.code == 421
            self._settle()
            return Replied(command=None, reply=reply)
        if verb is _BDAT_LAST and (self.state, verb) in self._answered:
            self._await_finals(verb)
            return self._final(reply)
        self._move(verb, command, reply)
        self._pass_unanswered()
        return Replied(command=command, reply=reply)

    def _unasked(self, reply: Reply) -> ClientEvent:
        if reply.code == 421:
            # RFC 5321 3.8: a server that ends may say so at any time.
            self._close()
            return Replied(command=None, reply=reply)
        if self._encoder is None or reply.accepted:
            raise RemoteProtocolError(f"{reply} answers nothing")
        # A refusal amid the content. The rest of it cannot be left out, nor can it be told what
        # else the server would answer: the session is over with what it has said.
        self._ending = True
        self._await_finals(Verb.END)
        return self._match(reply)

    def _await_finals(self, verb: Verb) -> None:
        """The content has ended by `verb`: count the replies that follow it."""
        self._encoder = None
        self.state = TRANSITIONS[self.state, verb].accepted
        if self._accepted:
            self._owed.extend(self._accepted)
        else:
            # SMTP alone comes here: LMTP has no reply for nobody (RFC 2033 4.2, 4.3).
            self._in_flight.append((Verb.END, None))
        self._ahead = self.state

    def _final(self, reply: Reply) -> ClientEvent:
        """The reply to a content: to the next recipient in LMTP, to all of them in SMTP."""
        if 300 <= reply.code < 400 or reply.code in _OWN_MEANING:
            raise RemoteProtocolError(f"{reply} is no final reply to a recipient")
        recipient = self._owed.popleft()
        if reply.code == 421:
            self._ending = True
        self._shared = reply if self._owed and self._dialect is Dialect.SMTP else None
        if not self._owed:
            self._settle()
        return RecipientReplied(recipient=recipient, reply=reply)

    def _pass_unanswered(self) -> None:
        """A last chunk that no accepted recipient waits for has no reply (RFC 2033 4.3)."""
        while self.state is _MAIL and self._in_flight:
            verb, _ = self._in_flight[0]
            if verb is not _BDAT_LAST or (self.state, verb) not in self._answered:
                break
            self._in_flight.popleft()
            self._enter(TRANSITIONS[self.state, verb].accepted)
            self._enter(TRANSITIONS[self.state, Verb.SETTLED].accepted)
            self._look_ahead()

    def _move(self, verb: Verb, command: Command | None, reply: Reply) -> None:
        if reply.code == 421:
            self._close()
            return
        step = self._answered.get((self.state, verb))
        if step is None:
            # A command before it was refused, so this one had to be.
            if reply.accepted:
                raise RemoteProtocolError(f"{reply} accepts {verb.value} when {self.state.value}")
            return
        if not reply.accepted:
            if verb is Verb.LHLO and self._dialect is Dialect.SMTP and reply.code >= 500:
                # RFC 5321 3.2: a server without extensions is told HELO.
                self._hello = "HELO"
            self._enter(step.refused)
            self._look_ahead()
            return
        if reply.code >= 300 and step.challenged is not None:
            self._enter(step.challenged)
            self._look_ahead()
            return
        answers = _OWN_MEANING.get(reply.code)
        if (reply.code >= 300) != (verb is _DATA) or (answers and verb not in answers):
            raise RemoteProtocolError(f"{reply} does not answer {verb.value}")
        if isinstance(command, Rcpt):
            self._accepted.append(command.recipient)
        elif verb is _DATA:
            self._encoder = DotEncoder()
            self._filter = PolicyFilter(self._policy) if self._checks else None
        elif verb is Verb.LHLO:
            self._learn(reply)
        elif verb is Verb.XCLIENT:
            self.keywords = {}
        self._enter(step.accepted)
        if not self._in_flight:
            self._ahead = self.state

    def _look_ahead(self) -> None:
        """Set the cursor that runs ahead anew, from where the replies have led."""
        state = self.state
        for verb, _ in self._in_flight:
            step = self._answered.get((state, verb))
            if step is not None:
                state = step.accepted
        self._ahead = state

    def _enter(self, state: State) -> None:
        self.state = state
        if state is _READY or state is _GREETED:
            self._accepted = []

    def _settle(self) -> None:
        self._enter(TRANSITIONS[self.state, Verb.SETTLED].accepted)
        self._ahead = self.state
        if self._ending:
            self._close()

    def _close(self) -> None:
        """Nothing more can be said."""
        self.state = self._ahead = State.CLOSED
        self._encoder = None
        self._chunk_left = 0

    def _learn(self, reply: Reply) -> None:
        """Keep what the LHLO reply offers (RFC 5321 4.1.1.1); one to HELO offers nothing."""
        self.keywords = {}
        if self._hello == "HELO":
            return
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
        if self._amid_reply or self._input.drop():
            self._close()
            raise RemoteProtocolError("the server sent octets in the clear before the handshake")
        self.keywords = {}
        self._hello = self._dialect.value
        self._enter(TRANSITIONS[self.state, Verb.SECURED].accepted)
        self._ahead = self.state


def _is_plain(command: Command) -> bool:
    """Whether all text in `command` is that of its address, which has no control characters."""
    if isinstance(command, Rcpt):
        return command.recipient.parameters is NO_RCPT_PARAMETERS
    if isinstance(command, Mail):
        return command.parameters is NO_MAIL_PARAMETERS
    return isinstance(command, Data)


def _check_policy(content: PolicyFilter) -> None:
    """Raise LocalProtocolError for what the policy does not permit."""
    if content.refusal is not None:
        raise LocalProtocolError(content.refusal.text)
