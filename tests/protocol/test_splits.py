"""Whole sessions: any split of the octets gives equal events and equal output; a model counts."""

import itertools
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from lmtp_proto import (
    STANDARD_EXTENSIONS,
    Bdat,
    CommandParser,
    Content,
    Data,
    EndOfChunk,
    EndOfContent,
    Fault,
    Limits,
    Mail,
    Quit,
    Rcpt,
    RecipientReply,
    RemainingReply,
    Reply,
    ServerConnection,
    Signal,
)
from tests.dialogs.handler import SETTINGS, DialogHandler
from tests.dialogs.transcript import dialogs
from tests.protocol.driver import Driver

_PARSER = CommandParser(
    Limits(command_line=512, recipients=3, message_size=60, discard=40),
    STANDARD_EXTENSIONS,
)
_OK = Reply(250, "ok")
_NO = Reply(550, "no")


def _answer(connection: ServerConnection, event: object) -> bytes:
    """Answer as a server would; local parts that begin with "no" are refused."""
    match event:
        case Fault(reply=reply):
            return connection.send(reply)
        case Mail(reverse_path=path):
            return connection.send(_NO if str(path).startswith("no") else _OK)
        case Rcpt(recipient=recipient):
            return connection.send(_NO if str(recipient).startswith("no") else _OK)
        case Data():
            return connection.send(Reply(354, "go"))
        case Quit():
            return connection.send(Reply(221, "bye"))
        case EndOfChunk():
            return connection.send(connection.refusal or _OK)
        case EndOfContent(recipients=recipients, refusal=refusal):
            if refusal is not None:
                return connection.send(RemainingReply(reply=refusal)) if recipients else b""
            # Out of order: the machine puts them right.
            return b"".join(
                connection.send(RecipientReply(recipient=r, reply=Reply(250, f"for {r}")))
                for r in reversed(recipients)
            )
        case Bdat() | Content():
            return b""
    return connection.send(_OK) if connection.state.name != "CLOSED" else b""


def _label(event: object) -> object:
    """The event without what differs by identity alone."""
    if isinstance(event, Rcpt):
        return ("Rcpt", str(event.recipient))
    if isinstance(event, EndOfContent):
        return ("EndOfContent", list(map(str, event.recipients)), event.size, event.refusal)
    return event


def _play(pieces: list[bytes]) -> tuple[list[object], bytes]:
    """Events, adjoining content joined, and output of one connection."""
    connection = ServerConnection(parser=_PARSER)
    output = connection.send(Reply(220, "hello", enhanced=""))
    events: list[object] = []
    content = b""

    def pump() -> None:
        nonlocal output, content
        while not isinstance(event := connection.next_event(), Signal):
            if isinstance(event, Content):
                content += event.data
                continue
            if content:
                events.append(content)
                content = b""
            events.append(_label(event))
            output += _answer(connection, event)

    for piece in pieces:
        connection.receive_data(piece)
        pump()
    connection.receive_eof()
    pump()
    return events, output


_FRAGMENTS = st.sampled_from(
    [
        *(b"LHLO x\r\n", b"MAIL FROM:<>\r\n", b"MAIL FROM:<no@b>\r\n", b"RCPT TO:<a@b>\r\n"),
        *(b"RCPT TO:<no@b>\r\n", b"DATA\r\n", b"DATA\r\n", b"text\r\n.\r\n", b"\r\n.\r\n"),
        *(b".\r\n", b"BDAT 3\r\nabc", b"BDAT 3 LAST\r\nab\r", b"BDAT 4 FIRST\r\nRSET"),
        *(b"BDAT 61\r\n", b"y" * 61, b"BDAT 70\r\n" + b"z" * 70, b"BDAT 0 LAST\r\n"),
        *(b"BDAT 200\r\n", b"RSET\r\n", b"NOOP\r\n", b"VRFY a\r\n", b"HELP\r\n", b"QUIT\r\n"),
        *(b"EHLO x\r\n", b"GET / x\r\n", b"\r", b"\n", b".", b"x" * 600, b"\x00", b"\xff\r\n"),
        *(b"\r\n", b"a\nb\r\n", b"w" * 120, b"\r\n..\r\n", b"\n.\n", b"\x16", b"\x03"),
    ]
)
_ENVELOPES = st.sampled_from(
    [
        b"",
        b"LHLO x\r\n",
        b"LHLO x\r\nMAIL FROM:<>\r\n",
        b"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\n",
        b"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n",
        b"\x16",
    ]
)
_SESSIONS = st.builds(
    lambda start, rest: start + b"".join(rest), _ENVELOPES, st.lists(_FRAGMENTS, max_size=12)
)


