"""A model of the session, small enough to be right by itself, beside both roles.

A handler does at each place what the addresses say: it accepts, refuses for now or for good,
raises, answers what makes no sense or ends the session, at once or by a job. The model knows of no
machine and no table. It says which replies there are, in which order, and how many octets of the
client each one has waited for; so it also says what is left when the client vanishes anywhere.
"""

import itertools
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmtp_proto import (
    Address,
    Effect,
    Handler,
    Interrupt,
    Limits,
    Mail,
    Receive,
    Recipient,
    Reply,
    Result,
    Run,
    Send,
    Session,
    Settings,
    Submission,
    Transaction,
    Wait,
)
from tests.protocol.driver import Driver, begin

T = TypeVar("T")

_SETTINGS: Final = Settings(
    limits=Limits(recipients=3, message_size=1000, discard=100_000, faults=1000)
)

# --- moods ---------------------------------------------------------------------------------------

_CODES: Final[dict[str, int]] = {"no": 550, "later": 450, "raise": 451, "wrong": 451, "bye": 421}
_MOODS: Final = (*["ok"] * 12, "no", "later", "raise", "wrong", "bye")
# RFC 5321 4.3.2: what else a handler says to a new client is a fault of its own.
_GREETINGS: Final = {"ok": 220, "refused": 554}


def _code(mood: str) -> int | None:
    """What is said instead of acceptance, None for that. A "j" behind the mood is a job."""
    return _CODES.get(mood.removesuffix("j"))


def _do(mood: str, accept: Callable[[], object], wrong: object) -> Any:
    """What a hook in this mood gives, or the job that gives it."""

    def now() -> object:
        match mood.removesuffix("j"):
            case "ok":
                return accept()
            case "raise":
                raise RuntimeError("a mood")
            case "wrong":
                return wrong
            case name:
                return Reply(_CODES[name], name)

    return now if mood.endswith("j") else now()


class Moody(Handler):
    """Does what addresses say: MAIL FROM:<mail.open.write@b>, RCPT TO:<rcpt.deliver.number@b>."""

    def __init__(self, greeting: str) -> None:
        self.greeting = greeting
        self.delivered: list[str] = []
        self.sinks: list[MoodySink] = []
        self.disconnected = 0

    def connect(self, session: Session, /) -> Any:
        if self.greeting == "refused":
            return Reply(554, "no")
        return _do(self.greeting, lambda: None, 42)

    def mail(self, session: Session, mail: Mail, /) -> Any:
        return _do(_moods(mail.reverse_path)[0], lambda: None, 42)

    def rcpt(self, transaction: Transaction, recipient: Recipient, /) -> Any:
        return _do(_moods(recipient.address)[0], lambda: None, 42)

    def open(self, transaction: Transaction, /) -> Any:
        def accept() -> MoodySink:
            sink = MoodySink(self, transaction)
            self.sinks.append(sink)
            return sink

        return _do(_moods(transaction.reverse_path)[1], accept, None)

    def disconnect(self, session: Session, /) -> None:
        self.disconnected += 1

    def check_settled(self) -> None:
        """Everything that was begun is over, once."""
        assert [sink.closed for sink in self.sinks] == [1] * len(self.sinks)
        assert self.disconnected == 1


class MoodySink:
    def __init__(self, handler: Moody, transaction: Transaction) -> None:
        self._handler = handler
        self._mood = _moods(transaction.reverse_path)[2]
        self.closed = 0

    def write(self, data: bytes, /) -> Any:
        assert not self.closed
        return _do(self._mood, lambda: None, 42)

    def deliver(self, recipient: Recipient, /) -> Any:
        def accept() -> Reply:
            assert not self.closed
            self._handler.delivered.append(str(recipient))
            return Reply(250, "ok")

        return _do(_moods(recipient.address)[1], accept, None)

    def close(self) -> None:
        self.closed += 1


def _address(local_part: str) -> Address:
    return Address(local_part, "b")


def _moods(address: Address | None) -> list[str]:
    assert address is not None
    return address.local_part.split(".")


# --- the server's role ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Due:
    """A reply, and how many octets the client has sent when it comes."""

    code: int
    earliest: int
    latest: int


