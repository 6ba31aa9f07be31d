"""A run's results become the figures they are, and no others."""

from pathlib import Path
from typing import Any

from benchmarks import _report


def _measurement(server: str, number: int, rate: float, cost: float) -> dict[str, Any]:
    return {
        "handler": "discard",
        "scenario": "c10-1k-r1",
        "server": server,
        "round": number,
        "messages_per_second": rate,
        "megabytes_per_second": rate / 1000,
        "cpu_seconds_per_thousand": cost,
        "p50_ms": 1.5,
        "p99_ms": 2.5,
        "peak_rss_mib": 31.25,
        "problem": None,
    }


def _results() -> _report.Results:
    failed = _measurement("fast", 2, 99_999.0, 0.001)
    failed["problem"] = "bad replies on 1 connections"
    return {
        "facts": {"cores": 2},
        "references": {"discard": "slow"},
        "floors": {},
        "scenarios": [
            {
                "handler": "discard",
                "name": "c10-1k-r1",
                "load": {"size": 1000, "connections": 10, "recipients": 1, "mode": "pipelined"},
                "servers": ["fast", "slow", "absent"],
            }
        ],
        "measurements": [
            _measurement("fast", 0, 10_000.0, 0.05),
            _measurement("fast", 1, 4_000.0, 0.1),
            failed,
            _measurement("slow", 0, 1_000.0, 0.5),
            _measurement("slow", 1, 500.0, 0.8),
            _measurement("slow", 2, 900.0, 0.6),
        ],
        "skipped": {"discard/absent/c10-1k-r1": "not installed: absent"},
        "failures": {"discard/fast/c10-1k-r1 round 3": "bad replies on 1 connections"},
    }


def test_the_table_has_medians_ranges_and_paired_ratios() -> None:
    lines = _report.markdown(_results()).splitlines()
    assert "- cores: 2" in lines
    assert "### discard, 1 KB, 10 connections, 1 recipient, pipelined" in lines
    assert (
        "| fast | 7,000 [4,000–10,000] | 7 [4–10] | 0.075 [0.05–0.1] | 1.5 | 2.5 | 31.2 "
        "| 9 [8–10] | 9 [8–10] |"
    ) in lines
    assert (
        "| slow | 900 [500–1,000] | 0.9 [0.5–1] | 0.6 [0.5–0.8] | 1.5 | 2.5 | 31.2 | 1 | 1 |"
    ) in lines


def test_what_was_not_measured_is_said() -> None:
    text = _report.markdown(_results())
    assert "### Skipped\n\n- discard/absent/c10-1k-r1: not installed: absent" in text
    assert "### Failed\n\n- discard/fast/c10-1k-r1 round 3: bad replies on 1 connections" in text
    assert "| absent |" not in text


def test_the_plot_names_its_servers(tmp_path: Path) -> None:
    files = [tmp_path / "plot.svg", tmp_path / "plot.png"]
    _report.plot(_results(), files)
    assert files[1].read_bytes().startswith(b"\x89PNG")
    # Matplotlib draws text as paths, and keeps it in comments.
    svg = files[0].read_text()
    assert "<!-- fast -->" in svg
    assert "<!-- absent -->" not in svg
