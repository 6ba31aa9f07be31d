"""A few of the dialogues that `python -m tests.fuzz` holds by the million."""

import random

from tests.fuzz.dialogues import dialogue, hold


def test_random_dialogues() -> None:
    replies = 0
    for seed in range(500):
        chance = random.Random(seed)
        replies += hold(dialogue(chance), chance)
    assert replies > 500
