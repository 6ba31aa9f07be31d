"""What the service manager is told, by the protocol of sd_notify(3).

Nothing is told where nobody asks, and a manager that does not listen harms nobody.
"""

import os
import socket
import time
from collections.abc import MutableMapping
from typing import Final

_MICROSECONDS: Final = 1_000_000


class Notifier:
    """Speaks to the manager that `environment` names.

    Its variables (NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID) are taken out of `environment`: what
    this process starts does not speak for the service.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self._address = environment.pop("NOTIFY_SOCKET", "")
        patience = environment.pop("WATCHDOG_USEC", "")
        process = environment.pop("WATCHDOG_PID", "")
        self.watchdog: float | None = None
        """Seconds in which the manager wants a sign of life, None where it wants none."""
        if patience.isascii() and patience.isdigit() and process in ("", str(os.getpid())):
            self.watchdog = int(patience) / _MICROSECONDS or None
        self._alive_at = 0.0

    def ready(self) -> None:
        """Connections are accepted; after a reload, too."""
        self._say("READY=1")

    def reloading(self) -> None:
        """Settings are read anew; `ready()` or `status()` with it says when that is over."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._say(f"RELOADING=1\nMONOTONIC_USEC={now}")

    def stopping(self) -> None:
        """The service stops."""
        self._say("STOPPING=1")

    def status(self, text: str) -> None:
        """A line for a person to read."""
        self._say(f"STATUS={text}")

    def alive(self) -> None:
        """The service works. May be said as often as wanted; the manager hears it in time."""
        now = time.monotonic()
        # sd_watchdog_enabled(3): every half of the time.
        if self.watchdog is not None and now - self._alive_at >= self.watchdog / 3:
            self._alive_at = now
            self._say("WATCHDOG=1")

    def _say(self, text: str) -> None:
        if not self._address:
            return
        # unix(7): an abstract name begins with NUL, written as "@".
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            try:
                sock.sendto(text.encode(), address)
            except OSError:
                pass
