"""Reloads and killed workers under load: nobody is refused, nothing acknowledged is lost."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.worker_faults import reload_rounds, worker_rounds


@pytest.fixture
def folder() -> Iterator[Path]:
    # A short path: that of a UNIX socket may have 107 octets.
    path = Path(tempfile.mkdtemp(prefix="lmtp-"))
    yield path
    shutil.rmtree(path)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("runtime", [None, "blocking"])
def test_reloads_break_nothing(folder: Path, runtime: str | None) -> None:
    tally = reload_rounds(folder, runtime, 5)
    assert not tally.broken
    assert tally.stored == tally.acknowledged


@pytest.mark.timeout(120)
def test_killed_workers_cost_their_own_connections_alone(folder: Path) -> None:
    assert worker_rounds(folder, None, 5).faults == 5
