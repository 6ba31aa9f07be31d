"""What stands between a connection's octets and its conversation, the same on every runtime.

Layers are generators of effects around a conversation: none of them reads, writes or waits by
itself.
"""

from ._certificates import ServerTls
from ._client import ClientOptions, ClientSession, ClientTls
from ._listener import Listener, Listeners
from ._peers import ConnectionLimit, PeerLimit
from ._pool import (
    LEAVE_TIME,
    AwaitTurn,
    Connect,
    Leave,
    Probe,
    Submit,
    Watched,
    WatchedAsync,
    through_pool,
)
from ._pool_book import Open, PoolBook, PoolSettings, Retire, Reuse, Wait
from ._reception import Reception
from ._socket_client import Channel, SocketClient, read_pieces
from ._socket_pool import SocketPool
from ._socket_server import SocketServer
from ._socket_session import SocketSession
from ._tls import TlsLayer

__all__ = [
    "LEAVE_TIME",
    "AwaitTurn",
    "Channel",
    "ClientOptions",
    "ClientSession",
    "ClientTls",
    "Connect",
    "ConnectionLimit",
    "Leave",
    "Listener",
    "Listeners",
    "Open",
    "PeerLimit",
    "PoolBook",
    "PoolSettings",
    "Probe",
    "Reception",
    "Retire",
    "Reuse",
    "ServerTls",
    "SocketClient",
    "SocketPool",
    "SocketServer",
    "SocketSession",
    "Submit",
    "TlsLayer",
    "Wait",
    "Watched",
    "WatchedAsync",
    "read_pieces",
    "through_pool",
]
