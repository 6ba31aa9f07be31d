"""The channel between supervisor and worker: a pair of sockets, an octet for each thing to say.

The invariant: the worker drains and exits when its end of the channel is at its end. That is so
when the supervisor stops it, when the supervisor has died, however it died, and after SIGTERM to
the worker.
"""

import socket
from collections.abc import Callable
from typing import Final

_READY: Final = b"r"
_RETIRE: Final = b"e"
_REOPEN: Final = b"l"


class SupervisorEnd:
    """Where the supervisor speaks to one worker."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        # A worker that is stopped does not read; what it is told is not worth waiting for.
        sock.setblocking(False)

    def fileno(self) -> int:
        """To wait for it to be readable."""
        return self._sock.fileno()

    def hear(self) -> bool | None:
        """Whether the worker has become ready; None when its end is closed."""
        try:
            said = self._sock.recv(64)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return None
        return _READY in said if said else None

    def retire(self) -> None:
        """Have it accept no more, let its clients finish, and exit."""
        self._say(_RETIRE)

    def reopen_logs(self) -> None:
        """Have it open its log files anew."""
        self._say(_REOPEN)

    def stop(self) -> None:
        """Have it drain and exit now."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            # The worker was faster.
            pass

    def close(self) -> None:
        """The worker is gone, or this is another worker's process."""
        self._sock.close()

    def _say(self, word: bytes) -> None:
        try:
            self._sock.send(word)
        except OSError:
            # It is gone, or does not listen: the heartbeat tells.
            pass


class WorkerEnd:
    """Where a worker hears what it is to do.

    `reopen` is called for each request to open log files anew.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.setblocking(False)
        self.reopen: list[Callable[[], None]] = []
        self.retiring = False
        """Accept no more, let clients finish."""
        self.stopping = False
        """Drain now."""

    def fileno(self) -> int:
        """To wait for it to be readable."""
        return self._sock.fileno()

    def report_ready(self) -> None:
        """Tell the supervisor that this worker accepts connections."""
        try:
            self._sock.send(_READY)
        except OSError:
            # The supervisor has died; the end of the channel says so, too.
            pass

    def hear(self) -> None:
        """Take in what the supervisor has said, if anything."""
        try:
            said = self._sock.recv(64)
        except BlockingIOError:
            return
        except ConnectionResetError:
            said = b""
        if not said:
            self.stopping = True
        if _RETIRE in said:
            self.retiring = True
        if _REOPEN in said:
            for reopen in self.reopen:
                reopen()

    def end(self) -> None:
        """Put it at its end, as if the supervisor had done it; in a signal handler, too."""
        try:
            self._sock.shutdown(socket.SHUT_RD)
        except OSError:
            # It is closed: the worker is ending.
            pass
