"""kill -9 of the whole daemon under load: what was acknowledged is there, and nothing is torn.

This kills processes, not the machine: that acknowledged mail has reached the disk is for the tests
that watch its system calls.
"""

from pathlib import Path

import pytest

from tests.faults.daemon_kill import kill_rounds


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("runtime", "rounds"),
    [(None, 20), ("asyncio", 5), ("uvloop", 5), ("gevent", 5), ("blocking", 5)],
)
def test_acknowledged_mail_survives(folder: Path, runtime: str | None, rounds: int) -> None:
    assert kill_rounds(folder, runtime, rounds).kills == rounds