@dataclass
class Model:
    """What a client says, and what it is to read."""

    sent: bytes = b""
    due: list[Due] = field(default_factory=list)
    delivered: list[tuple[int, str]] = field(default_factory=list)
    """Who gets the message, and the octets sent until then."""
    refused: bool = False
    closed: bool = False
    greeted: bool = False
    mail: list[str] | None = None
    recipients: list[str] = field(default_factory=list)
    opened: bool = False
    size: int = 0
    refusal: int | None = None
    phase: Literal["envelope", "chunks", "broken"] = "envelope"

    def greet(self, greeting: str) -> None:
        self.say(b"", _GREETINGS.get(greeting.removesuffix("j"), 421))
        self.refused = greeting == "refused"

    def say(self, octets: bytes, *codes: int, early: int = 0) -> None:
        """Send octets that have these replies, which may come `early` octets before the last."""
        self.sent += octets
        for code in codes:
            self.due.append(Due(code, len(self.sent) - early, len(self.sent)))
        self.closed = 421 in codes

    def reset(self) -> None:
        self.mail = None
        self.recipients = []
        self.opened = False
        self.size = 0
        self.refusal = None
        self.phase = "envelope"

    def line(self, line: bytes, code: int) -> None:
        self.say(line, 503 if self.refused else code)

    def lhlo(self) -> None:
        self.line(b"LHLO x\r\n", 250)
        if not self.refused:
            self.greeted = True
            self.reset()

    def bad_bdat(self) -> None:
        self.say(b"BDAT x\r\n", 501)
        if self.mail is not None:
            # RFC 3030 2: a chunk is missing.
            self.phase = "broken"

    def rset(self) -> None:
        self.line(b"RSET\r\n", 250)
        self.reset()

    def quit(self) -> None:
        self.say(b"QUIT\r\n", 221)
        self.closed = True

    def mail_from(self, moods: Sequence[str]) -> None:
        code = 503
        if self.greeted and self.mail is None:
            code = _code(moods[0]) or 250
        self.say(f"MAIL FROM:<{'.'.join(moods)}@b>\r\n".encode(), code)
        if code == 250:
            self.mail = list(moods)

    def rcpt_to(self, moods: Sequence[str]) -> None:
        address = f"{'.'.join(moods)}.{len(self.due)}@b"
        code = 503
        if self.mail is not None and self.phase == "envelope":
            full = len(self.recipients) >= _SETTINGS.limits.recipients
            code = 452 if full else _code(moods[0]) or 250
        self.say(f"RCPT TO:<{address}>\r\n".encode(), code)
        if code == 250:
            self.recipients.append(address)

    def data(self, content: bytes) -> None:
        if not self.recipients or self.phase != "envelope":
            self.say(b"DATA\r\n", 503)
            return
        assert self.mail is not None
        refusal = _code(self.mail[1])
        self.say(b"DATA\r\n", refusal or 354)
        # A client that is refused sends no content.
        if refusal is None:
            self.take(len(content))
            stuffed = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]
            self.finish(stuffed + b".\r\n")

    def bdat(self, size: int, last: bool) -> None:
        octets = b"BDAT %d%s\r\n" % (size, b" LAST" if last else b"") + b"Q" * size
        if self.mail is None or self.phase == "broken":
            self.say(octets, 503)
        elif not self.recipients and last:
            # RFC 2033 4.3: zero replies.
            self.say(octets)
            self.reset()
        elif not self.recipients:
            self.say(octets, 503)
            self.phase = "broken"
        else:
            if self.size + size > _SETTINGS.limits.message_size:
                self.refusal = self.refusal or 552
            elif not self.opened:
                assert self.mail is not None
                self.refusal = _code(self.mail[1])
                self.opened = True
            self.take(size)
            if last:
                self.finish(octets)
            else:
                self.say(octets, self.refusal or 250)
                self.phase = "broken" if self.refusal else "chunks"

    def take(self, size: int) -> None:
        """Content comes: is it too much, or unwanted?"""
        assert self.mail is not None
        self.size += size
        if self.refusal is None and self.size > _SETTINGS.limits.message_size:
            self.refusal = 552
        elif self.refusal is None and size:
            self.refusal = _code(self.mail[2])

    def finish(self, octets: bytes) -> None:
        """The content is complete: a reply for each recipient."""
        moods = [recipient.split(".")[1] for recipient in self.recipients]
        self.say(octets, *(self.refusal or _code(mood) or 250 for mood in moods))
        if self.refusal is None:
            for recipient, mood in zip(self.recipients, moods, strict=True):
                if _code(mood) is None:
                    self.delivered.append((len(self.sent), recipient))
        self.reset()

    def expected(self, octets: int) -> tuple[list[int], list[int]]:
        """The replies that must, and those that may have come behind so many octets."""
        return (
            [due.code for due in self.due if due.latest <= octets],
            [due.code for due in self.due if due.earliest <= octets],
        )


