"""Messages a second, and what they cost: every server beside its peers in one interleaved run.

Each round measures every cell (server, handler, connections, size, recipients) once, in an order
shuffled anew; ratios are taken inside a round and then summarised, so a machine that slows down
slows both sides of a ratio. No mail is removed before the end: on ext4, files are made several
times slower for minutes after many removals.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks import _facts, _matrix, _report
from benchmarks._cell import measure
from benchmarks._load import Load
from benchmarks._matrix import Cell, Scenario
from benchmarks._servers import Aiosmtpd, Dovecot, Handler, Ours, Server, ServerError

SUMMARY = "messages/s, MB/s, CPU, latency and memory, beside aiosmtpd and Dovecot"

_RUNTIMES = ("uvloop", "asyncio", "gevent", "blocking")
_WORKERS = (1, 2, 4)
# Ratios compare with these, which therefore run in every scenario that is measured at all.
_REFERENCES: dict[Handler, Server] = {"discard": Aiosmtpd("asyncio"), "durable": Dovecot()}
_PEERS: tuple[Server, ...] = (Aiosmtpd("asyncio"), Aiosmtpd("uvloop"), Dovecot())
_SEED = 2033


_KB, _MB = 1000, 1_000_000


def _load(connections: int, size: int, recipients: int = 1, messages: int | None = None) -> Load:
    return Load(
        connections=connections,
        size=size,
        recipients=recipients,
        messages=messages,
        duration=2.5,
        warmup=0.5,
    )


_SCENARIOS = (
    Scenario("discard", "c10-1k-r1", _load(10, _KB)),
    Scenario("discard", "c10-10k-r1", _load(10, 10 * _KB)),
    Scenario("discard", "c10-10k-r10", _load(10, 10 * _KB, 10)),
    Scenario("discard", "c2-10m-r1", _load(2, 10 * _MB)),
    Scenario("durable", "c10-10k-r1", _load(10, 10 * _KB)),
    Scenario("durable", "c50-10k-r1", _load(50, 10 * _KB)),
    Scenario("durable", "c10-10k-r10", _load(10, 10 * _KB, 10)),
    # The count keeps a fast server from filling the disk.
    Scenario("durable", "c2-10m-r1", _load(2, 10 * _MB, messages=20)),
)
_QUICK_SCENARIOS = (
    Scenario("discard", "c2-1k-r1", Load(connections=2, size=_KB, messages=20)),
    Scenario("durable", "c2-1k-r3", Load(connections=2, size=_KB, recipients=3, messages=20)),
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("--rounds", type=int, default=3, help="times each cell is measured (3)")
    parser.add_argument(
        "--cells",
        action="append",
        metavar="GLOB",
        help="only cells HANDLER/SERVER/SCENARIO that match, such as 'durable/uvloop-*/c50-*', "
        "and the servers they are compared with; repeatable",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a few messages a cell, one round: shows that it works"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("benchmarks/results"),
        metavar="DIR",
        help="where results and, until the end, the delivered mail go (benchmarks/results)",
    )
    parser.add_argument("--keep", action="store_true", help="leave the delivered mail in DIR")


def run(arguments: argparse.Namespace) -> int:
    """Measure and report. Returns 0, 1 when a cell failed, 2 when `--cells` matches nothing."""
    cells = _cells(arguments.quick, arguments.cells)
    if not cells:
        print(f"--cells {' '.join(arguments.cells)}: no such cell", file=sys.stderr)
        return 2
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    mail = Path(tempfile.mkdtemp(prefix="mail-", dir=out))
    mail.chmod(0o755)
    try:
        results = _measure_all(cells, 1 if arguments.quick else arguments.rounds, mail)
    finally:
        if not arguments.keep:
            shutil.rmtree(mail)
    (out / "throughput.json").write_text(json.dumps(results, indent=1) + "\n")
    table = _report.markdown(results)
    (out / "throughput.md").write_text(table)
    _report.plot(results, [out / "throughput.svg", out / "throughput.png"])
    print(table)
    return 1 if results["failures"] else 0


def _cells(quick: bool, patterns: list[str] | None) -> list[Cell]:
    """Return the cells that match, in the order of the report."""
    workers = (1,) if quick else _WORKERS
    ours = [Ours(runtime, count) for runtime in _RUNTIMES for count in workers]
    scenarios = _QUICK_SCENARIOS if quick else _SCENARIOS
    references = {handler: (server,) for handler, server in _REFERENCES.items()}
    return _matrix.cells(scenarios, (*ours, *_PEERS), references, patterns)


def _measure_all(cells: list[Cell], rounds: int, mail: Path) -> _report.Results:
    results: _report.Results = {
        "facts": _facts.facts(mail),
        "references": {handler: server.name for handler, server in _REFERENCES.items()},
        "floors": {},
        "scenarios": _matrix.scenarios_of(cells),
        "measurements": [],
        "skipped": {},
        "failures": {},
    }
    able = []
    for cell in cells:
        reason = cell.server.missing()
        if reason is None:
            able.append(cell)
        else:
            results["skipped"][cell.name] = reason
            print(f"{cell.name}: skipped: {reason}", file=sys.stderr)
    shuffler = random.Random(_SEED)
    for number in range(rounds):
        shuffler.shuffle(able)
        for position, cell in enumerate(able):
            scenario = cell.scenario
            folder = mail / f"{number}-{cell.name.replace('/', '-')}"
            progress = f"round {number + 1}/{rounds} cell {position + 1}/{len(able)} {cell.name}"
            try:
                measurement = measure(cell.server, scenario.handler, scenario.load, folder)
            except ServerError as error:
                results["failures"][f"{cell.name} round {number + 1}"] = str(error)
                print(f"{progress}: {error}", file=sys.stderr, flush=True)
                continue
            outcome = _matrix.record(results, cell, number, measurement)
            print(f"{progress}: {outcome}", file=sys.stderr, flush=True)
    return results