def _cut(octets: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(octets), *(cut % (len(octets) + 1) for cut in cuts)})
    return [octets[a:b] for a, b in itertools.pairwise(places)]


@settings(max_examples=400)
@given(_SESSIONS, st.lists(st.integers(0, 5000), max_size=12))
def test_any_split_gives_equal_events_and_output(octets: bytes, cuts: list[int]) -> None:
    whole = _play([octets])
    assert _play(_cut(octets, cuts)) == whole
    assert _play([octets[n : n + 1] for n in range(len(octets))]) == whole


_DIALOGS = [dialog for dialog in dialogs() if len(dialog.sent) < 30_000]


@given(st.sampled_from(_DIALOGS), st.lists(st.integers(0, 30_000), max_size=12))
def test_any_split_of_a_dialogue_gives_equal_output(dialog: object, cuts: list[int]) -> None:
    assert isinstance(dialog, type(_DIALOGS[0]))
    outputs = set()
    for pieces in ([dialog.sent] if dialog.sent else [], _cut(dialog.sent, cuts)):
        driver = Driver(DialogHandler(), SETTINGS)
        for piece in pieces:
            if not driver.closed:
                driver.receive(piece)
        if not driver.closed:
            driver.eof()
        outputs.add(driver.output)
    assert len(outputs) == 1


@given(st.lists(st.binary(max_size=60), max_size=10))
def test_any_octets_at_all(pieces: list[bytes]) -> None:
    octets = b"".join(pieces)
    assert _play([piece for piece in pieces if piece]) == _play([octets])


@dataclass
class Model:
    """What a client is to read, worked out without the server's code."""

    greeted: bool = False
    mail: bool = False
    recipients: int = 0
    chunks: bool = False
    broken: bool = False
    size: int = 0
    refused: bool = False
    codes: list[int] = field(default_factory=lambda: [220])
    sent: bytes = b""
    commands: int = 1
    """Replies that commands are owed: the greeting, each command, each accepted recipient."""

    def reset(self) -> None:
        self.mail = self.chunks = self.broken = self.refused = False
        self.recipients = self.size = 0

    def say(self, octets: bytes, code: int, number: int = 1) -> None:
        self.sent += octets
        self.codes += [code] * number
        self.commands += number

    def lhlo(self, argument: str) -> None:
        if not argument:
            self.say(b"LHLO\r\n", 501)
            return
        self.say(b"LHLO x\r\n", 250)
        self.greeted = True
        self.reset()

    def mail_from(self, kind: str) -> None:
        if kind == "syntax":
            self.say(b"MAIL FROM:<\r\n", 501)
        elif kind == "parameter":
            self.say(b"MAIL FROM:<a@b> FOO\r\n", 555)
        else:
            free = self.greeted and not self.mail
            accepted = free and kind == "accepted"
            code = 250 if accepted else 550 if free else 503
            self.say(b"MAIL FROM:<%s@b>\r\n" % (b"spam" if kind == "refused" else b"a"), code)
            self.mail = self.mail or accepted

    def rcpt_to(self, local_part: str) -> None:
        line = f"RCPT TO:<{local_part}@b>\r\n".encode()
        if not self.mail or self.chunks or self.broken:
            self.say(line, 503)
        elif self.recipients >= SETTINGS.limits.recipients:
            self.say(line, 452)
        elif local_part == "no":
            self.say(line, 550)
        elif local_part == "oops":
            self.say(line, 451)
        else:
            self.say(line, 250)
            self.recipients += 1

    def data(self, content: bytes) -> None:
        # A client that is refused sends no content.
        if not self.recipients or self.chunks or self.broken:
            self.say(b"DATA\r\n", 503)
            return
        self.say(b"DATA\r\n", 354)
        too_big = len(content) > SETTINGS.limits.message_size
        self.say(
            content.replace(b"\r\n.", b"\r\n..") + b".\r\n",
            552 if too_big else 250,
            self.recipients,
        )
        self.reset()

    def bdat(self, size: int, last: bool) -> None:
        octets = b"BDAT %d%s\r\n" % (size, b" LAST" if last else b"") + b"Q" * size
        if self.mail and not self.recipients and not self.broken and last:
            # RFC 2033 4.3: zero replies.
            self.sent += octets
            self.reset()
        elif not self.recipients or self.broken:
            self.say(octets, 503)
            self.broken = self.mail
        else:
            self.size += size
            too_big = self.size > SETTINGS.limits.message_size
            if last:
                self.say(octets, 552 if too_big else 250, self.recipients)
                self.reset()
            else:
                self.say(octets, 552 if too_big else 250)
                self.chunks = not too_big
                self.broken = too_big

    def bad_bdat(self, octets: bytes) -> None:
        self.say(octets, 501)
        self.broken = self.mail

    def rset(self) -> None:
        self.say(b"RSET\r\n", 250)
        self.reset()


