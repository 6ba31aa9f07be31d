"""Random clients against the server's conversation.

A dialogue is made of pieces of the protocol, put together, mutated and cut at random; the handler
accepts, refuses, fails, misbehaves and puts off as chance has it. Whatever comes, the conversation
raises nothing and

- answers what `_Account` counts, which reads the octets by rules of its own: one reply for each
  line or chunk, one for each accepted recipient of a content, in this order and with fitting codes;
- hands on each content that it delivers octet for octet;
- closes each sink once, says goodbye to the handler once, and ends;
- keeps no more than the line that has begun, what has just come, and what the limits allow of a
  transaction; calls no more functions than a constant for each octet, reply and read.
"""

import errno
import random
import re
from bisect import bisect_left
from typing import Final

from lmtp_proto import (
    Answer,
    CommandParser,
    ContentPolicy,
    Credentials,
    Effect,
    Extension,
    Handler,
    Handshake,
    Interrupt,
    Limits,
    Mail,
    Receive,
    Recipient,
    Reply,
    Run,
    Send,
    Session,
    Settings,
    Sink,
    StopFlag,
    Transaction,
    Treatment,
    Wait,
    converse,
)
from tests.fuzz.measure import Calls, kept

PIECES: Final = [
    b"LHLO client.example.org\r\n",
    b"lhlo [127.0.0.1]\r\n",
    b"EHLO x\r\n",
    b"MAIL FROM:<>\r\n",
    b"MAIL FROM:<a@b>\r\n",
    b"MAIL FROM:<a@b> SIZE=5 BODY=8BITMIME\r\n",
    b"MAIL FROM:<a@b> SIZE=5000\r\n",
    b"MAIL FROM:<a@b> BODY=BINARYMIME RET=HDRS ENVID=x+2By\r\n",
    b"MAIL FROM:<\xc3\xbc@b> SMTPUTF8 MT-PRIORITY=-3 BY=120;R HOLDFOR=9\r\n",
    b"RCPT TO:<alice@example.org>\r\n",
    b"RCPT TO:<bob@example.org>\r\n",
    b'RCPT TO:<"a b"@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a@b\r\n',
    b"RCPT TO:<@a,@b:c@[IPv6:::1]>\r\n",
    b"RCPT TO:<\xc3\xa9@xn--bcher-kva.example>\r\n",
    b"DATA\r\n",
    b"DATA\r\nhello\r\n.\r\n",
    b"hello\r\n..dot\r\n",
    b".\r\n",
    b"\r\n.\r\n",
    b"\n.\n",
    b"\r.\r",
    b"BDAT 5\r\nhello",
    b"BDAT 3 LAST\r\nabc",
    b"BDAT 0 LAST\r\n",
    b"BDAT 7 LOST\r\nRSET\r\n.",
    b"BDAT 99999999999999999999\r\n",
    b"BDAT 2000\r\n" + b"x" * 2000,
    b"RSET\r\n",
    b"NOOP\r\n",
    b"VRFY alice\r\n",
    b"HELP\r\n",
    b"QUIT\r\n",
    b"STARTTLS\r\n",
    b"AUTH PLAIN AGEAYg==\r\n",
    b"AUTH LOGIN\r\n",
    b"YQ==\r\n",
    b"*\r\n",
    b"XCLIENT ADDR=192.0.2.9 LOGIN=x\r\n",
    b"XFORWARD NAME=x ADDR=[UNAVAILABLE]\r\n",
    b"GET / HTTP/1.1\r\n",
    b"\x16\x03\x01\x00",
    b"x" * 5000,
    b"\x00\r\n",
    b"\r",
    b"\n",
    b" \t",
]
# A transaction as most clients hold it: chance alone seldom gets so far.
_TRANSACTION: Final = [
    b"MAIL FROM:<a@b>\r\nRCPT TO:<alice@example.org>\r\nRCPT TO:<bob@example.org>\r\n",
    b"MAIL FROM:<>\r\nRCPT TO:<carol@example.org>\r\n",
]
_CONTENT: Final = [
    b"DATA\r\n.\r\n",
    b"DATA\r\nhello\r\n..\r\n.\rx\r\n\r\n.\r\n",
    b"BDAT 6\r\n.\r\n.\r\nBDAT 0\r\nBDAT 2 LAST\r\n\r\n",
    b"BDAT 12 LAST\r\nhello\nworld\r",
]


