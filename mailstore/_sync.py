"""How written octets are made durable.

The invariant: whoever asks for durability learns of a failure exactly once and as an OSError; no
call is made a second time on a descriptor on which it failed, because the kernel marks pages clean
after a failed write-back and a second call would report success for data that is lost.
"""

import ctypes
import enum
import os
from typing import Final


class Sync(enum.StrEnum):
    """What is made durable before a delivery is acknowledged: Dovecot's `mail_fsync`, and one way
    more to do what is its default.

    A directory, or a file of a user's settings such as `subscriptions`, is durable once it is made,
    whatever is chosen here: that is once a user, and not once a message.
    """

    ALWAYS = "always"
    """All that is written: as OPTIMIZED, and the quota's count. Dovecot's documentation asks for
    it on NFS, where a write that has failed may be told of only by fsync."""
    OPTIMIZED = "optimized"
    """What a message is lost without: fsync of each file of a batch, and of each directory once."""
    SYNCFS = "syncfs"
    """As OPTIMIZED, by two syncfs for a whole batch: for a file system that holds mail alone, as it
    writes out all that others have written there."""
    NEVER = "never"
    """No message: what was acknowledged can be lost with the power. Not for mail that matters."""


_libc: Final = ctypes.CDLL(None, use_errno=True)


def syncfs(descriptor: int) -> None:
    """Make everything on the file system of `descriptor` durable (syncfs(2)).

    Reports write-back errors since `descriptor` was opened, so it has to be open before the writes
    it stands for. Raises OSError.
    """
    if _libc.syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def start_writeback(descriptor: int, offset: int = 0, length: int = 0) -> None:
    """Begin to write the dirty pages of a file, or of a part of it, without waiting for them.

    A `length` of 0 goes to the end.

    A hint: with the data of a whole batch under way, and its blocks allocated, the first fsync of
    the batch commits the metadata of all its files and the others find little left to do.
    """
    # The advice starts write-back of dirty pages and drops only clean ones, of which a file just
    # written has none. Errors show at fsync.
    try:
        os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_DONTNEED)
    except OSError:
        # Not every file system takes advice.
        pass
