"""The board: what each process of the service says of itself, in memory that all of them share.

It is made before the first fork. The invariant: a place belongs to one process from its start to
its burial, only that process writes there, and an empty place is all zeros.
"""

import mmap
from typing import Final

# The most workers there may be (1024), twice at a reload, twice again when all are replaced.
_PLACES: Final = 4096
_FIELDS: Final = 4
_BEAT, _CONNECTIONS, _SERVED, _TRANSACTIONS = range(_FIELDS)
_SIZE: Final = 8


class Board:
    """Numbers of all processes, each written whole: readers need no lock."""

    def __init__(self) -> None:
        # Pages that nobody touches cost nothing.
        self._cells = memoryview(mmap.mmap(-1, (_PLACES * _FIELDS + 1) * _SIZE)).cast("Q")
        self._taken: set[int] = set()

    def take(self) -> "Place":
        """An empty place for a process that is about to start; the supervisor's to call.

        Raises OSError when there is none.
        """
        number = next((each for each in range(_PLACES) if each not in self._taken), None)
        if number is None:
            raise OSError("all places on the board are taken")
        self._taken.add(number)
        self._cells[-1] = max(self._cells[-1], number + 1)
        return Place(self, self._cells, number)

    def free(self, place: "Place") -> None:
        """The process has ended."""
        start = place.number * _FIELDS
        for field in range(start, start + _FIELDS):
            self._cells[field] = 0
        self._taken.discard(place.number)

    def connections(self) -> int:
        """Of all processes, those included that start and stop."""
        # The last cell has the number of places that were ever taken.
        end = self._cells[-1] * _FIELDS
        return sum(self._cells[_CONNECTIONS:end:_FIELDS].tolist())


class Place:
    """One process's numbers. `number` is its own among the processes that live."""

    __slots__ = ("_cells", "_start", "board", "number")

    def __init__(self, board: Board, cells: memoryview, number: int) -> None:
        self.board = board
        self.number = number
        self._cells = cells
        self._start = number * _FIELDS

    @property
    def beat(self) -> int:
        """Changes while the process is well."""
        return int(self._cells[self._start + _BEAT])

    @property
    def connections(self) -> int:
        """Open now."""
        return int(self._cells[self._start + _CONNECTIONS])

    @property
    def served(self) -> int:
        """Connections taken in since its start."""
        return int(self._cells[self._start + _SERVED])

    @property
    def transactions(self) -> int:
        """Begun since its start."""
        return int(self._cells[self._start + _TRANSACTIONS])

    def write(self, *, connections: int, served: int) -> None:
        """Say how many connections there are, and have been."""
        self._cells[self._start + _CONNECTIONS] = connections
        self._cells[self._start + _SERVED] = served

    def write_beat(self, *, transactions: int) -> None:
        """Say that the process is well, and how many transactions have begun."""
        self._cells[self._start + _TRANSACTIONS] = transactions
        self._cells[self._start + _BEAT] += 1
