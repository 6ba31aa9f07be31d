"""The pool for threads."""

import threading

from lmtp_transport import ClientOptions, SocketPool

from ._client import Client


class Pool(SocketPool[Client]):
    """`lmtp_transport.SocketPool`, which says all about it, for any number of threads."""

    def _connect(self, address: str, options: ClientOptions) -> Client:
        return Client(address, **options)

    def _turn(self) -> threading.Event:
        return threading.Event()
