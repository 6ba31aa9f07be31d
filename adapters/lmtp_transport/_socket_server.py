"""What servers have in common whose sessions wait in place: how they begin, and how they accept."""

import logging
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from typing import ClassVar, Generic, TypeVar

from lmtp_proto import Effect, Handler, Service, Settings
from lmtp_sockets import ACCEPT_PAUSE, SHARE_PAUSE, accept, peer_name, refuse

from ._listener import Listener, Listeners
from ._peers import ConnectionLimit, PeerLimit
from ._reception import Reception
from ._socket_session import SocketSession

S = TypeVar("S", bound=SocketSession)


class SocketServer(ABC, Generic[S]):
    """An LMTP server: `handler` decides and delivers.

    Connections beyond `max_connections`, and those of one IP address beyond
    `max_connections_per_peer` (None: any number), are answered `421 4.3.2`.
    """

    logger: ClassVar[logging.Logger]
    """The runtime's."""

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
        self._limits: Sequence[ConnectionLimit] = (
            () if max_connections_per_peer is None else (PeerLimit(max_connections_per_peer),)
        )
        self.addresses: list[str] = []
        """Where the server listens: `127.0.0.1:2424`, `[::1]:2424`, `unix:/run/lmtp`."""
        self._listeners: Listeners | None = None
        self._sessions: set[S] = set()

    def start(self, *listeners: str | socket.socket | Listener) -> None:
        """Listen on addresses (`HOST:PORT`, `[IPV6]:PORT`, `unix:PATH`) and listening sockets.

        Connections are accepted when it returns. Raises ValueError for an address that is none,
        OSError where listening fails, RuntimeError when called again; nothing listens then.
        """
        if self._listeners is not None:
            raise RuntimeError("the server has been started already")
        self._listeners = Listeners(listeners)
        self.addresses = self._listeners.addresses
        self._begin_accepting(
            [
                (sock, Reception(self._service, listener, time.monotonic, self._limits))
                for sock, listener in self._listeners.opened
            ]
        )

    def retire(self) -> int:
        """Accept no more and let clients finish what they have begun: 421 is said to those that
        have had a transaction and are not amid another, and later to the others.

        How many connections are left. To be called again, once in a while, until there are none or
        patience ends; then comes `stop()`.
        """
        if self._listeners is None:
            return 0
        self._service.stop_flag.retiring = True
        self._stop_accepting()
        for session in list(self._sessions):
            session.retire()
        return len(self._sessions)

    @abstractmethod
    def _stop_accepting(self) -> None:
        """Undo `_begin_accepting()` and close the listeners; the second time nothing happens."""

    @abstractmethod
    def _begin_accepting(self, receptions: Sequence[tuple[socket.socket, Reception]]) -> None:
        """From now on call `_accept()` whenever somebody waits at one of the sockets."""

    @abstractmethod
    def _pause(self, seconds: float) -> None:
        """Accept nobody for so long."""

    @abstractmethod
    def _begin_session(
        self, sock: socket.socket, peer: str, conversation: Generator[Effect, None, None]
    ) -> bool:
        """Serve a connection, as one of `_sessions`. False where that cannot be done."""

    def _accept(self, listener: socket.socket, reception: Reception) -> None:
        """Take in one who waits at a listener, if anybody does."""
        try:
            accepted = accept(listener)
        except OSError as error:
            self.logger.error("cannot accept a connection: %s", error)
            self._pause(ACCEPT_PAUSE)
            return
        if accepted is None:
            return
        sock, address = accepted
        if len(self._sessions) < self._max_connections:
            peer, client_ip = peer_name(address)
            if self._begin_session(sock, peer, reception.converse(peer, client_ip)):
                if reception.is_shared:
                    self._pause(SHARE_PAUSE)
                return
        refuse(sock, reception.too_many)
