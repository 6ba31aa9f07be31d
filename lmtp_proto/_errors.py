"""The protocol's exceptions.

Only misuse by the caller raises: what the peer does wrong arrives as a `Fault` event that carries
its reply, so that bad input can never unwind a server's loop. Nor does what a handler does wrong:
it is logged, and answered for the command or recipient that it concerns.
"""


class LocalProtocolError(Exception):
    """The caller asked for something the protocol does not allow now; nothing has changed."""


class HandlerError(Exception):
    """A handler, or what it has handed out, gave what its method may not give.

    The text says which method, what it gave and what is awaited. A server does not raise it: it is
    the error of the `Log` effect, and the client is answered `451 4.3.0`.
    """


class RemoteProtocolError(Exception):
    """The peer of a client sent something that cannot be a reply; the connection is of no more use.

    A server role never raises this.
    """
