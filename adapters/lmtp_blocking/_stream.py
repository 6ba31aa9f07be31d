"""A connection that is read by one system call while its peer is quick to answer, and written
without waiting for the interpreter.

A read waits in place at first, holding its buffer. A peer that takes longer is waited for without
one, so that connections that say nothing cost no buffers.
"""

import ctypes
import socket
import struct
import time
from collections.abc import Callable
from typing import Final

from lmtp_sockets import Stream

# Seconds that a read waits in place.
_BRIEF: Final = 1
# A struct timeval. Where its members are shorter, the system takes the first half: the same time
# where that holds the lower digits, else next to none.
_TIMEVAL: Final = struct.pack("@qq", _BRIEF, 0)
# Octets to make room for: commands and small messages, and what is amid a larger one.
_SMALL: Final = 4096
_LARGE: Final = 65_536
# send(2) without giving up the interpreter: whoever does gets in line for it again behind all other
# threads that have something to do, for the sake of a call that does not wait.
_libc_send: Final = ctypes.PyDLL(None).send
_libc_send.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
_libc_send.restype = ctypes.c_ssize_t


class BlockingStream(Stream):
    """`Stream` for a thread of its own."""

    __slots__ = ("_size",)

    _blocking = True

    def __init__(self, sock: socket.socket, wait: Callable[[bool, float], bool]) -> None:
        super().__init__(sock, wait)
        # Python's own timeouts would poll before each read.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL)
        # 0: nothing has been read, and nobody knows whether the peer is quick.
        self._size = 0

    def receive(self, deadline: float) -> bytes | None:
        octets = None
        if self._size and deadline - time.monotonic() > _BRIEF:
            octets = self._read(self._size, 0)
        if octets is None:
            octets = super().receive(deadline)
        if octets is None:
            # It is not quick, or not any more.
            self._size = 0
        else:
            self._size = _LARGE if len(octets) >= _SMALL else _SMALL
        return octets

    def send(self, data: bytes, deadline: float) -> None:
        if len(data) <= _SMALL and not self._gone:
            sent = _libc_send(self._sock.fileno(), data, len(data), socket.MSG_DONTWAIT)
            if sent == len(data):
                return
            # What is wrong is found by the call that can say so.
            data = data[max(sent, 0) :]
        super().send(data, deadline)
