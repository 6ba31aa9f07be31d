"""Listeners, connections and the stop of a server made of threads.

One thread accepts, each connection has its own. All of them are daemon threads: a delivery that
outlives the grace of `stop()` does not keep the process from ending.
"""

import logging
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Generator, Sequence
from typing import Final

from lmtp_proto import Effect, Handler, Settings
from lmtp_transport import Listener, Reception, SocketServer

from ._session import ServerSession

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

SWITCH_INTERVAL: Final = 0.02
"""Seconds for `sys.setswitchinterval()` where hundreds of clients are served at a time: each thread
that waits for the interpreter wakes once in an interval, and at the interpreter's own 0.005 that
costs more than their mail. `serve()` and the daemon set it."""

# Seconds in which a session that was cut off and does not run a job is over.
_CUT_PATIENCE: Final = 1.0


class Server(SocketServer[ServerSession]):
    """An LMTP server on threads; `lmtp_transport.SocketServer` says what it takes.

    The methods of `handler` are called in the threads of the connections.
    """

    logger = logging.getLogger("lmtp_blocking")

    def _begin_accepting(self, receptions: Sequence[tuple[socket.socket, Reception]]) -> None:
        self._stopping = threading.Event()
        # Guards the sessions, and is notified when there are none.
        self._idle = threading.Condition()
        # The reading end ends the wait for connections when the writing end is closed.
        self._wakened, self._waker = socket.socketpair()
        self._acceptor = threading.Thread(
            target=self._accept_all, args=(receptions,), name="lmtp-accept", daemon=True
        )
        self._acceptor.start()

    def stop(self, grace: float = 30.0) -> None:
        """Accept no more, let running deliveries finish and be answered, say 421 to the rest.

        What is not over after `grace` seconds is cut off; a callable job that still runs then is
        left to itself.
        """
        if self._listeners is None:
            return
        self._service.stop_flag.requested = True
        self._stop_accepting()
        with self._idle:
            for session in self._sessions:
                session.stop()
            if self._idle.wait_for(self._is_idle, grace):
                return
            self.logger.warning("%d sessions are cut off", len(self._sessions))
            for session in self._sessions:
                session.cut()
            if not self._idle.wait_for(self._is_idle, _CUT_PATIENCE):
                self.logger.warning("%d deliveries still run", len(self._sessions))

    def _stop_accepting(self) -> None:
        self._stopping.set()
        self._waker.close()
        self._acceptor.join()

    def _is_idle(self) -> bool:
        return not self._sessions

    def _accept_all(self, receptions: Sequence[tuple[socket.socket, Reception]]) -> None:
        assert self._listeners is not None
        try:
            with selectors.DefaultSelector() as selector, self._wakened:
                selector.register(self._wakened, selectors.EVENT_READ)
                for sock, reception in receptions:
                    selector.register(sock, selectors.EVENT_READ, (sock, reception))
                while not self._stopping.is_set():
                    for key, _ in selector.select():
                        if key.data is not None:
                            self._accept(*key.data)
        finally:
            self._listeners.close()

    def _pause(self, seconds: float) -> None:
        self._stopping.wait(seconds)

    def _begin_session(
        self, sock: socket.socket, peer: str, conversation: Generator[Effect, None, None]
    ) -> bool:
        session = ServerSession(sock, peer, conversation)
        with self._idle:
            self._sessions.add(session)
        try:
            threading.Thread(
                target=self._serve, args=(session,), name="lmtp-session", daemon=True
            ).start()
        except RuntimeError as error:
            # The system gives no more threads.
            self.logger.error("cannot serve a connection: %s", error)
            self._over(session)
            return False
        return True

    def _serve(self, session: ServerSession) -> None:
        try:
            session.serve()
        finally:
            self._over(session)

    def _over(self, session: ServerSession) -> None:
        with self._idle:
            self._sessions.discard(session)
            if not self._sessions:
                self._idle.notify_all()


def serve(
    handler: Handler,
    *listeners: str | socket.socket | Listener,
    settings: Settings | None = None,
    max_connections: int = 1000,
    max_connections_per_peer: int | None = None,
    grace: float = 30.0,
) -> None:
    """Serve until SIGTERM or SIGINT; then stop within `grace` seconds.

    Signals reach the main thread alone: in another one this serves until the process ends. Until
    then the interpreter's switch interval is `SWITCH_INTERVAL` at least. Raises as `Server.start()`
    does.
    """
    server = Server(
        handler,
        settings=settings,
        max_connections=max_connections,
        max_connections_per_peer=max_connections_per_peer,
    )
    previous = {}
    previous_descriptor = -1
    interval = sys.getswitchinterval()
    received, handed = socket.socketpair()
    with received, handed:
        if threading.current_thread() is threading.main_thread():
            # The system may hand a signal to any thread, and that ends no wait for a lock in this
            # one; the octet that is written for each signal, its number, ends this wait.
            handed.setblocking(False)
            previous_descriptor = signal.set_wakeup_fd(handed.fileno(), warn_on_full_buffer=False)
            for number in _SIGNALS:
                previous[number] = signal.signal(number, lambda *_: None)
        sys.setswitchinterval(max(interval, SWITCH_INTERVAL))
        try:
            server.start(*listeners)
            try:
                while received.recv(1)[0] not in _SIGNALS:
                    pass
            finally:
                server.stop(grace)
        finally:
            sys.setswitchinterval(interval)
            for number, action in previous.items():
                signal.signal(number, action)
            if previous:
                signal.set_wakeup_fd(previous_descriptor)
