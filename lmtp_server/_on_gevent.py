"""A worker's service on gevent."""

import gevent.socket

from lmtp_gevent import Server

from ._runtimes import Service


def run_on_gevent(service: Service) -> None:
    """Serve on the hub of this thread."""
    server = Server(service.handler, settings=service.settings)
    server.start(*service.listeners)
    service.ready()
    gevent.socket.wait_read(service.channel.fileno())
    server.stop(service.drain)
