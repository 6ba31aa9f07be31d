"""What is asked of the store is judged by what was measured, where it was measured."""

from typing import Any

from benchmarks import _store_demands
from benchmarks._report import Results


def _measurement(server: str, scenario: str, rate: float, **figures: float) -> dict[str, Any]:
    return {
        "handler": "durable",
        "scenario": scenario,
        "server": server,
        "round": 0,
        "messages_per_second": rate,
        "cpu_seconds_per_thousand": 1.0,
        "rss_growth_mib": 0.0,
        "problem": None,
        **figures,
    }


def _results(*measurements: dict[str, Any]) -> Results:
    return {
        "facts": {},
        "references": {"durable": "dovecot"},
        "floors": {},
        "scenarios": [],
        "measurements": list(measurements),
        "skipped": {},
        "failures": {},
    }


def test_rates_and_costs_are_judged_beside_dovecot() -> None:
    rows = _store_demands.table(
        _results(
            _measurement("ours-optimized", "c50-10k-r1", 400.0),
            _measurement("ours-syncfs", "c50-10k-r1", 590.0),
            _measurement("dovecot", "c50-10k-r1", 100.0, cpu_seconds_per_thousand=5.0),
            _measurement("ours-optimized-links", "c10-10k-r50", 61.0),
            _measurement("dovecot", "c10-10k-r50", 10.0),
        )
    )[2:]
    assert rows == [
        "| 10 KB, 50 connections: messages/s ÷ dovecot | ours-optimized | ≥ 4 | 4 | yes |",
        "| 10 KB, 50 connections: messages/s ÷ dovecot | ours-syncfs | ≥ 6 | 5.9 | no |",
        (
            "| 50 recipients, one file: deliveries/s ÷ dovecot | ours-optimized-links | ≥ 6 | 6.1"
            " | yes |"
        ),
        "| 10 KB, 50 connections: CPU per message ÷ dovecot | ours-optimized | ≤ 0.2 | 0.2 | yes |",
        "| 10 KB, 50 connections: CPU per message ÷ dovecot | ours-syncfs | ≤ 0.2 | 0.2 | yes |",
        "",
    ]


def test_a_large_message_is_judged_by_memory_and_beside_the_disk() -> None:
    rows = _store_demands.table(
        _results(
            _measurement("ours-optimized", "c1-100m-r1", 4.0, rss_growth_mib=4.0),
            _measurement("ours-syncfs", "c1-100m-r1", 3.9, rss_growth_mib=3.9),
            _measurement("disk-t1", "c1-100m-r1", 5.0),
        )
    )[2:]
    assert rows == [
        "| 100 MB: growth of RSS, MiB | ours-optimized | < 4 | 4 | no |",
        "| 100 MB: growth of RSS, MiB | ours-syncfs | < 4 | 3.9 | yes |",
        "| 100 MB: MB/s ÷ disk-t1 | ours-optimized | ≥ 0.8 | 0.8 | yes |",
        "| 100 MB: MB/s ÷ disk-t1 | ours-syncfs | ≥ 0.8 | 0.78 | no |",
        "",
    ]


def test_what_was_not_measured_is_not_judged() -> None:
    assert _store_demands.table(_results()) == []
