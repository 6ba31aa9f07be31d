"""Modes and groups of what is made in a Maildir.

The invariant: what is new may be used by whom its parent mailbox may be used by, and by nobody
else, whatever the umask is. It is how Dovecot does it, except that a group that cannot be given
loses its rights instead of failing the delivery.
"""

import logging
import os
import stat
from dataclasses import dataclass
from typing import Final, Self

_logger: Final = logging.getLogger("mailstore")


@dataclass(frozen=True, slots=True)
class Permissions:
    """Modes for new files and directories, and their group; None is whatever the kernel gives."""

    file_mode: int
    directory_mode: int
    group: int | None = None

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """The permissions for what is new in the directory with that status."""
        mode = status.st_mode
        group: int | None = status.st_gid
        if (
            # The kernel gives the group of such a directory by itself.
            mode & stat.S_ISGID
            # The group has the rights of everybody: no need to tell it apart.
            or (mode & 0o070) >> 3 == mode & 0o007
            or status.st_gid == os.getegid()
        ):
            group = None
        return cls(mode & 0o666 | 0o600, mode & 0o777 | 0o700, group)

    @property
    def private(self) -> bool:
        """Whether a file made with `file_mode` needs nothing more."""
        return self.group is None and self.file_mode == 0o600

    def settle_file(self, descriptor: int) -> None:
        """Give a file that was just made its group and mode. Raises OSError."""
        self._settle(descriptor, self.file_mode)

    def settle_directory(self, descriptor: int) -> None:
        """Give a directory that was just made its group and mode. Raises OSError."""
        self._settle(descriptor, self.directory_mode)

    def _settle(self, descriptor: int, mode: int) -> None:
        status = os.fstat(descriptor)
        if self.group is None:
            mode |= status.st_mode & stat.S_ISGID
        elif status.st_gid != self.group:
            try:
                os.fchown(descriptor, -1, self.group)
            except PermissionError:
                _logger.info("new files cannot be given to group %d", self.group)
                # The rights were meant for another group than the one it has.
                mode = mode & ~0o070 | (mode & 0o007) << 3
        if stat.S_IMODE(status.st_mode) != mode or self.group is not None:
            os.fchmod(descriptor, mode)


def default_access_list(directory: int) -> bytes:
    """The access control list that files made in `directory` get; empty if there is none, or none
    that can be told.
    """
    try:
        return os.getxattr(directory, "system.posix_acl_default")
    except OSError:
        return b""


OWNER_ONLY: Final = Permissions(0o600, 0o700)
"""For what has no parent mailbox."""
