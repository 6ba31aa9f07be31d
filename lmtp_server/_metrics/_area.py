"""The memory that all processes of the service share for what they count, made before the first
fork.

The invariant: a row belongs to one worker at a time. A successor goes on where its predecessor's
counters stand, so that none ever goes back; gauges are cleared in between, when nobody writes. What
the supervisor says of a worker stands elsewhere, and only the supervisor writes it.
"""

import mmap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ._definitions import CELLS, OF_WORKERS, ROW

# As many as there are places on the board. Pages that nobody touches cost nothing.
_ROWS: Final = 4096
_SIZE: Final = 8
_SEAT: Final = 3
_PID, _STATE, _HEARD = range(_SEAT)
_HEAD: Final = 8
_USED, _WANTED, _STARTS, _FAILURES, _LOOKED, _STOPPING, _BEGUN, _ASKED = range(_HEAD)
_MILLI: Final = 1000
_GAUGES: Final = [CELLS[metric.name] for metric in OF_WORKERS if metric.kind == "gauge"]

STARTING, SERVING, LEAVING = range(1, 4)
"""The states of a worker."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A worker as its supervisor sees it; `heard` is when it gave its last sign of life, in
    seconds of the monotonic clock."""

    place: int
    pid: int
    state: int
    heard: float


class WorkerRow:
    """The cells of one worker, for itself."""

    __slots__ = ("_area", "cells", "place")

    def __init__(self, area: "Area", place: int, cells: memoryview) -> None:
        self._area = area
        self.place = place
        self.cells = cells

    @property
    def asked(self) -> int:
        """Changes when somebody wants to know who is there."""
        return self._area.asked


class Area:
    """Rows of workers, and what the supervisor says of them. Each cell is written whole: readers
    need no lock."""

    def __init__(self) -> None:
        count = _HEAD + _ROWS * (_SEAT + ROW)
        self._cells = memoryview(mmap.mmap(-1, count * _SIZE)).cast("Q")
        self._cells[_BEGUN] = int(time.time() * _MILLI)
        self._pid = 0

    def row(self, place: int) -> WorkerRow:
        """The row of the worker at this place of the board."""
        start = _HEAD + _ROWS * _SEAT + place * ROW
        return WorkerRow(self, place, self._cells[start : start + ROW])

    # What the supervisor writes.

    def see(self, seen: Seen) -> None:
        """A worker is there."""
        start = _HEAD + seen.place * _SEAT
        if self._cells[start + _PID] != seen.pid:
            self._cells[_STARTS] += 1
            self._cells[_USED] = max(self._cells[_USED], seen.place + 1)
            self._cells[start + _PID] = seen.pid
        self._cells[start + _STATE] = seen.state
        self._cells[start + _HEARD] = int(seen.heard * _MILLI)

    def bury(self, place: int, *, failed: bool) -> None:
        """The worker there has ended; `failed` if it was not told to."""
        start = _HEAD + place * _SEAT
        for cell in range(start, start + _SEAT):
            self._cells[cell] = 0
        cells = self.row(place).cells
        for gauge in _GAUGES:
            for cell in range(gauge.start, gauge.stop):
                cells[cell] = 0
        self._cells[_FAILURES] += failed

    def look(self, *, wanted: int, stopping: bool) -> None:
        """The supervisor has looked after all workers."""
        self._cells[_WANTED] = wanted
        self._cells[_STOPPING] = stopping
        self._cells[_LOOKED] = int(time.monotonic() * _MILLI)

    # What whoever answers questions reads and writes.

    def ask(self) -> int:
        """Have all workers say who is there; the number of the question."""
        self._cells[_ASKED] += 1
        return self.asked

    @property
    def asked(self) -> int:
        """The number of the last question."""
        return self._cells[_ASKED]

    def workers(self) -> Iterator[Seen]:
        """Those that live."""
        for place in range(self._cells[_USED]):
            start = _HEAD + place * _SEAT
            pid, state, heard = self._cells[start : start + _SEAT].tolist()
            if pid:
                yield Seen(place, pid, state, heard / _MILLI)

    def sums(self) -> list[int]:
        """Each cell of the rows, of all workers together that ever were."""
        start = _HEAD + _ROWS * _SEAT
        end = start + self._cells[_USED] * ROW
        return [sum(self._cells[start + cell : end : ROW].tolist()) for cell in range(ROW)]

    @property
    def wanted(self) -> int:
        """Workers that there should be."""
        return self._cells[_WANTED]

    @property
    def starts(self) -> int:
        """Workers that were started."""
        return self._cells[_STARTS]

    @property
    def failures(self) -> int:
        """Workers that have ended of themselves."""
        return self._cells[_FAILURES]

    @property
    def looked(self) -> float:
        """When the supervisor last looked after the workers: seconds of the monotonic clock."""
        return self._cells[_LOOKED] / _MILLI

    @property
    def stopping(self) -> bool:
        """Whether the service is told to stop."""
        return bool(self._cells[_STOPPING])

    @property
    def begun(self) -> float:
        """When this was made: seconds of Unix time."""
        return self._cells[_BEGUN] / _MILLI
