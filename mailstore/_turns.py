"""Work that may wait for a mailbox, so that it holds up nobody but those who want the same one.

The invariant: of all work for one mailbox, one piece at most is in a thread of the caller's at a
time, of which there are few; a bounded number is in threads of this module's, and the rest waits
without a thread, in order and for a bounded time. Every piece is run once, or told once that it was
too late.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from ._fork import call_in_child

# Threads for one mailbox, beside the caller's. Deliveries at the same time share their syncs.
_THREADS: Final = 4


class _Turn:
    """One piece of work that waits."""

    __slots__ = ("deadline", "late", "run")

    def __init__(self, run: Callable[[], None], late: Callable[[], None], deadline: float) -> None:
        # None once it is decided what becomes of it.
        self.run: Callable[[], None] | None = run
        self.late = late
        self.deadline = deadline


class _Line:
    """Those who want one mailbox."""

    __slots__ = ("called", "threads", "waiting")

    def __init__(self) -> None:
        # Whether the caller has a piece of work for it.
        self.called = False
        self.threads = 0
        self.waiting: deque[_Turn] = deque()


class Turns:
    """Runs work for mailboxes; nobody waits for a turn longer than `patience` seconds.

    Nothing is left of a parent process in a forked child.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._reset()
        call_in_child(self._reset)

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._lines: dict[tuple[str, ...], _Line] = {}
        # In the order of their deadlines, those that were decided as well.
        self._turns: deque[_Turn] = deque()
        self._watched = False
        self._threads = 0

    def begin(
        self, mailbox: tuple[str, ...], run: Callable[[], None], late: Callable[[], None]
    ) -> Callable[[], None] | None:
        """Have `run` called, which may block.

        If the answer is a callable, that is to be called in place of it, once, in any thread. Else
        another thread calls `run`, or `late` where its turn does not come in time. Neither raises.
        """
        with self._changed:
            line = self._lines.setdefault(mailbox, _Line())
            if not line.called:
                line.called = True
                return lambda: self._run(mailbox, line, run)
            turn = _Turn(run, late, time.monotonic() + self._patience)
            line.waiting.append(turn)
            try:
                if line.threads < _THREADS:
                    self._start(lambda: self._work(mailbox, line))
                    line.threads += 1
                    self._threads += 1
                else:
                    self._watch(turn)
                return None
            except RuntimeError:
                # There can be no more threads.
                line.waiting.pop()
        late()
        return None

    def close(self) -> None:
        """Wait for the end of what was begun, but for what the caller runs."""
        with self._changed:
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._threads)

    def _run(self, mailbox: tuple[str, ...], line: _Line, run: Callable[[], None]) -> None:
        try:
            run()
        finally:
            with self._changed:
                line.called = False
                self._end(mailbox, line)

    def _work(self, mailbox: tuple[str, ...], line: _Line) -> None:
        """Run what waits for the mailbox, until nothing does."""
        while (turn := self._next(mailbox, line)) is not None:
            turn()

    def _next(self, mailbox: tuple[str, ...], line: _Line) -> Callable[[], None] | None:
        with self._changed:
            while line.waiting:
                turn = line.waiting.popleft()
                run, turn.run = turn.run, None
                if run is not None:
                    return run
            line.threads -= 1
            self._threads -= 1
            self._end(mailbox, line)
            self._changed.notify_all()
            return None

    def _end(self, mailbox: tuple[str, ...], line: _Line) -> None:
        if not (line.called or line.threads or line.waiting):
            self._lines.pop(mailbox, None)

    def _watch(self, turn: _Turn) -> None:
        """See to it that `turn` learns in time when it is too late."""
        if not self._watched:
            self._start(self._expire)
            self._watched = True
        self._turns.append(turn)

    def _expire(self) -> None:
        """Tell those who have waited too long, until nobody waits."""
        while True:
            with self._changed:
                while self._turns and (
                    self._turns[0].run is None or self._turns[0].deadline > time.monotonic()
                ):
                    if self._turns[0].run is None:
                        self._turns.popleft()
                    else:
                        self._changed.wait(self._turns[0].deadline - time.monotonic())
                if not self._turns:
                    self._watched = False
                    return
                turn = self._turns.popleft()
                turn.run = None
            turn.late()

    def _start(self, target: Callable[[], None]) -> None:
        threading.Thread(target=target, name="mailstore-turns", daemon=True).start()