class Terms:
    """Settings, and what follows from them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.parser: CommandParser = settings.parser()
        self.chunking = Extension.CHUNKING in settings.extensions
        self.keeps_all = settings.content_policy.keeps_all


_ALL: Final = frozenset(Extension)
_MECHANISMS: Final = ("PLAIN", "LOGIN", "EXTERNAL")
_TERMS: Final = [
    Terms(Settings(limits=Limits(recipients=4, message_size=1000, discard=3000, faults=6))),
    Terms(
        Settings(
            limits=Limits(
                recipients=4, message_size=1000, discard=3000, transactions=4, commands=25
            ),
            extensions=_ALL,
            auth_mechanisms=_MECHANISMS,
        )
    ),
    Terms(
        Settings(
            limits=Limits(command_line=512, message_size=3000, faults=100),
            extensions=_ALL - {Extension.CHUNKING, Extension.BINARYMIME},
            content_policy=ContentPolicy(
                bare_cr=Treatment.NORMALISE, bare_lf=Treatment.NORMALISE, nul=Treatment.REJECT
            ),
            auth_mechanisms=_MECHANISMS,
        )
    ),
    Terms(
        Settings(
            limits=Limits(message_size=3000, discard=100_000, faults=100),
            extensions=_ALL,
            content_policy=ContentPolicy(
                bare_cr=Treatment.REJECT, bare_lf=Treatment.REJECT, long_line=Treatment.REJECT
            ),
            auth_mechanisms=_MECHANISMS,
        )
    ),
]
# For long dialogues: nothing but the end of the octets ends them.
_PATIENT: Final = Terms(
    Settings(
        limits=Limits(recipients=50, message_size=20_000, faults=10**9),
        extensions=_ALL,
        auth_mechanisms=_MECHANISMS,
    )
)

# RFC 5321 4.2 and 4.5.3.1.5.
_REPLY_LINE: Final = re.compile(rb"([2-5][0-9]{2})([ -])[ -~]{0,506}")
# RFC 4954 4: the longest line that there is.
_LINE: Final = 12288
_OWN_FAULT: Final = 451
_HANDLER_SAYS: Final = [
    Reply(451, "later", enhanced="4.2.0"),
    Reply(452, "full", enhanced="4.2.2"),
    Reply(550, "no", enhanced="5.1.1"),
    Reply(554, "never\nand never", "again", enhanced="5.7.1"),
]
_FINAL: Final = [Reply(250, "ok"), Reply(251, "ok", enhanced="2.1.5"), *_HANDLER_SAYS]
_BYE: Final = Reply(421, "bye", enhanced="4.3.2")
_MISFIT: Final = Reply(354, "this fits nothing")


class _Message:
    """A sink that keeps what it gets and what it has said."""

    def __init__(self, handler: "Moody") -> None:
        self._handler = handler
        self._parts: list[bytes] = []
        self._begun = False

    def write(self, data: bytes, /) -> Answer[Reply | None]:
        self._parts.append(data)
        return self._handler.decide(0.02)

    def deliver(self, recipient: Recipient, /) -> Answer[Reply]:
        handler = self._handler
        if not self._begun:
            handler.delivered.append((b"".join(self._parts), []))
            self._begun = True
        codes = handler.delivered[-1][1]
        roll = handler.chance.random()
        if roll < 0.7:
            reply = handler.chance.choice(_FINAL)
            codes.append(reply.code)
            return (lambda: reply) if roll < 0.3 else reply
        if roll < 0.98:
            codes.append(250)
            return _FINAL[0]
        if roll < 0.983:
            codes.append(421)
            return _BYE
        codes.append(_OWN_FAULT)
        return handler.misbehave()

    def close(self) -> None:
        self._handler.open_sinks -= 1


class Moody(Handler):
    """Accepts, refuses, fails, answers nonsense and puts off, as chance has it."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.open_sinks = 0
        self.farewells = 0
        self.delivered: list[tuple[bytes, list[int]]] = []
        """Of each message: its content, and the code that each recipient was given."""
        # Half of the handlers are in no mood at all.
        self._mood = 1.0 if chance.random() < 0.5 else 0.0

    def decide(self, oddity: float) -> Answer[Reply | None]:
        """None mostly; all else that a method may answer, and more, with the chance `oddity`."""
        chance = self.chance
        if chance.random() >= oddity * self._mood:
            return None
        roll = chance.random()
        if roll < 0.4:
            return chance.choice(_HANDLER_SAYS)
        if roll < 0.5:
            return lambda: None
        if roll < 0.6:
            reply = chance.choice(_HANDLER_SAYS)
            return lambda: reply
        if roll < 0.65:
            return _BYE
        return self.misbehave()

    def misbehave(self) -> Answer[Reply]:
        """Raise, or give what no method may."""
        match self.chance.randrange(4):
            case 0:
                raise RuntimeError("crash")
            case 1:
                raise OSError(errno.EIO, "crash")
            case 2:
                return self._crash
            case _:
                return _MISFIT

    def _crash(self) -> Reply:
        raise RuntimeError("crash in a job")

    def connect(self, session: Session, /) -> Answer[Reply | None]:
        if self.chance.random() < 0.01:
            return Reply(554, "no service here", enhanced="5.3.2")
        return self.decide(0.02)

    def trusts(self, session: Session, /) -> bool:
        return self.chance.random() < 0.8

    def authenticate(self, session: Session, credentials: Credentials, /) -> Answer[Reply | None]:
        return self.decide(0.5)

    def mail(self, session: Session, mail: Mail, /) -> Answer[Reply | None]:
        return self.decide(0.1)

    def rcpt(self, transaction: Transaction, recipient: Recipient, /) -> Answer[Reply | None]:
        return self.decide(0.3)

    def vrfy(self, session: Session, text: str, /) -> Answer[Reply | None]:
        return self.decide(0.3)

    def open(self, transaction: Transaction, /) -> Answer[Sink | Reply]:
        answer = self.decide(0.15)
        if answer is None:
            return self._open()
        if callable(answer):
            return self._open
        assert isinstance(answer, Reply)
        return answer

    def _open(self) -> Sink:
        self.open_sinks += 1
        return _Message(self)

    def disconnect(self, session: Session, /) -> None:
        self.farewells += 1


