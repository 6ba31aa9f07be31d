"""`python -m tests.faults COMMAND`: what takes too long for every change.

calls    every system call of a delivery, made to fail in every way
kill     kill -9 of the whole daemon under load
reload   SIGHUP under load
workers  kill -9 of workers under load, or SIGSTOP
agents   kill -9 of users' agents under load; needs root
broker   kill -9 of the broker under load; needs root
power    cut the power of a file system under load; needs root and loop devices
"""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mailstore import Sync
from tests.faults import call_faults
from tests.faults.daemon_kill import kill_rounds
from tests.faults.power import FILE_SYSTEMS, cut_power
from tests.faults.worker_faults import (
    Mode,
    Tally,
    agent_rounds,
    broker_rounds,
    reload_rounds,
    worker_rounds,
)

_CONTROL_ROUNDS = 5


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
    kill = commands.add_parser("kill")
    kill.add_argument("--rounds", type=int, default=200, metavar="N")
    kill.add_argument("--runtime", help="of the daemon; its own choice by default")
    for name in ("reload", "workers", "agents", "broker"):
        command = commands.add_parser(name)
        command.add_argument("--rounds", type=int, default=100, metavar="N")
        command.add_argument("--runtime", help="of the daemon; its own choice by default")
        if name in ("reload", "workers"):
            command.add_argument(
                "--mode",
                type=Mode,
                choices=list(Mode),
                default=Mode.PLAIN,
                help="who writes the mail; all but plain need root",
            )
        if name == "workers":
            command.add_argument("--stop", action="store_true", help="SIGSTOP in place of SIGKILL")
    power = commands.add_parser("power")
    power.add_argument("--rounds", type=int, default=50, metavar="N", help="for each file system")
    power.add_argument("--file-system", choices=FILE_SYSTEMS, help="cut the power of this alone")
    power.add_argument("--seed", type=int, default=0, help="of the moments of the cuts")
    arguments = parser.parse_args()
    run: dict[str, Callable[[Path, argparse.Namespace], int]] = {
        "calls": _calls,
        "kill": _kill,
        "reload": _reload,
        "workers": _workers,
        "agents": lambda folder, arguments: _tell(
            agent_rounds(folder, arguments.runtime, arguments.rounds)
        ),
        "broker": lambda folder, arguments: _tell(
            broker_rounds(folder, arguments.runtime, arguments.rounds)
        ),
        "power": _power,
    }
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


def _kill(folder: Path, arguments: argparse.Namespace) -> int:
    tally = kill_rounds(folder, arguments.runtime, arguments.rounds)
    sys.stdout.write(f"{tally}\n")
    return 0


def _reload(folder: Path, arguments: argparse.Namespace) -> int:
    return _tell(reload_rounds(folder, arguments.runtime, arguments.rounds, arguments.mode))


def _workers(folder: Path, arguments: argparse.Namespace) -> int:
    number = signal.SIGSTOP if arguments.stop else signal.SIGKILL
    return _tell(worker_rounds(folder, arguments.runtime, arguments.rounds, arguments.mode, number))


def _tell(tally: Tally) -> int:
    sys.stdout.write(f"{tally}\n")
    return 0


def _power(folder: Path, arguments: argparse.Namespace) -> int:
    failed = False
    for kind in [arguments.file_system] if arguments.file_system else FILE_SYSTEMS:
        for syncs, rounds in (
            ([Sync.OPTIMIZED], arguments.rounds),
            ([Sync.SYNCFS], arguments.rounds),
            ([Sync.NEVER], _CONTROL_ROUNDS),
        ):
            place = folder / f"{kind}-{syncs[0]}"
            place.mkdir()
            tally = cut_power(place, kind, syncs, rounds=rounds, seed=arguments.seed)
            sys.stdout.write(f"{kind}, {syncs[0]}: {tally}\n")
            sys.stdout.flush()
            if syncs == [Sync.NEVER]:
                # Cuts that lose nothing here show nothing above.
                failed |= not tally.lost
            else:
                failed |= bool(tally.lost or tally.torn or tally.twice)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
