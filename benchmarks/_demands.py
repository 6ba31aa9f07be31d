"""What the project asks of the speed of its adapters, and whether a run shows it.

A demand is judged by the median of each scenario it is made of, and those that miss it are named.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks._report import Results, cost_ratio, heading, number, rate_ratio, row, text
from benchmarks._statistics import Summary

_HANDLER = "discard"
_UVLOOP, _ASYNCIO, _GEVENT, _BLOCKING = "uvloop-w1", "asyncio-w1", "gevent-w1", "blocking-w1"
_SMALL, _LARGE = 1000, 10_000_000
# With protocol and store compiled to C.
_COMPILED_UVLOOP = "uvloop-compiled-w1"
# How many times aiosmtpd's messages per CPU second, of small messages.
_PER_CPU_SECOND = {
    _UVLOOP: 5.0,
    _COMPILED_UVLOOP: 5.0,
    _ASYNCIO: 3.0,
    "asyncio-compiled-w1": 3.0,
    _GEVENT: 3.0,
    "gevent-compiled-w1": 3.0,
    _BLOCKING: 3.0,
    "blocking-compiled-w1": 3.0,
}
_UVLOOP_AIM = 10.0
# How many times aiosmtpd's MB/s, of large messages.
_RATE = 6.0
# How many times the floor's CPU time, of small messages.
_COST = 2.5
_CALLS = 2.0
_IDLE_KIB = dict.fromkeys((_UVLOOP, _COMPILED_UVLOOP, _ASYNCIO, "asyncio-compiled-w1"), 8.0)

_Ratio = Callable[[Results, str, str, str, str], Summary | None]


def table(
    results: Results, calls: Sequence[Mapping[str, Any]], idle: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Return the lines of a table; what a demand is about and was not measured has no row.

    `calls` names servers, their `reads` and `writes` per message; `idle` servers and the `kib_each`
    of a connection.
    """
    rows = [*_speed(results), *_system_calls(calls), *_memory(idle)]
    return under_headings(rows)


def under_headings(rows: Sequence[str]) -> list[str]:
    """Return the lines of the table that has `rows`, none if there is no row."""
    headings = ["what", "server", "wanted", "measured", "reached"]
    return [*heading(headings, texts=len(headings)), *rows, ""] if rows else []


def _speed(results: Results) -> Iterator[str]:
    reference, floor = results["references"][_HANDLER], results["floors"][_HANDLER]
    for server, least in _PER_CPU_SECOND.items():
        # Messages per CPU second are the inverse of the cost: the reference's goes on top.
        found = _by_scenario(results, _SMALL, cost_ratio, reference, server)
        wanted = f"≥ {number(least)}" + (
            f", aim {_UVLOOP_AIM:g}" if server in (_UVLOOP, _COMPILED_UVLOOP) else ""
        )
        missed = [name for name, ratio in found.items() if ratio.median < least]
        yield from _row(f"1 KB, messages per CPU s ÷ {reference}", server, wanted, found, missed)
    for server in _PER_CPU_SECOND:
        found = _by_scenario(results, _LARGE, rate_ratio, server, reference)
        missed = [name for name, ratio in found.items() if ratio.median < _RATE]
        yield from _row(f"10 MB, MB/s ÷ {reference}", server, f"≥ {_RATE:g}", found, missed)
    for server in (_UVLOOP, _COMPILED_UVLOOP):
        found = _by_scenario(results, _SMALL, cost_ratio, server, floor)
        missed = [name for name, ratio in found.items() if ratio.median > _COST]
        yield from _row(f"1 KB, CPU per message ÷ {floor}", server, f"≤ {_COST:g}", found, missed)


def _by_scenario(
    results: Results, size: int, ratio: _Ratio, over: str, under: str
) -> dict[str, Summary]:
    """Return `ratio` of the servers `over` and `under` in each scenario of `size` that has it."""
    ratios = {
        scenario["name"]: ratio(results, _HANDLER, scenario["name"], over, under)
        for scenario in results["scenarios"]
        if scenario["load"]["size"] == size
    }
    return {name: found for name, found in ratios.items() if found is not None}


def _row(
    what: str, server: str, wanted: str, found: Mapping[str, Summary], missed: Sequence[str]
) -> Iterator[str]:
    """Give the row, with the lowest and the highest scenario of `found`, if there is any."""
    if not found:
        return
    ends = sorted(found, key=lambda name: found[name].median)
    shown = [f"{text(found[name])} ({name})" for name in dict.fromkeys((ends[0], ends[-1]))]
    reached = f"not in {', '.join(missed)}" if missed else "yes"
    yield row([what, server, wanted, " to ".join(shown), reached])


def _system_calls(calls: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for counted in calls:
        if counted["server"] in _PER_CPU_SECOND:
            for what in ("reads", "writes"):
                # What strace adds by interrupting a call once is not the server's.
                shown = f"{counted[what]:.2f}"
                reached = "yes" if float(shown) <= _CALLS else "no"
                yield row(
                    [
                        f"{what} per pipelined message",
                        counted["server"],
                        f"≤ {_CALLS:g}",
                        shown,
                        reached,
                    ]
                )


def _memory(idle: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for held in idle:
        most = _IDLE_KIB.get(held["server"])
        if most is not None:
            reached = "yes" if held["kib_each"] <= most else "no"
            what = f"KiB for each of {held['open']:,} idle connections"
            yield row([what, held["server"], f"≤ {most:g}", number(held["kib_each"]), reached])
