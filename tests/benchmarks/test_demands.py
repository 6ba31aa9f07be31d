"""A demand is judged by what was measured, where it was measured."""

from typing import Any

from benchmarks import _demands
from benchmarks._report import Results


def _results(costs: dict[str, dict[str, float]]) -> Results:
    """Return results of one round: CPU seconds and, from them, messages/s, by scenario and
    server."""
    sizes = {"small": 1000, "other": 1000, "large": 10_000_000}
    scenarios: list[dict[str, Any]] = [
        {
            "handler": "discard",
            "name": name,
            "load": {"size": sizes[name], "connections": 10, "recipients": 1, "mode": "pipelined"},
            "servers": list(by_server),
        }
        for name, by_server in costs.items()
    ]
    measurements: list[dict[str, Any]] = [
        {
            "handler": "discard",
            "scenario": name,
            "server": server,
            "round": 0,
            "messages_per_second": 1000 / cost,
            "cpu_seconds_per_thousand": cost,
            "problem": None,
        }
        for name, by_server in costs.items()
        for server, cost in by_server.items()
    ]
    return {
        "facts": {},
        "references": {"discard": "slow"},
        "floors": {"discard": "floor"},
        "scenarios": scenarios,
        "measurements": measurements,
        "skipped": {},
        "failures": {},
    }


def test_a_demand_names_the_scenarios_that_miss_it() -> None:
    costs = {
        "small": {"uvloop-w1": 0.1, "asyncio-w1": 0.2, "slow": 0.8, "floor": 0.05},
        "other": {"uvloop-w1": 0.2, "asyncio-w1": 0.4, "slow": 0.8, "floor": 0.05},
    }
    rows = _demands.table(_results(costs), [], [])[2:]
    assert rows == [
        (
            "| 1 KB, messages per CPU s ÷ slow | uvloop-w1 | ≥ 5, aim 10 | 4 (other) to 8 (small) "
            "| not in other |"
        ),
        (
            "| 1 KB, messages per CPU s ÷ slow | asyncio-w1 | ≥ 3 | 2 (other) to 4 (small) "
            "| not in other |"
        ),
        (
            "| 1 KB, CPU per message ÷ floor | uvloop-w1 | ≤ 2.5 | 2 (small) to 4 (other) "
            "| not in other |"
        ),
        "",
    ]


def test_a_large_message_is_judged_by_its_rate() -> None:
    costs = {"large": {"gevent-w1": 1.0, "blocking-w1": 2.0, "slow": 8.0, "floor": 0.5}}
    assert _demands.table(_results(costs), [], [])[2:] == [
        "| 10 MB, MB/s ÷ slow | gevent-w1 | ≥ 6 | 8 (large) | yes |",
        "| 10 MB, MB/s ÷ slow | blocking-w1 | ≥ 6 | 4 (large) | not in large |",
        "",
    ]


def test_system_calls_and_memory_are_judged_where_they_are_asked_for() -> None:
    calls = [
        {"server": "gevent-w1", "reads": 2.004, "writes": 2.01},
        {"server": "slow", "reads": 9.0, "writes": 9.0},
    ]
    idle = [
        {"server": "uvloop-w1", "open": 10_000, "kib_each": 8.5},
        {"server": "asyncio-w1", "open": 10_000, "kib_each": 3.75},
        {"server": "gevent-w1", "open": 10_000, "kib_each": 99.0},
    ]
    assert _demands.table(_results({}), calls, idle)[2:] == [
        "| reads per pipelined message | gevent-w1 | ≤ 2 | 2.00 | yes |",
        "| writes per pipelined message | gevent-w1 | ≤ 2 | 2.01 | no |",
        "| KiB for each of 10,000 idle connections | uvloop-w1 | ≤ 8 | 8.5 | no |",
        "| KiB for each of 10,000 idle connections | asyncio-w1 | ≤ 8 | 3.75 | yes |",
        "",
    ]


def test_nothing_measured_is_no_table() -> None:
    assert _demands.table(_results({}), [], []) == []
