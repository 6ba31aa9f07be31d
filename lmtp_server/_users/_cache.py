"""Answers of a directory kept for a while.

The invariant: what is kept is what the directory said, no longer than it may be; a failure is never
kept. Who asks for what somebody else is asking for waits for that answer instead of asking again.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from ._entry import DirectoryError, Driver, Fields, NotFound


class _Question:
    """One lookup in progress, and those who wait for it."""

    __slots__ = ("answered", "error", "found")

    def __init__(self) -> None:
        self.answered = threading.Event()
        self.found: Fields | NotFound | None = None
        self.error: DirectoryError | None = None


class Cached:
    """`driver` with its answers kept (a `Driver`): users for `ttl` seconds, those that do not exist
    for `negative_ttl`, `size` of both together."""

    constant: Final = False

    def __init__(
        self,
        driver: Driver,
        *,
        ttl: float,
        negative_ttl: float,
        size: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._driver = driver
        self._ttl = ttl
        self._negative_ttl = negative_ttl
        self._size = size
        self._clock = clock
        self._lock = threading.Lock()
        # By user: until when it may be told, and what. Those used longest ago come first.
        self._kept: OrderedDict[str, tuple[float, Fields | NotFound]] = OrderedDict()
        self._questions: dict[str, _Question] = {}

    def recall(self, user: str, /) -> Fields | NotFound | None:
        """What is kept, or what the driver can say at once."""
        with self._lock:
            found = self._recall(user)
        return self._driver.recall(user) if found is None else found

    def lookup(self, user: str, /) -> Fields | NotFound:
        """What is kept; else ask, or wait for who is asking. Raises DirectoryError."""
        with self._lock:
            found = self._recall(user)
            if found is not None:
                return found
            question = self._questions.get(user)
            mine = question is None
            if question is None:
                question = self._questions[user] = _Question()
        if mine:
            self._ask(user, question)
        else:
            question.answered.wait()
        if question.found is None:
            # Each who waited raises an error of its own: raising one writes into it.
            raise DirectoryError(*(question.error or DirectoryError()).args)
        return question.found

    def _recall(self, user: str) -> Fields | NotFound | None:
        """To be called with the lock held."""
        kept = self._kept.get(user)
        if kept is None:
            return None
        until, found = kept
        if self._clock() >= until:
            del self._kept[user]
            return None
        self._kept.move_to_end(user)
        return found

    def _ask(self, user: str, question: _Question) -> None:
        try:
            question.found = self._driver.lookup(user)
        except DirectoryError as error:
            question.error = error
        except Exception as error:
            question.error = DirectoryError(f"{type(error).__name__}: {error}")
        finally:
            # Whatever happened, nobody waits for ever.
            with self._lock:
                del self._questions[user]
                if question.found is not None:
                    self._keep(user, question.found)
            question.answered.set()

    def _keep(self, user: str, found: Fields | NotFound) -> None:
        ttl = self._negative_ttl if isinstance(found, NotFound) else self._ttl
        if ttl > 0:
            self._kept[user] = (self._clock() + ttl, found)
            self._kept.move_to_end(user)
            if len(self._kept) > self._size:
                self._kept.popitem(last=False)
