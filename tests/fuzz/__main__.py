"""`python -m tests.fuzz --dialogues 1000000`: hold random dialogues until one goes wrong."""

import argparse
import random
import sys
import time

from tests.fuzz.dialogues import dialogue, hold


def main() -> int:
    """Fuzz; 1 and the seed of the dialogue where one went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--dialogues", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first dialogue")
    arguments = parser.parse_args()
    replies = 0
    slowest = (0.0, 0)
    for seed in range(arguments.seed, arguments.seed + arguments.dialogues):
        chance = random.Random(seed)
        octets = dialogue(chance)
        begin = time.process_time()
        try:
            replies += hold(octets, chance)
        except BaseException:
            sys.stderr.write(f"seed {seed}: {octets!r}\n")
            raise
        slowest = max(slowest, ((time.process_time() - begin) / len(octets), seed))
    cost, seed = slowest
    sys.stdout.write(
        f"{arguments.dialogues} dialogues, {replies} replies; "
        f"slowest {cost * 1e6:.1f} us of CPU an octet (seed {seed})\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
