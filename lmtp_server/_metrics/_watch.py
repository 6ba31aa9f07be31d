"""Writes down for others what the supervisor sees, and keeps the process running that tells it."""

from collections.abc import Sequence

from lmtp_server._workers import Watcher, Worker

from ._area import LEAVING, SERVING, STARTING, Seen
from ._monitor import Monitor


class Watch(Watcher):
    """What the supervisor tells, for `monitor`."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def look(
        self, workers: Sequence[Worker], leaving: Sequence[Worker], *, wanted: int, stopping: bool
    ) -> None:
        """The supervisor has looked after its workers."""
        area = self._monitor.area
        for worker in [*workers, *leaving]:
            state = STARTING if worker.ready_at is None else SERVING
            if worker in leaving:
                state = LEAVING
            area.see(Seen(worker.place.number, worker.pid, state, worker.heard_at))
        area.look(wanted=wanted, stopping=stopping)
        self._monitor.look()

    def buried(self, worker: Worker, *, failed: bool) -> None:
        """A worker has ended."""
        self._monitor.area.bury(worker.place.number, failed=failed)