Steps = list[tuple[str, object]]


def _model(greeting: str, steps: Steps) -> Model:
    model = Model()
    model.greet(greeting)
    for name, value in steps:
        if model.closed:
            break
        match name, value:
            case "mail", tuple(moods):
                model.mail_from(moods)
            case "rcpt", tuple(moods):
                model.rcpt_to(moods)
            case "data", bytes(content):
                # Of two reasons to refuse, which one is told depends on the pieces.
                unwanted = model.mail is not None and _code(model.mail[2])
                model.data(b"hi\r\n" if unwanted else content)
            case "bdat", (int(size), bool(last)):
                model.bdat(size, last)
            case "line", (bytes(line), int(code)):
                model.line(line, code)
            case "fault", (bytes(line), int(code)):
                # What can be no command any more is answered at once.
                hopeless = len(line) > _SETTINGS.limits.command_line or b"\n" in line[:-2]
                model.say(line, code, early=len(line) - 3 if hopeless else 0)
            case "lhlo", _:
                model.lhlo()
            case "rset", _:
                model.rset()
            case "bad_bdat", _:
                model.bad_bdat()
            case _:
                model.quit()
    return model


def _check(model: Model, greeting: str, pieces: Sequence[bytes], *, vanishes: bool) -> None:
    """Hold the session over `pieces`, at whose end the client may vanish."""
    handler = Moody(greeting)
    driver = Driver(handler, _SETTINGS)
    for piece in pieces:
        if not driver.closed:
            driver.receive(piece)
    octets = sum(map(len, pieces))
    assert driver.closed == (model.closed and octets == len(model.sent))
    if vanishes and not driver.closed:
        driver.eof()
        assert driver.closed
    at_least, at_most = model.expected(octets)
    assert driver.codes[: len(at_least)] == at_least
    assert driver.codes == at_most[: len(driver.codes)]
    delivered = [who for place, who in model.delivered if place <= octets]
    # Jobs run behind what is done at once.
    assert sorted(handler.delivered) == sorted(delivered)
    if driver.closed:
        handler.check_settled()


def _cut(octets: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({0, len(octets), *(cut % (len(octets) + 1) for cut in cuts)})
    return [octets[begin:end] for begin, end in itertools.pairwise(places)]


_MOOD: Final = st.sampled_from([*_MOODS, *(f"{mood}j" for mood in dict.fromkeys(_MOODS))])
_GREETING: Final = st.sampled_from([*["ok"] * 9, "okj", "refused", *_CODES])
_CONTENT: Final = st.sampled_from(
    [
        b"",
        b"hi\r\n",
        b"a\r\n.b\r\n",
        b"RSET\r\nQUIT\r\n",
        b"x" * 998 + b"\r\n",
        b"x" * 999 + b"\r\n",
    ]
)
_STEPS: Final = st.one_of(
    st.tuples(st.just("mail"), st.tuples(_MOOD, _MOOD, _MOOD)),
    *[st.tuples(st.just("rcpt"), st.tuples(_MOOD, _MOOD))] * 2,
    st.tuples(st.just("data"), _CONTENT),
    st.tuples(st.just("bdat"), st.tuples(st.sampled_from([0, 1, 9, 600]), st.booleans())),
    st.sampled_from([("lhlo", None), ("rset", None), ("quit", None), ("bad_bdat", None)]),
    st.tuples(
        st.just("line"),
        st.sampled_from([(b"NOOP\r\n", 250), (b"VRFY x\r\n", 252), (b"HELP\r\n", 214)]),
    ),
    st.tuples(
        st.just("fault"),
        st.sampled_from(
            [
                *((b"BOGUS\r\n", 500), (b"EHLO x\r\n", 500), (b"NO\nOP\r\n", 500)),
                *((b"x" * 5000 + b"\r\n", 500), (b"DATA x\r\n", 501), (b"NOOP \xff\r\n", 501)),
                *((b"LHLO\r\n", 501), (b"MAIL FROM:<\r\n", 501), (b"EXPN x\r\n", 502)),
                (b"MAIL FROM:<a@b> FOO\r\n", 555),
            ]
        ),
    ),
)
_CUTS: Final = st.lists(st.integers(0, 100_000), max_size=8)


@settings(max_examples=300)
@given(
    greeting=_GREETING,
    greeted=st.booleans(),
    steps=st.lists(_STEPS, max_size=30),
    cuts=_CUTS,
    place=st.integers(0, 100_000),
)
def test_a_model_of_the_session(
    greeting: str, greeted: bool, steps: Steps, cuts: list[int], place: int
) -> None:
    model = _model(greeting, [("lhlo", None), *steps] if greeted else steps)
    _check(model, greeting, _cut(model.sent, cuts), vanishes=False)
    start = model.sent[: place % (len(model.sent) + 1)]
    _check(model, greeting, _cut(start, cuts), vanishes=True)


_FAILURES: Final = list(itertools.product(["mail", "open", "write", "rcpt", "deliver"], _CODES))


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    ("hook", "mood"), [("none", "ok"), ("connect", "bye"), ("connect", "refused"), *_FAILURES]
)
def test_a_client_that_vanishes_behind_any_octet(hook: str, mood: str, chunked: bool) -> None:
    def at(name: str) -> str:
        return mood if name == hook else "ok"

    content: Steps = (
        [("bdat", (2, False)), ("bdat", (1, True))] if chunked else [("data", b".\r\n")]
    )
    model = _model(
        at("connect"),
        [
            ("lhlo", None),
            ("mail", (at("mail"), at("open"), at("write"))),
            ("rcpt", ("ok", "ok")),
            ("rcpt", (at("rcpt"), at("deliver"))),
            *content,
            ("line", (b"NOOP\r\n", 250)),
        ],
    )
    for place in range(len(model.sent) + 1):
        octets = model.sent[:place]
        _check(model, at("connect"), [octets] if octets else [], vanishes=True)


