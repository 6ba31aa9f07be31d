"""A run's results as tables and as a plot. Medians with [lowest–highest] of the rounds; ratios are
paired by round.

Measurements with a problem are left out of every figure and listed by name.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from benchmarks._statistics import Summary, paired_ratio, summarise


class Results(TypedDict):
    """What a run's JSON file holds. Each measurement also names handler, scenario, server and
    round.
    """

    facts: dict[str, str | int | float]
    references: dict[str, str]
    scenarios: list[dict[str, Any]]
    measurements: list[dict[str, Any]]
    skipped: dict[str, str]
    failures: dict[str, str]


_COLUMNS = (
    ("messages/s", "messages_per_second"),
    ("MB/s", "megabytes_per_second"),
    ("server CPU s / 1,000", "cpu_seconds_per_thousand"),
    ("p50 ms", "p50_ms"),
    ("p99 ms", "p99_ms"),
    ("peak RSS MiB", "peak_rss_mib"),
)
_NOTE = (
    "Median [lowest–highest] of the rounds; ratios are paired by round. CPU and memory are those "
    "of the server's whole process tree; in RSS, pages that processes share count once for each."
)


def _rounds(
    results: Results, handler: str, scenario: str, server: str, name: str
) -> dict[int, float]:
    """Return figure `name` by round, of the measurements without a problem."""
    return {
        measurement["round"]: measurement[name]
        for measurement in results["measurements"]
        if measurement["handler"] == handler
        and measurement["scenario"] == scenario
        and measurement["server"] == server
        and measurement["problem"] is None
    }


def number(value: float) -> str:
    """Return `value` with three significant digits, or whole from 100 up."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _text(summary: Summary | None) -> str:
    if summary is None:
        return "–"
    if summary.low == summary.high:
        return number(summary.median)
    return f"{number(summary.median)} [{number(summary.low)}–{number(summary.high)}]"


def _ratios(
    results: Results, handler: str, scenario: str, server: str
) -> tuple[Summary | None, Summary | None]:
    """Return how many times the reference's messages/s, and its messages per CPU second, `server`
    reaches.
    """
    reference = results["references"][handler]
    ours = _rounds(results, handler, scenario, server, "messages_per_second")
    theirs = _rounds(results, handler, scenario, reference, "messages_per_second")
    cost = _rounds(results, handler, scenario, server, "cpu_seconds_per_thousand")
    their_cost = _rounds(results, handler, scenario, reference, "cpu_seconds_per_thousand")
    # Messages per CPU second are the inverse of the cost: the reference's goes on top.
    return paired_ratio(ours, theirs), paired_ratio(their_cost, cost)


def _title(scenario: dict[str, Any]) -> str:
    load = scenario["load"]
    size = load["size"]
    shown = f"{size // 1_000_000} MB" if size >= 1_000_000 else f"{size // 1000} KB"
    recipients = load["recipients"]
    return (
        f"{scenario['handler']}, {shown}, {load['connections']} connections, "
        f"{recipients} recipient{'s' if recipients > 1 else ''}, {load['mode']}"
    )


def markdown(results: Results) -> str:
    """Return the facts, a table for each scenario, and what was skipped or failed."""
    lines = [f"- {name}: {value}" for name, value in results["facts"].items()]
    lines += ["", _NOTE, ""]
    for scenario in results["scenarios"]:
        handler, name = scenario["handler"], scenario["name"]
        reference = results["references"][handler]
        headings = ["server", *(heading for heading, _ in _COLUMNS)]
        headings += [f"messages/s ÷ {reference}", f"messages per CPU s ÷ {reference}"]
        rows = []
        for server in scenario["servers"]:
            figures = [_rounds(results, handler, name, server, key) for _, key in _COLUMNS]
            if not figures[0]:
                continue
            cells = [_text(summarise(list(by_round.values()))) for by_round in figures]
            cells += [_text(ratio) for ratio in _ratios(results, handler, name, server)]
            rows.append(f"| {' | '.join([server, *cells])} |")
        lines += [f"### {_title(scenario)}", ""]
        lines.append(f"| {' | '.join(headings)} |")
        lines.append(f"|{'|'.join(['---', *(['--:'] * (len(headings) - 1))])}|")
        lines += [*rows, ""]
    for title, problems in (("Skipped", results["skipped"]), ("Failed", results["failures"])):
        if problems:
            lines += [f"### {title}", ""]
            lines += [f"- {cell}: {reason}" for cell, reason in problems.items()]
            lines.append("")
    return "\n".join(lines)


def plot(results: Results, files: Sequence[Path]) -> None:
    """Draw messages/s (left) and server CPU (right) of each scenario into `files`, by their
    suffixes.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    scenarios = results["scenarios"]
    height = sum(1.2 + 0.28 * len(scenario["servers"]) for scenario in scenarios)
    figure, panels = pyplot.subplots(
        len(scenarios),
        2,
        figsize=(12, height),
        squeeze=False,
        height_ratios=[3 + len(scenario["servers"]) for scenario in scenarios],
        layout="constrained",
    )
    for row, scenario in zip(panels, scenarios, strict=True):
        handler, name = scenario["handler"], scenario["name"]
        for panel, key, label in (
            (row[0], "messages_per_second", "messages/s (more is better)"),
            (row[1], "cpu_seconds_per_thousand", "server CPU s / 1,000 messages (less is better)"),
        ):
            bars: dict[str, Summary] = {}
            for server in scenario["servers"]:
                by_round = _rounds(results, handler, name, server, key)
                if by_round:
                    bars[server] = summarise(list(by_round.values()))
            medians = [bar.median for bar in bars.values()]
            whiskers = [
                [bar.median - bar.low for bar in bars.values()],
                [bar.high - bar.median for bar in bars.values()],
            ]
            colours = [
                "tab:gray" if server.startswith(("aiosmtpd", "dovecot")) else "tab:blue"
                for server in bars
            ]
            panel.barh(list(bars), medians, xerr=whiskers, color=colours, ecolor="black")
            panel.invert_yaxis()
            panel.set_xlabel(label)
            panel.set_title(_title(scenario), fontsize=10)
    for file in files:
        figure.savefig(file)
    pyplot.close(figure)
