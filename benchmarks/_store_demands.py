"""What the project asks of the speed of its store, and whether a run shows it.

Each demand is judged by the median of its rounds.
"""

import operator
from collections.abc import Callable, Iterator

from benchmarks._demands import under_headings
from benchmarks._disk import Disk
from benchmarks._report import Results, cost_ratio, growth, rate_ratio, row, text
from benchmarks._servers import CORES, Dovecot, Handler, Nothing, Ours, Server, Store
from benchmarks._statistics import Summary

SMALL, RECIPIENTS, LARGE = "c50-10k-r1", "c10-10k-r50", "c1-100m-r1"
"""The names of the scenarios."""

DAEMONS = (Ours("uvloop", CORES), Ours("uvloop", CORES, is_compiled=True))
"""The daemon as it comes, beside the store alone."""

FLOOR = Nothing("threads")
"""What takes content in Python and puts it on the disk, and does nothing else for it."""

_REFERENCE = Dovecot().name
_STREAM = Disk(1).name
_SMALL_RATE = "10 KB, 50 connections: messages/s"
# How many times Dovecot's messages/s: handler, scenario, server, least, what it is about.
_RATES: tuple[tuple[Handler, str, Server, float, str], ...] = (
    ("durable", SMALL, Store("optimized"), 4.0, _SMALL_RATE),
    ("durable", SMALL, Store("optimized", is_compiled=True), 4.0, _SMALL_RATE),
    *(("durable", SMALL, daemon, 4.0, _SMALL_RATE) for daemon in DAEMONS),
    ("durable", SMALL, Store("syncfs"), 6.0, _SMALL_RATE),
    ("durable", SMALL, Store("syncfs", is_compiled=True), 6.0, _SMALL_RATE),
    ("durable", RECIPIENTS, Store("optimized"), 2.0, "50 recipients, own headers: deliveries/s"),
    ("durable", RECIPIENTS, Store("syncfs"), 2.0, "50 recipients, own headers: deliveries/s"),
    ("durable", RECIPIENTS, Store("optimized", True), 6.0, "50 recipients, one file: deliveries/s"),
    ("durable", RECIPIENTS, Store("syncfs", True), 6.0, "50 recipients, one file: deliveries/s"),
    ("unsynced", SMALL, Store("never"), 3.0, "10 KB, 50 connections, no sync: messages/s"),
)
_COST = 0.2
_GROWTH_MIB = 4.0
_STREAMING = 0.8
_RELATIONS: dict[str, Callable[[float, float], bool]] = {
    "≥": operator.ge,
    "≤": operator.le,
    "<": operator.lt,
}
_SYNCED: tuple[Server, ...] = (Store("optimized"), Store("syncfs"))
_COMPILED = (Store("optimized", is_compiled=True), Store("syncfs", is_compiled=True))


def table(results: Results) -> list[str]:
    """Return the lines of a table; a demand whose servers were not measured has no row."""
    return under_headings([*_rates(results), *_costs(results), *_large(results)])


def _rates(results: Results) -> Iterator[str]:
    for handler, scenario, server, least, what in _RATES:
        ratio = rate_ratio(results, handler, scenario, server.name, _REFERENCE)
        yield from _row(f"{what} ÷ {_REFERENCE}", server, "≥", least, ratio)


def _costs(results: Results) -> Iterator[str]:
    for server in (*_SYNCED, *_COMPILED, *DAEMONS):
        ratio = cost_ratio(results, "durable", SMALL, server.name, _REFERENCE)
        what = f"10 KB, 50 connections: CPU per message ÷ {_REFERENCE}"
        yield from _row(what, server, "≤", _COST, ratio)


def _large(results: Results) -> Iterator[str]:
    for server in _SYNCED:
        grown = growth(results, "durable", LARGE, server.name)
        yield from _row("100 MB: growth of RSS, MiB", server, "<", _GROWTH_MIB, grown)
    for server in (*_SYNCED, FLOOR):
        ratio = rate_ratio(results, "durable", LARGE, server.name, _STREAM)
        yield from _row(f"100 MB: MB/s ÷ {_STREAM}", server, "≥", _STREAMING, ratio)


def _row(
    what: str, server: Server, relation: str, bound: float, found: Summary | None
) -> Iterator[str]:
    """Give the row, if there is a figure."""
    if found is not None:
        reached = "yes" if _RELATIONS[relation](found.median, bound) else "no"
        yield row([what, server.name, f"{relation} {bound:g}", text(found), reached])