# --- the client's role ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Letter:
    """A message, and what the server is to think of it."""

    moods: tuple[str, str, str]
    rcpts: list[tuple[str, str]]
    content: list[bytes]


def _verdicts(greeting: str, letters: Sequence[Letter]) -> list[list[tuple[int, bool]]]:
    """The code for each recipient, and whether the message is delivered to it."""
    ended = None if greeting == "ok" else _GREETINGS.get(greeting, 421)
    verdicts = []
    for letter in letters:
        codes: list[int | None] = [ended] * len(letter.rcpts)
        mail, opened, written = map(_code, letter.moods)
        if ended is None and mail is not None:
            codes = [mail] * len(codes)
        elif ended is None:
            accepted = 0
            for number, (rcpt, _) in enumerate(letter.rcpts):
                full = accepted >= _SETTINGS.limits.recipients
                codes[number] = 452 if full else _code(rcpt)
                accepted += codes[number] is None
                if codes[number] == 421:
                    break
            # The reason to refuse the content, if there is content for anybody.
            refusal = opened or (written if any(letter.content) else None)
            if 421 in codes:
                refusal = 421
            for number, (_, deliver) in enumerate(letter.rcpts):
                codes[number] = codes[number] or refusal or _code(deliver)
        if 421 in codes:
            ended = 421
        verdicts.append([(code or 250, code is None) for code in codes])
    return verdicts


class Link:
    """The server at the other end of a line that may break behind so many octets each way."""

    def __init__(self, greeting: str, up: int | None, down: int | None) -> None:
        self.handler = Moody(greeting)
        self.driver = Driver(self.handler, _SETTINGS)
        self.sent = 0
        self.read = 0
        self._up = up
        self._down = down
        self._broken = False

    def perform(self, conversation: Generator[Effect, None, T]) -> T:
        """Run the client's conversation; what it returns. Time stands still at 0."""
        while True:
            try:
                effect = next(conversation)
            except StopIteration as end:
                found: T = end.value
                return found
            match effect:
                case Send(data=data):
                    self._send(data)
                case Receive():
                    effect.outcome = self._receive()
                    if effect.outcome is Interrupt.TIMEOUT:
                        assert effect.deadline == 0.0, "both sides wait"
                case Run():
                    begin(effect)
                case _:
                    assert isinstance(effect, Wait)

    def close(self) -> None:
        """The client has closed the connection."""
        if not self.driver.closed:
            self.driver.eof()

    def _send(self, data: bytes) -> None:
        through = data if self._up is None else data[: max(self._up - self.sent, 0)]
        self.sent += len(data)
        if through and not self.driver.closed:
            self.driver.receive(through)
        if through != data:
            self._broken = True
            self.close()

    def _receive(self) -> bytes | Interrupt:
        output = self.driver.output[self.read :]
        through = output if self._down is None else output[: max(self._down - self.read, 0)]
        self.read += len(through)
        if through:
            return through
        if through != output or self._broken or self.driver.closed:
            return b""
        return Interrupt.TIMEOUT


