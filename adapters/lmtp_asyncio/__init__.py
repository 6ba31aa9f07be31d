"""LMTP on asyncio, and on any event loop with its interface, such as uvloop."""

from ._aiosmtpd import AiosmtpdHandler, LoginPassword
from ._server import Server, serve

__all__ = ["AiosmtpdHandler", "LoginPassword", "Server", "serve"]
