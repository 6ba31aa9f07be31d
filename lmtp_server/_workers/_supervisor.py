"""The supervisor: keeps the workers of a plan running until it is told to stop.

Workers are forked from it, and never share a seat: one that is to go retires when its successor is
ready. A new plan replaces the old one when all of its workers are ready; if one of them fails, the
old plan goes on as if nothing had been asked.

The invariant: once stopped, the supervisor starts no worker and returns only when none is left.
"""

import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final, NoReturn

from ._board import Board, Place
from ._channel import SupervisorEnd, WorkerEnd
from ._notify import Notifier
from ._plan import Plan, PlanError, Post
from ._process import Generation, Seat, Worker
from ._signals import SIGNALS, caught_signals, describe, leave_to_supervisor
from ._title import Title
from ._watcher import Watcher

_logger: Final = logging.getLogger("lmtp_server")

# Seconds between two looks at the workers.
_LOOK: Final = 1.0
# A look that comes so late (seconds) says nothing of the workers: the supervisor was held up, and
# they may have been, too.
_LATE: Final = 2.5
# A sign of life is fresh for so long (seconds).
_FRESH: Final = 3.0
_MOST_WORKERS: Final = 1024


class Supervisor:
    """Runs the workers of `plan`, and those of the plans that `reload` gives at SIGHUP.

    `reload` raises PlanError where there is no new plan. `stopping` is called when SIGTERM or
    SIGINT has come, `reopen` are at SIGUSR1; both before the workers are told.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        reload: Callable[[], Plan],
        stopping: Callable[[], None],
        reopen: Iterable[Callable[[], None]] = (),
        notifier: Notifier | None = None,
        vital: socket.socket | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self._current = Generation(plan)
        self._next: Generation | None = None
        # Workers that have been told to end.
        self._leaving: list[Worker] = []
        self._reload = reload
        self._stopping = stopping
        self._reload_asked = False
        self._reopen = list(reopen)
        self._notifier = notifier or Notifier({})
        self._vital = vital
        self._watcher = watcher or Watcher()
        self._board = Board()
        self._selector = selectors.DefaultSelector()
        # All workers of the first plan have been ready.
        self._started = False
        self._stopped = False
        self._looked_at = time.monotonic()
        self._status = os.EX_OK

    def run(self) -> int:
        """Run the workers until SIGTERM or SIGINT; the exit code for this process.

        A worker that ends is replaced; one that ends before all are ready ends the start instead
        (EX_SOFTWARE). To be called in the main thread of a process that has no other.
        """
        title = Title("lmtp-server")
        with caught_signals() as (caught, wake_up), self._selector:
            self._selector.register(wake_up, selectors.EVENT_READ)
            if self._vital is not None:
                self._selector.register(self._vital, selectors.EVENT_READ)
            try:
                return self._serve(caught, wake_up, title)
            except Exception:
                # A fault of this program: whoever waits for the workers to end is not to wait for
                # ever.
                for worker in self._workers():
                    with suppress(OSError):
                        worker.stop()
                raise

    def _serve(self, caught: list[int], wake_up: socket.socket, title: Title) -> int:
        while True:
            self._start_due()
            for key, _ in self._selector.select(self._timeout()):
                if key.fileobj is self._vital:
                    self._lose(self._vital)
                elif key.data is None:
                    wake_up.recv(4096)
                else:
                    self._hear(key.data)
            while caught:
                self._take(caught.pop(0))
            self._look()
            self._watcher.look(
                [each for one in self._generations() for each in one.workers],
                self._leaving,
                wanted=len(self._current.seats),
                stopping=self._stopped,
            )
            if self._stopped and not self._workers():
                return self._status
            title.show(f"supervisor, {len(self._current.seats)} workers")

    def _lose(self, vital: socket.socket) -> None:
        """A process has ended without which there is no service: who has started this one is to
        start it anew."""
        if vital.recv(64):
            # It lives, and has said something that nobody waits for any more.
            return
        self._selector.unregister(vital)
        if not self._stopped:
            _logger.error("a process has ended that all workers need: giving up")
            self._status = os.EX_SOFTWARE
            self._stop()

    def _generations(self) -> list[Generation]:
        """The one that serves, and the one that is tried."""
        return [self._current] if self._next is None else [self._current, self._next]

    def _workers(self) -> list[Worker]:
        """All processes that live."""
        seated = [worker for each in self._generations() for worker in each.workers]
        return [*seated, *self._leaving]

    def _timeout(self) -> float:
        """Seconds until something is due."""
        due = [self._looked_at + _LOOK]
        if not self._stopped:
            seats = [seat for each in self._generations() for seat in each.seats]
            due += [seat.start_at for seat in seats if seat.worker is None]
        return max(0.0, min(due) - time.monotonic())

    # Starting.

    def _start_due(self) -> None:
        for generation in self._generations():
            for seat in generation.seats:
                if self._stopped:
                    return
                if seat.worker is None and seat.start_at <= time.monotonic():
                    seat.worker = self._fork(generation.plan)
                    if seat.worker is None:
                        self._failed(seat, None)

    def _fork(self, plan: Plan) -> Worker | None:
        """A new worker; None, with a log line, where the system gives none."""
        ours, theirs = socket.socketpair()
        place = None
        # Until the worker has handlers of its own, its signals wait.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            place = self._board.take()
            pid = os.fork()
            if pid == 0:
                ours.close()
                self._become_worker(plan, WorkerEnd(theirs), place, mask)
        except OSError as error:
            ours.close()
            if place is not None:
                self._board.free(place)
            _logger.error("no worker can be started: %s", error.strerror or error)
            return None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            theirs.close()
        worker = Worker(pid, SupervisorEnd(ours), place, plan)
        self._selector.register(worker.channel, selectors.EVENT_READ, worker)
        return worker

    def _become_worker(
        self, plan: Plan, channel: WorkerEnd, place: Place, mask: Iterable[int]
    ) -> NoReturn:
        status = os.EX_SOFTWARE
        try:
            self._selector.close()
            for worker in self._workers():
                # A channel that somebody else holds open has no end.
                worker.channel.close()
            leave_to_supervisor()
            signal.signal(signal.SIGTERM, lambda *_: channel.end())
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            plan.work(Post(channel=channel, place=place))
            status = os.EX_OK
        except BaseException:
            _logger.exception("worker failed")
        finally:
            # The rest of the stack belongs to the supervisor.
            os._exit(status)

    # What workers say.

    def _hear(self, worker: Worker) -> None:
        ready = worker.channel.hear()
        if ready is None:
            # It has closed its end: its death is told by SIGCHLD.
            self._selector.unregister(worker.channel)
        elif ready and worker.ready_at is None:
            worker.ready_at = worker.heard_at = time.monotonic()
            if not self._stopped:
                self._seat_ready(worker)

    def _seat_ready(self, worker: Worker) -> None:
        """A worker has become ready: whoever it was to replace may go."""
        seat = self._current.seat_of(worker)
        if seat is not None and seat.successor is worker:
            predecessor, seat.worker, seat.successor = seat.worker, worker, None
            if predecessor is not None:
                self._retire(predecessor)
        if self._next is not None and self._next.is_ready:
            self._adopt(self._next)
        elif not self._started and self._current.is_ready:
            self._started = True
            self._current.plan.adopted()
            self._tell_ready()
            self._reload_if_asked()

    def _tell_ready(self) -> None:
        self._notifier.status(f"{len(self._current.seats)} workers")
        self._notifier.ready()

    def _retire(self, worker: Worker) -> None:
        self._leaving.append(worker)
        worker.retire()

    # Signals.

    def _take(self, number: int) -> None:
        match number:
            case signal.SIGCHLD:
                self._reap()
            case signal.SIGHUP:
                self._reload_asked = True
                self._reload_if_asked()
            case signal.SIGUSR1:
                for reopen in self._reopen:
                    reopen()
                for worker in self._workers():
                    worker.channel.reopen_logs()
            case signal.SIGTTIN:
                self._add_seat()
            case signal.SIGTTOU:
                self._remove_seat()
            case _:
                self._stop()

    def _add_seat(self) -> None:
        if not self._stopped and len(self._current.seats) < _MOST_WORKERS:
            self._current.seats.append(Seat())
            self._tell_count()

    def _remove_seat(self) -> None:
        if not self._stopped and len(self._current.seats) > 1:
            for worker in self._current.seats.pop().workers:
                self._retire(worker)
            self._tell_count()

    def _tell_count(self) -> None:
        count = len(self._current.seats)
        _logger.info("%d worker%s now, until settings are read anew", count, "s"[: count > 1])
        self._notifier.status(f"{count} workers")

    # Another plan.

    def _reload_if_asked(self) -> None:
        """Begin with a new plan if one is asked for and none is being tried."""
        if not self._reload_asked or not self._started or self._stopped or self._next is not None:
            return
        self._reload_asked = False
        self._notifier.reloading()
        _logger.info("reloading")
        try:
            self._next = Generation(self._reload())
        except PlanError as error:
            for fault in error.faults:
                _logger.error("%s", fault)
            self._keep_old()
        except Exception:
            _logger.exception("the settings cannot be read anew")
            self._keep_old()

    def _keep_old(self) -> None:
        _logger.error("not reloaded: the service goes on with the settings it has")
        self._tell_ready()
        self._reload_if_asked()

    def _adopt(self, following: Generation) -> None:
        """All workers of the next plan are ready: those of the current one may go."""
        leaving, self._current, self._next = self._current, following, None
        for worker in leaving.workers:
            self._retire(worker)
        # Now, since what it closes is served no more; the workers that retire have their own.
        self._current.plan.adopted()
        _logger.info("reloaded")
        self._tell_ready()
        self._reload_if_asked()

    def _give_up_next(self) -> None:
        following = self._next
        if following is None:
            return
        self._next = None
        for worker in following.workers:
            self._leaving.append(worker)
            worker.stop()
        following.plan.dropped()

    # The end of workers.

    def _reap(self) -> None:
        for worker in self._workers():
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if pid:
                self._bury(worker, status)

    def _bury(self, worker: Worker, status: int) -> None:
        """A worker has ended."""
        if worker.channel in self._selector.get_map():
            self._selector.unregister(worker.channel)
        worker.channel.close()
        told = self._stopped or worker in self._leaving
        self._watcher.buried(worker, failed=not told)
        self._board.free(worker.place)
        if worker in self._leaving:
            self._leaving.remove(worker)
            if status and not self._stopped:
                _logger.warning("worker %d, which was to end, %s", worker.pid, describe(status))
            return
        if not self._stopped:
            _logger.warning("worker %d %s", worker.pid, describe(status))
        if self._next is not None and (seat := self._next.seat_of(worker)) is not None:
            _clear(seat, worker)
            if not self._stopped:
                _logger.error("a worker with the new settings ended before all were ready")
                self._give_up_next()
                self._keep_old()
            return
        seat = self._current.seat_of(worker)
        if seat is None:
            return
        _clear(seat, worker)
        if self._stopped:
            return
        if not self._started:
            _logger.error("a worker ended before all were ready: giving up")
            self._status = os.EX_SOFTWARE
            self._stop()
            return
        self._failed(seat, worker)

    def _failed(self, seat: Seat, worker: Worker | None) -> None:
        delay = seat.fail(worker)
        if seat.worker is None:
            _logger.warning(
                "another worker is started %s", f"in {delay:g} s" if delay else "at once"
            )

    def _stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        self._notifier.stopping()
        self._give_up_next()
        self._stopping()
        for worker in self._workers():
            worker.stop()

    # Looking after them.

    def _look(self) -> None:
        now = time.monotonic()
        late = now - self._looked_at
        if late < _LOOK:
            return
        self._looked_at = now
        for worker in self._workers():
            if late > _LATE:
                worker.heard_at = now
            worker.look(now)
            if worker.kill_at is None:
                self._examine(worker, now)
            elif now >= worker.kill_at:
                _logger.error("worker %d does not stop: it is killed", worker.pid)
                worker.kill()
        if not self._stopped:
            for seat in self._current.seats:
                self._renew(seat, now)
        if self._stopped or any(now - each.heard_at < _FRESH for each in self._current.workers):
            self._notifier.alive()

    def _examine(self, worker: Worker, now: float) -> None:
        """See whether a worker has to be killed."""
        if worker.is_silent(now):
            _logger.error(
                "worker %d has given no sign of life for %g s: it is killed; where it was follows,"
                " if it can still say it",
                worker.pid,
                worker.rules.heartbeat,
            )
            worker.abort()
            return
        limit = worker.rules.memory_hard_limit
        if limit is not None and (resident := worker.resident()) > limit:
            _logger.error(
                "worker %d takes %d MiB of memory: it is killed", worker.pid, resident // 2**20
            )
            worker.kill()

    def _renew(self, seat: Seat, now: float) -> None:
        """Start a successor where a worker has done enough."""
        worker = seat.worker
        if (
            worker is None
            or worker.ready_at is None
            or worker.kill_at is not None
            or seat.successor is not None
            or seat.start_at > now
        ):
            return
        limited = worker.rules.memory_limit is not None
        why = worker.is_spent(worker.resident() if limited else 0)
        if why is None:
            return
        _logger.info("worker %d %s: it is replaced", worker.pid, why)
        seat.successor = self._fork(self._current.plan)
        if seat.successor is None:
            seat.fail(None)


def _clear(seat: Seat, worker: Worker) -> None:
    """The worker sits there no more; its successor, if there is one, takes the seat."""
    if seat.worker is worker:
        seat.worker, seat.successor = seat.successor, None
    else:
        seat.successor = None