class Runtime:
    """Performs the effects of a conversation up to its next read.

    Callables are run at once, or when one of them is waited for, in any order.
    """

    def __init__(self, handler: Handler, terms: Terms, chance: random.Random) -> None:
        self.session = Session(peer="192.0.2.1:4711", client_ip="192.0.2.1", id="session")
        self.stop = StopFlag()
        self.writes: list[bytes] = []
        self.effects = 0
        self.closed = False
        self.handshake_failed = False
        self._chance = chance
        self._runs: list[Run] = []
        self._receive: Receive | None = None
        self.conversation = converse(
            handler,
            self.session,
            terms.settings,
            parser=terms.parser,
            clock=lambda: 1000.0,
            stop=self.stop,
        )
        self._perform()

    def receive(self, outcome: bytes | Interrupt) -> None:
        """Give the conversation what its read has brought."""
        assert self._receive is not None
        self._receive.outcome = outcome
        self._perform()

    def cut(self) -> None:
        """End the conversation where it stands."""
        self.conversation.close()
        self.closed = True

    def _perform(self) -> None:
        self._receive = None
        effect: Effect
        for effect in self.conversation:
            self.effects += 1
            if isinstance(effect, Receive):
                self._receive = effect
                return
            if isinstance(effect, Send):
                assert effect.data
                self.writes.append(effect.data)
            elif isinstance(effect, Run):
                if self._chance.random() < 0.5:
                    effect.run()
                else:
                    self._runs.append(effect)
            elif isinstance(effect, Wait):
                while not effect.run.done:
                    self._runs.pop(self._chance.randrange(len(self._runs))).run()
            elif isinstance(effect, Handshake):
                self.handshake_failed = self._chance.random() < 0.1
                effect.outcome = None if self.handshake_failed else "TLSv1.3"
        self.closed = True


def dialogue(chance: random.Random, *, most: int = 14) -> bytes:
    """The octets of one client: up to `most` pieces, or transactions of several."""
    octets = bytearray(PIECES[0] if chance.random() < 0.95 else b"")
    for _ in range(chance.randrange(1, most)):
        if chance.random() < 0.15:
            octets += chance.choice(_TRANSACTION)
            octets += chance.choice(_CONTENT)
        else:
            octets += chance.choice(PIECES)
    for _ in range(chance.choice((0, 0, 1, 3))):
        mutate(octets, chance)
    return bytes(octets) or b"\r\n"


