"""LMTP on asyncio, and on any event loop with its interface, such as uvloop."""

from ._aiosmtpd import AiosmtpdHandler, LoginPassword
from ._client import Client
from ._pool import Pool
from ._server import Server, serve

__all__ = [
    "AiosmtpdHandler",
    "Client",
    "LoginPassword",
    "Pool",
    "Server",
    "serve",
]
