"""Random servers against the client's conversation, in both dialects.

The server answers as it should, refuses, breaks the protocol, says too much, too little or nothing,
and goes away, as chance has it; what it says comes in random pieces. Whatever comes, the client
raises nothing but what is documented, comes to an end and

- says whole, known commands, and content only where the server asked for it: behind a 354, or
  behind a BDAT for which a recipient was accepted;
- says nothing more once there was a reply too many, or anything that is no reply;
- gives each recipient one result: the very reply that has its place in the order of commands, and
  an acceptance only behind a complete content;
- keeps no more than a reply that has begun and what has just come; calls no more functions than a
  constant for each octet, command and read.
"""

import random
import re
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final, TypeVar

from lmtp_proto import (
    Address,
    Answer,
    Body,
    ContentPolicy,
    Dialect,
    Effect,
    ExternalClient,
    Handshake,
    Interrupt,
    Limits,
    LocalProtocolError,
    LoginClient,
    MailParameters,
    Noop,
    Notify,
    PlainClient,
    RcptParameters,
    Receive,
    Recipient,
    RemoteProtocolError,
    Reply,
    Result,
    Run,
    Send,
    Submission,
    Treatment,
    Verb,
    Wait,
)
from tests.fuzz.measure import Calls, kept

T = TypeVar("T")

_LIMITS: Final = [
    Limits(reply=2000),
    Limits(reply=2000, window=1),
    Limits(reply=2000, window=3),
]
_POLICIES: Final = [
    ContentPolicy(bare_cr=Treatment.NORMALISE, bare_lf=Treatment.NORMALISE),
    ContentPolicy(bare_cr=Treatment.NORMALISE, bare_lf=Treatment.NORMALISE),
    ContentPolicy(),
    ContentPolicy(bare_cr=Treatment.REJECT, bare_lf=Treatment.REJECT, nul=Treatment.REJECT),
]
# A reply of the longest that is read: at four octets a line, each of which becomes an object.
_REPLY: Final = 2000 // 4 * 80
_WORDS: Final = [
    b"PIPELINING",
    b"PIPELINING",
    b"CHUNKING",
    b"8BITMIME",
    b"SIZE 100000",
    b"SMTPUTF8",
    b"DSN",
    b"BINARYMIME",
    b"STARTTLS",
    b"AUTH PLAIN LOGIN EXTERNAL",
    b"X-\xc3\xbcber 1",
    b"",
]
_TEXTS: Final = [
    b" 2.0.0 ok",
    b" ok",
    b"",
    b" ",
    b" \xc3\xbcber \xff alles",
    b" 5.1.1 no such user",
    b" 9.9.9 " + b"x" * 600,
]
# What is no reply, or not this one.
_ODDITIES: Final = [
    b"250 ok\r\n250 ok\r\n",
    b"250 ok\r\n250",
    b"354 go\r\n",
    b"220 ready\r\n",
    b"221 bye\r\n",
    b"235 in\r\n",
    b"334 YQ==\r\n",
    b"299 odd\r\n",
    b"399 odd\r\n",
    b"599 odd\r\n",
    b"421 bye\r\n",
    b"421-bye\r\n421 bye\r\n",
    b"250-ok\r\n550 no\r\n",
    b"250-ok\r\n\r\n",
    b"250-ok\r\n250-",
    b"hello\r\n",
    b"25 ok\r\n",
    b"2500 ok\r\n",
    b"100 wait\r\n",
    b"650 later\r\n",
    b"250_ok\r\n",
    b"250 ok\n250 ok\r\n",
    b"250 o\rk\r\n",
    b"250 ok\0\r\n",
    b"\r\n",
    b"\n",
    b"\x16\x03\x01",
    b"x" * 3000,
    b"250 " + b"x" * 3000 + b"\r\n",
    b"250-" + b"x" * 900 + b"\r\n250 x\r\n",
    b"",
]
_ENDLESS: Final = b"250-more\r\n" * 50
_CONTENT: Final = [
    b"line\r\n",
    b"\r\n",
    b"\r",
    b"\n",
    b".",
    b".\r\n",
    b"\r\n.\r\n",
    b"\r.\r\n.\n",
    b"\0",
    b"\xff\xc3",
    b"x" * 2000,
    b"",
]
_LOCAL_PARTS: Final = ["alice", "bob", "bob", "carol", "a b", "postmaster", "üml"]
_COMMAND: Final = re.compile(
    rb"((?:LHLO|EHLO|HELO) \[?[a-z0-9.:-]+\]?|MAIL FROM:<[^\r\n]*|RCPT TO:<[^\r\n]*|DATA|RSET|NOOP"
    rb"|QUIT|STARTTLS|AUTH [A-Z]+(?: =| [A-Za-z0-9+/]+=*)?|BDAT ([0-9]+)( LAST)?)"
)
_PLAIN: Final = PlainClient("user", "password")
_LONG: Final = PlainClient("user", "x" * 600)
_LOGIN: Final = LoginClient("user", "password")
_RESPONSE: Final = re.compile(rb"\*|[A-Za-z0-9+/]*=*")
_REPLY_LINE: Final = re.compile(rb"([2-5][0-9]{2})(?:([ -]).*)?", re.DOTALL)


