"""Who is taken in: how many connections there may be at a time, as whatever counts them says.

The invariant: what has been admitted is left once, however its conversation ends.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from functools import partial

from lmtp_proto import TOO_MANY_CONNECTIONS, Effect, Send, Session


class ConnectionLimit(ABC):
    """Admits sessions, or not. Used in whatever threads the sessions run in."""

    @abstractmethod
    def admit(self, session: Session, /) -> Callable[[], None] | None:
        """Take in a session that is about to begin: what is to be called when it is over, None
        where it is one too many. Its peer is known by now, from a PROXY header if there was one."""


class PeerLimit(ConnectionLimit):
    """Lets one IP address hold `most` conversations at a time; clients of UNIX sockets have none,
    and no limit."""

    def __init__(self, most: int) -> None:
        if most < 1:
            raise ValueError(f"max_connections_per_peer is {most}; at least 1")
        self._most = most
        self._held: dict[str, int] = {}
        self._lock = threading.Lock()

    def admit(self, session: Session, /) -> Callable[[], None] | None:
        """Count the session to its address."""
        client_ip = session.client_ip
        if client_ip is None:
            return _nothing
        with self._lock:
            held = self._held.get(client_ip, 0)
            if held >= self._most:
                return None
            self._held[client_ip] = held + 1
        return partial(self._leave, client_ip)

    def _leave(self, client_ip: str) -> None:
        with self._lock:
            self._held[client_ip] -= 1
            if not self._held[client_ip]:
                del self._held[client_ip]


def _nothing() -> None:
    pass


def within(
    limits: Sequence[ConnectionLimit],
    session: Session,
    conversation: Generator[Effect, None, None],
    deadline: float,
) -> Generator[Effect, None, None]:
    """`conversation`, or a 421 to be written by `deadline` where one of `limits` does not admit
    the session."""
    left: list[Callable[[], None]] = []
    try:
        for limit in limits:
            leave = limit.admit(session)
            if leave is None:
                send = Send()
                send.data = TOO_MANY_CONNECTIONS.wire
                send.deadline = deadline
                yield send
                return
            left.append(leave)
        yield from conversation
    finally:
        conversation.close()
        for leave in left:
            leave()
