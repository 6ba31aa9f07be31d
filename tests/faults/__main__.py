"""`python -m tests.faults calls|kill|power`: what takes too long for every change.

calls    every system call of a delivery, made to fail in every way
kill     kill -9 of the whole daemon under load
power    cut the power of a file system under load; needs root and loop devices
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults import call_faults


def main() -> int:
    """Break things; 1 if something was lost, torn, left or answered wrongly."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--folder", type=Path, help="where to work; a temporary one by default")
    commands = parser.add_subparsers(dest="command", required=True)
    calls = commands.add_parser("calls")
    calls.add_argument("--only", default="", metavar="TEXT", help="scenarios with this in the name")
    arguments = parser.parse_args()
    run: dict[str, Callable[[Path, argparse.Namespace], int]] = {"calls": _calls}
    with tempfile.TemporaryDirectory(prefix="lmtp-", dir=arguments.folder) as folder:
        return run[arguments.command](Path(folder), arguments)


def _calls(folder: Path, arguments: argparse.Namespace) -> int:
    failures = 0
    for scenario in call_faults.SCENARIOS:
        if arguments.only not in str(scenario):
            continue
        begun = time.monotonic()
        struck = failed = 0
        for point, fault in call_faults.sweep(folder, scenario):
            struck += 1
            place = folder / f"{scenario}-{struck}"
            place.mkdir()
            try:
                call_faults.strike(place, scenario, point, fault)
            except AssertionError as error:
                failed += 1
                sys.stderr.write(f"{error}\n")
        seconds = time.monotonic() - begun
        sys.stdout.write(f"{scenario}: {struck} faults, {failed} failures, {seconds:.0f} s\n")
        sys.stdout.flush()
        failures += failed
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main())
