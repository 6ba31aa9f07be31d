"""Every cell measured once in each round, on a server of its own, in an order shuffled anew.

Each gets a folder of its own below one root, and nothing is removed there: on ext4, files are made
several times slower for minutes after many removals.
"""

import argparse
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import _facts, _matrix
from benchmarks._cell import Measurement
from benchmarks._matrix import Cell
from benchmarks._report import Results
from benchmarks._servers import Handler, ServerError

_SEED = 2033


@contextmanager
def mail_root(out: Path, *, keep: bool) -> Iterator[Path]:
    """Give a new folder in `out` for all mail of a run. Unless to be kept it is removed at the end,
    which takes its time where there is much mail."""
    out.mkdir(parents=True, exist_ok=True)
    mail = Path(tempfile.mkdtemp(prefix="mail-", dir=out.resolve()))
    # Dovecot delivers as another user.
    mail.chmod(0o755)
    print(f"mail lies in {mail}", file=sys.stderr, flush=True)
    try:
        yield mail
    finally:
        if not keep:
            print(f"removing {mail}", file=sys.stderr, flush=True)
            shutil.rmtree(mail)


def measure_all(
    cells: Sequence[Cell],
    rounds: int,
    mail: Path,
    references: dict[Handler, str],
    measure: Callable[[Cell, Path], Measurement],
) -> Results:
    """Return what `measure(cell, folder)` shows; `folder` is below `mail` and does not exist yet.

    A server that cannot run is skipped; a ServerError is a failure of its cell.
    """
    results: Results = {
        "facts": _facts.facts(mail),
        "references": {str(handler): name for handler, name in references.items()},
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
            folder = mail / f"{number}-{cell.name.replace('/', '-')}"
            progress = f"round {number + 1}/{rounds} cell {position + 1}/{len(able)} {cell.name}"
            try:
                measurement = measure(cell, folder)
            except ServerError as error:
                results["failures"][f"{cell.name} round {number + 1}"] = str(error)
                print(f"{progress}: {error}", file=sys.stderr, flush=True)
                continue
            outcome = _matrix.record(results, cell, number, measurement)
            print(f"{progress}: {outcome}", file=sys.stderr, flush=True)
    return results


def add_options(parser: argparse.ArgumentParser, *, rounds: int, example: str, out: str) -> None:
    """Add the options of a command that measures cells; `out` says what goes into its folder."""
    parser.add_argument(
        "--rounds", type=int, default=rounds, help=f"times each cell is measured ({rounds})"
    )
    parser.add_argument(
        "--cells",
        action="append",
        metavar="GLOB",
        help=f"only cells HANDLER/SERVER/SCENARIO that match, such as '{example}', "
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
        help=f"where {out} (benchmarks/results)",
    )
