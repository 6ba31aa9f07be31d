"""What a pool knows of its connections, and what is to be done next: no waiting, no reading.

Every connection is in the book from before it is opened until it has been dropped, so that there
are never more than `size`. Callers are served in the order in which they came.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeAlias, TypeVar

C = TypeVar("C")

# Seconds between the first attempts to connect after a failure; each next time is twice as long.
_FIRST_PAUSE: Final = 0.1


class Turn(Protocol):
    """What a caller waits with, such as a `threading.Event`."""

    def set(self) -> object:
        """Wake the caller; from any thread."""

    def clear(self) -> object:
        """Before the caller looks what is to be done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """The bounds of a pool, and what it does with its connections; times are seconds.

    Raises ValueError where there would be no connection at all.
    """

    size: int = 10
    """The most connections at a time, those that are being opened and closed among them."""
    timeout: float = 30.0
    """How long a message waits for a connection when all are in use, or when connecting has failed
    and is to be tried again later."""
    probe_after: float = 2.0
    """A connection that was idle for so long is asked by RSET whether it is still there."""
    probe_timeout: float = 10.0
    """How long the reply to that may take."""
    idle_limit: float = 60.0
    """A connection that was idle for so long is closed when the pool is used next: one that nobody
    uses closes none by itself. Servers close idle ones too, after 5 minutes or more (RFC 5321
    4.5.3.2.7)."""
    age_limit: float = 300.0
    """A connection that was opened so long ago takes no further message; it is closed behind the
    last one, or when it would be used next."""
    back_off_limit: float = 30.0
    """The longest pause between two attempts to connect after failures. The first is 0.1, each
    next one is twice as long, until one succeeds."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size is {self.size}: a pool needs one connection or more")


@dataclass(frozen=True, slots=True)
class Reuse(Generic[C]):
    """Use `client`, which may have gone in the meantime: where `probe` is set, see first."""

    client: C
    probe: bool


@dataclass(frozen=True, slots=True)
class Retire(Generic[C]):
    """Close `client` and drop it, then ask again."""

    client: C


@dataclass(frozen=True, slots=True)
class Open:
    """Open a connection; `opened()` or `failed()` is to be called."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait to be woken, but no longer than `until` (None: for ever), and ask again."""

    until: float | None


Step: TypeAlias = Reuse[C] | Retire[C] | Open | Wait


class PoolBook(Generic[C]):
    """The book of one pool; `clock` gives seconds that never go back. For any thread.

    After a failure to connect the next attempt has to wait, and until one succeeds there is one at
    a time.
    """

    def __init__(self, settings: PoolSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        # Who has waited longest is first.
        self._turns: deque[Turn] = deque()
        # Since when each is idle; the one used last is last.
        self._idle: OrderedDict[C, float] = OrderedDict()
        # When each that is open was opened.
        self._opened: dict[C, float] = {}
        self._opening = 0
        self._failures = 0
        self._retry_at = 0.0
        self.error: Exception | None = None
        """Why connecting has failed, None since it has not."""
        self._closed = False

    def enqueue(self, turn: Turn, *, again: bool = False) -> None:
        """A caller wants a connection; `again`: the one it got was none."""
        with self._lock:
            if again:
                self._turns.appendleft(turn)
            else:
                self._turns.append(turn)

    def next_step(self, turn: Turn) -> Step[C]:
        """What a caller is to do. `Reuse` and `Open` end its waiting.

        Raises RuntimeError when the pool is closed.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("the pool is closed")
            turn.clear()
            if self._turns[0] is not turn:
                return Wait(None)
            step = self._step()
            if isinstance(step, Reuse | Open):
                self._turns.popleft()
                self._wake()
            return step

    def dequeue(self, turn: Turn) -> None:
        """A caller waits no more, whether it was served or not."""
        with self._lock:
            if turn in self._turns:
                self._turns.remove(turn)
                self._wake()

    def opened(self, client: C, refusal: Exception | None) -> None:
        """A connection was opened, and is in use; `refusal`: why it takes no message at all."""
        with self._lock:
            self._opening -= 1
            self._opened[client] = self._clock()
            if refusal is not None:
                self._fail(refusal)
            else:
                self._failures = 0
                self.error = None
            self._wake()

    def failed(self, error: Exception | None) -> None:
        """No connection was opened. `error` None: it was not tried to the end."""
        with self._lock:
            self._opening -= 1
            if error is not None:
                self._fail(error)
            self._wake()

    def replace(self, client: C) -> None:
        """Drop a connection, and open another in its place."""
        with self._lock:
            del self._opened[client]
            self._opening += 1

    def drop(self, client: C) -> None:
        """A connection is closed."""
        with self._lock:
            del self._opened[client]
            self._wake()

    def release(self, client: C) -> bool:
        """A usable connection is in use no more. False: it is to be closed and dropped."""
        with self._lock:
            now = self._clock()
            keep = not self._closed and not self._is_old(client, now)
            if keep:
                self._idle[client] = now
                self._wake()
            return keep

    def close(self) -> list[C]:
        """Hand out no more connections: those that are idle, to be closed."""
        with self._lock:
            self._closed = True
            idle = list(self._idle)
            self._idle.clear()
            for client in idle:
                del self._opened[client]
            for turn in self._turns:
                turn.set()
            return idle

    def _step(self) -> Step[C]:
        now = self._clock()
        if self._idle:
            oldest, since = next(iter(self._idle.items()))
            if now - since >= self._settings.idle_limit:
                del self._idle[oldest]
                return Retire(oldest)
            client, since = self._idle.popitem()
            if self._is_old(client, now):
                return Retire(client)
            return Reuse(client, now - since >= self._settings.probe_after)
        if len(self._opened) + self._opening >= self._settings.size:
            return Wait(None)
        if self._failures and self._opening:
            return Wait(None)
        if self._failures and now < self._retry_at:
            return Wait(self._retry_at)
        self._opening += 1
        return Open()

    def _is_old(self, client: C, now: float) -> bool:
        return now - self._opened[client] >= self._settings.age_limit

    def _fail(self, error: Exception) -> None:
        # The exponent has a bound, for a burst of failures may be long.
        pause = _FIRST_PAUSE * 2.0 ** min(self._failures, 30)
        self._failures += 1
        self._retry_at = self._clock() + min(pause, self._settings.back_off_limit)
        self.error = error

    def _wake(self) -> None:
        if self._turns:
            self._turns[0].set()
