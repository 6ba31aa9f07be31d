"""Addresses as text, listening sockets and connections, the same for runtimes and for the daemon.

Nothing here waits for a peer by itself: what blocks or suspends is each runtime's own.
"""

from ._accept import ACCEPT_PAUSE, LINGER, accept, refuse
from ._address import (
    TcpAddress,
    UnixAddress,
    format_address,
    parse_address,
    peer_name,
)
from ._connect import connect
from ._listen import BACKLOG, listen, unlink_if_ours
from ._stream import Stream

__all__ = [
    "ACCEPT_PAUSE",
    "BACKLOG",
    "LINGER",
    "Stream",
    "TcpAddress",
    "UnixAddress",
    "accept",
    "connect",
    "format_address",
    "listen",
    "parse_address",
    "peer_name",
    "refuse",
    "unlink_if_ours",
]
