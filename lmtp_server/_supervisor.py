"""The supervisor: keeps a number of worker processes running until it is told to stop.

Between it and each worker there is a channel, a pair of sockets. The worker says there that it is
ready; when its end of the channel is at its end, it drains and exits. That is so when the
supervisor stops it, when the supervisor has died, however it died, and after SIGTERM to the worker.

The invariant: once stopped, the supervisor starts no worker and returns only when none is left.
"""

import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, NoReturn

_logger: Final = logging.getLogger("lmtp_server")

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
# A worker that ran this long (seconds) does not fail at its start: the next failure is a first one.
_STEADY: Final = 60.0
# The first failure is mended at once, the next ones after this many seconds, doubled each time.
_FIRST_DELAY: Final = 0.5
_LONGEST_DELAY: Final = 30.0
# What a worker may need beyond its drain time before it is killed (seconds).
_KILL_MARGIN: Final = 5.0


def report_ready(channel: socket.socket) -> None:
    """Tell the supervisor that this worker accepts connections."""
    try:
        channel.sendall(b"r")
    except BrokenPipeError:
        # The supervisor has died; the end of the channel says so, too.
        pass


class _Slot:
    """The place of one worker. `pid` is 0 while there is none."""

    __slots__ = ("channel", "failures", "pid", "ready", "start_at", "started_at")

    channel: socket.socket

    def __init__(self) -> None:
        self.pid = 0
        self.ready = False
        self.failures = 0
        self.start_at = 0.0
        self.started_at = 0.0


