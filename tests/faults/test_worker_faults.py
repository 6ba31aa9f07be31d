"""Reloads and killed processes under load: nobody is refused, nothing acknowledged is lost."""

import os
from pathlib import Path

import pytest

from tests.faults.worker_faults import (
    Mode,
    agent_rounds,
    broker_rounds,
    reload_rounds,
    worker_rounds,
)

_as_root = pytest.mark.skipif(os.geteuid() != 0, reason="changing users needs root")


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("runtime", "mode", "rounds"),
    [
        (None, Mode.PLAIN, 5),
        ("blocking", Mode.PLAIN, 5),
        pytest.param(None, Mode.BROKER, 3, marks=_as_root),
    ],
)
def test_reloads_break_nothing(folder: Path, runtime: str | None, mode: Mode, rounds: int) -> None:
    tally = reload_rounds(folder, runtime, rounds, mode)
    assert not tally.broken
    assert tally.stored == tally.acknowledged


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mode", [Mode.PLAIN, pytest.param(Mode.BROKER, marks=_as_root)])
def test_killed_workers_cost_their_own_connections_alone(folder: Path, mode: Mode) -> None:
    tally = worker_rounds(folder, None, 4, mode)
    assert tally.faults == 4
    assert not tally.deferred


@_as_root
@pytest.mark.timeout(120)
def test_killed_agents_cost_their_own_messages_alone(folder: Path) -> None:
    tally = agent_rounds(folder, None, 3)
    assert tally.faults == 3
    assert not tally.broken


@_as_root
@pytest.mark.timeout(120)
def test_without_its_broker_the_daemon_ends_and_nothing_is_lost(folder: Path) -> None:
    assert broker_rounds(folder, None, 1).faults == 1
