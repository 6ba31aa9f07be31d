"""The protocol's exceptions.

Only misuse by the caller raises: what the peer does wrong arrives as a `Fault` event that carries
its reply, so that bad input can never unwind a server's loop.
"""


class LocalProtocolError(Exception):
    """The caller asked for something the protocol does not allow now; nothing has changed."""


class RemoteProtocolError(Exception):
    """The peer of a client sent something that cannot be a reply; the connection is of no more use.

    A server role never raises this.
    """
