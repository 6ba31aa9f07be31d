"""The client that waits in its greenlet, and lets the hub's others have their turn meanwhile."""

import socket
import time
from collections.abc import Sequence
from typing import Final

import gevent
import gevent.socket
from gevent.hub import Waiter, get_hub

from lmtp_sockets import AddressInfo, Waiting, wait_for_socket
from lmtp_transport import SocketClient

# Events of libev.
_READ: Final = 1
_WRITE: Final = 2


def _wait(sock: socket.socket, writing: bool, deadline: float) -> bool:
    left = deadline - time.monotonic()
    if left <= 0:
        # A look: a content that goes out without waiting must not hold up the others.
        gevent.sleep(0)
        return wait_for_socket(sock, writing, deadline)
    hub = get_hub()
    watcher = hub.loop.io(sock.fileno(), _WRITE if writing else _READ)
    waiter: Waiter[bool] = Waiter(hub)
    timer = hub.loop.timer(left)
    try:
        watcher.start(waiter.switch, True)
        # The loop's own time may be behind.
        timer.start(waiter.switch, False, update=True)
        return waiter.get()
    finally:
        watcher.stop()
        watcher.close()
        timer.close()


def _resolve(host: str, port: int) -> Sequence[AddressInfo]:
    return gevent.socket.getaddrinfo(host.encode(), port, type=socket.SOCK_STREAM)


class Client(SocketClient):
    """`lmtp_transport.SocketClient`, which says all about it, waiting in its greenlet."""

    waiting = Waiting(_wait, _resolve, gevent.sleep)
