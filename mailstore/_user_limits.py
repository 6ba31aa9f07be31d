"""How many deliveries to one user may be on their way at a time, over all workers.

The invariant: a place that was taken is given back by `release` or by the end of its process,
however that ends. The kernel does the latter: each place is a lock on one octet of a file without a
name, and nothing is ever written to that file.
"""

import errno
import fcntl
import logging
import os
import threading
from hashlib import blake2b
from typing import Final

from ._fork import call_in_child

_logger: Final = logging.getLogger("mailstore")

# Users have so many octets each, the rest of an offset of 63 bits is a digest of the name: two
# users in flight that share one would share their places, and only then.
_PLACES_BITS: Final = 12
_DIGEST_BITS: Final = 48
_TAKEN: Final = frozenset({errno.EACCES, errno.EAGAIN})


class UserLimits:
    """At most `limit` deliveries to one user at a time, in this process and all that it forks.

    Make it before the workers are forked. Dovecot's `lmtp_user_concurrency_limit`; for no limit,
    use none of these. Raises ValueError for a limit that is not 1 to 4096, and OSError. May be used
    by several threads; nothing waits.
    """

    def __init__(self, limit: int = 10) -> None:
        if not 1 <= limit <= 1 << _PLACES_BITS:
            raise ValueError(f"the limit {limit} is not 1 to {1 << _PLACES_BITS}")
        self._limit = limit
        # Locks of fcntl(2) belong to a process, not to a descriptor: a child that has inherited
        # this one has none of them. A process loses all when it closes any descriptor of the file,
        # of which it therefore has one.
        self._file = os.memfd_create("user-limits", os.MFD_CLOEXEC)
        self._reset()
        call_in_child(self._reset)

    def _reset(self) -> None:
        """What the parent of a forked process holds is the parent's."""
        self._lock = threading.Lock()
        # The places that this process has, for each user.
        self._held: dict[str, set[int]] = {}

    def acquire(self, user: str) -> bool:
        """Take a place for one delivery to `user`; False if all are taken."""
        with self._lock:
            held = self._held.get(user, set())
            for place in range(self._limit):
                if place not in held and self._take(user, place):
                    self._held.setdefault(user, held).add(place)
                    return True
            return False

    def release(self, user: str) -> None:
        """Give one place back. Raises KeyError where this process has none."""
        with self._lock:
            held = self._held[user]
            place = held.pop()
            if not held:
                del self._held[user]
            try:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _offset(user) + place)
            except OSError as error:
                _logger.error("a place of %a is not given back: %s", user, error)

    def close(self) -> None:
        """Give all places of this process back."""
        os.close(self._file)

    def _take(self, user: str, place: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _offset(user) + place)
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            # As with Dovecot, mail counts more: the others of this process are still counted.
            _logger.error("deliveries to %a are not limited: %s", user, error)
        return True


def _offset(user: str) -> int:
    digest = blake2b(user.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BITS // 8).digest()
    return int.from_bytes(digest) << _PLACES_BITS
