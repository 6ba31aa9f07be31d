"""What stands between a connection's octets and its conversation, the same on every runtime.

Layers are generators of effects around a conversation: none of them reads, writes or waits by
itself.
"""

from ._certificates import ServerTls
from ._client import ClientOptions, ClientSession, ClientTls
from ._listener import Listener, Listeners
from ._peers import PeerLimit
from ._reception import Reception
from ._socket_client import Channel, SocketClient, read_pieces
from ._tls import TlsLayer

__all__ = [
    "Channel",
    "ClientOptions",
    "ClientSession",
    "ClientTls",
    "Listener",
    "Listeners",
    "PeerLimit",
    "Reception",
    "ServerTls",
    "SocketClient",
    "TlsLayer",
    "read_pieces",
]
