"""Whether the service works.

The invariant: it is well only while the supervisor looks after its workers, one of them serves at
least, none of those that serve is silent, and the files of its sockets are there.
"""

import os
import stat
import time
from collections.abc import Iterable
from typing import Final

from ._area import SERVING, Area

# Seconds: workers give a sign of life every second, and the supervisor looks every second.
_SILENT: Final = 10.0


def find_fault(area: Area, listeners: Iterable[str]) -> str | None:
    """Why the service is not well, None if it is. `listeners` are the addresses it has."""
    if area.stopping:
        return "the service stops"
    now = time.monotonic()
    if now - area.looked > _SILENT:
        return "the supervisor does not look after the workers"
    serving = [each for each in area.workers() if each.state == SERVING]
    if not serving:
        return "no worker serves"
    silent = [str(each.pid) for each in serving if now - each.heard > _SILENT]
    if silent:
        return f"no sign of life of worker {', '.join(silent)}"
    for address in listeners:
        path = address.removeprefix("unix:")
        if path != address and not _is_socket(path):
            return f"the socket {path} is gone"
    return None


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except PermissionError:
        # It lies where this process may not look.
        return True
    except OSError:
        return False
