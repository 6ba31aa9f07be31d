"""The process that answers those who ask: Prometheus, health checks, the commands who and stats.

The invariant: it is a child of the supervisor with the sockets it answers on and no others; it ends
when the supervisor does, and harms nobody when it ends: another takes its place.
"""

import asyncio
import logging
import os
import signal
import socket
import stat
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, NoReturn

from lmtp_server._workers import Title

from ._area import Area
from ._control import ControlServer, describe
from ._families import Family, read_families
from ._health import find_fault
from ._http import HttpServer, Response
from ._sessions import Sessions

_logger: Final = logging.getLogger("lmtp_server")

# Seconds between two starts.
_PAUSE: Final = 1.0
_LEFT_TO_SUPERVISOR: Final = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1),
    *(signal.SIGTTIN, signal.SIGTTOU),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorOptions:
    """Where is answered and what is told: `pages` and `control` are listening sockets, `listeners`
    the addresses of the service, `build` the labels of the metric of that name."""

    pages: Sequence[socket.socket]
    control: Sequence[socket.socket]
    listeners: Sequence[str]
    build: Mapping[str, str]
    confine: Callable[[], None] = lambda: None
    """Gives up what the process does not need; called in it, before anything is read."""

    @property
    def is_wanted(self) -> bool:
        """Whether anything is answered at all."""
        return bool(self.pages or self.control)


class Monitor:
    """Keeps the process running. Made before the first fork; the supervisor's to call."""

    def __init__(self) -> None:
        self.area = Area()
        # What workers tell of their sessions, each datagram whole.
        self._told, self.channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._options: MonitorOptions | None = None
        self._pid = 0
        # The process lives as long as this end is open.
        self._life: socket.socket | None = None
        self._start_at = 0.0

    def serve(self, options: MonitorOptions) -> None:
        """Answer by these options from now on."""
        self._end()
        self._options = options
        self._start_at = 0.0
        self.look()

    def look(self) -> None:
        """Start the process anew if it has ended."""
        if self._pid and os.waitpid(self._pid, os.WNOHANG)[0]:
            _logger.error("the process that answers for metrics has ended: another is started")
            self._forget()
        now = time.monotonic()
        options = self._options
        if not self._pid and options is not None and options.is_wanted and now >= self._start_at:
            self._start_at = now + _PAUSE
            try:
                self._start(options)
            except OSError as error:
                _logger.error("metrics: no process can be started: %s", error.strerror)

    def leave(self) -> None:
        """In a worker: hold open what it tells by, and nothing else."""
        self._told.close()
        if self._life is not None:
            self._life.close()

    def close(self) -> None:
        """Answer no more."""
        self._options = None
        self._end()
        self._told.close()
        self.channel.close()

    def _start(self, options: MonitorOptions) -> None:
        ours, theirs = socket.socketpair()
        # Nothing that is written so far is written twice.
        sys.stderr.flush()
        # The supervisor's handlers are not the child's.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_SUPERVISOR)
        try:
            pid = os.fork()
            if pid == 0:
                self._become(options, theirs, mask)
        except OSError:
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            theirs.close()
        self._pid, self._life = pid, ours

    def _end(self) -> None:
        if self._pid:
            pid = self._pid
            self._forget()
            # It has nothing to lose.
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def _forget(self) -> None:
        self._pid = 0
        if self._life is not None:
            self._life.close()
            self._life = None

    def _become(
        self, options: MonitorOptions, life: socket.socket, mask: Iterable[int]
    ) -> NoReturn:
        status = os.EX_SOFTWARE
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for number in _LEFT_TO_SUPERVISOR:
                signal.signal(number, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            # The places that the supervisor logs to may be among what is closed.
            logging.disable()
            _close_sockets({life, self._told, *options.pages, *options.control})
            Title("lmtp-metrics")
            options.confine()
            with asyncio.Runner() as runner:
                runner.run(_answer(self.area, self._told, options, life))
            status = os.EX_OK
        except BaseException:
            traceback.print_exc()
        finally:
            # The rest of the stack belongs to the supervisor.
            os._exit(status)


def _close_sockets(kept: set[socket.socket]) -> None:
    """Let go of all sockets but `kept` and the standard streams. Their numbers stay taken, so that
    no object of the supervisor's ever means another file."""
    numbers = {sock.fileno() for sock in kept} | {0, 1, 2}
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for number in map(int, os.listdir("/proc/self/fd")):
        try:
            if number not in numbers and stat.S_ISSOCK(os.fstat(number).st_mode):
                os.dup2(null, number, inheritable=False)
        except OSError:
            # The list itself.
            pass
    os.close(null)


async def _answer(
    area: Area, told: socket.socket, options: MonitorOptions, life: socket.socket
) -> None:
    """Answer until the supervisor lets go."""

    def families() -> list[Family]:
        return read_families(area, options.build)

    async def stats() -> dict[str, Any]:
        return {"time": time.time(), "begun": area.begun, "metrics": describe(families())}

    def health(_accept: str) -> Response:
        fault = find_fault(area, options.listeners)
        if fault is None:
            return Response(HTTPStatus.OK, b"ok\n")
        return Response(HTTPStatus.SERVICE_UNAVAILABLE, f"{fault}\n".encode())

    sessions = Sessions(area, told)
    control = ControlServer({"who": sessions.who, "stats": stats})
    for listener in options.control:
        await control.clients.serve(listener)
    if options.pages:
        from ._exposition import Page

        page = Page(families)
        http = HttpServer(
            {
                "/metrics": lambda accept: Response(HTTPStatus.OK, *page.render(accept)),
                "/healthz": health,
            }
        )
        for listener in options.pages:
            await http.clients.serve(listener)
    life.setblocking(False)
    await asyncio.get_running_loop().sock_recv(life, 1)
