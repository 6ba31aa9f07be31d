"""One connection in its own thread: the loop that performs a conversation's effects.

A callable job runs in this thread when its result is needed, so what blocks holds up this session
alone. Results of other threads' futures come in through a queue, in which a cut is announced too.
"""

import logging
import select
import socket
import time
from collections.abc import Awaitable, Generator
from queue import Empty, SimpleQueue
from typing import Final, assert_never

from lmtp_proto import (
    Effect,
    GiveWay,
    Handshake,
    Interrupt,
    Log,
    Receive,
    Run,
    Send,
    Wait,
)
from lmtp_sockets import Stream

_logger = logging.getLogger("lmtp_blocking")

# The longest time poll() takes at once, in seconds: its milliseconds are an int of C.
_LONGEST_POLL: Final = 86_400.0


class _CutError(Exception):
    """The server has cut the session off."""


class ServerSession:
    """A server's end of one connection."""

    def __init__(
        self, sock: socket.socket, peer: str, conversation: Generator[Effect, None, None]
    ) -> None:
        self._peer = peer
        self._conversation = conversation
        self._stream = Stream(sock, self._wait)
        self._sock = sock
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)
        # Futures that are done; None says that the session is cut off.
        self._done: SimpleQueue[Run | None] = SimpleQueue()
        self._is_cut = False
        self._is_over = False

    def serve(self) -> None:
        """Hold the whole conversation, then close the connection."""
        conversation = self._conversation
        try:
            try:
                for effect in conversation:
                    if self._is_cut:
                        break
                    self._perform(effect)
            finally:
                conversation.close()
                self._is_over = True
                self._settle_late()
        except _CutError:
            pass
        except Exception:
            _logger.exception("%s: the conversation failed", self._peer)
        finally:
            self._stream.close()

    def stop(self) -> None:
        """The server stops: a session that waits for its client is woken. From any thread."""
        self._stream.stop()

    def cut(self) -> None:
        """End the session wherever it waits; a callable that runs is not interrupted. From any
        thread."""
        self._is_cut = True
        self._done.put(None)
        self._stream.cut()

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Receive():
                octets = self._stream.receive(effect.deadline)
                effect.outcome = Interrupt.TIMEOUT if octets is None else octets
            case Send():
                self._stream.send(effect.data, effect.deadline)
            case Run():
                self._begin(effect)
            case Wait(run=run):
                self._finish(run)
            case Log():
                _logger.log(effect.severity.value, "%s", effect.text, exc_info=effect.error)
            case GiveWay():
                # Threads take their turns by themselves.
                pass
            case Handshake():
                raise RuntimeError("no layer of this session does TLS")
            case _:
                assert_never(effect)

    def _begin(self, run: Run) -> None:
        job = run.job
        if callable(job) or isinstance(job, Awaitable):
            # Its turn comes in _finish(): until then earlier recipients get their replies.
            return

        def done(_: object) -> None:
            self._done.put(run)
            if self._is_over:
                self._settle_late()

        try:
            job.add_done_callback(done)
        except Exception as error:
            run.fail(error)

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
        if callable(run.job) or isinstance(run.job, Awaitable):
            run.run()
        while not run.done:
            done = self._done.get()
            if done is None:
                raise _CutError
            done.run()

    def _wait(self, writing: bool, deadline: float) -> bool:
        # A read that waits by itself would save a system call, but hold its buffer meanwhile.
        poll = self._readable
        if writing:
            poll = select.poll()
            poll.register(self._sock, select.POLLOUT)
        while True:
            left = deadline - time.monotonic()
            if poll.poll(min(max(left, 0.0), _LONGEST_POLL) * 1000):
                return True
            if left <= 0:
                return False
