"""`python -m tests.mutation`: change the code in small ways, and see whether a test fails.

It says how many mutants there are and which have survived. It fails when one has survived that
README.md does not explain, and when README.md explains one that has not.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Final

from tests.mutation import _functions, _table

_README: Final = Path(__file__).with_name("README.md")


def _explained(kind: str) -> set[str]:
    """The survivors in README.md's blocks of this kind; a blank line parts two."""
    text = _README.read_text(encoding="utf-8")
    blocks = re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return {
        "\n".join(line.strip() for line in mutant.splitlines())
        for block in blocks
        for mutant in block.strip().split("\n\n")
    }


def _judge(alive: Iterable[str], explained: set[str]) -> bool:
    """Say what differs from README.md; whether nothing does."""
    survivors = set(alive)
    for mutant in sorted(survivors - explained):
        sys.stdout.write(f"SURVIVED, no test fails:\n{mutant}\n\n")
    for mutant in sorted(explained - survivors):
        sys.stdout.write(f"EXPLAINED in README.md, but has not survived:\n{mutant}\n\n")
    return survivors == explained


def _table_holds() -> bool:
    # The same examples in each run: a mutant lives or dies by the tests, not by chance.
    os.environ["CI"] = "1"
    survivors = []
    for role in _table.TESTS:
        if not _table.survives(None, role):
            sys.stdout.write(f"table, {role}: the tests fail without a mutant\n")
            return False
        mutants = list(_table.mutants(role))
        with ProcessPoolExecutor() as pool:
            outcomes = pool.map(_table.survives, mutants, repeat(role))
        alive = [
            f"{role}: {mutant}" for mutant, lives in zip(mutants, outcomes, strict=True) if lives
        ]
        survivors += alive
        sys.stdout.write(f"table, {role}: {len(mutants)} mutants, {len(alive)} survived\n")
        sys.stdout.flush()
    return _judge(survivors, _explained("text"))


def _functions_hold() -> bool:
    outcome = _functions.run()
    counts = ", ".join(f"{count} {status}" for status, count in sorted(outcome.counts.items()))
    sys.stdout.write(f"functions: {sum(outcome.counts.values())} mutants, {counts}\n")
    return _judge(outcome.alive, _explained("diff"))


def main() -> int:
    """Mutate; 1 when survivors and README.md differ."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("what", choices=["table", "functions", "all"], nargs="?", default="all")
    arguments = parser.parse_args()
    held = True
    if arguments.what != "functions":
        held = _table_holds()
    if arguments.what != "table":
        held = _functions_hold() and held
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
