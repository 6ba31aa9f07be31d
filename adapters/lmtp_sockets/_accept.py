"""Where connections begin and end: what may go wrong there and is no reason to stop or to spin."""

import errno
import socket
from typing import Final

ACCEPT_PAUSE: Final = 0.5
"""Seconds to leave connections waiting when `accept()` has raised."""

SHARE_PAUSE: Final = 0.001
"""Seconds to leave connections to other processes when `accept()` at a listener that they share has
given one. Without it, whichever runs takes in all that come while the others are being woken."""

LINGER: Final = 5.0
"""Seconds to leave a peer, once nothing more is written to it, to close its side. Closing before
it has would reset a connection with unread octets, and could destroy the last reply on its way."""

# accept(2): faults of the connection that was to be accepted, or nobody waits any more.
_PASSING: Final = frozenset(
    {
        errno.EAGAIN,
        errno.ECONNABORTED,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.EPROTO,
    }
)


def accept(listener: socket.socket) -> tuple[socket.socket, object] | None:
    """Accept the connection that waits at a non-blocking listener: the socket, its peer's address.

    None when there is none, or when it has broken off. Raises OSError when descriptors or memory
    have run out, or the listener is broken: a next try has to wait for `ACCEPT_PAUSE`.
    """
    try:
        return listener.accept()
    except OSError as error:
        if error.errno in _PASSING:
            return None
        raise


def refuse(sock: socket.socket, octets: bytes) -> None:
    """Write `octets` to a new connection as far as that goes at once, and close it."""
    with sock:
        sock.setblocking(False)
        try:
            sock.send(octets)
        except OSError:
            pass
