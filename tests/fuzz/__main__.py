"""`python -m tests.fuzz --dialogues 1000000`: hold random dialogues until one goes wrong.

A seed is one dialogue, always the same: `--seed 4711 --dialogues 1` holds it again.
"""

import argparse
import functools
import multiprocessing
import signal
import sys
from collections.abc import Iterator

from tests.fuzz.dialogues import ROLES, Tally, play_all

_BLOCK = 500
_PROGRESS = 10_000


def main() -> int:
    """Fuzz; 1 and the seed of the dialogue where one went wrong, 130 when interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dialogues", type=int, default=100_000, metavar="N")
    parser.add_argument("--seed", type=int, default=0, help="of the first dialogue")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes")
    parser.add_argument("--role", choices=ROLES, help="hold dialogues of this kind alone")
    arguments = parser.parse_args()
    # A shell has its background jobs ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    seeds = range(arguments.seed, arguments.seed + arguments.dialogues)
    total = Tally()
    reached = seeds.start
    interrupted = False
    try:
        for tally in _tallies(seeds, arguments.jobs, arguments.role):
            total.add(tally)
            if total.failure:
                break
            before, reached = reached, min(reached + _BLOCK, seeds.stop)
            if before // _PROGRESS != reached // _PROGRESS:
                sys.stderr.write(f"{reached - seeds.start} dialogues, all well below {reached}\n")
    except KeyboardInterrupt:
        interrupted = True
    cost, seed = total.slowest
    held = ", ".join(f"{total.dialogues[role]} {role}" for role in ROLES)
    sys.stdout.write(
        f"{total.dialogues.total()} dialogues ({held}; {total.measured} measured), "
        f"{total.replies} replies; the slowest took {cost * 1e3:.0f} ms of CPU (seed {seed})\n"
    )
    if total.failure:
        sys.stderr.write(f"{total.failure}\n")
        return 1
    if interrupted:
        left = seeds.stop - reached
        sys.stdout.write(f"stopped: go on with --seed {reached} --dialogues {left}\n")
        return 130
    return 0


def _tallies(seeds: range, jobs: int, role: str | None) -> Iterator[Tally]:
    """The tallies of all dialogues, block by block."""
    blocks = (
        range(start, min(start + _BLOCK, seeds.stop))
        for start in range(seeds.start, seeds.stop, _BLOCK)
    )
    hold = functools.partial(play_all, role=role)
    if jobs == 1:
        yield from map(hold, blocks)
        return
    with multiprocessing.Pool(jobs, _ignore_interrupts) as pool:
        yield from pool.imap(hold, blocks)


def _ignore_interrupts() -> None:
    """Ctrl-C is for the process that gathers the tallies; it ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main())
