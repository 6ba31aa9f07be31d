"""LMTP on blocking sockets: a thread for each connection."""

from ._client import Client
from ._pool import Pool
from ._server import SWITCH_INTERVAL, Server, serve
from ._smtplib import LMTP

__all__ = ["LMTP", "SWITCH_INTERVAL", "Client", "Pool", "Server", "serve"]
