"""What dead deliveries have left in tmp/ is removed.

The invariant: nothing is removed that somebody may still be writing, and no delivery waits for more
than a bounded number of looks. maildir(5) gives a delivery 36 hours.
"""

import os
import stat
import time
from itertools import islice
from typing import Final

# Seconds since anything happened to a file.
_AGE: Final = 36 * 3600.0
# Seconds between two sweeps; Dovecot's mail_temp_scan_interval.
_INTERVAL: Final = 7 * 24 * 3600.0
# Entries that one sweep looks at.
_ENTRIES: Final = 256


def is_due(tmp: os.stat_result, now: float) -> bool:
    """Whether the directory tmp/ with that status is to be swept at `now`, in seconds since 1970.

    Its time of access is when that was done last, as it is for Dovecot.
    """
    if tmp.st_atime >= now - _INTERVAL:
        return False
    # Nothing was put there since it was found empty of what is old.
    return tmp.st_atime <= tmp.st_ctime + _AGE


def sweep(tmp: int) -> None:
    """Remove what is old from the directory `tmp`, a descriptor. Raises OSError."""
    now = time.time()
    removed = looked_at = 0
    with os.scandir(tmp) as entries:
        for entry in islice(entries, _ENTRIES):
            looked_at += 1
            removed += _remove_if_old(tmp, entry.name, now - _AGE)
    if looked_at == _ENTRIES and removed:
        # The next delivery goes on.
        return
    os.utime(tmp, (now, os.fstat(tmp).st_mtime))


def _remove_if_old(tmp: int, name: str, limit: float) -> bool:
    try:
        status = os.stat(name, dir_fd=tmp, follow_symlinks=False)
        # The time of change as well: who keeps a message's date sets the others before it is
        # complete.
        newest = max(status.st_atime, status.st_mtime, status.st_ctime)
        if stat.S_ISDIR(status.st_mode) or newest >= limit:
            return False
        os.unlink(name, dir_fd=tmp)
    except FileNotFoundError:
        return False
    return True