def mutate(octets: bytearray, chance: random.Random) -> None:
    """Change, take out or put in something somewhere."""
    if not octets:
        return
    place = chance.randrange(len(octets))
    match chance.randrange(3):
        case 0:
            octets[place] = chance.randrange(256)
        case 1:
            del octets[place : place + chance.randrange(1, 9)]
        case _:
            octets[place:place] = chance.choice(PIECES)


def cuts(size: int, chance: random.Random) -> list[int]:
    """Where octets that come in pieces are cut: the ends of the pieces."""
    ends = {size}
    match chance.randrange(4):
        case 0:
            pass
        case 1:
            # Octet by octet for a while.
            start = chance.randrange(size)
            ends.update(range(max(start, 1), min(start + 60, size)))
        case _:
            ends.update(chance.randrange(1, size + 1) for _ in range(chance.randrange(1, 9)))
    return sorted(ends)


def long_dialogue(chance: random.Random) -> bytes:
    """As `dialogue()`, of up to some hundred pieces or with a line of some thousand octets."""
    octets = dialogue(chance, most=chance.choice((14, 100, 600)))
    if chance.random() < 0.7:
        return octets
    place = chance.randrange(len(octets))
    return octets[:place] + chance.choice((b"x", b"\r", b"MAIL ", b'"\\')) * 20_000 + octets[place:]


def hold(octets: bytes, chance: random.Random) -> int:
    """Hold a conversation over `octets`, cut at random; the number of replies. Raises
    AssertionError for what must not be."""
    terms = chance.choice(_TERMS)
    handler = Moody(chance)
    runtime = Runtime(handler, terms, chance)
    stop_at = chance.randrange(len(octets)) if chance.random() < 0.03 else len(octets)
    ends = cuts(len(octets), chance)
    fed = 0
    for end in ends:
        if runtime.closed:
            break
        if end > stop_at:
            runtime.stop.requested = True
        runtime.receive(octets[fed:end])
        fed = end
    return _judge(octets[:fed], ends, handler, runtime, terms)


def hold_measured(octets: bytes, chance: random.Random) -> int:
    """As `hold()`, with patience, the calls and the memory of the conversation measured."""
    terms = _PATIENT if chance.random() < 0.8 else chance.choice(_TERMS)
    handler = Moody(chance)
    calls = Calls()
    with calls:
        runtime = Runtime(handler, terms, chance)
    limits = terms.settings.limits
    shared = (handler, terms.settings, terms.parser, runtime.stop)
    idle = kept(runtime.conversation, *shared)
    ends = cuts(len(octets), chance)
    # The walk through the memory costs more than all else.
    looks = set(chance.sample(ends, min(len(ends), 12)))
    fed = 0
    for end in ends:
        if runtime.closed:
            break
        with calls:
            runtime.receive(octets[fed:end])
        if end in looks:
            # The envelope: each line of it may have been as long as a line can be.
            lines = 1 + min(limits.recipients, octets.count(b"RCPT", 0, end))
            most = idle + _LINE + (end - fed) + lines * limits.command_line
            size = kept(runtime.conversation, *shared)
            assert size <= most, f"{size} octets are kept, {most} are enough"
        fed = end
    replies = _judge(octets[:fed], ends, handler, runtime, terms)
    most = 500 + 30 * len(ends) + 2 * fed + 150 * replies
    assert calls.count <= most, f"{calls.count} calls, {most} are enough"
    return replies


def _judge(octets: bytes, ends: list[int], handler: Moody, runtime: Runtime, terms: Terms) -> int:
    """End the session, and see whether all it did was right; the number of replies."""
    if not runtime.closed:
        chance = handler.chance
        roll = chance.random()
        if roll < 0.05:
            runtime.cut()
        else:
            runtime.receive(b"" if roll < 0.5 else chance.choice(list(Interrupt)))
    assert runtime.closed, "the session does not end"
    assert handler.open_sinks == 0, f"{handler.open_sinks} sinks are left open"
    assert handler.farewells == 1, f"disconnect() was called {handler.farewells} times"
    codes = read_replies(b"".join(runtime.writes))
    _Account(octets, ends, codes, handler, runtime, terms).check()
    # Each reply may need a job, a wait, some log lines and a write of its own.
    most = 10 + len(ends) + 8 * len(codes) + 3 * len(handler.delivered)
    assert runtime.effects <= most, f"{runtime.effects} effects, {most} are enough"
    return len(codes)


