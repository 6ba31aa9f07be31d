"""What the adapters cost beside aiosmtpd, and above a protocol that does nothing: speed, system
calls, idle connections.

Every round starts each server once, in one process, and leaves it running while each scenario is
sent to one server after the other, in an order shuffled anew: the two sides of a ratio are measured
within seconds of each other. System calls are counted, and idle connections held, on servers
started for that.
"""

import argparse
import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import _demands, _facts, _interleaved, _matrix, _page, _report, _system_calls
from benchmarks._cell import drive, measure_running
from benchmarks._idle import WARMUP, idle
from benchmarks._limits import raise_file_limit
from benchmarks._load import Load
from benchmarks._matrix import Cell, Scenario
from benchmarks._report import heading, number, row
from benchmarks._servers import Aiosmtpd, Nothing, Ours, Running, Server, ServerError

SUMMARY = "CPU, speed, system calls and idle connections of each adapter"

_REFERENCE: Server = Aiosmtpd("asyncio")
_FLOOR: Server = Nothing("uvloop")
_SERVERS: tuple[Server, ...] = (
    Ours("uvloop"),
    Ours("asyncio"),
    Ours("gevent"),
    Ours("blocking"),
    *(Ours(runtime, is_compiled=True) for runtime in ("uvloop", "asyncio", "gevent", "blocking")),
    _REFERENCE,
    _FLOOR,
    Nothing("asyncio"),
    Nothing("threads"),
)
_SEED = 2033
_KB, _MB = 1000, 1_000_000
_MODES = ("unpipelined", "pipelined")


def _scenario(connections: int, size: int, mode: str) -> Scenario:
    shown = f"{size // _MB}m" if size >= _MB else f"{size // _KB}k"
    load = Load(connections=connections, size=size, mode=mode, duration=1.0, warmup=0.3)
    return Scenario("discard", f"c{connections}-{shown}-{mode}", load)


_SCENARIOS = (
    *(_scenario(connections, _KB, mode) for connections in (1, 10, 50, 500) for mode in _MODES),
    _scenario(10, 10 * _KB, "pipelined"),
    # aiosmtpd takes a second for each, and five times its size in memory.
    _scenario(2, 10 * _MB, "pipelined"),
)
_QUICK_SCENARIOS = tuple(
    Scenario("discard", f"c2-1k-{mode}", Load(connections=2, size=_KB, mode=mode, messages=20))
    for mode in _MODES
)
_CALLS = Load(connections=10, size=_KB, messages=2000, warmup=0.2)
_QUICK_CALLS = Load(connections=2, size=_KB, messages=50)
_QUICK_IDLE = 30


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    _interleaved.add_options(
        parser, rounds=3, example="discard/uvloop-*/c10-1k-*", out="results go"
    )
    parser.add_argument("--idle", type=int, default=10_000, help="idle connections (10000)")
    _page.add_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure and report. Returns 0, 1 when a cell failed, 2 when `--cells` matches nothing or the
    page has no place for the report."""
    quick: bool = arguments.quick
    patterns: list[str] | None = arguments.cells
    section = _page.section(arguments.page, "adapters", whole=not quick and patterns is None)
    if section is not None and (fault := section.missing()):
        print(fault, file=sys.stderr)
        return 2
    cells = _matrix.cells(
        _QUICK_SCENARIOS if quick else _SCENARIOS,
        _SERVERS,
        {"discard": (_REFERENCE, _FLOOR)},
        patterns,
    )
    if not cells:
        print(f"--cells {' '.join(patterns or [])}: no such cell", file=sys.stderr)
        return 2
    raise_file_limit()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    results = _begun(cells, out)
    able = [cell for cell in cells if cell.server.name not in results["skipped"]]
    for index in range(1 if quick else arguments.rounds):
        _measure_round(results, able, index, out)
    servers = list(dict.fromkeys(cell.server for cell in able))
    calls = _count_calls(results, servers, _QUICK_CALLS if quick else _CALLS, out)
    count = _QUICK_IDLE if quick else arguments.idle
    held = _of_each(
        results, "idle connections", servers, out, lambda running: asdict(idle(running, count))
    )
    kept = {**results, "system_calls": calls, "idle": held}
    (out / "adapters.json").write_text(json.dumps(kept, indent=1) + "\n")
    report = _markdown(results, calls, held)
    (out / "adapters.md").write_text(report)
    if section is not None:
        section.write(report)
    print(report)
    return 1 if results["failures"] else 0


def _begun(cells: Sequence[Cell], out: Path) -> _report.Results:
    """Return the results in which nothing is measured yet, with the servers that cannot be."""
    reasons = {cell.server.name: cell.server.missing() for cell in cells}
    return {
        "facts": _facts.facts(out),
        "references": {"discard": _REFERENCE.name},
        "floors": {"discard": _FLOOR.name},
        "scenarios": _matrix.scenarios_of(cells),
        "measurements": [],
        "skipped": {name: reason for name, reason in reasons.items() if reason is not None},
        "failures": {},
    }


def _measure_round(results: _report.Results, cells: Sequence[Cell], index: int, out: Path) -> None:
    shuffler = random.Random(_SEED + index)
    with ExitStack() as servers:
        running: dict[str, Running] = {}
        for server in dict.fromkeys(cell.server for cell in cells):
            try:
                running[server.name] = servers.enter_context(server.running("discard", out))
            except ServerError as error:
                results["failures"][f"{server.name} round {index + 1}"] = str(error)
        scenarios = list(dict.fromkeys(cell.scenario for cell in cells))
        shuffler.shuffle(scenarios)
        for scenario in scenarios:
            turns = [
                cell for cell in cells if cell.scenario == scenario and cell.server.name in running
            ]
            shuffler.shuffle(turns)
            for cell in turns:
                with _failing(results, f"{cell.name} round {index + 1}"):
                    measurement = measure_running(running[cell.server.name], scenario.load)
                    said = _matrix.record(results, cell, index, measurement)
                    print(f"round {index + 1} {cell.name}: {said}", file=sys.stderr, flush=True)


@contextmanager
def _failing(results: _report.Results, name: str) -> Iterator[None]:
    """Make a server's failure one of `results`."""
    try:
        yield
    except ServerError as error:
        results["failures"][name] = str(error)
        print(f"{name}: {error}", file=sys.stderr, flush=True)


