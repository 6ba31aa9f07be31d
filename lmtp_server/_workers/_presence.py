"""The sessions of a worker: who is there, and whether there is room for one more in the service.

The invariant: each session that was admitted counts on the board until it is over.
"""

import threading
from collections.abc import Callable
from functools import partial

from lmtp_proto import Session
from lmtp_transport import ConnectionLimit

from ._board import Place


class Presence(ConnectionLimit):
    """Admits sessions while all workers together hold less than `most` (None: any number).

    Workers look at the same time: those that come in the same instant may be a few too many.
    """

    def __init__(self, place: Place, *, most: int | None) -> None:
        self._place = place
        self._most = most
        self._lock = threading.Lock()
        self._sessions: set[Session] = set()
        self._served = 0
        # Transactions of sessions that are over.
        self._past = 0

    @property
    def sessions(self) -> list[Session]:
        """Those that are there now."""
        with self._lock:
            return list(self._sessions)

    def admit(self, session: Session, /) -> Callable[[], None] | None:
        """Count the session in."""
        with self._lock:
            if self._most is not None and self._place.board.connections() >= self._most:
                return None
            self._sessions.add(session)
            self._served += 1
            self._write()
        return partial(self._leave, session)

    def _leave(self, session: Session) -> None:
        with self._lock:
            self._sessions.discard(session)
            self._past += session.transactions
            self._write()

    def _write(self) -> None:
        self._place.write(connections=len(self._sessions), served=self._served)

    def beat(self) -> None:
        """The worker is well."""
        with self._lock:
            amid = sum(session.transactions for session in self._sessions)
            self._place.write_beat(transactions=self._past + amid)