def _submit(
    link: Link, letters: Sequence[Letter], chunk_size: int, window: int
) -> list[list[Result]]:
    submission = Submission(
        "client.example.org",
        clock=lambda: 0.0,
        chunk_size=chunk_size,
        limits=Limits(window=window),
    )
    link.perform(submission.open())
    results = []
    for number, letter in enumerate(letters):
        recipients = [
            Recipient(address=_address(f"{rcpt}.{deliver}.{number}.{place}"))
            for place, (rcpt, deliver) in enumerate(letter.rcpts)
        ]
        pieces = iter([*letter.content, b""])
        found = link.perform(
            submission.submit(_address(".".join(letter.moods)), recipients, pieces.__next__)
        )
        # Each recipient has one result, and his own.
        assert [result.recipient for result in found] == recipients
        results.append(found)
    link.perform(submission.close())
    link.close()
    assert submission.failure is None
    link.handler.check_settled()
    return results


_LETTERS: Final = st.lists(
    st.builds(
        Letter,
        moods=st.tuples(_MOOD, _MOOD, _MOOD),
        rcpts=st.lists(st.tuples(_MOOD, _MOOD), min_size=1, max_size=5),
        content=st.lists(st.sampled_from([b"a\r\n", b".\r\n", b"bc"]), max_size=4),
    ),
    min_size=1,
    max_size=3,
)
_FINE: Final = ("ok", "ok", "ok")
_WAY: Final = st.tuples(st.sampled_from([0, 2, 1000]), st.sampled_from([1, 2, 3, 100]))


@settings(max_examples=300)
@given(greeting=_GREETING.filter(lambda mood: mood != "okj"), letters=_LETTERS, way=_WAY)
def test_a_model_of_the_submission(
    greeting: str, letters: list[Letter], way: tuple[int, int]
) -> None:
    link = Link(greeting, None, None)
    results = _submit(link, letters, *way)
    verdicts = _verdicts(greeting, letters)
    assert [[result.reply.code for result in found] for found in results] == [
        [code for code, _ in expected] for expected in verdicts
    ]
    delivered = [
        str(result.recipient)
        for found, expected in zip(results, verdicts, strict=True)
        for result, (_, delivered) in zip(found, expected, strict=True)
        if delivered
    ]
    # Jobs run behind what is done at once.
    assert sorted(link.handler.delivered) == sorted(delivered)


def _check_broken(letters: list[Letter], way: tuple[int, int], link: Link) -> None:
    """What is known is told, the rest may be tried again; and nothing is told that is not so."""
    results = _submit(link, letters, *way)
    for found, expected in zip(results, _verdicts("ok", letters), strict=True):
        for result, (code, _) in zip(found, expected, strict=True):
            assert result.reply.code in (code, 451)
            if result.reply.accepted:
                assert str(result.recipient) in link.handler.delivered


@settings(max_examples=200)
@given(letters=_LETTERS, way=_WAY, place=st.integers(0, 400), up=st.booleans())
def test_a_line_that_breaks(
    letters: list[Letter], way: tuple[int, int], place: int, up: bool
) -> None:
    _check_broken(letters, way, Link("ok", place if up else None, None if up else place))


@pytest.mark.parametrize("way", [(0, 100), (2, 100), (1000, 1)])
def test_a_line_that_breaks_behind_any_octet(way: tuple[int, int]) -> None:
    letters = [
        Letter(
            ("ok", "ok", "ok"), [("ok", "ok"), ("no", "ok"), ("ok", "later")], [b"a\r\n", b".\r\n"]
        ),
        Letter(("ok", "ok", "ok"), [("ok", "okj")], [b"b"]),
    ]
    whole = Link("ok", None, None)
    _submit(whole, letters, *way)
    for place in range(whole.sent):
        _check_broken(letters, way, Link("ok", place, None))
    for place in range(whole.read):
        _check_broken(letters, way, Link("ok", None, place))
