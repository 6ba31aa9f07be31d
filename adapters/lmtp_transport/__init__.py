"""What stands between a connection's octets and its conversation, the same on every runtime.

Layers are generators of effects around a conversation: none of them reads, writes or waits by
itself.
"""

from ._certificates import ServerTls
from ._listener import Listener, Listeners
from ._peers import PeerLimit
from ._reception import Reception
from ._tls import TlsLayer

__all__ = ["Listener", "Listeners", "PeerLimit", "Reception", "ServerTls", "TlsLayer"]
