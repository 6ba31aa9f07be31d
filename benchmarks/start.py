"""How long the daemon takes from its call until it accepts connections, and what its idle workers
hold in memory.

Each round starts it anew with a listener on 127.0.0.1. The start is from the call of the program to
its ready line, which comes when all workers accept. RSS counts the pages that a worker shares with
the supervisor and the other workers in full, PSS (proportional set size) its part of them: the sum
of all PSS is what the service takes.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import _measure
from benchmarks._cell import drive
from benchmarks._idle import WARMUP
from benchmarks._report import heading, number, row
from benchmarks._servers import Ours, ServerError

SUMMARY = "seconds until ready, and the memory of idle workers"

_RUNTIMES = ("uvloop", "asyncio", "gevent", "blocking")
_MIB = 2**20


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("--workers", type=int, default=4, metavar="N", help="(4)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="starts of each (5)")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print a table. Returns 1 when a server failed."""
    lines = heading(
        [
            "runtime",
            "seconds until ready",
            "RSS of a worker, MiB",
            "PSS of a worker, MiB",
            "PSS of a worker that has delivered, MiB",
            "PSS of all, MiB",
        ]
    )
    failed = False
    for runtime in _RUNTIMES:
        server = Ours(runtime, workers=arguments.workers)
        if server.missing() is not None:
            continue
        try:
            rounds = [_round(server) for _ in range(arguments.rounds)]
        except ServerError as error:
            print(f"{runtime}: {error}", file=sys.stderr)
            failed = True
            continue
        medians = [statistics.median(figures) for figures in zip(*rounds, strict=True)]
        lines.append(row([runtime, f"{medians[0]:.2f}", *map(number, medians[1:])]))
    print("\n".join(lines))
    return int(failed)


def _round(server: Ours) -> tuple[float, ...]:
    """One start, in the order of the table."""
    with tempfile.TemporaryDirectory(prefix="lmtp-") as folder:
        begun = time.monotonic()
        with server.running("durable", Path(folder)) as running:
            seconds = time.monotonic() - begun
            _supervisor, *workers = _measure.tree(running.pid)
            rss = max(_measure.rss(worker) for worker in workers)
            pss = max(_measure.pss(worker) for worker in workers)
            drive(running, WARMUP)
            warm = max(_measure.pss(worker) for worker in workers)
            everything = _measure.pss(running.pid)
    return (seconds, rss / _MIB, pss / _MIB, warm / _MIB, everything / _MIB)
