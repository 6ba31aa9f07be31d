"""The listening sockets of one server: all of them open, or none."""

import socket
from collections.abc import Sequence

from ._address import format_address, parse_address
from ._listen import listen, unlink_if_ours


class Listeners:
    """Sockets made from addresses or handed in; all are this object's to close.

    Raises ValueError for an address that cannot be read or a socket that does not listen, OSError
    for a place where nobody can listen. Then those made so far are closed; handed-in sockets stay
    the caller's.
    """

    def __init__(self, listeners: Sequence[str | socket.socket]) -> None:
        if not listeners:
            raise ValueError("a server needs an address to listen on")
        self._made: list[socket.socket] = []
        self.sockets: list[socket.socket] = []
        """All of them, in the order given, in non-blocking mode."""
        try:
            for listener in listeners:
                if isinstance(listener, str):
                    sock = listen(parse_address(listener))
                    self._made.append(sock)
                else:
                    sock = listener
                    _check(sock)
                self.sockets.append(sock)
            for sock in self.sockets:
                sock.setblocking(False)
            self.addresses = [format_address(sock) for sock in self.sockets]
            """Where they listen, with the port that was found for port 0."""
        except BaseException:
            self.sockets = self._made
            self.close()
            raise

    def close(self) -> None:
        """Stop listening; the files of UNIX sockets made here are removed, others' are not."""
        for sock in self._made:
            unlink_if_ours(sock)
        for sock in self.sockets:
            sock.close()


def _check(sock: socket.socket) -> None:
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ValueError(f"{sock} does not listen: call its listen() first")
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
