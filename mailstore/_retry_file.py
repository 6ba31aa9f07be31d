"""The file `lmtp-retries` of a Maildir: a fixed number of records, written in place.

The invariant: only a plain file of the Maildir's owner or of this process, with one name and of the
right size, is read or written; anything else in its place is replaced, and never followed or waited
on. Locks end with the descriptor, so those of a dead process are gone.
"""

import errno
import fcntl
import os
import secrets
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Self

from ._files import release, write_all
from ._maildir import Maildir, sync_directory
from ._retry_record import SIZE, Record

NAME: Final = "lmtp-retries"
# O_NONBLOCK: neither a FIFO nor a lease on the file is waited on.
_OPEN: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
# What opening something else than a plain file that may be read and written gives.
_UNUSABLE: Final = frozenset(
    {errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV, errno.EACCES, errno.EPERM}
)
# struct flock: type, whence, start, length, process. With the last 0 the lock belongs to the
# descriptor (F_OFD_SETLK, fcntl(2)).
_LOCK: Final = struct.Struct("hhqqi0q")
# Seconds between two looks at a lock that somebody else has.
_SHORTEST_PAUSE: Final = 0.0005
_LONGEST_PAUSE: Final = 0.02


class RetryFile:
    """The open file. Who takes a record may write it; `close` gives all up. OSError."""

    __slots__ = ("_descriptor", "_size")

    def __init__(self, descriptor: int, entries: int) -> None:
        self._descriptor = descriptor
        self._size = entries * SIZE

    @contextmanager
    def hold(self, deadline: float) -> Iterator[None]:
        """Keep others from taking records. Raises TimeoutError at `deadline` (monotonic)."""
        # A lock may lie behind the end of the file.
        pause = _SHORTEST_PAUSE
        while not self._lock(self._size):
            if time.monotonic() >= deadline:
                raise TimeoutError(errno.ETIMEDOUT, "somebody else holds the lock", NAME)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        try:
            yield
        finally:
            self._unlock(self._size)

    def take(self, number: int) -> bool:
        """Take a record; False if somebody else has it."""
        return self._lock(number * SIZE)

    def give_back(self, number: int) -> None:
        """Let others take the record."""
        self._unlock(number * SIZE)

    def read(self) -> bytes:
        """All records."""
        octets = os.pread(self._descriptor, self._size, 0)
        if len(octets) != self._size:
            raise OSError(errno.EIO, "the file is shorter than it was", NAME)
        return octets

    def get(self, number: int) -> Record | None:
        """One record."""
        return Record.unpack(os.pread(self._descriptor, SIZE, number * SIZE))

    def put(self, number: int, record: Record | None) -> None:
        """Write one record, or that there is none."""
        octets = bytes(SIZE) if record is None else record.pack()
        if os.pwrite(self._descriptor, octets, number * SIZE) != SIZE:
            raise OSError(errno.EIO, "a record was not written whole", NAME)

    def sync(self) -> None:
        """Make what was written durable."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        release(self._descriptor)

    def _lock(self, start: int) -> bool:
        try:
            self._set_lock(fcntl.F_WRLCK, start)
        except OSError as error:
            if error.errno in {errno.EAGAIN, errno.EACCES}:
                return False
            raise
        return True

    def _unlock(self, start: int) -> None:
        try:
            self._set_lock(fcntl.F_UNLCK, start)
        except OSError:
            # It ends with the descriptor.
            pass

    def _set_lock(self, kind: int, start: int) -> None:
        lock = _LOCK.pack(kind, os.SEEK_SET, start, 1, 0)
        fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def open_file(base: int, entries: int) -> RetryFile | bool:
    """The file in the directory `base`; else whether something is there that is no such file.

    Raises OSError.
    """
    try:
        descriptor = os.open(NAME, _OPEN, dir_fd=base)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno in _UNUSABLE:
            return True
        raise
    try:
        status = os.fstat(descriptor)
        if (
            stat.S_ISREG(status.st_mode)
            # A second name may be that of a file elsewhere, which is not to be written to.
            and status.st_nlink == 1
            and status.st_size == entries * SIZE
            and status.st_uid in {os.geteuid(), os.fstat(base).st_uid}
        ):
            return RetryFile(descriptor, entries)
    except BaseException:
        release(descriptor)
        raise
    release(descriptor)
    return True


def make_file(base: int, maildir: Maildir, entries: int, *, replace: bool) -> None:
    """Make the file, empty and durable, in the directory `base` of `maildir`.

    Where somebody else is faster it is his, unless what is there is to be replaced. Raises OSError.
    """
    name = f"{int(time.time())}.P{os.getpid()}R{secrets.token_hex(8)}.{NAME}"
    descriptor = maildir.create(name)
    try:
        try:
            # No holes: a record has room later, and is durable without anything but its data.
            write_all(descriptor, bytes(entries * SIZE))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if replace:
            os.unlink(NAME, dir_fd=base)
        os.link(name, NAME, src_dir_fd=maildir.tmp, dst_dir_fd=base, follow_symlinks=False)
    except FileExistsError:
        pass
    finally:
        maildir.discard(name)
    sync_directory(base)
