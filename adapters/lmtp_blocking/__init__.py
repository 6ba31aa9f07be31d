"""LMTP on blocking sockets: a thread for each connection."""

from ._client import Client
from ._pool import Pool
from ._server import Server, serve
from ._smtplib import LMTP

__all__ = ["LMTP", "Client", "Pool", "Server", "serve"]
