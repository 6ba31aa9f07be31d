"""Log files, and standard error.

The invariant: a line is written whole, by one call, or begins anew where a half of one lies.
"""

import logging
import os
import time
from contextlib import suppress
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
    and a GID, None for this process's.

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
        try:
            descriptor = os.open(self._path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return self._open_as_owner()
        if self._owner is not None:
            os.fchown(descriptor, *self._owner)
        return descriptor

    def _open_as_owner(self) -> int:
        """Open the file that is there."""
        try:
            return os.open(self._path, _FLAGS)
        except PermissionError:
            if self._owner is None or os.geteuid() != 0:
                raise
        # Root without CAP_DAC_OVERRIDE, as a service manager may have it.
        uid, gid = self._owner
        own_gid = os.getegid()
        os.setegid(gid)
        try:
            os.seteuid(uid)
            try:
                return os.open(self._path, _FLAGS)
            finally:
                os.seteuid(0)
        finally:
            os.setegid(own_gid)
