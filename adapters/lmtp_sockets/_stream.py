"""A connection read and written with deadlines, for runtimes in which a session may wait in place.

Waiting itself is the runtime's. No buffer is held while waiting, and a peer that has gone, or does
not read in time, is no error: nothing more comes from it and nothing more is written to it.
"""

import socket
import time
from collections.abc import Callable
from typing import ClassVar, Final

from ._accept import LINGER

_BLOCK: Final = 65_536


class Stream:
    """One connected socket, which is this object's to close.

    `wait(writing, deadline)` returns True once the socket can be read (`writing` False) or written,
    False when `deadline`, in seconds of `time.monotonic()`, has passed first.
    """

    __slots__ = ("_ended", "_gone", "_sock", "_wait")

    # The mode that the socket is put into; reads and writes here wait in neither.
    _blocking: ClassVar[bool] = False

    def __init__(self, sock: socket.socket, wait: Callable[[bool, float], bool]) -> None:
        sock.setblocking(self._blocking)
        self._sock = sock
        self._wait = wait
        # The peer sends no more.
        self._ended = False
        # The peer takes no more either.
        self._gone = False

    def receive(self, deadline: float) -> bytes | None:
        """Read what is there: `b""` when the peer sends no more, None when `deadline` has passed.

        Always waits, even for octets that are there: so other sessions get their turn.
        """
        octets = None
        while octets is None:
            if not self._gone and not self._wait(False, deadline):
                return None
            octets = self._read(_BLOCK, socket.MSG_DONTWAIT)
        return octets

    def send(self, data: bytes, deadline: float) -> None:
        """Write all of `data`, or give the peer up for gone when it has not read by `deadline`."""
        rest = memoryview(data)
        while rest and not self._gone:
            try:
                rest = rest[self._sock.send(rest, socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                if not self._wait(True, deadline):
                    self._gone = True
            except OSError:
                self._gone = True

    def stop(self) -> None:
        """End the reading: once what has come is read, `receive()` gives `b""`, also where it
        waits now. From any thread."""
        self._shut(socket.SHUT_RD)

    def cut(self) -> None:
        """End reading and writing, also where they wait now. From any thread."""
        self._gone = True
        self._shut(socket.SHUT_RDWR)

    def close(self) -> None:
        """Say that no more is written, leave the peer `LINGER` seconds to do the same, close."""
        try:
            if not self._gone and not self._ended:
                self._shut(socket.SHUT_WR)
                deadline = time.monotonic() + LINGER
                while self.receive(deadline):
                    pass
        finally:
            self._sock.close()

    def _read(self, size: int, flags: int) -> bytes | None:
        """One read of up to `size` octets: None when nothing has come."""
        if not self._gone:
            try:
                octets = self._sock.recv(size, flags)
            except BlockingIOError:
                return None
            except OSError:
                self._gone = True
            else:
                self._ended = not octets
                return octets
        return b""

    def _shut(self, how: int) -> None:
        try:
            self._sock.shutdown(how)
        except OSError:
            # The peer was faster.
            pass
