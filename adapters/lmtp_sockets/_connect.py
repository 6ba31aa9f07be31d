"""Connections to a listening server."""

import socket

from ._address import TcpAddress, UnixAddress


def connect(address: TcpAddress | UnixAddress, timeout: float) -> socket.socket:
    """Connect to `address` within `timeout` seconds, trying all addresses of a host name in turn.

    The socket is blocking, with `timeout` set. Raises OSError that says what is wrong and where.
    """
    try:
        if isinstance(address, UnixAddress):
            return _connect_unix(address.path, timeout)
        sock = socket.create_connection((address.host, address.port), timeout)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"cannot connect to {address}: {reason}") from error
    # Commands are gathered before they are written: waiting for more would only delay them.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _connect_unix(path: str, timeout: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock
