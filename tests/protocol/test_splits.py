"""Whole sessions: any split of the octets gives equal events and equal output."""

import itertools

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
