"""LMTP on asyncio, and on any event loop with its interface, such as uvloop."""

from ._server import Server, serve

__all__ = ["Server", "serve"]
