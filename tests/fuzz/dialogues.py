"""The dialogue that belongs to a seed, and many of them in a row.

Of twenty seeds twelve are for the server, five for the client and three for both, joined. One of a
hundred dialogues of the first two is measured: those of the server are long then.
"""

import random
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from tests.fuzz import client, joined, server

_ROLES: Final = ("server",) * 12 + ("client",) * 5 + ("joined",) * 3
ROLES: Final = tuple(dict.fromkeys(_ROLES))
_MEASURED: Final = 100


@dataclass(slots=True)
class Tally:
    """What became of the dialogues that were held."""

    dialogues: Counter[str] = field(default_factory=Counter)
    replies: int = 0
    measured: int = 0
    slowest: tuple[float, int] = (0.0, 0)
    """Seconds of CPU, and the seed."""
    failure: str = ""
    """The seed that went wrong and how, "" when none did."""

    def add(self, other: "Tally") -> None:
        """Count the dialogues of `other` too."""
        self.dialogues += other.dialogues
        self.replies += other.replies
        self.measured += other.measured
        self.slowest = max(self.slowest, other.slowest)
        self.failure = self.failure or other.failure


def _role(seed: int) -> str:
    return _ROLES[seed % len(_ROLES)]


def _is_measured(seed: int, role: str) -> bool:
    return role != "joined" and seed // len(_ROLES) % _MEASURED == 0


def play(seed: int, role: str | None = None) -> int:
    """Hold the dialogue of one seed; the number of replies. Raises AssertionError, or what should
    not have been raised, when something is wrong."""
    chance = random.Random(seed)
    role = role or _role(seed)
    measured = _is_measured(seed, role)
    match role:
        case "server" if measured:
            return server.hold_measured(server.long_dialogue(chance), chance)
        case "server":
            return server.hold(server.dialogue(chance), chance)
        case "client":
            return client.hold_measured(chance) if measured else client.hold(chance)
        case _:
            return joined.hold(chance)


def play_all(seeds: range, role: str | None = None) -> Tally:
    """Hold the dialogues of all seeds up to the first that goes wrong."""
    tally = Tally()
    for seed in seeds:
        name = role or _role(seed)
        begin = time.process_time()
        try:
            replies = play(seed, name)
        except Exception:
            tally.failure = f"seed {seed}: {traceback.format_exc()}"
            break
        tally.slowest = max(tally.slowest, (time.process_time() - begin, seed))
        tally.dialogues[name] += 1
        tally.replies += replies
        tally.measured += _is_measured(seed, name)
    return tally
