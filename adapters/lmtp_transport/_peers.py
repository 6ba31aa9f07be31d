"""How many connections one peer holds, so that none takes up those of all others."""

import threading
from collections.abc import Generator

from lmtp_proto import TOO_MANY_CONNECTIONS, Effect, Send


class PeerLimit:
    """Lets one IP address hold `most` conversations at a time, in whatever threads."""

    def __init__(self, most: int) -> None:
        if most < 1:
            raise ValueError(f"max_connections_per_peer is {most}; at least 1")
        self._most = most
        self._held: dict[str, int] = {}
        self._lock = threading.Lock()

    def hold(
        self, client_ip: str, conversation: Generator[Effect, None, None], deadline: float
    ) -> Generator[Effect, None, None]:
        """`conversation`, or a 421 to be written by `deadline` where it is one too many."""
        with self._lock:
            held = self._held.get(client_ip, 0)
            admitted = held < self._most
            if admitted:
                self._held[client_ip] = held + 1
        try:
            if admitted:
                yield from conversation
            else:
                send = Send()
                send.data = TOO_MANY_CONNECTIONS.wire
                send.deadline = deadline
                yield send
        finally:
            conversation.close()
            if admitted:
                self._leave(client_ip)

    def _leave(self, client_ip: str) -> None:
        with self._lock:
            self._held[client_ip] -= 1
            if not self._held[client_ip]:
                del self._held[client_ip]