class _CrashError(Exception):
    """What a content raises that cannot be read to its end."""


class _HandshakeError(Exception):
    """What a runtime says of a TLS handshake."""


class _Slot:
    """The place of one reply: what it answers."""

    def __init__(self, verb: str, recipient: int = -1) -> None:
        self.verb = verb
        self.recipient = recipient


class Peer:
    """A server that does as it likes, and keeps account of what the client says and may say."""

    def __init__(self, chance: random.Random, dialect: Dialect) -> None:
        self._chance = chance
        self._lmtp = dialect is Dialect.LMTP
        self._verb = dialect.value.encode()
        # Octets to be given to the client.
        self._out = bytearray()
        self._gone = False
        self._endless = False
        # Half of the servers are as they should be.
        self._oddity = chance.choice((0.0, 0.0, 0.02, 0.1))
        self._refusals = chance.choice((0.0, 0.1, 0.3))
        # What the client was given, as a reading of its own has it.
        self._line = b""
        self._before = b""
        self.replies: list[int] = []
        self.garbled = False
        self.given = 0
        self.reads = 0
        """Reads that have brought something."""
        # What the client has said.
        self.slots: list[_Slot] = [_Slot("CONNECT")]
        self.heard = 0
        self.sends = 0
        self._mail = 0
        self._recipients = 0
        # 354 was given for the DATA whose place this is; -1 while no content is awaited.
        self._data = -1
        self._tail = b""
        self._late = False
        self._answer("CONNECT")

    # What the server says.

    def read(self, *, wait: bool) -> bytes | Interrupt:
        """What the client's read brings; `wait`: it has time."""
        chance = self._chance
        if self._endless:
            self._out += _ENDLESS
        elif self._oddity and chance.random() < self._oddity / 8:
            # Out of turn.
            self._out += chance.choice(_ODDITIES)
        if self._out and (wait or chance.random() < 0.7):
            roll = chance.random()
            size = len(self._out) if roll < 0.6 else chance.randrange(1, len(self._out) + 1)
            octets = bytes(self._out[:size])
            del self._out[:size]
            self._give(octets)
            return octets
        if self._gone:
            return b""
        if wait and not self._out:
            return b"" if chance.random() < 0.5 else Interrupt.TIMEOUT
        return Interrupt.TIMEOUT

    def _give(self, octets: bytes) -> None:
        """Keep account of the replies that the client can have read."""
        self.given += len(octets)
        self.reads += 1
        if self.garbled:
            return
        *lines, self._line = (self._line + octets).split(b"\r\n")
        for line in lines:
            match = _REPLY_LINE.fullmatch(line)
            if match is None or b"\n" in line or self._before not in (b"", match[1]):
                self.garbled = True
                return
            if match[2] == b"-":
                self._before = match[1]
            else:
                self._before = b""
                self.replies.append(int(match[1]))

    def _answer(self, verb: str) -> None:
        """Say something to what was heard."""
        chance = self._chance
        if self._gone or self._endless:
            return
        if chance.random() < self._oddity:
            roll = chance.random()
            if roll < 0.1:
                self._gone = True
            elif roll < 0.15:
                self._endless = True
            else:
                self._out += chance.choice(_ODDITIES)
            return
        code = b"250"
        match verb:
            case "CONNECT":
                code = b"220"
            case "DATA":
                code = b"354"
            case "QUIT":
                code = b"221"
            case "STARTTLS":
                code = b"220"
            case "AUTH":
                code = chance.choice((b"235", b"334"))
            case "RCPT":
                code = chance.choice((b"250", b"251"))
        if chance.random() < self._refusals / (1 if verb in ("RCPT", "FINAL") else 4):
            code = chance.choice((b"421", b"450", b"451", b"452", b"550", b"552", b"554"))
        if verb == "LHLO" and code == b"250":
            self._out += b"250-host\r\n"
            for _ in range(chance.randrange(8)):
                self._out += b"250-" + chance.choice(_WORDS) + b"\r\n"
            self._out += b"250 " + chance.choice(_WORDS) + b"\r\n"
            return
        if code == b"334":
            self._out += b"334 " + chance.choice((b"", b"YQ==", b"?")) + b"\r\n"
            return
        if chance.random() < 0.1:
            self._out += (code + b"-" + chance.choice(_TEXTS)[1:] + b"\r\n") * 2
        self._out += code + chance.choice(_TEXTS) + b"\r\n"

    # What the client says.

    def hear(self, octets: bytes) -> None:
        """Judge and answer what the client has written."""
        self.heard += len(octets)
        self.sends += 1
        place = 0
        if self._data >= 0:
            # One more write may be under way when a reply comes that nobody waits for.
            assert not self._late, "content goes on although the server has answered"
            self._late = self.garbled or len(self.replies) > len(self.slots)
            place = self._content(octets)
        while place < len(octets):
            assert not self.garbled, "a command behind what is no reply"
            assert len(self.replies) <= len(self.slots), "a command behind a reply too many"
            assert 421 not in self.replies, "a command behind 421"
            end = octets.find(b"\r\n", place)
            line = octets[place:end] if end >= 0 else octets[place:]
            assert end >= 0, f"half a command: {line!r}"
            place = end + 2
            if self._is_challenged():
                assert _RESPONSE.fullmatch(line), f"no answer to a challenge: {line!r}"
                self._say("AUTH")
                continue
            match = _COMMAND.fullmatch(line)
            assert match is not None, f"no command: {line!r}"
            verb = line[:4].decode()
            if match[2] is not None:
                place += int(match[2])
                assert place <= len(octets), "half a chunk"
                self._chunk(last=match[3] is not None)
            elif verb == "DATA":
                assert place == len(octets), "something is said behind DATA before its reply"
                self._data = len(self.slots)
                self._late = False
                self._say("DATA")
            else:
                self._command(verb)

    def _is_challenged(self) -> bool:
        """Whether the last command was AUTH, or an answer, and more is asked for."""
        place = len(self.slots) - 1
        return (
            self.slots[place].verb == "AUTH"
            and place < len(self.replies)
            and 300 <= self.replies[place] < 400
        )

    def _command(self, verb: str) -> None:
        if verb == "MAIL":
            self._mail = len(self.slots)
            self._recipients = 0
        elif verb == "RCPT":
            self._say("RCPT", self._recipients)
            self._recipients += 1
            return
        elif verb in ("EHLO", "HELO"):
            verb = "LHLO"
        elif verb == "STAR":
            verb = "STARTTLS"
        self._say(verb)

    def _say(self, verb: str, recipient: int = -1) -> None:
        self.slots.append(_Slot(verb, recipient))
        self._answer(verb)

    def _content(self, octets: bytes) -> int:
        """Octets behind DATA; where they end."""
        assert len(self.replies) > self._data, "content before the reply to DATA"
        code = self.replies[self._data]
        if code >= 400:
            self._data = -1
            return 0
        # RFC 5321 4.2.1: the first digit decides.
        assert 300 <= code < 400, f"content behind {code}"
        window = self._tail + octets
        # The line end of the DATA command is that in front of the first line.
        end = window.find(b"\r\n.\r\n") if self._tail else (b"\r\n" + octets).find(b"\r\n.\r\n") - 2
        if end < (0 if self._tail else -2):
            self._tail = window[-4:]
            return len(octets)
        place = end + 5 - len(self._tail)
        assert place == len(octets), "something is said behind the content before its replies"
        self._data = -1
        self._tail = b""
        self._finals()
        return place

    def _chunk(self, *, last: bool) -> None:
        assert len(self.replies) >= self._mail + 1 + self._recipients, "a chunk before replies"
        assert self.accepted(), "a chunk for nobody"
        chunks = [
            self.replies[place]
            for place in range(self._mail, len(self.slots))
            if self.slots[place].verb == "BDAT" and place < len(self.replies)
        ]
        assert all(code < 400 for code in chunks), "a chunk behind a refused one"
        if not last:
            self._say("BDAT")
            return
        assert len(self.replies) == len(self.slots), "the last chunk before replies to the others"
        self._finals()

    def accepted(self) -> list[int]:
        """The recipients of the transaction that are known to be accepted."""
        pairs = zip(self.slots[self._mail :], self.replies[self._mail :], strict=False)
        return [slot.recipient for slot, code in pairs if slot.verb == "RCPT" and code < 400]

    def _finals(self) -> None:
        accepted = self.accepted()
        if self._lmtp:
            for recipient in accepted:
                self.slots.append(_Slot("FINAL", recipient))
        else:
            self.slots.append(_Slot("FINAL"))
        replies = len(accepted) if self._lmtp else 1
        if self._oddity and self._chance.random() < self._oddity:
            replies += self._chance.choice((-1, 1))
        for _ in range(replies):
            self._answer("FINAL")

    # What has to come of it.

    def judge(self, results: Sequence[Result], *, begun: int, over: bool) -> None:
        """See whether these are the results of the transaction whose slots follow `begun`."""
        said = any(slot.verb == "MAIL" for slot in self.slots[begun:])
        for index, result in enumerate(results):
            code = result.reply.code
            if result.verb is None:
                assert over, f"no word on recipient {index} although all is well"
                assert code >= 400, f"{code} for a recipient without a reply"
                continue
            assert said, f"{result} for what was not said"
            assert code == self._code(result.verb, index), f"{result}: not the reply in its place"
            assert code not in (220, 221, *range(300, 400)), f"{code} is no result"
            assert code >= 400 or result.verb is Verb.END, f"{result}: too early to be accepted"

    def _code(self, verb: Verb, recipient: int) -> int | None:
        """The reply that stands in the place of the one to `verb`."""
        places = range(self._mail, len(self.slots))
        accepted = self.accepted()
        if verb is Verb.MAIL:
            return self.replies[self._mail]
        if verb is Verb.BDAT:
            chunks = [place for place in places if self.slots[place].verb == "BDAT"]
            assert recipient in accepted
            return next(self.replies[place] for place in chunks if self.replies[place] >= 400)
        for place in places:
            slot = self.slots[place]
            if slot.verb == ("FINAL" if verb is Verb.END else verb.value) and (
                slot.recipient in (recipient, -1)
            ):
                assert slot.verb != "DATA" or recipient in accepted
                return self.replies[place] if place < len(self.replies) else None
        # It came amid the content: a refusal, and no acceptance may follow it.
        assert verb is Verb.END, f"{verb} was not said"
        place = len(self.slots) + (accepted.index(recipient) if self._lmtp else 0)
        assert self.replies[place] >= 400, "accepted amid the content"
        return self.replies[place]


