"""Messages a second, and what they cost: every server beside its peers in one interleaved run.

Each round measures every cell (server, handler, connections, size, recipients) once, in an order
shuffled anew; ratios are taken inside a round and then summarised, so a machine that slows down
slows both sides of a ratio. No mail is removed before the end.
"""

import argparse
import json
import sys
from pathlib import Path

from benchmarks import _interleaved, _matrix, _report
from benchmarks._cell import measure
from benchmarks._load import Load
from benchmarks._matrix import Cell, Scenario
from benchmarks._servers import Aiosmtpd, Dovecot, Handler, Ours, Server

SUMMARY = "messages/s, MB/s, CPU, latency and memory, beside aiosmtpd and Dovecot"

_RUNTIMES = ("uvloop", "asyncio", "gevent", "blocking")
_WORKERS = (1, 2, 4)
# Ratios compare with these, which therefore run in every scenario that is measured at all.
_REFERENCES: dict[Handler, Server] = {"discard": Aiosmtpd("asyncio"), "durable": Dovecot()}
_PEERS: tuple[Server, ...] = (Aiosmtpd("asyncio"), Aiosmtpd("uvloop"), Dovecot())


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
    _interleaved.add_options(
        parser,
        rounds=3,
        example="durable/uvloop-*/c50-*",
        out="results and, until the end, the delivered mail go",
    )
    parser.add_argument("--keep", action="store_true", help="leave the delivered mail in DIR")


def run(arguments: argparse.Namespace) -> int:
    """Measure and report. Returns 0, 1 when a cell failed, 2 when `--cells` matches nothing."""
    cells = _cells(arguments.quick, arguments.cells)
    if not cells:
        print(f"--cells {' '.join(arguments.cells)}: no such cell", file=sys.stderr)
        return 2
    out: Path = arguments.out
    with _interleaved.mail_root(out, keep=arguments.keep) as mail:
        results = _interleaved.measure_all(
            cells,
            1 if arguments.quick else arguments.rounds,
            mail,
            {handler: server.name for handler, server in _REFERENCES.items()},
            lambda cell, folder: measure(
                cell.server, cell.scenario.handler, cell.scenario.load, folder
            ),
        )
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
