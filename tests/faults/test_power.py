"""A few of the power cuts of `python -m tests.faults power`, and one that must lose mail."""

from pathlib import Path

import pytest

from mailstore import Sync
from tests.faults.power import FILE_SYSTEMS, cut_power


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_acknowledged_mail_outlives_the_power(tmp_path: Path, kind: str) -> None:
    tally = cut_power(tmp_path, kind, [Sync.OPTIMIZED, Sync.SYNCFS], rounds=4)
    assert tally.acknowledged > tally.cuts
    assert (tally.lost, tally.torn, tally.twice) == (0, 0, 0)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_without_sync_mail_is_lost(tmp_path: Path, kind: str) -> None:
    # Or the cuts above would show nothing.
    tally = cut_power(tmp_path, kind, [Sync.NEVER], rounds=1)
    assert tally.lost > 0
