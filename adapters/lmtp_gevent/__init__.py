"""LMTP on gevent: a greenlet for each connection, without monkey-patching."""

from ._server import Server, serve

__all__ = ["Server", "serve"]
