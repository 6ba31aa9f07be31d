"""A part of what `python -m tests.faults calls` strikes: each kind of call, in turn."""

from pathlib import Path

import pytest

from mailstore import Sync
from tests.faults.call_driver import Scenario
from tests.faults.call_faults import ERRORS, KILLS, SCENARIOS, SHORT_WRITES, sample, strike

_SAMPLED = [
    scenario
    for scenario in SCENARIOS
    if scenario.sync is Sync.OPTIMIZED
    # Beyond that, these differ in what was struck already.
    or (scenario.sync is Sync.SYNCFS and (scenario.in_memory or not scenario.linked))
    # Making the file that tells retries comes before all that is done with it.
    if not (scenario.once and scenario.known)
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scenario", _SAMPLED, ids=str)
def test_each_kind_of_call_fails(tmp_path: Path, scenario: Scenario) -> None:
    struck = set()
    for point, fault in sample(tmp_path, scenario):
        strike(tmp_path, scenario, point, fault)
        struck.add((point.name, fault))
    names = {name for name, _ in struck}
    # A delivery that nothing was seen of would pass.
    assert {"openat", "linkat", "close"} < names
    assert "fsync" in names or "syncfs" in names
    assert len(struck) > len(ERRORS + KILLS + SHORT_WRITES)