class _Runtime:
    """Performs the effects of a client's conversation, up to an end of its own."""

    def __init__(self, peer: Peer, submission: Submission, chance: random.Random) -> None:
        self._peer = peer
        self._submission = submission
        self._chance = chance
        self.meter: AbstractContextManager[object] = nullcontext()
        self.look: Callable[[], None] | None = None
        """Called at some of the effects."""
        self.effects = 0
        # Gives the conversation up at this effect.
        self._patience = chance.randrange(60) if chance.random() < 0.03 else 10**9
        self.read = 0
        """Octets of the last read."""

    def perform(self, conversation: Generator[Effect, None, T]) -> T | None:
        """What the conversation returns, None when it, or one before it, was given up."""
        peer = self._peer
        if self.effects > self._patience:
            conversation.close()
            return None
        while True:
            try:
                with self.meter:
                    effect = next(conversation)
            except StopIteration as end:
                value: T = end.value
                return value
            self.effects += 1
            if self.look is not None and self._chance.random() < 0.2:
                self.look()
            if self.effects > self._patience:
                conversation.close()
                assert self._submission.over, "a conversation goes on that was given up"
                return None
            if isinstance(effect, Send):
                assert not self._submission.over, "something is said when all is over"
                peer.hear(effect.data)
            elif isinstance(effect, Receive):
                effect.outcome = peer.read(wait=effect.deadline > 0.0)
                self.read = len(effect.outcome) if isinstance(effect.outcome, bytes) else 0
            elif isinstance(effect, Run):
                effect.run()
            elif isinstance(effect, Handshake):
                roll = self._chance.random()
                effect.outcome = "TLSv1.3" if roll < 0.8 else None
                effect.error = _HandshakeError() if roll > 0.9 else None
            else:
                assert isinstance(effect, Wait)
                assert effect.run.done


