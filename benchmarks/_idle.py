"""Open many connections, wait for each greeting, and hold them: `python -m benchmarks._idle`.

Standard output carries one line of JSON once all that can be are open: `{"open": N, "error": TEXT
or null}`. The connections stay until standard input ends. The first failure ends the opening: what
is open stays so.
"""

import argparse
import json
import socket
import sys

from benchmarks._limits import raise_file_limit
from benchmarks._load import connect

_SECONDS = 30.0


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
