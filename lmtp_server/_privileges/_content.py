"""The content of one message as it came, in a worker: small in memory, else in an unnamed file.

The invariant: a worker copies content once, and whoever it is handed to cannot change it.
"""

import os
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from typing import Final

# As much as fits into a packet beside the envelope.
_IN_MEMORY: Final = 64 * 1024
_BLOCK: Final = 256 * 1024


class Content:
    """Takes the octets of one message; those beyond 64 KiB go to a file in `directory`."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._buffer = bytearray()
        self._limit = _IN_MEMORY
        self._file = -1
        self._users = 1
        self._failure: OSError | None = None
        self._lock = threading.Lock()

    @property
    def in_memory(self) -> bool:
        """Whether no file was needed."""
        return self._limit == _IN_MEMORY

    def write(self, data: bytes) -> Callable[[], None] | None:
        """Take the next octets; the job, if there is one, raises OSError."""
        self._buffer += data
        if len(self._buffer) <= self._limit:
            return None
        self._limit = _BLOCK
        block, self._buffer = self._buffer, bytearray()
        return partial(self._write, block)

    def octets(self) -> bytes:
        """All of a message that is in memory."""
        return bytes(self._buffer)

    def use(self) -> None:
        """Keep the file for one more who will `release` it."""
        with self._lock:
            self._users += 1

    def descriptor(self) -> int:
        """All of a message that is in a file: a descriptor, for reading only, of the caller's own.

        Blocks. Raises OSError.
        """
        with self._lock:
            if self._buffer:
                block, self._buffer = self._buffer, bytearray()
                self._write(block)
            # Whoever has it can write neither here nor, by way of /proc, anew.
            return os.open(f"/proc/self/fd/{self._file}", os.O_RDONLY | os.O_CLOEXEC)

    def release(self) -> None:
        """Let the content go; the last one does."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
            self._buffer = bytearray()
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def _write(self, block: bytearray) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            if self._file < 0:
                self._file = _unnamed(self._directory)
            rest = memoryview(block)
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            self._failure = error
            raise


def _unnamed(directory: str) -> int:
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        return os.dup(file.fileno())
