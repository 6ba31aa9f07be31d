"""One connection in its own thread.

A callable job runs in this thread when its result is needed, so what blocks holds up this session
alone. Results of other threads' futures come in through a queue, in which a cut is announced too.
"""

import logging
import socket
from collections.abc import Awaitable, Generator
from queue import Empty, SimpleQueue

from lmtp_proto import Effect, Run
from lmtp_sockets import wait_for_socket
from lmtp_transport import SocketSession

from ._stream import BlockingStream


class ServerSession(SocketSession):
    """A server's end of one connection. `stop()` and `cut()` are for any thread."""

    logger = logging.getLogger("lmtp_blocking")
    stream = BlockingStream

    def __init__(
        self, sock: socket.socket, peer: str, conversation: Generator[Effect, None, None]
    ) -> None:
        super().__init__(sock, peer, conversation)
        # Futures that are done; None says that the session is cut off.
        self._done: SimpleQueue[Run | None] = SimpleQueue()
        self._is_over = False

    def serve(self) -> None:
        """Hold the whole conversation, then close the connection."""
        try:
            try:
                self._hold()
            finally:
                self._is_over = True
                self._settle_late()
        finally:
            self._stream.close()

    def cut(self) -> None:
        """End the session wherever it waits; a callable that runs is not interrupted."""
        super().cut()
        self._done.put(None)

    def _give_way(self) -> None:
        # Threads take their turns by themselves.
        pass

    def _begin(self, run: Run) -> None:
        job = run.job
        # The turn of all else comes in _finish(): until then earlier recipients get their replies.
        if not (callable(job) or isinstance(job, Awaitable)):
            self._follow(run, job)

    def _completed(self, run: Run) -> None:
        self._done.put(run)
        if self._is_over:
            self._settle_late()

    def _settle_late(self) -> None:
        """Let the conversation know of futures for which it has not waited. In any thread."""
        try:
            while True:
                run = self._done.get_nowait()
                if run is not None:
                    run.run()
        except Empty:
            pass

    def _finish(self, run: Run) -> None:
        if self._is_cut:
            return
        if callable(run.job) or isinstance(run.job, Awaitable):
            run.run()
        while not run.done:
            done = self._done.get()
            if done is None:
                return
            done.run()

    def _wait(self, writing: bool, deadline: float) -> bool:
        return wait_for_socket(self._sock, writing, deadline)
