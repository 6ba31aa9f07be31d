"""What durable delivery costs beside Dovecot's, and beside a C loop that only stores.

Each round measures every cell once, on a server of its own, in an order shuffled anew; what is
dirty is written back before each. All mail of a run lies below one folder, and none of it is
removed before the end.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks import _interleaved, _matrix, _page, _report, _store_demands
from benchmarks._cell import Measurement, measure
from benchmarks._disk import Disk
from benchmarks._idle import WARMUP
from benchmarks._load import Load
from benchmarks._matrix import Cell, Scenario
from benchmarks._servers import Dovecot, Handler, Server, Store
from benchmarks._store_demands import DAEMONS, FLOOR, LARGE, RECIPIENTS, SMALL

SUMMARY = "durable deliveries beside Dovecot and a C loop: rate, CPU, memory"

_REFERENCES: dict[Handler, Server] = {"durable": Dovecot(), "unsynced": Dovecot()}
_KB, _MB = 1000, 1_000_000
_LINKED = (Store("optimized", True), Store("syncfs", True))
_COMPILED = (Store("optimized", is_compiled=True), Store("syncfs", is_compiled=True))

_SMALL = Load(connections=50, size=10 * _KB, duration=3.0, warmup=0.5)
_SCENARIOS: Mapping[Scenario, tuple[Server, ...]] = {
    Scenario("durable", SMALL, _SMALL): (
        Store("optimized"),
        Store("syncfs"),
        *_COMPILED,
        *DAEMONS,
        Dovecot(),
        Disk(1),
        Disk(16),
        Disk(50),
    ),
    # No two connections deliver to the same mailbox.
    Scenario(
        "durable",
        RECIPIENTS,
        Load(connections=10, size=10 * _KB, recipients=50, mailboxes=500, duration=3.0, warmup=0.5),
    ): (Store("optimized"), Store("syncfs"), *_LINKED, Dovecot()),
    Scenario("unsynced", SMALL, _SMALL): (Store("never"), Dovecot()),
    # Attachments of that size have no line that begins with a dot.
    Scenario(
        "durable", LARGE, Load(connections=1, size=100 * _MB, messages=3, dots=False), WARMUP
    ): (Store("optimized"), Store("syncfs"), Dovecot(), FLOOR, Disk(1)),
}
_QUICK = Load(connections=2, size=10 * _KB, messages=20)
_QUICK_SCENARIOS: Mapping[Scenario, tuple[Server, ...]] = {
    Scenario("durable", SMALL, _QUICK): (
        Store("optimized"),
        Store("syncfs"),
        Dovecot(),
        Disk(2),
    ),
    Scenario(
        "durable", RECIPIENTS, Load(connections=2, size=10 * _KB, recipients=50, messages=4)
    ): (Store("optimized"), *_LINKED, Dovecot()),
    Scenario("unsynced", SMALL, _QUICK): (Store("never"), Dovecot()),
    Scenario("durable", LARGE, Load(connections=1, size=2 * _MB, messages=2, dots=False), WARMUP): (
        Store("optimized"),
        Dovecot(),
        FLOOR,
        Disk(1),
    ),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    _interleaved.add_options(
        parser,
        rounds=5,
        example="durable/ours-syncfs/c50-*",
        out="results and, until the end, the delivered mail go",
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave the delivered mail in DIR, to remove it later"
    )
    _page.add_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure and report. Returns 0, 1 when a cell failed, 2 when `--cells` matches nothing or the
    page has no place for the report."""
    quick: bool = arguments.quick
    patterns: list[str] | None = arguments.cells
    section = _page.section(arguments.page, "store", whole=not quick and patterns is None)
    if section is not None and (fault := section.missing()):
        print(fault, file=sys.stderr)
        return 2
    references = {handler: (server,) for handler, server in _REFERENCES.items()}
    cells = [
        cell
        for scenario, servers in (_QUICK_SCENARIOS if quick else _SCENARIOS).items()
        for cell in _matrix.cells([scenario], servers, references, patterns)
    ]
    if not cells:
        print(f"--cells {' '.join(patterns or [])}: no such cell", file=sys.stderr)
        return 2
    out: Path = arguments.out
    with _interleaved.mail_root(out, keep=arguments.keep) as mail:
        results = _interleaved.measure_all(
            cells,
            1 if quick else arguments.rounds,
            mail,
            {handler: server.name for handler, server in _REFERENCES.items()},
            _measure_cell,
        )
        (out / "store.json").write_text(json.dumps(results, indent=1) + "\n")
        report = _markdown(results)
        (out / "store.md").write_text(report)
        if section is not None:
            section.write(report)
        print(report, flush=True)
    return 1 if results["failures"] else 0


def _measure_cell(cell: Cell, folder: Path) -> Measurement:
    # What others have left to be written back is not for this one to wait for.
    os.sync()
    scenario, server = cell.scenario, cell.server
    if isinstance(server, Disk):
        return server.measure(scenario.load, folder)
    return measure(server, scenario.handler, scenario.load, folder, scenario.warm)


def _markdown(results: _report.Results) -> str:
    lines = _report.facts(results)
    demands = _store_demands.table(results)
    if demands:
        lines += ["### What is asked of the store", "", *demands]
    for scenario in results["scenarios"]:
        lines += _report.scenario_table(results, scenario, _report.SPEED_AND_GROWTH)
    return "\n".join([*lines, *_report.problems(results)])
