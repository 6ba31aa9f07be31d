"""What a server's memory grows by with many idle connections, and the process that holds them.

`python -m benchmarks._idle` opens connections, waits for each greeting and holds them. Standard
output carries one line of JSON once all that can be are open: `{"open": N, "error": TEXT
or null}`. The connections stay until standard input ends. The first failure ends the opening: what
is open stays so.
"""

import argparse
import json
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks import _measure
from benchmarks._cell import drive
from benchmarks._limits import raise_file_limit
from benchmarks._load import Load, connect
from benchmarks._servers import Running, ServerError

_ROOT = Path(__file__).parents[1]
_SECONDS = 30.0
WARMUP = Load(connections=1, size=10_000, messages=5)
"""What a server makes or imports for its first messages is no cost of what follows."""


@dataclass(frozen=True, kw_only=True)
class Idle:
    """What a server holds with `open` idle connections; `problem` says why there are fewer."""

    open: int
    rss_mib: float
    pss_mib: float
    kib_each: float
    problem: str | None


def idle(running: Running, count: int) -> Idle:
    """Open `count` connections to a server that runs. Raises ServerError when the process that
    holds them fails."""
    drive(running, WARMUP)
    before = _measure.rss(running.pid)
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks._idle", running.address, str(count)],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as opener:
        assert opener.stdin is not None
        assert opener.stdout is not None
        line = opener.stdout.readline()
        rss, pss = _measure.rss(running.pid), _measure.pss(running.pid)
        opener.stdin.close()
    if not line:
        raise ServerError(f"the opener of connections ended with status {opener.returncode}")
    report = json.loads(line)
    return Idle(
        open=report["open"],
        rss_mib=rss / 2**20,
        pss_mib=pss / 2**20,
        kib_each=(rss - before) / 1024 / max(1, report["open"]),
        problem=report["error"] and f"{report['open']} connections, then {report['error']}",
    )


def _open(address: str, count: int, held: list[socket.socket]) -> str | None:
    """Add up to `count` greeted connections to `held`; return why there are fewer, or None."""
    for _ in range(count):
        try:
            connection = connect(address, _SECONDS)
            greeting = connection.recv(1024)
        except OSError as error:
            return str(error)
        if not greeting.startswith(b"220"):
            connection.close()
            return f"greeted with {greeting!r}"
        held.append(connection)
    return None


def main() -> int:
    """Hold the connections until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks._idle")
    parser.add_argument("address", help="HOST:PORT, [IPV6]:PORT or unix:PATH")
    parser.add_argument("count", type=int)
    arguments = parser.parse_args()
    raise_file_limit()
    held: list[socket.socket] = []
    error = _open(arguments.address, arguments.count, held)
    print(json.dumps({"open": len(held), "error": error}), flush=True)
    sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