class Supervisor:
    """Runs `work(channel)` in `count` processes, each forked from this one.

    `ready` is called once all workers are; `stopping` when SIGTERM or SIGINT has come, before the
    workers are told. `drain` is the number of seconds that a worker may take to stop.
    """

    def __init__(
        self,
        work: Callable[[socket.socket], None],
        *,
        count: int,
        drain: float,
        ready: Callable[[], None],
        stopping: Callable[[], None],
    ) -> None:
        self._work = work
        self._drain = drain
        self._ready: Callable[[], None] | None = ready
        self._stopping = stopping
        self._slots = [_Slot() for _ in range(count)]
        self._selector = selectors.DefaultSelector()
        self._stopped = False
        self._kill_at = 0.0
        self._status = os.EX_OK

    def run(self) -> int:
        """Run the workers until SIGTERM or SIGINT; the exit code for this process.

        A worker that ends is replaced; one that ends before all are ready ends the start instead
        (EX_SOFTWARE). To be called in the main thread of a process that has no other.
        """
        with _caught_signals() as (caught, wake_up), self._selector:
            self._selector.register(wake_up, selectors.EVENT_READ)
            while True:
                self._start_due()
                for key, _ in self._selector.select(self._timeout()):
                    if key.data is None:
                        wake_up.recv(4096)
                    else:
                        self._hear(key.data)
                while caught:
                    self._take(caught.pop())
                if self._stopped:
                    if not any(slot.pid for slot in self._slots):
                        return self._status
                    if time.monotonic() >= self._kill_at:
                        self._kill()

    def _timeout(self) -> float | None:
        """Seconds until something is due, None when nothing is."""
        if self._stopped:
            due = [self._kill_at]
        else:
            due = [slot.start_at for slot in self._slots if not slot.pid]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _start_due(self) -> None:
        if self._stopped:
            return
        now = time.monotonic()
        for slot in self._slots:
            if not slot.pid and slot.start_at <= now:
                self._start(slot)

    def _start(self, slot: _Slot) -> None:
        channel, worker_channel = socket.socketpair()
        # Until the worker has handlers of its own, its signals wait.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                channel.close()
                self._become_worker(worker_channel, mask)
        except OSError as error:
            channel.close()
            _logger.error("no worker can be started: %s", error.strerror)
            self._mend(slot)
            return
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            worker_channel.close()
        slot.pid = pid
        slot.channel = channel
        slot.ready = False
        slot.started_at = time.monotonic()
        self._selector.register(channel, selectors.EVENT_READ, slot)

    def _become_worker(self, channel: socket.socket, mask: Iterable[int]) -> NoReturn:
        status = os.EX_SOFTWARE
        try:
            self._selector.close()
            for slot in self._slots:
                # A channel that somebody else holds open has no end.
                if slot.pid:
                    slot.channel.close()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # A terminal sends SIGINT to all at once; the supervisor says when to stop.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, _ender(channel))
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            self._work(channel)
            status = os.EX_OK
        except BaseException:
            _logger.exception("worker failed")
        finally:
            # The rest of the stack belongs to the supervisor.
            os._exit(status)

    def _take(self, number: int) -> None:
        """Act on a signal."""
        if number == signal.SIGCHLD:
            self._reap()
        else:
            self._stop()

    def _hear(self, slot: _Slot) -> None:
        """Read what a worker has to say."""
        try:
            said = slot.channel.recv(64)
        except ConnectionResetError:
            said = b""
        if not said:
            # It has closed its end: its death is told by SIGCHLD.
            self._selector.unregister(slot.channel)
            return
        slot.ready = True
        if self._ready is not None and all(each.ready for each in self._slots):
            ready, self._ready = self._ready, None
            if not self._stopped:
                ready()

    def _reap(self) -> None:
        for slot in self._slots:
            if slot.pid:
                pid, status = os.waitpid(slot.pid, os.WNOHANG)
                if pid:
                    self._bury(slot, status)

    def _bury(self, slot: _Slot, status: int) -> None:
        """A worker has ended."""
        if slot.channel in self._selector.get_map():
            self._selector.unregister(slot.channel)
        slot.channel.close()
        pid, slot.pid = slot.pid, 0
        if self._stopped:
            return
        _logger.warning("worker %d %s", pid, _describe(status))
        if self._ready is not None:
            _logger.error("a worker ended before all were ready: giving up")
            self._status = os.EX_SOFTWARE
            self._stop()
            return
        if time.monotonic() - slot.started_at >= _STEADY:
            slot.failures = 0
        self._mend(slot)

    def _mend(self, slot: _Slot) -> None:
        """Start another worker, the later the more of them have failed in a row."""
        delay = 0.0
        if slot.failures:
            delay = min(_FIRST_DELAY * 2.0 ** (slot.failures - 1), _LONGEST_DELAY)
        slot.failures += 1
        slot.start_at = time.monotonic() + delay
        _logger.warning("another worker is started %s", f"in {delay:g} s" if delay else "at once")

    def _stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        self._kill_at = time.monotonic() + self._drain + _KILL_MARGIN
        self._stopping()
        for slot in self._slots:
            if slot.pid:
                slot.channel.shutdown(socket.SHUT_WR)

    def _kill(self) -> None:
        """End the workers that have not ended by themselves."""
        for slot in self._slots:
            if slot.pid:
                _logger.error("worker %d does not stop: it is killed", slot.pid)
                os.kill(slot.pid, signal.SIGKILL)
        self._kill_at = time.monotonic() + _KILL_MARGIN


def _ender(channel: socket.socket) -> Callable[[int, FrameType | None], None]:
    """A signal handler that puts the channel at its end, as if the supervisor had done it."""

    def end(_number: int, _frame: FrameType | None) -> None:
        try:
            channel.shutdown(socket.SHUT_RD)
        except OSError:
            # It is closed: the worker is ending.
            pass

    return end


def _describe(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was ended by {name}"


@contextmanager
def _caught_signals() -> Iterator[tuple[set[int], socket.socket]]:
    """The numbers of the signals that have come, and a socket that is readable when one has."""
    caught: set[int] = set()

    def catch(number: int, _frame: FrameType | None) -> None:
        caught.add(number)

    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        handlers = {number: signal.signal(number, catch) for number in _SIGNALS}
        # A full buffer wakes as well as one octet.
        wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield caught, reader
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in handlers.items():
                signal.signal(number, handler)
