"""Metrics as settings ask for them: the sockets, the process that answers, and who counts.

The invariant: where nothing is asked for, nothing is counted and no process is started.
"""

import importlib.util
import os
import sys
from collections.abc import Callable, Sequence

from ._metrics import Counting, Monitor, MonitorOptions, Watch
from ._settings import ServeSettings
from ._version import own_version
from ._workers import ListenerPlan, Opened, Post, Sockets, Watcher


class Monitoring:
    """Lives as long as the service, through all reloads."""

    def __init__(self) -> None:
        self._sockets = Sockets()
        self._monitor = Monitor()
        self._version = ""

    @property
    def watcher(self) -> Watcher:
        """For the supervisor."""
        return Watch(self._monitor)

    def open(self, settings: ServeSettings, faults: list[str]) -> list[Opened]:
        """The sockets that `settings` ask for; `adopt()` or `drop()` must follow. What is wrong
        gets a line in `faults`."""
        table = settings.metrics
        plans = [ListenerPlan(address=each, mode=table.mode) for each in table.listen]
        if settings.control is not None:
            plans.append(ListenerPlan(address=f"unix:{settings.control}", mode=0o600))
        if table.listen and importlib.util.find_spec("prometheus_client") is None:
            faults.append(
                "metrics.listen: prometheus-client is not installed:"
                " pip install 'lmtp-proto[metrics]'"
            )
        found: list[str] = []
        opened = self._sockets.open(plans, found)
        faults += [f"metrics: {fault}" for fault in found]
        return opened

    def load(self, settings: ServeSettings) -> None:
        """Load what the process needs, while this one can read all files."""
        if settings.metrics.listen or settings.control is not None or os.geteuid() == 0:
            # Whoever root becomes may be asked for it after a reload.
            self._version = own_version()
        if settings.metrics.listen:
            from ._metrics import _exposition  # noqa: F401  # loaded for a process to come

    def drop(self) -> None:
        """What was opened last is not wanted."""
        self._sockets.drop()

    def adopt(
        self,
        settings: ServeSettings,
        opened: Sequence[Opened],
        listeners: Sequence[str],
        confine: Callable[[], None],
    ) -> None:
        """Answer by `settings` from now on. `listeners` are the addresses of the service."""
        self._sockets.adopt(opened)
        control = None if settings.control is None else f"unix:{settings.control}"
        self._monitor.serve(
            MonitorOptions(
                pages=[each.sock for each in opened if each.plan.address != control],
                control=[each.sock for each in opened if each.plan.address == control],
                listeners=listeners,
                build={
                    "version": self._version or own_version(),
                    "python": ".".join(map(str, sys.version_info[:3])),
                    "runtime": settings.runtime,
                },
                confine=confine,
            )
        )

    def addresses(self, settings: ServeSettings, opened: Sequence[Opened]) -> list[str]:
        """Where pages are answered."""
        return [each.address for each in opened if each.plan.address in settings.metrics.listen]

    def in_worker(self, post: Post, opened: Sequence[Opened]) -> Counting | None:
        """Hold open what a worker needs of this, and nothing else; what counts in it, None where
        nothing is asked for."""
        self._sockets.close_others([])
        for each in opened:
            each.sock.close()
        self._monitor.leave()
        if not opened:
            return None
        return Counting(self._monitor.area.row(post.place.number), self._monitor.channel)

    def close(self) -> None:
        """Answer no more."""
        self._sockets.close()
        self._monitor.close()
