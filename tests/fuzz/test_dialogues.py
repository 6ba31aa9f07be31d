"""A few of the dialogues that `python -m tests.fuzz` holds by the million."""

import random
import subprocess
import sys
from pathlib import Path

from tests.fuzz.dialogues import dialogue, hold


def test_random_dialogues() -> None:
    replies = 0
    for seed in range(500):
        chance = random.Random(seed)
        replies += hold(dialogue(chance), chance)
    assert replies > 500


def test_the_command_says_what_it_did() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--dialogues", "20"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.startswith("20 dialogues, ")