def _of_each(
    results: _report.Results,
    what: str,
    servers: Sequence[Server],
    out: Path,
    figures: Callable[[Running], dict[str, Any]],
) -> list[dict[str, Any]]:
    """Return the `figures` of each server, started for them, with its name; a "problem" among them
    is a failure."""
    found = []
    for server in servers:
        name = f"{what} of {server.name}"
        print(name, file=sys.stderr, flush=True)
        with _failing(results, name), server.running("discard", out) as running:
            taken = figures(running)
            if taken.get("problem") is not None:
                raise ServerError(taken["problem"])
            found.append({"server": server.name, **taken})
    return found


def _count_calls(
    results: _report.Results, servers: Sequence[Server], load: Load, out: Path
) -> list[dict[str, Any]]:
    """Return the system calls per message of each server, with its name."""
    reason = _system_calls.missing()
    if reason is not None:
        results["skipped"]["system calls"] = reason
        return []
    return _of_each(results, "system calls", servers, out, lambda running: _calls(running, load))


def _calls(running: Running, load: Load) -> dict[str, Any]:
    """Return the system calls per message of a running server. Raises ServerError."""
    drive(running, WARMUP)
    counts: dict[str, int] = {}
    window = drive(running, load, lambda: _system_calls.counted(running.pid, counts))
    messages = window.result.messages
    if window.result.samples or not messages:
        raise ServerError("; ".join(window.result.samples) or "no message was acknowledged")
    reads = _system_calls.total(counts, _system_calls.READS)
    writes = _system_calls.total(counts, _system_calls.WRITES)
    return {
        "messages": messages,
        "reads": reads / messages,
        "writes": writes / messages,
        "others": (sum(counts.values()) - reads - writes) / messages,
        "counts": counts,
    }


def _markdown(
    results: _report.Results, calls: Sequence[dict[str, Any]], held: Sequence[dict[str, Any]]
) -> str:
    lines = _report.facts(results)
    demands = _demands.table(results, calls, held)
    if demands:
        lines += ["### What is asked of the adapters", "", *demands]
    for scenario in results["scenarios"]:
        lines += _report.scenario_table(results, scenario, _report.SPEED)
    if calls:
        lines += ["### System calls per message, 1 KB, pipelined", ""]
        lines += heading(["server", "reads", "writes", "others", "messages"])
        for counted in calls:
            cells = [f"{counted[name]:.2f}" for name in ("reads", "writes", "others")]
            lines.append(row([counted["server"], *cells, number(counted["messages"])]))
        lines.append("")
    if held:
        lines += ["### Idle connections", ""]
        lines += heading(["server", "connections", "RSS MiB with them", "PSS MiB", "KiB each"])
        for figures in held:
            cells = [number(figures[name]) for name in ("open", "rss_mib", "pss_mib", "kib_each")]
            lines.append(row([figures["server"], *cells]))
        lines.append("")
    return "\n".join([*lines, *_report.problems(results)])
