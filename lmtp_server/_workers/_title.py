"""How a process calls itself in `ps` and `top`."""

import importlib
from collections.abc import Callable
from typing import Final

# comm of proc(5): 15 octets.
_LONGEST: Final = 15


class Title:
    """A process's name, and behind it what it does, where setproctitle is installed.

    Without setproctitle the command line stays, and the name of the command alone becomes `name`.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._state = ""
        # It is in none of the extras, so type checkers may not find it.
        self._set: Callable[[str], None] | None = None
        try:
            self._set = importlib.import_module("setproctitle").setproctitle
        except ImportError:
            try:
                with open("/proc/self/comm", "w") as file:
                    file.write(name[:_LONGEST])
            except OSError:
                # Not everywhere is /proc, nor writable.
                pass
        else:
            self._set(name)

    def show(self, state: str) -> None:
        """Say what the process does now."""
        if self._set is not None and state != self._state:
            self._state = state
            self._set(f"{self._name}: {state}")
