"""One worker as its supervisor sees it, and the seats that workers take.

The invariant: a seat is served by one worker, and by no other until its successor is ready.
"""

import os
import random
import signal
import time
from typing import Final

from ._board import Place
from ._channel import SupervisorEnd
from ._plan import Plan, Rules

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
# Seconds that a silent worker has to write down where it is before it is killed for good.
_LAST_WORDS: Final = 2.0
# What a worker may need beyond its drain time before it is killed (seconds).
_KILL_MARGIN: Final = 5.0
# The first failure is mended at once, the next ones after this many seconds, doubled each time.
_FIRST_DELAY: Final = 0.5
_LONGEST_DELAY: Final = 30.0
# A worker that served this long (seconds) does not fail at its start: the next failure is a first
# one. No longer: what makes workers crash under load must not keep all of them waiting.
_STEADY: Final = 2.0
_MIB: Final = 2**20


class Worker:
    """A process that was forked and has not been buried."""

    __slots__ = (
        "_beat",
        "_connections",
        "_transactions",
        "channel",
        "drain",
        "heard_at",
        "kill_at",
        "pid",
        "place",
        "ready_at",
        "rules",
    )

    def __init__(self, pid: int, channel: SupervisorEnd, place: Place, plan: Plan) -> None:
        self.pid = pid
        self.channel = channel
        self.place = place
        self.rules: Rules = plan.rules
        self.drain = plan.drain
        # When it has begun to accept connections; None before.
        self.ready_at: float | None = None
        self.heard_at = time.monotonic()
        # When it has to be gone; None while nothing of the kind is asked of it.
        self.kill_at: float | None = None
        self._beat = 0
        # A jitter of its own for each worker.
        less = 1.0 - random.random() * self.rules.jitter
        self._connections = _scaled(self.rules.max_connections, less)
        self._transactions = _scaled(self.rules.max_transactions, less)

    def look(self, now: float) -> None:
        """See whether it has given a sign of life since the last look."""
        beat = self.place.beat
        if beat != self._beat:
            self._beat = beat
            self.heard_at = now

    def is_silent(self, now: float) -> bool:
        """Whether it is so long since it has given a sign of life that it does not work."""
        heartbeat = self.rules.heartbeat
        return heartbeat is not None and now - self.heard_at > heartbeat

    def resident(self) -> int:
        """Octets in memory; 0 where nobody says."""
        try:
            with open(f"/proc/{self.pid}/statm", "rb") as file:
                return int(file.read().split()[1]) * _PAGE
        except (OSError, IndexError, ValueError):
            return 0

    def is_spent(self, resident: int) -> str | None:
        """Why it is to be replaced, None while there is no reason."""
        if self._connections is not None and self.place.served >= self._connections:
            return f"has served {self.place.served} connections"
        if self._transactions is not None and self.place.transactions >= self._transactions:
            return f"has had {self.place.transactions} transactions"
        limit = self.rules.memory_limit
        if limit is not None and resident > limit:
            return f"takes {resident // _MIB} MiB of memory"
        return None

    def retire(self) -> None:
        """Have it accept no more, let its clients finish, and exit."""
        self.channel.retire()
        # It drains once clients have had that time to finish.
        self.kill_at = time.monotonic() + 2 * self.drain + _KILL_MARGIN

    def stop(self) -> None:
        """Have it drain and exit now."""
        self.channel.stop()
        self.kill_at = time.monotonic() + self.drain + _KILL_MARGIN

    def abort(self) -> None:
        """Have it write down where it is, and kill it soon."""
        self.signal(signal.SIGABRT)
        self.kill_at = time.monotonic() + _LAST_WORDS

    def kill(self) -> None:
        """End it now; it will be buried."""
        self.signal(signal.SIGKILL)
        self.kill_at = time.monotonic() + _KILL_MARGIN

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal: it cannot be another process, since nobody has buried it."""
        os.kill(self.pid, number)


def _scaled(most: int | None, part: float) -> int | None:
    return None if most is None else max(1, round(most * part))


class Seat:
    """The place of one worker in the service."""

    __slots__ = ("_failures", "start_at", "successor", "worker")

    def __init__(self) -> None:
        self.worker: Worker | None = None
        # Started beside it, to take its place.
        self.successor: Worker | None = None
        # When the next worker may be started (seconds).
        self.start_at = 0.0
        self._failures = 0

    @property
    def workers(self) -> list[Worker]:
        """Those that are there."""
        return [each for each in (self.worker, self.successor) if each is not None]

    def fail(self, worker: Worker | None) -> float:
        """A worker has ended or could not be started: seconds until the next one is, the more the
        more of them have failed in a row."""
        now = time.monotonic()
        ready_at = None if worker is None else worker.ready_at
        if ready_at is not None and now - ready_at >= _STEADY:
            self._failures = 0
        delay = 0.0
        if self._failures:
            delay = min(_FIRST_DELAY * 2.0 ** (self._failures - 1), _LONGEST_DELAY)
        self._failures += 1
        self.start_at = now + delay
        return delay


class Generation:
    """The seats of one plan."""

    __slots__ = ("plan", "seats")

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.seats = [Seat() for _ in range(plan.count)]

    @property
    def is_ready(self) -> bool:
        """Whether there is a ready worker in each seat."""
        return all(
            seat.worker is not None and seat.worker.ready_at is not None for seat in self.seats
        )

    @property
    def workers(self) -> list[Worker]:
        """Those in all seats."""
        return [worker for seat in self.seats for worker in seat.workers]

    def seat_of(self, worker: Worker) -> Seat | None:
        """Where the worker sits, None if it does not."""
        return next((seat for seat in self.seats if worker in seat.workers), None)
