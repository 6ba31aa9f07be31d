"""Unique names of messages in a Maildir.

The invariant: no two names are equal, whatever the clock does, across threads, processes, hosts
and restarts: a name carries 64 random bits beside time, process and counter. Names of one process
sort in the order in which they were made, as text as well as by time; those of several processes do
so as far as they have one clock that is not set back.
"""

import itertools
import os
import random
import threading
import time
from typing import Final

from ._fork import call_in_child

_PLAIN: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
# A file name has at most 255 octets; what stands before and behind the host needs up to 130.
_HOST_LIMIT: Final = 96


class UniqueNames:
    """Makes file names such as
    `1700000000.M012345P4711Q1R0123456789abcdef.mx.example.org,S=2310,W=2360`.

    `hostname` is any text: octets of its UTF-8 form that are not letters, digits, ".", "_" or "-"
    are written as a backslash and three octal digits, as the Maildir specification wants it for
    "/" and ":".
    """

    def __init__(self, hostname: str) -> None:
        self._host = _escape(hostname)
        self._counter = itertools.count()
        self._reset()
        call_in_child(self._reset)

    def _reset(self) -> None:
        """The beginning, in a forked child as well: it would go on with its parent's numbers."""
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._last = 0
        # Seeded by the operating system; asking that for each name costs a system call.
        self._random = random.Random()

    def make(self, size: int, virtual_size: int) -> str:
        """A new name for a message of `size` octets on disk and `virtual_size` octets with every
        line end as CRLF (the fields `S=` and `W=` of Maildir++ and of Dovecot).
        """
        with self._lock:
            # Dovecot sorts by the time in the name. A clock that is set back is waited for in steps
            # of a microsecond, as Dovecot does it.
            self._last = max(self._last + 1, time.time_ns() // 1000)
            seconds, microseconds = divmod(self._last, 1_000_000)
        return (
            f"{seconds}.M{microseconds:06}P{self._process}Q{next(self._counter)}"
            f"R{self._random.getrandbits(64):016x}.{self._host},S={size},W={virtual_size}"
        )


def _escape(hostname: str) -> str:
    escaped = ""
    for octet in hostname.encode("utf-8", "replace"):
        piece = chr(octet) if octet in _PLAIN else f"\\{octet:03o}"
        if len(escaped) + len(piece) > _HOST_LIMIT:
            break
        escaped += piece
    return escaped or "localhost"
