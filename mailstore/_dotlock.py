"""Dot-locks as Dovecot makes them: `NAME.lock` beside `NAME` belongs to who created it.

The invariant: a lock is taken from another only when it is stale by Dovecot's rules, and a file is
replaced only by who still holds its lock. Nothing that lies in the way is followed or waited on
longer than was asked.
"""

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ._files import release
from ._maildir import sync_directory
from ._permissions import Permissions

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Seconds between two looks at a lock that somebody else has.
_POLL: Final = 0.1
# Longer is no process number and host.
_OWNER_LIMIT: Final = 512


class DotLock:
    """A lock that is held; `descriptor` is its file, open for writing."""

    def __init__(self, directory: int, name: str, descriptor: int) -> None:
        self._directory = directory
        self._name = name
        self._held = True
        self.descriptor = descriptor

    def replace(self) -> None:
        """Make the file of the lock the new `NAME`, durably, and so give the lock up.

        Raises OSError; ESTALE if somebody has taken the lock away.
        """
        os.fsync(self.descriptor)
        if not self._is_ours():
            raise OSError(errno.ESTALE, "somebody has taken the lock away", _lock_of(self._name))
        os.rename(
            _lock_of(self._name),
            self._name,
            src_dir_fd=self._directory,
            dst_dir_fd=self._directory,
        )
        self._held = False
        sync_directory(self._directory)

    def release(self) -> None:
        """Give the lock up if it is still held."""
        try:
            if self._held and self._is_ours():
                os.unlink(_lock_of(self._name), dir_fd=self._directory)
        except OSError:
            # It becomes stale.
            pass
        self._held = False
        os.close(self.descriptor)

    def _is_ours(self) -> bool:
        status = _status(self._directory, _lock_of(self._name))
        return status is not None and os.path.samestat(status, os.fstat(self.descriptor))


@contextmanager
def dotlock(
    directory: int,
    name: str,
    *,
    permissions: Permissions,
    timeout: float,
    stale: float,
    named: bool = False,
) -> Iterator[DotLock]:
    """Hold the lock of the file `name` in `directory`, a descriptor.

    Waits `timeout` seconds at most; a lock is stale when neither it nor the file has changed for
    `stale` seconds. `named`: the lock says whose it is, as it must where others keep it for long.
    Raises OSError; TimeoutError if the lock is not to be had.
    """
    lock = DotLock(directory, name, _take(directory, name, permissions, timeout, stale))
    try:
        if named:
            os.write(lock.descriptor, f"{os.getpid()}:{os.uname().nodename}".encode())
        yield lock
    finally:
        lock.release()


def _take(directory: int, name: str, permissions: Permissions, timeout: float, stale: float) -> int:
    end = time.monotonic() + timeout
    while True:
        try:
            descriptor = os.open(_lock_of(name), _CREATE, 0o600, dir_fd=directory)
        except FileExistsError:
            pass
        else:
            try:
                permissions.settle_file(descriptor)
            except BaseException:
                DotLock(directory, name, descriptor).release()
                raise
            return descriptor
        if _is_stale(directory, name, stale):
            try:
                os.unlink(_lock_of(name), dir_fd=directory)
            except FileNotFoundError:
                pass
        elif time.monotonic() >= end:
            raise TimeoutError(errno.ETIMEDOUT, "somebody else holds the lock", _lock_of(name))
        else:
            time.sleep(_POLL)


def _is_stale(directory: int, name: str, stale: float) -> bool:
    status = _status(directory, _lock_of(name))
    if status is None:
        return False
    owner = _owner(directory, _lock_of(name), status)
    if owner is not None:
        return not _lives(owner)
    changed = _changed(status)
    file = _status(directory, name)
    if file is not None:
        changed = max(changed, _changed(file))
    return time.time() > changed + stale


def _owner(directory: int, lock: str, status: os.stat_result) -> int | None:
    """The process of this host whose lock it is; None if it does not say so."""
    if not stat.S_ISREG(status.st_mode):
        return None
    try:
        descriptor = os.open(lock, _READ, dir_fd=directory)
    except OSError:
        return None
    try:
        text = os.read(descriptor, _OWNER_LIMIT).decode("ascii", "replace").rstrip("\n")
    except OSError:
        return None
    finally:
        release(descriptor)
    process, _, host = text.partition(":")
    if host != os.uname().nodename or not process.isdecimal() or not process.isascii():
        return None
    # Another thread may hold it; what a process of the same number left behind grows stale.
    return None if int(process) == os.getpid() else int(process)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        # There is one that is not ours to signal, or there can be none of that number.
        return process <= 0x7FFFFFFF
    return True


def _changed(status: os.stat_result) -> float:
    # A file's owner may have set the time of modification to any.
    modified = status.st_mtime if status.st_mtime <= time.time() else 0.0
    return max(modified, status.st_ctime)


def _status(directory: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _lock_of(name: str) -> str:
    return name + ".lock"
