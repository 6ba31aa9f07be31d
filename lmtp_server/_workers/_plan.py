"""What a supervisor is to run: plain values, made from settings by whoever has read them."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ._board import Place
from ._channel import WorkerEnd


class PlanError(Exception):
    """There is no new plan; `faults` has a line for each reason."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """When a worker is replaced though it works, and when it is taken for one that does not.

    None is never. A successor is ready before its predecessor accepts no more.
    """

    max_connections: int | None = None
    """Connections after which it is replaced."""
    max_transactions: int | None = None
    """Transactions after which it is replaced."""
    jitter: float = 0.1
    """Part of both by which one worker's maximum is lower than told, at random, so that they are
    not all replaced at once."""
    memory_limit: int | None = None
    """Resident octets after which it is replaced."""
    memory_hard_limit: int | None = None
    """Resident octets after which it is killed."""
    heartbeat: float | None = 30.0
    """Seconds without a sign of life after which it is killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """What a worker has from its supervisor."""

    channel: WorkerEnd
    place: Place
    """Its own on the board; `place.number` is free for other areas of shared memory as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Workers to run. `adopted()` is called once they all are ready, at the start as at a reload;
    `dropped()` if they never will be at a reload: what was opened for them alone is closed."""

    work: Callable[[Post], None]
    """What a worker does, in a process of its own, until its channel says that it is to end."""
    count: int
    drain: float
    """Seconds that a worker may take to stop."""
    rules: Rules = field(default_factory=Rules)
    adopted: Callable[[], None]
    dropped: Callable[[], None]
