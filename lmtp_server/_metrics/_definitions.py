"""Every metric: its name, type, unit and labels, and its cells in a worker's row.

The invariant: what is counted, shown and documented is this one list; the labels of what workers
count have a fixed set of values, none of them made up by a client.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram", "info"]

OTHER: Final = "other"
"""The value of a label for all that has none of its own."""

_VERBS: Final = (
    *("CONNECT", "LHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "VRFY", "NOOP", "HELP", "QUIT"),
    *("STARTTLS", "AUTH", "XCLIENT", "XFORWARD", OTHER),
)
_CLASSES: Final = ("2xx", "3xx", "4xx", "5xx")
_CODES: Final = tuple(map(str, range(200, 600)))
# RFC 3463: class.subject.detail; details that are registered are below 31.
_STATUSES: Final = tuple(
    f"{level}.{subject}.{detail}" for level in "245" for subject in range(8) for detail in range(31)
)
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_OCTETS: Final = tuple(float(1 << power) for power in range(10, 31, 2))

MICRO: Final = 1_000_000
"""Sums of seconds are kept in whole microseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric. `labels` are the names of its labels, each with its values where they are fixed;
    `limits` the upper limits of a histogram's buckets. `by` says who writes it."""

    name: str
    kind: Kind
    about: str
    unit: str = ""
    labels: Mapping[str, tuple[str, ...]]
    limits: tuple[float, ...] = ()
    by: Literal["worker", "supervisor"] = "worker"

    @property
    def cells(self) -> int:
        """How many it has in a row: a histogram's are its buckets, that for all above, the sum."""
        if self.kind == "histogram":
            return len(self.limits) + 2
        count = 1
        for values in self.labels.values():
            count *= len(values)
        return count

    def label_sets(self) -> Iterator[dict[str, str]]:
        """The labels of each cell, in order."""
        sets: list[dict[str, str]] = [{}]
        for name, values in self.labels.items():
            sets = [{**each, name: value} for each in sets for value in values]
        return iter(sets)


def _counter(name: str, about: str, unit: str = "", **labels: tuple[str, ...]) -> Metric:
    return Metric(name=name, kind="counter", about=about, unit=unit, labels=labels)


def _gauge(name: str, about: str) -> Metric:
    return Metric(name=name, kind="gauge", about=about, labels={})


def _times(name: str, about: str) -> Metric:
    return Metric(
        name=name, kind="histogram", about=about, unit="seconds", labels={}, limits=_SECONDS
    )


def _of_service(
    name: str, kind: Kind, about: str, unit: str = "", **labels: tuple[str, ...]
) -> Metric:
    return Metric(name=name, kind=kind, about=about, unit=unit, labels=labels, by="supervisor")


CONNECTIONS: Final = _counter("lmtp_connections", "sessions that have begun")
SESSIONS: Final = _counter(
    "lmtp_sessions",
    "sessions that are over: by QUIT, by a 421 of the server, or the client was gone",
    end=("quit", "shut_down", "lost"),
)
COMMANDS: Final = _counter(
    "lmtp_commands",
    "commands by verb and class of the reply; CONNECT is the greeting",
    verb=_VERBS,
    reply=_CLASSES,
)
RCPT: Final = _counter(
    "lmtp_rcpt",
    "RCPT commands by outcome: 2xx, 4xx, 5xx",
    outcome=("accepted", "deferred", "refused"),
)
RECIPIENTS: Final = _counter(
    "lmtp_recipients", "final replies to recipients by code, behind the content", code=_CODES
)
STATUSES: Final = _counter(
    "lmtp_recipient_statuses",
    "final replies to recipients by enhanced status code (RFC 3463)",
    status=(*_STATUSES, OTHER),
)
TRANSACTIONS: Final = _counter("lmtp_transactions", "transactions that MAIL has begun")
MESSAGES: Final = _counter(
    "lmtp_messages",
    "transactions that are over: delivered to one recipient at least, to none, or dropped before"
    " there was a final reply",
    outcome=("delivered", "failed", "dropped"),
)
RECEIVED: Final = _counter("lmtp_received_bytes", "octets read, without TLS", "bytes")
SENT: Final = _counter("lmtp_sent_bytes", "octets written, without TLS", "bytes")
RCPT_TIME: Final = _times("lmtp_rcpt_duration_seconds", "from RCPT to its reply")
CONTENT_TIME: Final = _times(
    "lmtp_content_duration_seconds", "from DATA, or the first of several BDAT, to the last octet"
)
DELIVERY_TIME: Final = _times(
    "lmtp_delivery_duration_seconds", "from the last octet to a recipient's final reply"
)
SIZE: Final = Metric(
    name="lmtp_message_size_bytes",
    kind="histogram",
    about="content of transactions that had any",
    unit="bytes",
    labels={},
    limits=_OCTETS,
)
STORED: Final = _counter("lmtp_store_deliveries", "copies that the store has taken up")
STORE_TIME: Final = _times(
    "lmtp_store_commit_duration_seconds", "for the store to write and sync one batch of copies"
)
OPEN: Final = _gauge("lmtp_open_sessions", "sessions now")
IN_FLIGHT: Final = _gauge("lmtp_recipients_in_flight", "recipients that wait for their final reply")
QUEUED: Final = _gauge("lmtp_store_queue", "copies that wait for the store's next batch")

OF_WORKERS: Final = (
    *(CONNECTIONS, SESSIONS, COMMANDS, RCPT, RECIPIENTS, STATUSES, TRANSACTIONS, MESSAGES),
    *(RECEIVED, SENT, RCPT_TIME, CONTENT_TIME, DELIVERY_TIME, SIZE, STORED, STORE_TIME),
    *(OPEN, IN_FLIGHT, QUEUED),
)
"""What workers count; each has its cells in their rows, in this order."""

WORKERS: Final = _of_service(
    "lmtp_workers", "gauge", "worker processes", state=("starting", "serving", "leaving")
)
WANTED: Final = _of_service("lmtp_workers_wanted", "gauge", "worker processes there should be")
STARTS: Final = _of_service("lmtp_worker_starts", "counter", "workers started")
FAILURES: Final = _of_service(
    "lmtp_worker_failures", "counter", "workers that have ended though nobody had told them to"
)
MEMORY: Final = _of_service(
    "lmtp_worker_memory_bytes",
    "gauge",
    "resident memory of each worker, by its place",
    "bytes",
    worker=(),
)
START: Final = _of_service(
    "lmtp_start_time_seconds", "gauge", "when the service was started, Unix time", "seconds"
)
BUILD: Final = _of_service("lmtp_build", "info", "what it is", version=(), python=(), runtime=())

METRICS: Final = (*OF_WORKERS, WORKERS, WANTED, STARTS, FAILURES, MEMORY, START, BUILD)
"""All of them."""

_ENDS = [0]
for _metric in OF_WORKERS:
    _ENDS.append(_ENDS[-1] + _metric.cells)

CELLS: Final = {
    metric.name: slice(start, end)
    for metric, (start, end) in zip(OF_WORKERS, pairwise(_ENDS), strict=True)
}
"""Where in a row the cells of a metric are."""

ROW: Final = _ENDS[-1]
"""Cells of a row."""
