"""kill -9 of a process that delivers: what was acknowledged is there, and nothing is torn.

This kills a process, not the machine: that acknowledged mail has reached the disk is for the tests
that watch the system calls.
"""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from mailstore import Sync
from tests.faults.store_writer import MAILDIRS, stored_below
from tests.mailstore.support import codes, deliver, opened

_ROUNDS = 24


@pytest.mark.timeout(120)
def test_kill_in_mid_delivery(tmp_path: Path) -> None:
    chance = random.Random(4711)
    acknowledged: set[tuple[str, str]] = set()
    for number in range(_ROUNDS):
        with subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.faults.store_writer"),
                *(str(tmp_path), f"round{number}", chance.choice([Sync.OPTIMIZED, Sync.SYNCFS])),
            ],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
        ) as writer:
            assert writer.stdout is not None
            for _ in range(chance.randrange(1, 60)):
                _acknowledge(acknowledged, writer.stdout.readline())
            writer.kill()
            # What it said before it died counts too; the last line may be cut.
            for line in writer.stdout.readlines():
                if line.endswith("\n"):
                    _acknowledge(acknowledged, line)
        assert writer.returncode == -9
    assert len(acknowledged) > 10 * _ROUNDS
    stored, torn = stored_below(tmp_path)
    assert not torn
    assert acknowledged - set(stored) == set()
    # Nobody retried, so nothing is there twice.
    assert set(stored.values()) == {1}
    with opened(tmp_path) as store:
        assert codes(deliver(store, b"Subject: after\r\n\r\n", MAILDIRS)) == [250, 250, 250]


def _acknowledge(acknowledged: set[tuple[str, str]], line: str) -> None:
    maildir, name = line.split()
    acknowledged.add((maildir, name))
