"""Counts what happens in one worker, and knows its sessions.

The invariant: all that is counted is added under one lock, since runtimes call from several
threads; it is held for additions alone.
"""

import json
import socket
import threading
import time
from bisect import bisect_left
from typing import Final

from lmtp_proto import Observer, Recipient, Reply, Session, Transaction
from mailstore import StoreObserver

from . import _definitions as d
from ._area import WorkerRow

_OUTCOMES: Final = {2: "accepted", 4: "deferred", 5: "refused"}
# Sessions told in one datagram: none of them is longer than a kilobyte or two.
_AT_ONCE: Final = 24
_MOST_RECIPIENTS: Final = 5
_LONGEST: Final = 128


def _index(metric: d.Metric) -> dict[tuple[str, ...], int]:
    start = d.CELLS[metric.name].start
    return {tuple(labels.values()): start + n for n, labels in enumerate(metric.label_sets())}


_CELL: Final = {
    metric.name: _index(metric) for metric in d.OF_WORKERS if metric.kind != "histogram"
}
_COMMANDS: Final = {
    (verb, int(reply[0])): cell for (verb, reply), cell in _CELL[d.COMMANDS.name].items()
}
_RCPT: Final = {level: _CELL[d.RCPT.name][outcome,] for level, outcome in _OUTCOMES.items()}
_CODES: Final = {int(code): cell for (code,), cell in _CELL[d.RECIPIENTS.name].items()}
_STATUSES: Final = {status: cell for (status,), cell in _CELL[d.STATUSES.name].items()}
_SESSIONS: Final = {end: cell for (end,), cell in _CELL[d.SESSIONS.name].items()}
_MESSAGES: Final = {outcome: cell for (outcome,), cell in _CELL[d.MESSAGES.name].items()}


def _only(metric: d.Metric) -> int:
    return d.CELLS[metric.name].start


_CONNECTIONS: Final = _only(d.CONNECTIONS)
_TRANSACTIONS: Final = _only(d.TRANSACTIONS)
_RECEIVED: Final = _only(d.RECEIVED)
_SENT: Final = _only(d.SENT)
_STORED: Final = _only(d.STORED)
_OPEN: Final = _only(d.OPEN)
_IN_FLIGHT: Final = _only(d.IN_FLIGHT)
_QUEUED: Final = _only(d.QUEUED)


class _Known:
    """What is known of a session."""

    __slots__ = ("content_since", "delivered", "end", "in_flight", "since", "state", "transaction")

    def __init__(self) -> None:
        self.since = time.monotonic()
        self.state = "connected"
        self.end = "lost"
        self.begin(None)

    def begin(self, transaction: Transaction | None) -> None:
        self.transaction = transaction
        # Seconds of the monotonic clock, None before there is content.
        self.content_since: float | None = None
        self.in_flight = 0
        # Whether a recipient has got the message; None before the first final reply.
        self.delivered: bool | None = None


