"""Calls that wait for the disk, made at the same time.

The invariant: each call is made once, and is over before its outcome is told.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Final, TypeVar

_Item = TypeVar("_Item")

# Calls for each thread, if there are no more: one is made sooner than another thread is woken.
_LEAST: Final = 2


class Together:
    """Up to `threads` threads beside the one that calls `run`, which is always the same.

    They start when they are first needed.
    """

    def __init__(self, threads: int) -> None:
        self._limit = threads
        self._threads: list[threading.Thread] = []
        # None ends a thread.
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def run(
        self, call: Callable[[_Item], None], items: Sequence[_Item]
    ) -> Iterable[Exception | None]:
        """What `call` raised for each of the items.

        The calls of one thread are made one by one, as the answers are asked for.
        """
        shares = self._threads_for(len(items) // _LEAST)
        if shares < 2:
            return (_failure(call, item) for item in items)
        errors: list[Exception | None] = [None] * len(items)
        finished: SimpleQueue[None] = SimpleQueue()
        share = partial(_share, call, items, errors, shares)
        for first in range(1, shares):
            self._jobs.put(partial(_help, share, first, finished))
        share(0)
        for _ in range(1, shares):
            finished.get()
        return errors

    def close(self) -> None:
        """End the threads."""
        for _ in self._threads:
            self._jobs.put(None)
        while self._threads:
            self._threads.pop().join()

    def _threads_for(self, shares: int) -> int:
        """How many threads there are for so many shares, the one that calls included."""
        shares = min(shares, self._limit + 1)
        while len(self._threads) < shares - 1:
            thread = threading.Thread(target=self._work, name="mailstore-sync", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                # The system has no more: fewer do it, too.
                return len(self._threads) + 1
            self._threads.append(thread)
        return shares

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


def _share(
    call: Callable[[_Item], None],
    items: Sequence[_Item],
    errors: list[Exception | None],
    shares: int,
    first: int,
) -> None:
    for index in range(first, len(items), shares):
        errors[index] = _failure(call, items[index])


def _help(share: Callable[[int], None], first: int, finished: SimpleQueue[None]) -> None:
    try:
        share(first)
    finally:
        finished.put(None)


def _failure(call: Callable[[_Item], None], item: _Item) -> Exception | None:
    try:
        call(item)
    except Exception as error:
        return error
    return None


ONE_BY_ONE: Final = Together(0)
"""The calls of one thread, one after the other."""