def read_replies(output: bytes) -> list[int]:
    """The codes of well-formed replies. Raises AssertionError where they are not."""
    codes: list[int] = []
    if not output:
        return codes
    lines = output.split(b"\r\n")
    assert lines.pop() == b"", "the last line of the output does not end"
    before = b""
    for line in lines:
        match = _REPLY_LINE.fullmatch(line)
        assert match is not None, f"not a reply line: {line!r}"
        code = match[1]
        assert before in (b"", code), f"the code changes amid a reply: {line!r}"
        if match[2] == b" ":
            codes.append(int(code))
            before = b""
        else:
            before = code
    assert before == b"", "the last reply has no end"
    return codes


# The positive codes that fit a command (RFC 5321 4.3.2 and the extensions').
_FITS: Final = {
    b"LHLO": {250},
    b"MAIL": {250},
    b"RCPT": {250},
    b"DATA": {354},
    b"BDAT": {250},
    b"RSET": {250},
    b"NOOP": {250},
    b"VRFY": {252},
    b"HELP": {214},
    b"QUIT": {221},
    b"STARTTLS": {220},
    b"AUTH": {235, 334},
    b"XCLIENT": {220},
    b"XFORWARD": {250},
}
_HTTP: Final = set(b"GET POST PUT HEAD OPTIONS DELETE PATCH CONNECT TRACE PRI HOST HOST:".split())
# RFC 3030 2; what stands behind the size does not change how many octets follow.
_BDAT: Final = re.compile(r"BDAT ([0-9]{1,20})(?: (.*))?", re.IGNORECASE | re.ASCII)
_SAYS_BDAT: Final = re.compile(rb"BDAT(?=[\x00-\x20]|\Z)", re.IGNORECASE)
_WORD: Final = re.compile(rb"[A-Za-z]{1,32}(?=[\x00-\x20]|\Z)")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")


def _is_http(line: bytes) -> bool:
    """Whether a browser may have sent the line."""
    if _text(line):
        return line.split(b" ")[0].rstrip(b" \t").upper() in _HTTP
    word = _WORD.match(line)
    return word is not None and word[0].upper() in _HTTP


def _text(line: bytes) -> str:
    """The text of a line, `""` where it is none (RFC 5321 4.1.2, RFC 6531 3.3)."""
    try:
        text = line.decode().rstrip(" \t")
    except UnicodeDecodeError:
        return ""
    return "" if _CONTROL.search(text) else text


class _OverError(Exception):
    """The account ends here: the session has, or the octets have."""


