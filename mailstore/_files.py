"""Writing and copying whole blocks of octets, and descriptors that jobs share.

The invariant: a function that returns has moved every octet; a descriptor is closed once, and only
when nobody uses it any more.
"""

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# Larger pieces make nothing faster, and a piece is what the fallback holds in memory.
_PIECE: Final = 1 << 20
# What can be shared begins at a multiple of this, on every file system that shares.
_SHARED: Final = 4096
# Where the kernel or the file systems cannot copy between these two files.
_NO_COPY: Final = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})


def write_all(descriptor: int, *blocks: bytes | bytearray) -> None:
    """Write the blocks one behind the other, however often the kernel takes only a part."""
    missing = sum(map(len, blocks)) - os.writev(descriptor, blocks)
    if missing:
        rest = memoryview(b"".join(blocks))[-missing:]
        while rest:
            written = os.write(descriptor, rest)
            rest = rest[written:]


def copy_all(source: int, target: int, size: int, *, offset: int = 0) -> None:
    """Append `size` octets of `source`, from `offset` on, to what was written to `target`.

    Several threads may copy from the same source at a time. Raises OSError; a source that ends too
    early is EIO.
    """
    end = offset + size
    in_kernel = True
    while offset < end:
        # From there on the files share their blocks, if the file system can do that and there is as
        # much in front of them in both.
        count = min(end - offset, _SHARED - offset % _SHARED if offset % _SHARED else _PIECE)
        copied = 0
        if in_kernel:
            try:
                copied = os.copy_file_range(source, target, count, offset_src=offset)
            except OSError as error:
                if error.errno not in _NO_COPY:
                    raise
            # Some file systems report a copy of nothing where they cannot copy.
            in_kernel = copied > 0
        if not in_kernel:
            piece = os.pread(source, count, offset)
            if not piece:
                raise OSError(errno.EIO, "the spooled message is shorter than it was")
            write_all(target, piece)
            copied = len(piece)
        offset += copied


def release(descriptor: int) -> None:
    """Close a descriptor that nothing was written through, or nothing that is still needed.

    An error has nothing to tell then, and the descriptor is gone all the same.
    """
    try:
        os.close(descriptor)
    except OSError:
        pass


class SharedFile:
    """An open file that several threads use and one closes, in any order.

    A job may still run when the message it belongs to is given up: the number of a descriptor
    closed under it could by then be that of another file.
    """

    __slots__ = ("_descriptor", "_lock", "_owned", "_users")

    def __init__(self) -> None:
        self._descriptor = -1
        self._lock = threading.Lock()
        self._owned = True
        self._users = 0

    def adopt(self, descriptor: int) -> None:
        """Make an open file this one; to be called once, before any `use`. Raises OSError."""
        with self._lock:
            if self._owned:
                self._descriptor = descriptor
                return
        release(descriptor)
        raise _given_up()

    @contextmanager
    def use(self) -> Iterator[int]:
        """The descriptor, open for as long as the `with` block runs. Raises OSError."""
        with self._lock:
            if not self._owned:
                raise _given_up()
            self._users += 1
        try:
            yield self._descriptor
        finally:
            with self._lock:
                self._users -= 1
                self._close_if_idle()

    def close(self) -> None:
        """Give the file up; the last `use` that still runs closes it."""
        with self._lock:
            self._owned = False
            self._close_if_idle()

    def _close_if_idle(self) -> None:
        if not self._owned and not self._users and self._descriptor >= 0:
            release(self._descriptor)
            self._descriptor = -1


def _given_up() -> OSError:
    return OSError(errno.EBADF, "the spooled message was given up")
