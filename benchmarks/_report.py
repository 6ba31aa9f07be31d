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

    `references` and `floors` name the servers that others are compared with, by handler: how many
    times as fast they are, and how many times as dear. A handler may have no floor.
    """

    facts: dict[str, str | int | float]
    references: dict[str, str]
    floors: dict[str, str]
    scenarios: list[dict[str, Any]]
    measurements: list[dict[str, Any]]
    skipped: dict[str, str]
    failures: dict[str, str]


# Headings, and the keys of a measurement.
SPEED = (
    ("messages/s", "messages_per_second"),
    ("MB/s", "megabytes_per_second"),
    ("server CPU s / 1,000", "cpu_seconds_per_thousand"),
    ("p50 ms", "p50_ms"),
    ("p99 ms", "p99_ms"),
)
_COLUMNS = (*SPEED, ("peak RSS MiB", "peak_rss_mib"))
SPEED_AND_GROWTH = (*_COLUMNS, ("growth MiB", "rss_growth_mib"))
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


def text(summary: Summary | None) -> str:
    """Return the median with its range, where it has one."""
    if summary is None:
        return "–"
    if summary.low == summary.high:
        return number(summary.median)
    return f"{number(summary.median)} [{number(summary.low)}–{number(summary.high)}]"


def rate_ratio(
    results: Results, handler: str, scenario: str, server: str, reference: str
) -> Summary | None:
    """Return how many times the messages/s (and so the MB/s) of `reference` `server` reaches."""
    ours = _rounds(results, handler, scenario, server, "messages_per_second")
    theirs = _rounds(results, handler, scenario, reference, "messages_per_second")
    return paired_ratio(ours, theirs)


def cost_ratio(
    results: Results, handler: str, scenario: str, server: str, reference: str
) -> Summary | None:
    """Return how many times the CPU seconds of `reference` a message costs `server`."""
    ours = _rounds(results, handler, scenario, server, "cpu_seconds_per_thousand")
    theirs = _rounds(results, handler, scenario, reference, "cpu_seconds_per_thousand")
    return paired_ratio(ours, theirs)


def growth(results: Results, handler: str, scenario: str, server: str) -> Summary | None:
    """Return by how many MiB the RSS of `server` grew."""
    grown = _rounds(results, handler, scenario, server, "rss_growth_mib")
    return summarise(list(grown.values())) if grown else None


def _ratios(
    results: Results, handler: str, scenario: str, server: str
) -> list[tuple[str, Summary | None]]:
    """Return the ratios of `server`, each with its heading."""
    reference = results["references"][handler]
    ratios = [
        (
            f"messages/s ÷ {reference}",
            rate_ratio(results, handler, scenario, server, reference),
        ),
        # Messages per CPU second are the inverse of the cost: the reference's goes on top.
        (
            f"messages per CPU s ÷ {reference}",
            cost_ratio(results, handler, scenario, reference, server),
        ),
    ]
    floor = results["floors"].get(handler)
    if floor is not None:
        ratios.append(
            (
                f"CPU per message ÷ {floor}",
                cost_ratio(results, handler, scenario, server, floor),
            )
        )
    return ratios


def _title(scenario: dict[str, Any]) -> str:
    load = scenario["load"]
    size = load["size"]
    shown = f"{size // 1_000_000} MB" if size >= 1_000_000 else f"{size // 1000} KB"
    recipients = load["recipients"]
    return (
        f"{scenario['handler']}, {shown}, {load['connections']} connections, "
        f"{recipients} recipient{'s' if recipients > 1 else ''}, {load['mode']}"
    )


def row(cells: Sequence[str]) -> str:
    """Return a line of a table."""
    return f"| {' | '.join(cells)} |"


def heading(cells: Sequence[str], *, texts: int = 1) -> list[str]:
    """Return the first two lines of a table, whose first `texts` columns are no figures."""
    return [row(cells), f"|{'---|' * texts}{'--:|' * (len(cells) - texts)}"]


def facts(results: Results) -> list[str]:
    """Return the lines of what the run was measured on, and how its figures are to be read."""
    return [*(f"- {name}: {value}" for name, value in results["facts"].items()), "", _NOTE, ""]


def scenario_table(
    results: Results, scenario: dict[str, Any], columns: Sequence[tuple[str, str]] = _COLUMNS
) -> list[str]:
    """Return the title and the table of `scenario`, with one of `columns` for each figure."""
    handler, name = scenario["handler"], scenario["name"]
    headings = ["server", *(heading for heading, _ in columns)]
    # The headings of ratios are those of any server.
    headings += [title for title, _ in _ratios(results, handler, name, "")]
    lines = [f"### {_title(scenario)}", "", *heading(headings)]
    for server in scenario["servers"]:
        figures = [_rounds(results, handler, name, server, key) for _, key in columns]
        if not figures[0]:
            continue
        cells = [text(summarise(list(by_round.values()))) for by_round in figures]
        cells += [text(ratio) for _, ratio in _ratios(results, handler, name, server)]
        lines.append(row([server, *cells]))
    return [*lines, ""]


def problems(results: Results) -> list[str]:
    """Return the lines of what was skipped or has failed."""
    lines = []
    for title, found in (("Skipped", results["skipped"]), ("Failed", results["failures"])):
        if found:
            lines += [f"### {title}", ""]
            lines += [f"- {cell}: {reason}" for cell, reason in found.items()]
            lines.append("")
    return lines


def markdown(results: Results) -> str:
    """Return the facts, a table for each scenario, and what was skipped or failed."""
    lines = facts(results)
    for scenario in results["scenarios"]:
        lines += scenario_table(results, scenario)
    return "\n".join([*lines, *problems(results)])


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
