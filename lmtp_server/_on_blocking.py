"""A worker's service on threads and blocking sockets."""

import select
import sys

from lmtp_blocking import SWITCH_INTERVAL, Server

from ._runtimes import Service


def run_on_blocking(service: Service) -> None:
    """Serve on threads; this one waits."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    server = Server(service.handler, settings=service.settings)
    server.start(*service.listeners)
    service.ready()
    ended = select.poll()
    ended.register(service.channel, select.POLLIN)
    ended.poll()
    server.stop(service.drain)
