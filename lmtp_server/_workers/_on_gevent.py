"""A worker's service on gevent."""

import gevent.socket

from lmtp_gevent import Server

from ._runtimes import Service


def run_on_gevent(service: Service) -> None:
    """Serve on the hub of this thread."""
    server = Server(
        service.handler, settings=service.settings, max_connections=service.max_connections
    )
    server.start(*service.listeners)
    for seconds in service.live(server.retire):
        try:
            gevent.socket.wait_read(service.channel.fileno(), timeout=seconds)
        except TimeoutError:
            pass
    server.stop(service.drain)
