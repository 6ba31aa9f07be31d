"""Small files in a Maildir that other programs write, too: `subscriptions`, `dovecot-keywords`.

The invariant: only a file in the directory itself is read, no more of it than the limit, and
nothing else in its place is followed or waited on.
"""

import errno
import os
import stat
from typing import Final

from ._files import release

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# A user with ten thousand folders needs half of it.
_LIMIT: Final = 1 << 20


class ControlFileError(Exception):
    """What lies in the place of a control file is none."""


def read_control_file(directory: int, name: str) -> tuple[bytes, os.stat_result] | None:
    """The octets of the file `name` in `directory` and its status; None if there is no such file.

    Raises ControlFileError for what cannot be such a file, and OSError.
    """
    try:
        descriptor = os.open(name, _READ, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        # A link, and a socket.
        if error.errno in {errno.ELOOP, errno.ENXIO}:
            raise ControlFileError(f"{name} is not a regular file") from None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ControlFileError(f"{name} is not a regular file")
        content = b""
        while len(content) <= _LIMIT:
            piece = os.read(descriptor, _LIMIT + 1 - len(content))
            if not piece:
                return content, status
            content += piece
    finally:
        release(descriptor)
    raise ControlFileError(f"{name} has more than {_LIMIT} octets")
