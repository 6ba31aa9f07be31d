"""The dialogues of tests/dialogs/ in memory: turn by turn, all at once, one octet at a time."""

import pytest

from tests.dialogs.handler import SETTINGS, DialogHandler
from tests.dialogs.transcript import Dialog, Turn, dialogs, mismatch, parse
from tests.protocol.driver import Driver

_DIALOGS = list(dialogs())


@pytest.fixture(params=_DIALOGS, ids=[dialog.name for dialog in _DIALOGS])
def dialog(request: pytest.FixtureRequest) -> Dialog:
    found = request.param
    assert isinstance(found, Dialog)
    return found


def _receive(driver: Driver, data: bytes) -> None:
    # A server that has closed reads no more.
    if data and not driver.closed:
        driver.receive(data)


def test_turn_by_turn(dialog: Dialog) -> None:
    driver = Driver(DialogHandler(), SETTINGS)
    for number, turn in enumerate(dialog.turns, 1):
        assert not driver.closed, f"the server closed before turn {number}"
        _receive(driver, turn.sent)
        if turn.half_close and not driver.closed:
            driver.eof()
        assert mismatch(turn.expected, driver.output) is None, f"turn {number}"
        assert driver.closed == turn.closed, f"turn {number}"
        driver.writes.clear()


def test_all_at_once(dialog: Dialog) -> None:
    driver = Driver(DialogHandler(), SETTINGS)
    _receive(driver, dialog.sent)
    if not driver.closed:
        driver.eof()
    assert driver.closed
    assert mismatch(dialog.expected, driver.output) is None


def test_one_octet_at_a_time(dialog: Dialog) -> None:
    driver = Driver(DialogHandler(), SETTINGS)
    for octet in dialog.sent:
        if driver.closed:
            break
        driver.receive(bytes((octet,)))
    if not driver.closed:
        driver.eof()
    assert driver.closed
    assert mismatch(dialog.expected, driver.output) is None


class TestFormat:
    def test_turns(self) -> None:
        text = (
            "# c\nS: 220 \nC: A\nC! \\x00\\r\\\\\nC*3 b\\n\nS= 250 x\nS: 2\n\nC: Q\nS: 221 \nS$\n"
        )
        turns = parse("x", text).turns
        assert [turn.sent for turn in turns] == [b"", b"A\r\n\x00\r\\b\nb\nb\n", b"Q\r\n"]
        assert [len(turn.expected) for turn in turns] == [1, 2, 1]
        assert [turn.closed for turn in turns] == [False, False, True]

    def test_an_end_is_added(self) -> None:
        assert parse("x", "S: 220 \nC: A\nS: 250 \n").turns[-1] == Turn(
            half_close=True, closed=True
        )
        assert parse("x", "C: A\nC$\nS: 250 \n").turns[-1].closed

    @pytest.mark.parametrize(
        "text", ["C: A\nS$\nC: B\n", "C$\nC: B\n", "X: y\n", "C* x\n", "C$\nS: 2\nC: A\n"]
    )
    def test_what_is_no_dialogue(self, text: str) -> None:
        with pytest.raises(ValueError, match="x:"):
            parse("x", text)

    @pytest.mark.parametrize(
        ("output", "wrong"),
        [
            (b"250 a\r\n221 bye\r\n", None),
            (b"250 ab\r\n221 bye\r\n", "line 1"),
            (b"250 a\r\n", "no more lines"),
            (b"250 a\r\n221 bye\r\n250 b\r\n", "a line too many"),
            (b"250 a\r\n221 bye", "no CRLF"),
        ],
    )
    def test_what_is_compared(self, output: bytes, wrong: str | None) -> None:
        expected = parse("x", "S= 250 a\nS: 221 \nS$\n").expected
        found = mismatch(expected, output)
        assert found is None if wrong is None else found is not None and wrong in found
