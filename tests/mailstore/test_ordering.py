"""Messages lie in a mailbox in the order in which they were acknowledged."""

import os
import time
from collections.abc import Iterator
from itertools import chain, count, repeat
from pathlib import Path

import pytest

from mailstore import Destination, LineEnding, Sync
from tests.mailstore.support import codes, deliver, opened, without_trace

_LARGE = b"body\r\n" * 50_000


def _subjects(mailbox: Path) -> list[int]:
    """The numbers in the subjects, in the order of the names of the files."""
    ordered = sorted((mailbox / "new").iterdir(), key=lambda path: path.name)
    return [int(without_trace(path.read_bytes()).split()[1]) for path in ordered]


def _message(number: int) -> bytes:
    return b"Subject: %d\r\n\r\n" % number + (_LARGE if number % 7 == 3 else b"body\r\n")


def _clock(start: int) -> Iterator[int]:
    """Microseconds: a clock that runs, stands, is set back by a minute and runs on."""
    return chain(range(start, start + 10), repeat(start + 10, 10), count(start - 60_000_000))


@pytest.mark.parametrize("mailbox", ["INBOX", "Lists"])
def test_one_session_whatever_the_clock_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mailbox: str
) -> None:
    # Amid a second whose fraction gets one digit more.
    clock = _clock(1_700_000_000_000_000 + 99_995)
    monkeypatch.setattr(time, "time_ns", lambda: next(clock) * 1000)
    place = Destination(Path("user"), mailbox)
    (tmp_path / "user" / ".Lists").mkdir(parents=True)
    with opened(tmp_path, sync=Sync.NEVER) as store:
        for number in range(40):
            assert codes(deliver(store, _message(number), [place])) == [250]
    folder = tmp_path / "user" / (".Lists" if mailbox == "Lists" else "")
    assert _subjects(folder) == list(range(40))


def test_workers_by_their_common_clock(tmp_path: Path) -> None:
    with opened(tmp_path, line_ending=LineEnding.LF) as store:
        assert codes(deliver(store, _message(0))) == [250]
        # Each worker delivers when the one before it was answered, and tells the next.
        pipes = [os.pipe() for _ in range(3)]
        children = []
        for worker in range(3):
            child = os.fork()
            if child:
                children.append(child)
                continue
            status = 1
            try:
                for turn in range(5):
                    os.read(pipes[worker][0], 1)
                    reply = codes(deliver(store, _message(1 + turn * 3 + worker)))
                    assert reply == [250]
                    os.write(pipes[(worker + 1) % 3][1], b"x")
                status = 0
            finally:
                os._exit(status)
        os.write(pipes[0][1], b"x")
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
        for pipe in chain(*pipes):
            os.close(pipe)
    assert _subjects(tmp_path / "user") == list(range(16))
