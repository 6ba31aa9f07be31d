"""Listening sockets that a service manager hands on, by the protocol of sd_listen_fds(3).

A socket is taken once: what is handed to this process is no longer handed to its children.
"""

import os
import socket
from collections.abc import MutableMapping
from typing import Final

# sd_listen_fds(3): behind standard input, output and error.
_FIRST: Final = 3


def activated_sockets(
    environment: MutableMapping[str, str] = os.environ,
) -> list[tuple[str, socket.socket]]:
    """The sockets handed on to this process, each with the name that its unit gives.

    Empty where the process was started otherwise. The variables LISTEN_PID, LISTEN_FDS and
    LISTEN_FDNAMES are taken out of `environment`, and the sockets are not inherited any further.
    Raises ValueError for variables that cannot be read, OSError for a descriptor that is no socket.
    """
    process = environment.pop("LISTEN_PID", "")
    count = environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "")
    if not count or process != str(os.getpid()):
        # Meant for a parent that did not take them.
        return []
    if not (count.isascii() and count.isdigit()):
        raise ValueError(f"LISTEN_FDS={count!a}: a number of sockets is awaited (sd_listen_fds(3))")
    descriptors = range(_FIRST, _FIRST + int(count))
    each = names.split(":") if names else ["unknown"] * len(descriptors)
    if len(each) != len(descriptors):
        raise ValueError(
            f"LISTEN_FDNAMES={names!a}: {len(descriptors)} names are awaited (sd_listen_fds(3))"
        )
    taken: list[tuple[str, socket.socket]] = []
    try:
        for name, descriptor in zip(each, descriptors, strict=True):
            os.set_inheritable(descriptor, False)
            taken.append((name, socket.socket(fileno=descriptor)))
    except OSError:
        for _, sock in taken:
            sock.close()
        raise
    return taken