class _Account:
    """The replies that octets have to get, by a reading of its own.

    What was accepted it learns from the replies; which line each belongs to, and how many there are
    to be, it finds itself.
    """

    def __init__(
        self,
        octets: bytes,
        ends: list[int],
        codes: list[int],
        handler: Moody,
        runtime: Runtime,
        terms: Terms,
    ) -> None:
        self._octets = octets
        self._ends = ends
        self._codes = codes
        self._taken = 0
        self._delivered = iter(handler.delivered)
        self._next_delivered = next(self._delivered, None)
        self._runtime = runtime
        self._terms = terms
        self._place = 0
        # The next line is the answer to a challenge.
        self._exchange = False
        # Of the transaction: accepted recipients, whether there is one, octets so far.
        self._mail = False
        self._recipients = 0
        self._content = b""
        self._broken = False

    def check(self) -> None:
        """Raise AssertionError where the replies are not those that have to be."""
        try:
            assert self._reply("the greeting") in (220, 554)
            while True:
                self._line()
        except _OverError:
            pass
        left = self._codes[self._taken :]
        # A session may end with a 421 that nothing asked for: a timeout, a stop, a flood.
        assert left in ([], [421]), f"{left}: more replies than lines"
        assert self._next_delivered is None, "a content was delivered whose end never came"

    def _reply(self, what: str) -> int:
        if self._taken == len(self._codes):
            # A client that was cut off misses no more than what it could not be told any more.
            raise AssertionError(f"no reply to {what}")
        code = self._codes[self._taken]
        self._taken += 1
        if code == 421:
            raise _OverError
        return code

    def _line(self) -> None:
        start = self._place
        end = self._octets.find(b"\r\n", start)
        if end < 0:
            self._unfinished_line()
        line = self._octets[start:end]
        self._place = end + 2
        verb = line.split(b" ")[0].rstrip(b" \t").upper()
        if b"\n" in line or line[:1] == b"\x16" or len(line) + 2 > self._limit:
            assert self._reply(repr(line)) >= 500
            if line[:1] == b"\x16":
                raise _OverError
            self._exchange = False
            self._miss_chunk(line)
            return
        if self._exchange:
            code = self._reply("a response")
            assert code >= 400 or code in _FITS[b"AUTH"], f"{code} answers a response"
            self._exchange = code == 334
            return
        if self._terms.chunking and self._chunk(line):
            return
        code = self._reply(repr(line))
        assert code >= 400 or code in _FITS.get(verb, ()), f"{code} answers {line!r}"
        if code >= 400:
            if _is_http(line):
                raise _OverError
            if code in (500, 501):
                self._miss_chunk(line)
            return
        match verb:
            case b"MAIL":
                self._mail = True
            case b"RCPT":
                self._recipients += 1
            case b"DATA":
                self._data()
            case b"LHLO" | b"RSET":
                self._forget()
            case b"QUIT":
                raise _OverError
            case b"AUTH":
                self._exchange = code == 334
            case b"STARTTLS":
                if self._runtime.handshake_failed:
                    raise _OverError
                # RFC 3207 4.2: all that had come is dropped.
                self._place = self._ends[bisect_left(self._ends, self._place)]

    def _miss_chunk(self, line: bytes) -> None:
        """RFC 3030 2: a chunk whose line cannot be read is missing from the message."""
        if self._terms.chunking and self._mail and _SAYS_BDAT.match(line):
            self._broken = True

    def _unfinished_line(self) -> None:
        """The last octets: they are answered only where it is known already that they are wrong."""
        line = self._octets[self._place :]
        if line[:1] == b"\x16" or _BARE_LF.search(line) or len(line) > self._limit:
            assert self._reply(repr(line)) >= 500
        raise _OverError

    @property
    def _limit(self) -> int:
        """The longest line (RFC 4954 4)."""
        return _LINE if self._exchange else self._terms.settings.limits.command_line

    def _chunk(self, line: bytes) -> bool:
        """Whether `line` says that a chunk follows; if so, the chunk and its replies."""
        text = _text(line)
        match = _BDAT.fullmatch(text)
        if match is None:
            return False
        self._place += int(match[1])
        word = (match[2] or "").strip(" ").upper()
        readable = word in ("", "LAST")
        if self._place > len(self._octets):
            # Its octets are awaited before anything is said (RFC 3030 2).
            raise _OverError
        if not readable or not self._mail or self._broken:
            assert self._reply(text) >= 500
            self._broken = self._mail
        elif word == "LAST":
            self._content += self._octets[self._place - int(match[1]) : self._place]
            self._finals()
        else:
            code = self._reply(text)
            assert code >= 400 or (code == 250 and self._recipients), f"{code} answers {text!r}"
            self._content += self._octets[self._place - int(match[1]) : self._place]
            self._broken = code >= 400
        return True

    def _data(self) -> None:
        start = self._place
        # The line end of the DATA command is that in front of the first line.
        end = self._octets.find(b"\r\n.\r\n", start - 2)
        if end < 0:
            raise _OverError
        self._place = end + 5
        content = self._octets[start - 2 : end + 2].replace(b"\r\n.", b"\r\n")
        self._content = content[2:]
        self._finals()

    def _finals(self) -> None:
        """The replies to a content: one for each recipient, or none."""
        codes = self._codes[self._taken : self._taken + self._recipients]
        self._taken += len(codes)
        if len(codes) < self._recipients:
            # The session has ended in between.
            assert codes[-1:] == [421], f"{codes} for {self._recipients} recipients"
            raise _OverError
        delivered = self._next_delivered
        refused = codes[:1] >= [400] and codes.count(codes[0]) == len(codes)
        if delivered is not None and delivered[1] == codes:
            # All may have been refused alike, with what the next ones will be told.
            is_same = delivered[0] == self._content or not self._terms.keeps_all
            assert is_same or refused, "the content is not what was sent"
            if is_same:
                self._next_delivered = next(self._delivered, None)
        else:
            assert refused or not codes, f"{codes}: what was not delivered was not refused"
        if 421 in codes:
            raise _OverError
        self._forget()

    def _forget(self) -> None:
        self._mail = False
        self._recipients = 0
        self._content = b""
        self._broken = False
