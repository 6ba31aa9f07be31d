"""A UNIX socket that log lines are sent to: never waited for, and found again when it comes back.

The invariant: a call takes no longer than the system call that it makes.
"""

import errno
import logging
import os
import socket
import time
from typing import Final

from ._destination import Destination

# Seconds between two attempts to find somebody who listens.
_PAUSE: Final = 1.0
# What says that the line, not the connection, is the matter.
_THE_LINE: Final = {errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.EMSGSIZE}


class SocketDestination(Destination):
    """Sends each record to `path`; a kind of it overrides `encode`. Where nobody listens yet, lines
    are lost and counted until somebody does: `fault` says why."""

    def __init__(self, path: str, formatter: logging.Formatter) -> None:
        super().__init__(formatter)
        self._path = path
        self._socket: socket.socket | None = None
        self._retry_at = 0.0
        self.fault = ""
        try:
            self._connect()
        except OSError as error:
            # A syslog that starts later is no reason to refuse mail.
            self.fault = f"nobody listens at {path}: {error.strerror}"

    def encode(self, record: logging.LogRecord) -> bytes:
        """What is sent for a record."""
        raise NotImplementedError

    def write(self, record: logging.LogRecord) -> None:
        """Send a record. Raises OSError."""
        data = self.encode(record)
        if self._socket is not None:
            try:
                self._send(self._socket, data)
                return
            except OSError as error:
                if error.errno in _THE_LINE:
                    raise
                self._disconnect()
        if time.monotonic() < self._retry_at:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"nobody listens at {self._path}")
        self._send(self._connect(), data)

    def reopen(self) -> None:
        """Connect anew. Raises OSError."""
        self._disconnect()
        self._connect()

    def descriptors(self) -> list[int]:
        """The socket, while there is one."""
        return [] if self._socket is None else [self._socket.fileno()]

    def close(self) -> None:
        """Close the socket."""
        self._disconnect()
        super().close()

    def _connect(self) -> socket.socket:
        self._retry_at = time.monotonic() + _PAUSE
        try:
            made = _connected(self._path, socket.SOCK_DGRAM)
        except OSError as error:
            if error.errno != errno.EPROTOTYPE:
                raise
            made = _connected(self._path, socket.SOCK_STREAM)
        self._socket = made
        return made

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, sock: socket.socket, data: bytes) -> None:
        if sock.type == socket.SOCK_STREAM:
            data += b"\n"
        if sock.send(data) < len(data):
            # Half a line: the rest would be taken for another.
            self._disconnect()
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def _connected(path: str, kind: socket.SocketKind) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, kind)
    try:
        made.setblocking(False)
        made.connect(path)
    except BaseException:
        made.close()
        raise
    return made
