"""Addresses as text, listening sockets and connections, the same for runtimes and for the daemon.

Nothing here waits for a peer by itself: what blocks or suspends is each runtime's own.
"""

from ._accept import ACCEPT_PAUSE, LINGER, SHARE_PAUSE, accept, refuse
from ._activation import activated_sockets
from ._address import (
    TcpAddress,
    UnixAddress,
    format_address,
    parse_address,
    peer_name,
)
from ._connect import (
    THREAD,
    AddressInfo,
    AwaitConnected,
    ConnectStep,
    Pause,
    Resolve,
    Waiting,
    connect,
    connecting,
    wait_for_socket,
)
from ._listen import BACKLOG, listen, set_rights, unlink_if_ours
from ._stream import Stream

__all__ = [
    "ACCEPT_PAUSE",
    "BACKLOG",
    "LINGER",
    "SHARE_PAUSE",
    "THREAD",
    "AddressInfo",
    "AwaitConnected",
    "ConnectStep",
    "Pause",
    "Resolve",
    "Stream",
    "TcpAddress",
    "UnixAddress",
    "Waiting",
    "accept",
    "activated_sockets",
    "connect",
    "connecting",
    "format_address",
    "listen",
    "parse_address",
    "peer_name",
    "refuse",
    "set_rights",
    "unlink_if_ours",
    "wait_for_socket",
]
