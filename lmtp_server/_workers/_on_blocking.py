"""A worker's service on threads and blocking sockets."""

import select
import sys

from lmtp_blocking import SWITCH_INTERVAL, Server

from ._runtimes import Service


def run_on_blocking(service: Service) -> None:
    """Serve on threads; this one waits."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    server = Server(
        service.handler, settings=service.settings, max_connections=service.max_connections
    )
    server.start(*service.listeners)
    told = select.poll()
    told.register(service.channel, select.POLLIN)
    for seconds in service.live(server.retire):
        told.poll(seconds * 1000)
    server.stop(service.drain)
