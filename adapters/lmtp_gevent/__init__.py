"""LMTP on gevent: a greenlet for each connection, without monkey-patching."""

from ._client import Client
from ._pool import Pool
from ._server import Server, serve

__all__ = ["Client", "Pool", "Server", "serve"]
