"""One connection in its own greenlet.

The greenlet waits in the hub for octets, for deadlines and for jobs, so a handler may wait there
too. Callables run in the hub's pool of native threads.
"""

import logging
import socket
import time
from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Final

import gevent
from gevent import Greenlet
from gevent.hub import Waiter, get_hub

from lmtp_proto import Effect, Run
from lmtp_transport import SocketSession

if TYPE_CHECKING:
    from gevent._types import _TimerWatcher as TimerWatcher

# Events of libev.
_READ: Final = 1
_WRITE: Final = 2


class ServerSession(SocketSession):
    """A server's end of one connection, and the greenlet that serves it.

    `completed(session, run)` is called in the thread that completes a future, whichever that is;
    `over(session)` when the connection is closed.
    """

    logger = logging.getLogger("lmtp_gevent")

    def __init__(
        self,
        sock: socket.socket,
        peer: str,
        conversation: Generator[Effect, None, None],
        completed: Callable[["ServerSession", Run], None],
        over: Callable[["ServerSession"], None],
    ) -> None:
        super().__init__(sock, peer, conversation)
        self._tell_completed = completed
        self._over = over
        self._hub = get_hub()
        self._readable = self._hub.loop.io(sock.fileno(), _READ)
        # What the greenlet waits with for its peer, and until when.
        self._peer_waiter: Waiter[bool] | None = None
        self._deadline = 0.0
        # One timer for all deadlines: it is moved when it rings too early, not at each wait.
        self._timer: TimerWatcher | None = None
        self._timer_when = 0.0
        # What the greenlet waits with for a job.
        self._job_waiter: Waiter[None] | None = None
        self.greenlet: Greenlet[[], None] = gevent.spawn(self._serve)

    def cut(self) -> None:
        """End the session wherever it waits."""
        super().cut()
        self.greenlet.kill(block=False)

    def settled(self) -> None:
        """A job is done. In the hub."""
        if self._job_waiter is not None:
            self._job_waiter.switch(None)

    def _serve(self) -> None:
        """Hold the whole conversation, then close the connection."""
        try:
            self._hold()
        finally:
            try:
                self._stream.close()
            finally:
                self._readable.close()
                if self._timer is not None:
                    self._timer.close()
                self._over(self)

    def _give_way(self) -> None:
        gevent.sleep(0)

    def _begin(self, run: Run) -> None:
        job = run.job
        if callable(job):
            # The pool makes whoever hands it a job wait while all its threads are busy.
            gevent.spawn(self._run_in_pool, run, job)
        elif isinstance(job, Awaitable):
            run.run()
        else:
            self._follow(run, job)

    def _completed(self, run: Run) -> None:
        self._tell_completed(self, run)

    def _run_in_pool(self, run: Run, job: Callable[[], object]) -> None:
        value, error = self._hub.threadpool.apply(_attempt, (job,))
        if error is None:
            run.succeed(value)
        else:
            run.fail(error)
        self._hub.loop.run_callback(self.settled)

    def _finish(self, run: Run) -> None:
        try:
            while not run.done:
                waiter: Waiter[None] = Waiter(self._hub)
                self._job_waiter = waiter
                waiter.get()
        finally:
            self._job_waiter = None

    def _wait(self, writing: bool, deadline: float) -> bool:
        self._deadline = deadline
        if self._timer is None or self._timer_when > deadline:
            self._set_timer()
        watcher = self._hub.loop.io(self._sock.fileno(), _WRITE) if writing else self._readable
        waiter: Waiter[bool] = Waiter(self._hub)
        self._peer_waiter = waiter
        watcher.start(waiter.switch, True)
        try:
            return waiter.get()
        finally:
            self._peer_waiter = None
            watcher.stop()
            if writing:
                watcher.close()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.close()
        self._timer_when = self._deadline
        self._timer = self._hub.loop.timer(max(self._deadline - time.monotonic(), 0.0))
        self._timer.start(self._ring)

    def _ring(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        if self._peer_waiter is None:
            return
        if time.monotonic() < self._deadline:
            self._set_timer()
        else:
            self._peer_waiter.switch(False)


def _attempt(job: Callable[[], object]) -> tuple[object, BaseException | None]:
    """Run a job: its value, or what it has raised, which the pool would print."""
    try:
        return job(), None
    except BaseException as error:
        return None, error