class Counting(Observer, StoreObserver):
    """Counts in `row`, and tells by `channel` who is there when that is asked for."""

    def __init__(self, row: WorkerRow, channel: socket.socket) -> None:
        self._row = row
        self._cells = row.cells
        self._channel = channel
        self._lock = threading.Lock()
        self._known: dict[Session, _Known] = {}
        self._answered = row.asked
        # Datagrams that are yet to be sent.
        self._telling: list[bytes] = []

    def connected(self, session: Session, /) -> None:
        """A session begins."""
        with self._lock:
            self._known[session] = _Known()
            self._cells[_CONNECTIONS] += 1
            self._cells[_OPEN] += 1

    def commanded(self, session: Session, verb: str, reply: Reply, seconds: float, /) -> None:
        """A command has its reply."""
        level = reply.code // 100
        cells = self._cells
        with self._lock:
            cell = _COMMANDS.get((verb, level)) or _COMMANDS.get((d.OTHER, level))
            if cell is not None:
                cells[cell] += 1
            known = self._known.get(session)
            if known is None:
                return
            if verb == "RCPT":
                if level in _RCPT:
                    cells[_RCPT[level]] += 1
                self._observe(d.RCPT_TIME, seconds)
                if level == 2:
                    known.in_flight += 1
                    cells[_IN_FLIGHT] += 1
            elif verb == "QUIT":
                known.end = "quit"
            elif verb in ("DATA", "BDAT") and level in (2, 3):
                if known.content_since is None:
                    # A chunk has come by the time it is answered.
                    ago = seconds if verb == "BDAT" else 0.0
                    known.content_since = time.monotonic() - ago
                verb = "content"
            if verb:
                known.state = verb

    def transaction_begun(self, transaction: Transaction, /) -> None:
        """MAIL was accepted."""
        with self._lock:
            self._cells[_TRANSACTIONS] += 1
            known = self._known.get(transaction.session)
            if known is not None:
                known.begin(transaction)

    def recipient_answered(
        self, transaction: Transaction, _recipient: Recipient, reply: Reply, seconds: float, /
    ) -> None:
        """A recipient has its final reply."""
        cells = self._cells
        with self._lock:
            cells[_CODES[reply.code]] += 1
            if reply.enhanced:
                cells[_STATUSES.get(reply.enhanced) or _STATUSES[d.OTHER]] += 1
            self._observe(d.DELIVERY_TIME, seconds)
            known = self._known.get(transaction.session)
            if known is None:
                return
            if known.delivered is None and known.content_since is not None:
                took = time.monotonic() - seconds - known.content_since
                self._observe(d.CONTENT_TIME, max(0.0, took))
            known.delivered = bool(known.delivered) or reply.code < 300
            if known.in_flight:
                known.in_flight -= 1
                cells[_IN_FLIGHT] -= 1

    def transaction_ended(self, transaction: Transaction, octets: int, _seconds: float, /) -> None:
        """The transaction is over."""
        with self._lock:
            known = self._known.get(transaction.session)
            if known is None:
                return
            outcome = {None: "dropped", False: "failed", True: "delivered"}[known.delivered]
            self._cells[_MESSAGES[outcome]] += 1
            self._cells[_IN_FLIGHT] -= known.in_flight
            if octets:
                self._observe(d.SIZE, octets)
            known.begin(None)
            if known.state == "content":
                known.state = "idle"

    def shut_down(self, session: Session, _reply: Reply, /) -> None:
        """The server ends the session."""
        with self._lock:
            known = self._known.get(session)
            if known is not None:
                known.end = "shut_down"

    def disconnected(
        self, session: Session, octets_in: int, octets_out: int, _seconds: float, /
    ) -> None:
        """The session is over."""
        with self._lock:
            known = self._known.pop(session, None)
            if known is None:
                return
            self._cells[_SESSIONS[known.end]] += 1
            self._cells[_OPEN] -= 1
            self._cells[_RECEIVED] += octets_in
            self._cells[_SENT] += octets_out

    def batch_taken(self, deliveries: int, waiting: int, /) -> None:
        """The store has taken up so many copies; so many wait."""
        with self._lock:
            self._cells[_STORED] += deliveries
            self._cells[_QUEUED] = waiting

    def batch_committed(self, _deliveries: int, seconds: float, /) -> None:
        """They are on disk, or have failed."""
        with self._lock:
            self._observe(d.STORE_TIME, seconds)

    def _observe(self, metric: d.Metric, value: float) -> None:
        cells = d.CELLS[metric.name]
        self._cells[cells.start + bisect_left(metric.limits, value)] += 1
        self._cells[cells.stop - 1] += (
            round(value * d.MICRO) if metric.unit == "seconds" else int(value)
        )

    # Who is there.

    def beat(self) -> None:
        """Answer those who want to know who is there; to be called again and again."""
        asked = self._row.asked
        if asked != self._answered:
            self._answered = asked
            self._telling = self._tell(asked)
        while self._telling:
            try:
                self._channel.send(self._telling[0], socket.MSG_DONTWAIT)
            except BlockingIOError:
                # There is another beat.
                return
            except OSError:
                self._telling.clear()
                return
            del self._telling[0]

    def _tell(self, asked: int) -> list[bytes]:
        with self._lock:
            known = list(self._known.items())
        now = time.monotonic()
        told = [_describe(session, each, now) for session, each in known]
        parts = [told[start : start + _AT_ONCE] for start in range(0, len(told), _AT_ONCE)] or [[]]
        head = {"asked": asked, "place": self._row.place, "of": len(told)}
        return [json.dumps({**head, "sessions": part}).encode() for part in parts]


def _describe(session: Session, known: _Known, now: float) -> dict[str, object]:
    transaction = known.transaction
    recipients = [] if transaction is None else list(transaction.recipients)
    return {
        "id": session.id[:_LONGEST],
        "peer": session.peer[:_LONGEST],
        "tls": session.tls,
        "lhlo": (session.lhlo_domain or "")[:_LONGEST],
        "state": known.state,
        "seconds": round(now - known.since, 1),
        "recipients": [str(each.address)[:_LONGEST] for each in recipients[:_MOST_RECIPIENTS]],
        "more_recipients": max(0, len(recipients) - _MOST_RECIPIENTS),
    }
