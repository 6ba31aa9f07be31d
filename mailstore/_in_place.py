"""Spool files that lie where their message is to go, and may become its copy as they are.

The invariant: until the message is complete there is nothing that has a name, and a mailbox that
cannot be opened fails nothing but the shortcut.
"""

import os
from typing import Final, NamedTuple

from ._files import release
from ._folders import Place
from ._permissions import Permissions
from ._unnamed import UNNAMED

_PASS: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class InPlace(NamedTuple):
    """A new file without a name in the directory tmp/ of a mailbox."""

    descriptor: int
    tmp: os.stat_result
    """The status of that directory."""
    durable: bool
    """Whether it will be synced before it has a name."""


def open_in_place(root: int, place: Place, *, durable: bool) -> InPlace | None:
    """Open a file in the mailbox `place` below the directory `root`, with the permissions of mail.

    None where there is no such mailbox, or none that can be opened now, or its file system has no
    files without names. Nothing is made; a mailbox is made when there is a message for it.
    """
    try:
        tmp, permissions = _open_tmp(root, place)
    except OSError:
        # Whatever it is, it is told when the message is delivered.
        return None
    try:
        descriptor = os.open(".", UNNAMED, permissions.file_mode, dir_fd=tmp)
        try:
            if not permissions.private:
                permissions.settle_file(descriptor)
            return InPlace(descriptor, os.fstat(tmp), durable)
        except BaseException:
            release(descriptor)
            raise
    except OSError:
        return None
    finally:
        release(tmp)


def _open_tmp(root: int, place: Place) -> tuple[int, Permissions]:
    base = os.dup(root)
    try:
        for part in (*place.parts, *filter(None, (place.mailbox.directory,))):
            outer, base = base, os.open(part, _PASS, dir_fd=base)
            release(outer)
        permissions = Permissions.of(os.fstat(base))
        return os.open("tmp", _PASS, dir_fd=base), permissions
    finally:
        release(base)