_STEPS = st.one_of(
    st.tuples(st.just("lhlo"), st.sampled_from(["x", "x", ""])),
    st.tuples(
        st.just("mail"), st.sampled_from([*["accepted"] * 4, "refused", "syntax", "parameter"])
    ),
    st.tuples(st.just("rcpt"), st.sampled_from(["a", "b", "job", "no", "oops"])),
    st.tuples(st.just("rcpt"), st.sampled_from(["a", "b", "job", "no", "oops"])),
    st.tuples(
        st.just("data"),
        st.sampled_from(
            [b"", b"hi\r\n", b"a\r\n.b\r\n", b"RSET\r\nQUIT\r\n", b"x" * 10_000 + b"\r\n"]
        ),
    ),
    st.tuples(st.just("bdat"), st.tuples(st.sampled_from([0, 1, 9, 6000]), st.booleans())),
    st.tuples(st.just("bad_bdat"), st.sampled_from([b"BDAT x\r\n", b"BDAT 4 NOW\r\nQUIT"])),
    st.tuples(st.just("rset"), st.none()),
    st.tuples(
        st.just("line"),
        st.sampled_from(
            [
                *((b"NOOP\r\n", 250), (b"VRFY x\r\n", 252), (b"BOGUS\r\n", 500)),
                *((b"EHLO x\r\n", 500), (b"NO\nOP\r\n", 500), (b"x" * 5000 + b"\r\n", 500)),
                *((b"DATA x\r\n", 501), (b"EXPN x\r\n", 502), (b"NOOP \xff\r\n", 501)),
            ]
        ),
    ),
)


@settings(max_examples=300)
@given(st.lists(_STEPS, max_size=30), st.lists(st.integers(0, 100_000), max_size=8), st.booleans())
def test_a_model_of_the_session(
    steps: list[tuple[str, object]], cuts: list[int], greeted: bool
) -> None:
    model = Model()
    if greeted:
        model.lhlo("x")
    for name, value in steps:
        match name, value:
            case "lhlo", str(argument):
                model.lhlo(argument)
            case "mail", str(kind):
                model.mail_from(kind)
            case "rcpt", str(local_part):
                model.rcpt_to(local_part)
            case "data", bytes(content):
                model.data(content)
            case "bdat", (int(size), bool(last)):
                model.bdat(size, last)
            case "bad_bdat", bytes(octets):
                model.bad_bdat(octets)
            case "line", (bytes(line), int(code)):
                model.say(line, code)
            case _:
                model.rset()
    model.say(b"NOOP\r\n", 250)
    driver = Driver(DialogHandler(), _PATIENT)
    for piece in _cut(model.sent, cuts):
        driver.receive(piece)
    assert driver.codes == model.codes
    assert len(driver.codes) == model.commands
    assert not driver.closed


_PATIENT = type(SETTINGS)(
    hostname=SETTINGS.hostname,
    limits=Limits(
        recipients=SETTINGS.limits.recipients,
        message_size=SETTINGS.limits.message_size,
        discard=1_000_000,
        faults=1000,
    ),
)
