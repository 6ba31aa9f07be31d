"""Ports for servers that cannot be asked which one the kernel gave them."""

import random
import socket
from contextlib import ExitStack

# Below those that Linux and others give to sockets that ask for none: a client of somebody else's
# must not have taken it before the server does.
_PORTS = range(10_000, 32_768)


def free_ports(count: int) -> list[int]:
    """Find TCP ports of 127.0.0.1 where nobody listens.

    Raises:
        OSError: There are no more.
    """
    with ExitStack() as probes:
        found: list[int] = []
        for port in random.sample(_PORTS, len(_PORTS)):
            if len(found) == count:
                return found
            try:
                probes.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            found.append(port)
    raise OSError(f"127.0.0.1 has no {count} free ports")
