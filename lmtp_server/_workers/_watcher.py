"""Who is told what the supervisor sees. Its methods must neither block nor raise."""

from collections.abc import Sequence

from ._process import Worker


class Watcher:
    """Told of the workers: override what is of interest."""

    def look(
        self, workers: Sequence[Worker], leaving: Sequence[Worker], *, wanted: int, stopping: bool
    ) -> None:
        """These serve or start, `leaving` were told to end, and `wanted` there should be. Called
        every second, and whenever anything has happened."""

    def buried(self, worker: Worker, *, failed: bool) -> None:
        """A worker has ended, `failed` if it was not told to; its place on the board is free."""
