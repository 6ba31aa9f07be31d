"""kill -9 of a process that delivers; the client sends again what it has seen no reply for, and
some of what it has: each message is there once.
"""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from mailstore import RetryOptions, Sync
from tests.faults.retry_writer import THREADS, maildirs_of
from tests.faults.store_writer import message, stored_below
from tests.mailstore.support import codes, deliver, opened

_ROUNDS = 5
_SENT_AGAIN = 4


@pytest.mark.timeout(120)
def test_kill_and_come_again(tmp_path: Path) -> None:
    chance = random.Random(4711)
    expected: set[tuple[str, str]] = set()
    for number in range(_ROUNDS):
        name, sync = f"round{number}", chance.choice([Sync.OPTIMIZED, Sync.SYNCFS])
        # The number of the next message of each thread.
        following = _killed(tmp_path, name, sync, chance.randrange(1, 60))
        with opened(tmp_path, sync=sync, retries=RetryOptions()) as store:
            for thread, last in enumerate(following):
                for count in range(last + 1):
                    of_message = f"{name}.{thread}.{count}"
                    expected |= {(maildir, of_message) for maildir in maildirs_of(count)}
                    if count > last - _SENT_AGAIN:
                        replies = deliver(store, message(of_message), maildirs_of(count))
                        assert set(codes(replies)) == {250}
    stored, torn = stored_below(tmp_path)
    assert not torn
    assert set(stored) == expected
    assert set(stored.values()) == {1}


def _killed(root: Path, name: str, sync: Sync, lines: int) -> list[int]:
    """Kill a writer once it has said so many lines; how many each of its threads has said."""
    following = [0] * THREADS
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults.retry_writer", str(root), name, sync],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline() for _ in range(lines)]
        writer.kill()
        # What it said before it died counts too; the last line may be cut.
        said += [line for line in writer.stdout.readlines() if line.endswith("\n")]
    assert writer.returncode == -9
    for line in said:
        thread, count = map(int, line.split())
        following[thread] = count + 1
    return following
