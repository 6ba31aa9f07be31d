"""Log files, and standard error.

The invariant: a line is written whole, by one call, or begins anew where a half of one lies.
"""

import logging
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from ._destination import Destination

_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
# Seconds between two looks whether another file lies at the path.
_LOOK: Final = 1.0
_STDERR: Final = 2


class Stderr(Destination):
    """The file that standard error is."""

    _descriptor = _STDERR

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__(formatter)
        self._half = b""

    def write(self, record: logging.LogRecord) -> None:
        """Write a record. Raises OSError."""
        line = self._half + self.format(record).encode("utf-8", "replace") + b"\n"
        written = os.write(self._descriptor, line)
        self._half = b""
        if written < len(line):
            self._half = b"\n"
            # Says why, where there is a reason.
            os.write(self._descriptor, line[written:])
            self._half = b""


class LogFile(Stderr):
    """A file that is appended to, and made with mode 0600 where there is none, for `owner`: a UID
    and a GID, None for this process's. Where the owner may write to the directory, root does so
    with the owner's rights.

    A file that somebody has put in its place is found within a second. Raises OSError where there
    can be no such file.
    """

    def __init__(
        self, path: str, formatter: logging.Formatter, owner: tuple[int, int] | None = None
    ) -> None:
        super().__init__(formatter)
        self._path = os.path.abspath(path)
        self._owner = owner
        self._descriptor = self._open()
        self._looked_at = time.monotonic()

    def write(self, record: logging.LogRecord) -> None:
        """Write a record. Raises OSError."""
        now = time.monotonic()
        if now - self._looked_at > _LOOK:
            self._looked_at = now
            if self._is_replaced():
                # What cannot be opened is not worth a line.
                with suppress(OSError):
                    self.reopen()
        super().write(record)

    def reopen(self) -> None:
        """Open what lies at the path now. Raises OSError, and goes on with what it has."""
        descriptor = self._open()
        try:
            # Whoever knows the number has the new file.
            os.dup2(descriptor, self._descriptor, inheritable=False)
            self._half = b""
        finally:
            os.close(descriptor)

    def descriptors(self) -> list[int]:
        """The file."""
        return [self._descriptor]

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        super().close()

    def _is_replaced(self) -> bool:
        try:
            return not os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))
        except OSError:
            # What was moved away is written to until it is said that there is something new.
            return False

    def _open(self) -> int:
        if self._owner is None or self._owner[0] == 0 or os.geteuid() != 0:
            return os.open(self._path, _FLAGS | os.O_CREAT, 0o600)
        with _acting_as(*self._owner):
            # Whoever may put a link there gets nothing written that is not its own.
            if _may_change(self._path):
                return os.open(self._path, _FLAGS | os.O_CREAT, 0o600)
            # This root may be without CAP_DAC_OVERRIDE, as a service manager starts it.
            with suppress(FileNotFoundError, PermissionError):
                return os.open(self._path, _FLAGS)
        try:
            descriptor = os.open(self._path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return os.open(self._path, _FLAGS)
        os.fchown(descriptor, *self._owner)
        return descriptor


@contextmanager
def _acting_as(uid: int, gid: int) -> Iterator[None]:
    """Have root do as somebody else would."""
    own_gid, groups = os.getegid(), os.getgroups()
    os.setgroups([])
    try:
        os.setegid(gid)
        os.seteuid(uid)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(own_gid)
    finally:
        os.setgroups(groups)


def _may_change(path: str) -> bool:
    """Whether this process may decide what lies at an absolute path."""
    while (folder := os.path.dirname(path)) != path:
        if os.access(folder, os.W_OK, effective_ids=True) and not _is_kept(folder, path):
            return True
        path = folder
    return False


def _is_kept(folder: str, path: str) -> bool:
    """Whether the sticky bit of its directory keeps others from replacing what lies there."""
    status = os.stat(folder)
    if not status.st_mode & stat.S_ISVTX:
        return False
    try:
        return os.geteuid() not in (status.st_uid, os.lstat(path).st_uid)
    except FileNotFoundError:
        return False
