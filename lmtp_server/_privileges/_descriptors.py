"""What a process has open.

The invariant: after `keep_only`, nothing but the descriptors named leads out of the process.
"""

import os
import socket
import stat
from collections.abc import Iterable


def keep_only(kept: Iterable[int]) -> None:
    """Put /dev/null in the place of every other descriptor.

    Closed they would be given out anew, and objects that still know the number would close what is
    not theirs.
    """
    spared = frozenset(kept)
    # The listing's own descriptor is among them, and gone by then.
    present = [int(name) for name in os.listdir("/proc/self/fd")]
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in present:
        if descriptor in spared or descriptor == nothing:
            continue
        try:
            os.fstat(descriptor)
        except OSError:
            continue
        os.dup2(nothing, descriptor, inheritable=False)


def network_descriptors() -> list[int]:
    """The sockets of this process that are not UNIX ones."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        try:
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
            with socket.socket(fileno=os.dup(descriptor)) as opened:
                if opened.family != socket.AF_UNIX:
                    found.append(descriptor)
        except OSError:
            # The listing's own.
            continue
    return found
