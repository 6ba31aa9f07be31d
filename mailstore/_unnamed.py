"""Files that have no name until they are complete.

The invariant: of one that is given up nothing is left, whatever ends the process; the name is given
to that very file, whatever others put in its place.
"""

import errno
import os
import tempfile
from typing import Final

UNNAMED: Final = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
"""Opens, with the path of a directory, a new file that has no name in it."""

# EISDIR and ENOENT come from kernels that read the flag as O_DIRECTORY.
NO_UNNAMED: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL})
"""What says that a file system has no such files."""

# The file cannot have one more name, or not there: too many, another file system, none left that
# leads to it, the kernel's `protected_hardlinks`, no /proc; EBADF is a message that was given up.
_NO_LINK: Final = frozenset(
    {
        *(errno.EXDEV, errno.EMLINK, errno.ENOENT, errno.EPERM, errno.EACCES, errno.EBADF),
        *(errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ELOOP),
    }
)


class NoLinkError(Exception):
    """A file cannot have that name as well; a copy of it can."""


def unnamed_file(directory: str) -> int:
    """A new file without a name in `directory`, open for reading and writing. Raises OSError."""
    try:
        return os.open(directory, UNNAMED, 0o600)
    except OSError as error:
        if error.errno not in NO_UNNAMED:
            raise
    descriptor, path = tempfile.mkstemp(prefix=".spool-", dir=directory)
    try:
        os.unlink(path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def link_open_file(descriptor: int, directory: int, name: str) -> None:
    """Give an open file the name `name` in `directory`.

    Raises NoLinkError where a copy may do, and OSError.
    """
    try:
        # Unlike a name, the descriptor leads to that file whatever the owner of a Maildir does.
        os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=directory, follow_symlinks=True)
    except OSError as error:
        if error.errno in _NO_LINK:
            raise NoLinkError(str(error)) from error
        raise
