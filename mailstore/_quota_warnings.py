"""Commands run when a quota is nearly or wholly used.

The invariant: nobody waits for a command, no more than a few run at once, each ends, and none gets
a descriptor of this process.
"""

import logging
import subprocess
import threading
from collections import deque
from typing import Final

_logger: Final = logging.getLogger("mailstore")

_AT_ONCE: Final = 4
_WAITING: Final = 1000
_SECONDS: Final = 60.0


class WarningRunner:
    """Runs commands one after the other, a few at once."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Nothing runs and nothing waits: for a forked child, whose parent has the threads."""
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._waiting: deque[tuple[str, ...]] = deque()
        self._running = 0

    def run(self, command: tuple[str, ...]) -> None:
        """Run `command`, a program with its arguments, soon. Never raises."""
        with self._lock:
            if len(self._waiting) >= _WAITING:
                _logger.error("too many quota warnings wait: %a is not run", command)
                return
            self._waiting.append(command)
            if self._running == _AT_ONCE:
                return
            self._running += 1
        thread = threading.Thread(target=self._work, name="mailstore-quota-warning", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            with self._lock:
                self._running -= 1
                self._idle.notify_all()
            _logger.error("the quota warning %a waits: %s", command, error)

    def finish(self) -> None:
        """Wait until all have ended, for a process that is about to."""
        with self._lock:
            self._idle.wait_for(lambda: not self._running)

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._running -= 1
                    self._idle.notify_all()
                    return
                command = self._waiting.popleft()
            _run(command)


def _run(command: tuple[str, ...]) -> None:
    try:
        subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        _logger.error("the quota warning %a failed: %s", command, ascii(str(error)))
