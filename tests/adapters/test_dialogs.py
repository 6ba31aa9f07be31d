"""The dialogues of tests/dialogs/ over sockets, on every runtime."""

from collections.abc import Iterator

import pytest

from tests.adapters.harness import RUNTIMES, Client, RunningServer, serving
from tests.dialogs.handler import SETTINGS, DialogHandler
from tests.dialogs.transcript import Dialog, dialogs, mismatch

_DIALOGS = {dialog.name: dialog for dialog in dialogs()}
# Octets come alone where commands, chunks and content follow one another.
_IN_OCTETS = ["bdat-pipelined", "data-dots", "two-transactions", "whole-session"]


@pytest.fixture(scope="module", params=RUNTIMES)
def server(request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    with serving(request.param, DialogHandler(), settings=SETTINGS) as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with Client(server.address) as connected:
        yield connected


def _write(client: Client, octets: bytes, *, half_close: bool) -> None:
    """Send as far as the server takes it: it may have closed."""
    try:
        client.send(octets)
        if half_close:
            client.half_close()
    except OSError:
        pass


@pytest.mark.parametrize("dialog", _DIALOGS.values(), ids=_DIALOGS.keys())
def test_turn_by_turn(client: Client, dialog: Dialog) -> None:
    for turn in dialog.turns:
        _write(client, turn.sent, half_close=turn.half_close)
        output = b"".join(client.line() + b"\r\n" for _ in turn.expected)
        assert mismatch(turn.expected, output) is None
        if turn.closed:
            assert client.rest() == b""


@pytest.mark.parametrize("dialog", _DIALOGS.values(), ids=_DIALOGS.keys())
def test_all_at_once(client: Client, dialog: Dialog) -> None:
    _write(client, dialog.sent, half_close=True)
    assert mismatch(dialog.expected, client.rest()) is None


@pytest.mark.parametrize("name", _IN_OCTETS)
def test_one_octet_at_a_time(client: Client, name: str) -> None:
    dialog = _DIALOGS[name]
    for octet in dialog.sent:
        client.send(bytes((octet,)))
    _write(client, b"", half_close=True)
    assert mismatch(dialog.expected, client.rest()) is None
