"""Listeners, connections and the stop of a server on the hub of the current thread.

One greenlet accepts at each listener, each connection has its own.
"""

import logging
import signal
import socket
import threading
from collections import deque
from collections.abc import Generator, Sequence
from typing import Final

import gevent
import gevent.event
from gevent import Greenlet
from gevent.hub import get_hub

from lmtp_proto import Effect, Handler, Run, Settings
from lmtp_transport import Listener, Reception, SocketServer

from ._session import ServerSession

# Seconds in which a session that was cut off is over.
_CUT_PATIENCE: Final = 1.0
_READ: Final = 1


class Server(SocketServer[ServerSession]):
    """An LMTP server on gevent; `lmtp_transport.SocketServer` says what it takes.

    The methods of `handler` are called in the greenlets of the connections and may wait as gevent
    does. What blocks the thread belongs into a job, which runs in the hub's pool of threads.

    All methods are for the thread that has called `start()`.
    """

    logger = logging.getLogger("lmtp_gevent")

    def _begin_accepting(self, receptions: Sequence[tuple[socket.socket, Reception]]) -> None:
        # Futures that other threads have completed: those of one turn share a wake-up of the hub.
        self._completed: deque[tuple[ServerSession, Run]] = deque()
        self._is_over = False
        self._wake_up = get_hub().loop.async_()
        self._wake_up.start(self._take_completed)
        self._acceptors: list[Greenlet[..., None]] = [
            gevent.spawn(self._accept_all, sock, reception) for sock, reception in receptions
        ]

    def stop(self, grace: float = 30.0) -> None:
        """Accept no more, let running deliveries finish and be answered, say 421 to the rest.

        What is not over after `grace` seconds is cut off; a callable job that still runs then is
        left to itself.
        """
        if self._listeners is None:
            return
        self._service.stop_flag.requested = True
        self._stop_accepting()
        for session in self._sessions:
            session.stop()
        self._join(grace)
        if self._sessions:
            self.logger.warning("%d sessions are cut off", len(self._sessions))
            for session in self._sessions:
                session.cut()
            self._join(_CUT_PATIENCE)
        # Not closed: the thread that completes a future may be about to use it.
        self._wake_up.stop()
        self._is_over = True
        self._take_completed()

    def _stop_accepting(self) -> None:
        gevent.killall(self._acceptors)
        self._acceptors.clear()
        if self._listeners is not None:
            self._listeners.close()

    def _join(self, seconds: float) -> None:
        gevent.joinall([session.greenlet for session in self._sessions], timeout=seconds)

    def _accept_all(self, listener: socket.socket, reception: Reception) -> None:
        hub = get_hub()
        watcher = hub.loop.io(listener.fileno(), _READ)
        try:
            while True:
                # One at a time: sessions get their turn between two connections.
                hub.wait(watcher)
                self._accept(listener, reception)
        finally:
            watcher.close()

    def _pause(self, seconds: float) -> None:
        gevent.sleep(seconds)

    def _begin_session(
        self, sock: socket.socket, peer: str, conversation: Generator[Effect, None, None]
    ) -> bool:
        self._sessions.add(
            ServerSession(sock, peer, conversation, self._complete, self._sessions.discard)
        )
        return True

    def _complete(self, session: ServerSession, run: Run) -> None:
        """A future of `session` is done; called in the thread that has completed it."""
        self._completed.append((session, run))
        if self._is_over:
            self._take_completed()
            return
        try:
            self._wake_up.send()
        except ValueError:
            # The hub is gone: nobody waits for this job any more.
            pass

    def _take_completed(self) -> None:
        try:
            while True:
                session, run = self._completed.popleft()
                run.run()
                session.settled()
        except IndexError:
            pass


def serve(
    handler: Handler,
    *listeners: str | socket.socket | Listener,
    settings: Settings | None = None,
    max_connections: int = 1000,
    max_connections_per_peer: int | None = None,
    grace: float = 30.0,
) -> None:
    """Serve until SIGTERM or SIGINT; then stop within `grace` seconds.

    Signals reach the main thread alone: in another one this serves until its greenlet is killed.
    Raises as `Server.start()` does.
    """
    server = Server(
        handler,
        settings=settings,
        max_connections=max_connections,
        max_connections_per_peer=max_connections_per_peer,
    )
    stopped = gevent.event.Event()
    numbers = (
        (signal.SIGTERM, signal.SIGINT)
        if threading.current_thread() is threading.main_thread()
        else ()
    )
    previous = {number: signal.getsignal(number) for number in numbers}
    watchers = [gevent.signal_handler(number, stopped.set) for number in numbers]
    try:
        server.start(*listeners)
        try:
            stopped.wait()
        finally:
            server.stop(grace)
    finally:
        for watcher in watchers:
            watcher.cancel()
        # The watchers leave the default actions behind.
        for number, action in previous.items():
            if action is not None:
                signal.signal(number, action)