def random_content(chance: random.Random) -> list[bytes]:
    """A content in pieces."""
    return [chance.choice(_CONTENT) for _ in range(chance.choice((0, 1, 2, 5, 12)))]


def _reader(
    pieces: list[bytes], chance: random.Random, *, crash: bool
) -> Callable[[], Answer[bytes]]:
    """What gives the pieces of a content one by one, at once or as jobs; perhaps it fails."""
    rest = iter([piece for piece in pieces if piece])

    def read() -> Answer[bytes]:
        piece = next(rest, b"")
        if crash and not piece:
            raise _CrashError
        return (lambda: piece) if chance.random() < 0.1 else piece

    return read


def random_recipients(chance: random.Random) -> list[Recipient]:
    """One to five recipients, some with the same address."""
    recipients = []
    for _ in range(chance.choice((1, 1, 2, 3, 5))):
        local_part = chance.choice(_LOCAL_PARTS if chance.random() < 0.1 else _LOCAL_PARTS[:6])
        address = Address(local_part, "example.org")
        if chance.random() < 0.05:
            parameters = RcptParameters(notify=frozenset({Notify.SUCCESS}))
            recipients.append(Recipient(address=address, parameters=parameters))
        else:
            recipients.append(Recipient(address=address))
    return recipients


class _Client:
    """One client from its greeting to its end."""

    def __init__(self, chance: random.Random) -> None:
        dialect = chance.choice((Dialect.LMTP, Dialect.LMTP, Dialect.SMTP))
        self.chance = chance
        self.peer = Peer(chance, dialect)
        self.submission = Submission(
            "client.example.org",
            clock=lambda: 0.0,
            limits=chance.choice(_LIMITS),
            dialect=dialect,
            chunk_size=chance.choice((0, 100, 262_144)),
            content_policy=chance.choice(_POLICIES),
        )
        self.runtime = _Runtime(self.peer, self.submission, chance)
        self.recipients = 0
        self.blocks = 0

    def run(self) -> None:
        chance = self.chance
        reply = self.runtime.perform(self.submission.open())
        assert reply is None or reply.accepted != self.submission.over
        for _ in range(chance.choice((1, 1, 2, 4))):
            roll = chance.random()
            if roll < 0.1:
                self._identify(self.submission.say(Noop()))
            elif roll < 0.25:
                mechanism = chance.choice((_PLAIN, _LONG, _LOGIN, ExternalClient()))
                self._identify(self.submission.authenticate(mechanism))
            elif roll < 0.35:
                self._identify(self.submission.start_tls())
            self._submit()
        self.runtime.perform(self.submission.close())
        assert self.submission.over
        failure = self.submission.failure
        assert failure is None or isinstance(failure, RemoteProtocolError)

    def _identify(self, conversation: Generator[Effect, None, Reply]) -> None:
        """Say something between two messages."""
        said = len(self.peer.slots)
        try:
            reply = self.runtime.perform(conversation)
        except LocalProtocolError:
            assert len(self.peer.slots) == said, "it is too late to say that it is not offered"
        except _HandshakeError:
            assert self.submission.over, "the session goes on behind a failed handshake"
        else:
            place = len(self.peer.slots) - 1
            if reply is not None and not self.submission.over:
                assert reply.code == self.peer.replies[place], "not the reply in its place"

    def _submit(self) -> None:
        chance = self.chance
        submission = self.submission
        recipients = random_recipients(chance)
        pieces = random_content(chance)
        self.recipients += len(recipients)
        self.blocks += sum(1 + len(piece) // 100 for piece in pieces)
        begun = len(self.peer.slots)
        crash = chance.random() < 0.02
        utf8 = chance.random() < 0.1
        try:
            results = self.runtime.perform(
                submission.submit(
                    None if chance.random() < 0.2 else Address("sender", "example.net"),
                    recipients,
                    _reader(pieces, chance, crash=crash),
                    size=chance.choice((None, 100)),
                    body=chance.choice((None, None, Body.EIGHTBITMIME, Body.BINARYMIME)),
                    parameters=MailParameters(smtputf8=utf8),
                )
            )
        except LocalProtocolError:
            # What is not offered is noticed before anything is said, a content that the policy does
            # not permit before it is complete.
            if len(self.peer.slots) == begun:
                return
            assert submission.over, "a content has no end and the session goes on"
            return
        except _CrashError:
            assert crash
            assert submission.over, "a content has no end and the session goes on"
            return
        if results is None:
            return
        assert [result.recipient for result in results] == recipients, "a result for each"
        self.peer.judge(results, begun=begun, over=submission.over)

    def check_effects(self) -> None:
        """See that it has not gone in circles."""
        peer = self.peer
        most = 20 + 4 * len(peer.slots) + 2 * peer.reads + 4 * self.blocks
        assert self.runtime.effects <= most, f"{self.runtime.effects} effects, {most} are enough"


def hold(chance: random.Random) -> int:
    """Have a client talk to a random server; the number of replies. Raises AssertionError for what
    must not be."""
    client = _Client(chance)
    client.run()
    client.check_effects()
    return len(client.peer.replies)


def hold_measured(chance: random.Random) -> int:
    """As `hold()`, with the calls and the memory of the conversation measured."""
    client = _Client(chance)
    runtime = client.runtime
    idle = kept(client.submission)

    def look() -> None:
        most = idle + _REPLY + runtime.read + 1000 * client.recipients
        size = kept(client.submission)
        assert size <= most, f"{size} octets are kept, {most} are enough"

    calls = Calls()
    runtime.meter = calls
    runtime.look = look
    client.run()
    look()
    peer = client.peer
    most = 1000 + 60 * runtime.effects + 150 * len(peer.slots) + 2 * peer.given
    assert calls.count <= most, f"{calls.count} calls, {most} are enough"
    return len(peer.replies)
