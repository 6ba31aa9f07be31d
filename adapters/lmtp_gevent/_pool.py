"""The pool for greenlets."""

import gevent.event

from lmtp_transport import ClientOptions, SocketPool

from ._client import Client


class Pool(SocketPool[Client]):
    """`lmtp_transport.SocketPool`, which says all about it, for the greenlets of one thread."""

    def _connect(self, address: str, options: ClientOptions) -> Client:
        return Client(address, **options)

    def _turn(self) -> gevent.event.Event:
        return gevent.event.Event()
