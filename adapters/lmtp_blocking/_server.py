"""Listeners, connections and the stop of a server made of threads.

One thread accepts, each connection has its own. All of them are daemon threads: a delivery that
outlives the grace of `stop()` does not keep the process from ending.
"""

import logging
import selectors
import signal
import socket
import threading
import time
from queue import SimpleQueue
from typing import Final

from lmtp_proto import (
    Handler,
    Service,
    Settings,
)
from lmtp_sockets import ACCEPT_PAUSE, accept, peer_name, refuse
from lmtp_transport import Listener, Listeners, PeerLimit, Reception

from ._session import ServerSession

_logger = logging.getLogger("lmtp_blocking")

# Seconds in which a session that was cut off and does not run a job is over.
_CUT_PATIENCE: Final = 1.0


class Server:
    """An LMTP server on threads.

    `handler` decides and delivers; its methods are called in the threads of the connections, of
    which there are `max_connections` at most. Those beyond, and those of one IP address
    beyond `max_connections_per_peer` (None: any number), are answered `421 4.3.2`.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        settings: Settings | None = None,
        max_connections: int = 1000,
        max_connections_per_peer: int | None = None,
    ) -> None:
        self._service = Service(handler, settings)
        self._max_connections = max_connections
        self._peers = (
            None if max_connections_per_peer is None else PeerLimit(max_connections_per_peer)
        )
        self.addresses: list[str] = []
        """Where the server listens: `127.0.0.1:2424`, `[::1]:2424`, `unix:/run/lmtp`."""
        self._acceptor: threading.Thread | None = None
        self._stopping = threading.Event()
        self._sessions: set[ServerSession] = set()
        # Guards the set, and is notified when it is empty.
        self._idle = threading.Condition()

    def start(self, *listeners: str | socket.socket | Listener) -> None:
        """Listen on addresses (`HOST:PORT`, `[IPV6]:PORT`, `unix:PATH`) and listening sockets.

        Connections are accepted when it returns. Raises ValueError for an address that is none,
        OSError where listening fails, RuntimeError when called again; nothing listens then.
        """
        if self._acceptor is not None:
            raise RuntimeError("the server has been started already")
        opened = Listeners(listeners)
        self.addresses = opened.addresses
        # The reading end ends the wait for connections when the writing end is closed.
        self._wakened, self._waker = socket.socketpair()
        self._acceptor = threading.Thread(
            target=self._accept_all, args=(opened,), name="lmtp-accept", daemon=True
        )
        self._acceptor.start()

    def stop(self, grace: float = 30.0) -> None:
        """Accept no more, let running deliveries finish and be answered, say 421 to the rest.

        What is not over after `grace` seconds is cut off; a callable job that still runs then is
        left to itself.
        """
        if self._acceptor is None:
            return
        self._service.stop_flag.requested = True
        self._stopping.set()
        self._waker.close()
        self._acceptor.join()
        with self._idle:
            for session in self._sessions:
                session.stop()
            if self._idle.wait_for(self._is_idle, grace):
                return
            _logger.warning("%d sessions are cut off", len(self._sessions))
            for session in self._sessions:
                session.cut()
            if not self._idle.wait_for(self._is_idle, _CUT_PATIENCE):
                _logger.warning("%d deliveries still run", len(self._sessions))

    def _is_idle(self) -> bool:
        return not self._sessions

    def _accept_all(self, opened: Listeners) -> None:
        try:
            with selectors.DefaultSelector() as selector, self._wakened:
                selector.register(self._wakened, selectors.EVENT_READ)
                for sock, listener in opened.opened:
                    reception = Reception(self._service, listener, time.monotonic, self._peers)
                    selector.register(sock, selectors.EVENT_READ, (sock, reception))
                while not self._stopping.is_set():
                    for key, _ in selector.select():
                        if key.data is not None:
                            self._accept(*key.data)
        finally:
            opened.close()

    def _accept(self, listener: socket.socket, reception: Reception) -> None:
        try:
            accepted = accept(listener)
        except OSError as error:
            _logger.error("cannot accept a connection: %s", error)
            self._stopping.wait(ACCEPT_PAUSE)
            return
        if accepted is None:
            return
        sock, address = accepted
        with self._idle:
            if len(self._sessions) >= self._max_connections:
                refuse(sock, reception.too_many)
                return
            peer, client_ip = peer_name(address)
            session = ServerSession(sock, peer, reception.converse(peer, client_ip))
            self._sessions.add(session)
        try:
            threading.Thread(
                target=self._serve, args=(session,), name="lmtp-session", daemon=True
            ).start()
        except RuntimeError as error:
            # The system gives no more threads.
            _logger.error("cannot serve a connection: %s", error)
            self._over(session)
            refuse(sock, reception.too_many)

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

    Signals reach the main thread alone: in another one this serves until the process ends. Raises
    as `Server.start()` does.
    """
    server = Server(
        handler,
        settings=settings,
        max_connections=max_connections,
        max_connections_per_peer=max_connections_per_peer,
    )
    # Its put() may interrupt its get(), as a signal handler does; an Event's set() may not.
    received: SimpleQueue[int] = SimpleQueue()
    previous = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            previous[number] = signal.signal(number, lambda number, _: received.put(number))
    try:
        server.start(*listeners)
        try:
            received.get()
        finally:
            server.stop(grace)
    finally:
        for number, action in previous.items():
            signal.signal(number, action)
