"""A file of users that is read again when it has changed.

The invariant: what is given is made of one whole version of the file, and of the newest that was
there when it was asked for; a file that cannot be read is a failure and never an empty one.
"""

import os
import stat
import threading
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from ._entry import DirectoryError

T = TypeVar("T")

# Octets; ten million users are less.
_LARGEST: Final = 1 << 30

# What tells one version of a file from another: a change within the resolution of the clock that
# leaves the size alone is one of a file that is written in place, and such a file may be read half
# written anyway.
_Version = tuple[int, int, int, int]


class ChangingFile(Generic[T]):
    """The file at `path`, as `parse` makes something of its octets.

    `parse` is called for each version once, in one thread at a time; it must not raise.
    """

    def __init__(self, path: str, parse: Callable[[bytes], T]) -> None:
        self.path: Final = path
        self._parse = parse
        self._lock = threading.Lock()
        self._current: tuple[_Version, T] | None = None

    def unchanged(self) -> T | None:
        """What was made of the file, None where it has changed since or was never read.

        Costs one system call. Raises DirectoryError.
        """
        current = self._current
        if current is not None and current[0] == self._look():
            return current[1]
        return None

    def get(self) -> T:
        """What is made of the file as it is now; reads it if that is needed. DirectoryError."""
        found = self.unchanged()
        if found is not None:
            return found
        with self._lock:
            # Somebody else may have read it meanwhile.
            found = self.unchanged()
            if found is None:
                found = self._read()
            return found

    def _look(self) -> _Version:
        try:
            return _version(os.stat(self.path))
        except OSError as error:
            raise self._failure(error) from error

    def _read(self) -> T:
        try:
            # A FIFO in its place has nobody wait for ever.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise DirectoryError(f"{self.path!a} is no file")
                octets = file.read(_LARGEST + 1)
        except OSError as error:
            raise self._failure(error) from error
        if len(octets) > _LARGEST:
            raise DirectoryError(f"{self.path!a} has more than {_LARGEST} octets")
        found = self._parse(octets)
        self._current = (_version(status), found)
        return found

    def _failure(self, error: OSError) -> DirectoryError:
        return DirectoryError(f"{self.path!a} cannot be read: {error.strerror}")


def _version(status: os.stat_result) -> _Version:
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
