"""Listeners, connections and the stop of a server on asyncio."""

import asyncio
import logging
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Final

from lmtp_proto import (
    Handler,
    Pending,
    Run,
    Service,
    Settings,
)
from lmtp_sockets import ACCEPT_PAUSE, SHARE_PAUSE, accept, refuse
from lmtp_transport import ConnectionLimit, Listener, Listeners, PeerLimit, Reception

from ._session import ServerSession

_logger = logging.getLogger("lmtp_asyncio")

# Connections accepted in one turn of the loop.
_ACCEPTS: Final = 64
# Octets read at once. Twice as many no longer stay in the processor's cache, and malloc(3) takes
# what is larger than 128 KiB from the system anew each time: both double what content costs.
_READ_LIMIT: Final = 124 * 1024


class Server:
    """An LMTP server on the running event loop.

    `handler` decides and delivers. Its jobs that are callables run in `executor` (the loop's
    default when None). Connections beyond `max_connections`, and those of one IP address beyond
    `max_connections_per_peer` (None: any number), are answered `421 4.3.2`.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        settings: Settings | None = None,
        max_connections: int = 1000,
        max_connections_per_peer: int | None = None,
        executor: Executor | None = None,
    ) -> None:
        self._service = Service(handler, settings)
        self._max_connections = max_connections
        self._limits: Sequence[ConnectionLimit] = (
            () if max_connections_per_peer is None else (PeerLimit(max_connections_per_peer),)
        )
        self.executor = executor
        self.stop_flag = self._service.stop_flag
        self.addresses: list[str] = []
        """Where the server listens: `127.0.0.1:2424`, `[::1]:2424`, `unix:/run/lmtp`."""
        self._listeners: Listeners | None = None
        self._adoptions: set[asyncio.Task[None]] = set()
        self._sessions: set[ServerSession] = set()
        # Connections whose conversation is over but which are not closed yet.
        self._closing: set[ServerSession] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.read_buffer = memoryview(bytearray(_READ_LIMIT))
        """For all sessions: what a loop reads is taken out before it reads again."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._completed: deque[tuple[ServerSession, Run, Pending[object]]] = deque()
        self._wake_up_scheduled = False

    async def start(self, *listeners: str | socket.socket | Listener) -> None:
        """Listen on addresses (`HOST:PORT`, `[IPV6]:PORT`, `unix:PATH`) and listening sockets.

        Connections are accepted when it returns. Raises ValueError for an address that is none,
        OSError where listening fails; nothing listens then.
        """
        self._loop = asyncio.get_running_loop()
        self._listeners = Listeners(listeners)
        self.addresses = self._listeners.addresses
        for sock, listener in self._listeners.opened:
            self._listen(sock, Reception(self._service, listener, self._loop.time, self._limits))

    def _accept(self, listener: socket.socket, reception: Reception) -> None:
        """Take in those who wait at a listener, so many that the others get their turn."""
        assert self._loop is not None
        for _ in range(_ACCEPTS):
            try:
                accepted = accept(listener)
            except OSError as error:
                _logger.error("cannot accept a connection: %s", error)
                self._pause(listener, reception, ACCEPT_PAUSE)
                return
            if accepted is None:
                return
            sock, address = accepted
            if len(self._sessions) + len(self._closing) >= self._max_connections:
                refuse(sock, reception.too_many)
                continue
            session = ServerSession(self, self._loop, reception, address)
            self._sessions.add(session)
            self._idle.clear()
            sock.setblocking(False)
            task = self._loop.create_task(self._adopt(session, sock))
            self._adoptions.add(task)
            task.add_done_callback(self._adoptions.discard)
            if reception.is_shared:
                self._pause(listener, reception, SHARE_PAUSE)
                return

    def _pause(self, listener: socket.socket, reception: Reception, seconds: float) -> None:
        assert self._loop is not None
        self._loop.remove_reader(listener)
        self._loop.call_later(seconds, self._listen, listener, reception)

    def _listen(self, listener: socket.socket, reception: Reception) -> None:
        assert self._loop is not None
        if self._listeners is not None:
            self._loop.add_reader(listener, self._accept, listener, reception)

    async def _adopt(self, session: ServerSession, sock: socket.socket) -> None:
        """Make a transport of a connection."""
        assert self._loop is not None
        try:
            await self._loop.connect_accepted_socket(lambda: session, sock)
        except BaseException as error:
            sock.close()
            self.over(session, closed=True)
            if not isinstance(error, Exception):
                raise
            _logger.error("cannot serve a connection: %s", error)

    def retire(self) -> int:
        """Accept no more and let clients finish what they have begun: 421 is said to those that
        have had a transaction and are not amid another, and later to the others.

        How many connections are left. To be called again, once in a while, until there are none or
        patience ends; then comes `stop()`.
        """
        self.stop_flag.retiring = True
        self._stop_accepting()
        for session in list(self._sessions):
            session.retire()
        return len(self._sessions) + len(self._closing)

    def _stop_accepting(self) -> None:
        if self._listeners is not None and self._loop is not None:
            for sock, _ in self._listeners.opened:
                self._loop.remove_reader(sock)
            self._listeners.close()
            self._listeners = None

    async def stop(self, grace: float = 30.0) -> None:
        """Accept no more, let running deliveries finish and be answered, say 421 to the rest.

        What is not over after `grace` seconds is cut off.
        """
        self.stop_flag.requested = True
        self._stop_accepting()
        for session in list(self._sessions):
            session.stop()
        try:
            await asyncio.wait_for(self._idle.wait(), grace)
        except TimeoutError:
            _logger.warning("%d sessions are cut off", len(self._sessions))
        for task in self._adoptions:
            task.cancel()
        await asyncio.gather(*self._adoptions, return_exceptions=True)
        for session in [*self._sessions, *self._closing]:
            session.cut()
        # Transports close in the loop's next turn.
        await asyncio.sleep(0)

    # What sessions call.

    def over(self, session: ServerSession, *, closed: bool) -> None:
        """A conversation has ended; its connection may still have to be closed."""
        self._sessions.discard(session)
        if not closed:
            self._closing.add(session)
        if not self._sessions:
            self._idle.set()

    def lost(self, session: ServerSession) -> None:
        """A connection is closed."""
        self._closing.discard(session)

    def completed(self, session: ServerSession, run: Run, future: Pending[object]) -> None:
        """A job of another thread is over; called in that thread."""
        self._completed.append((session, run, future))
        if not self._wake_up_scheduled:
            self._wake_up_scheduled = True
            assert self._loop is not None
            try:
                self._loop.call_soon_threadsafe(self._take_completed)
            except RuntimeError:
                # The loop is closed: nobody waits for this job, but its value may have to be freed.
                run.run()

    def _take_completed(self) -> None:
        # Lowered before the queue is emptied: what comes after this wakes the loop again.
        self._wake_up_scheduled = False
        while self._completed:
            session, run, future = self._completed.popleft()
            session.job_done(run, future.result)


async def serve(
    handler: Handler,
    *listeners: str | socket.socket | Listener,
    settings: Settings | None = None,
    max_connections: int = 1000,
    max_connections_per_peer: int | None = None,
    grace: float = 30.0,
) -> None:
    """Serve until SIGTERM or SIGINT, or until cancelled; then stop within `grace` seconds.

    Signals are only handled in the main thread. Raises as `Server.start()` does.
    """
    server = Server(
        handler,
        settings=settings,
        max_connections=max_connections,
        max_connections_per_peer=max_connections_per_peer,
    )
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    signals = (
        (signal.SIGTERM, signal.SIGINT)
        if threading.current_thread() is threading.main_thread() and os.name == "posix"
        else ()
    )
    await server.start(*listeners)
    for number in signals:
        loop.add_signal_handler(number, stopped.set)
    try:
        await stopped.wait()
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
        await server.stop(grace)
