"""The line that is logged for each recipient, as Dovecot's LMTP logs it; refusals, too.

The invariant: what the store has stored is in the log, whoever is still there to be told; a line is
made of what was found out anyway, and content is never read for it a second time.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from lmtp_proto import Observer, Recipient, Reply, Session, Transaction
from mailstore import DeliveryReport

from ._delivery_line import Line, message_id_of, recipient_of, sender_of, user_of
from ._line_format import LineFormat
from ._text import printable

_logger: Final = logging.getLogger("lmtp_server.deliveries")
_debug: Final = logging.getLogger("lmtp_server")


@dataclass(slots=True)
class _Open:
    """A transaction that is not over."""

    began: float
    reports: dict[Recipient, DeliveryReport] = field(default_factory=dict)


class DeliveryLog(Observer):
    """Logs deliveries by `line`, a format, with `prefix` in front.

    `report` is for the store, in whatever thread. `trace_id` names the trace of a session, empty
    where it has none. `service` is what delivers, and `describe` says of a negative reply why
    nothing was saved.
    """

    def __init__(
        self,
        line: LineFormat,
        prefix: LineFormat,
        *,
        trace_id: Callable[[Session], str] | None = None,
        service: str = "lmtp",
        describe: Callable[[Reply], str] = str,
    ) -> None:
        self._format = line
        self._prefix = prefix
        self._trace_id = trace_id
        self._service = service
        self._describe = describe
        self._open: dict[Transaction, _Open] = {}

    def report(
        self, transaction: Transaction, recipient: Recipient, report: DeliveryReport
    ) -> None:
        """How a delivery went, before its recipient is answered."""
        known = self._open.get(transaction)
        if known is not None:
            known.reports[recipient] = report
            return
        # The session was cut off. What was stored will come a second time.
        text = "saved mail to" if report.error is None else "save failed to"
        message = f"{text} {report.mailbox}: the client has gone and was not told"
        self._log(self._line(transaction, recipient, message, report, None), None)

    def transaction_begun(self, transaction: Transaction, /) -> None:
        """MAIL was accepted."""
        self._open[transaction] = _Open(time.monotonic())

    def recipient_refused(
        self, transaction: Transaction, recipient: Recipient, reply: Reply, /
    ) -> None:
        """RCPT was refused."""
        known = self._open.get(transaction)
        line = self._line(transaction, recipient, f"refused: {reply}", None, known)
        self._log(line, reply)

    def recipient_answered(
        self, transaction: Transaction, recipient: Recipient, reply: Reply, _seconds: float, /
    ) -> None:
        """A recipient has its final reply."""
        known = self._open.get(transaction)
        report = None if known is None else known.reports.pop(recipient, None)
        message = self._outcome(report, reply)
        self._log(self._line(transaction, recipient, message, report, known), reply)

    def transaction_ended(self, transaction: Transaction, _octets: int, _seconds: float, /) -> None:
        """The transaction is over."""
        self._open.pop(transaction, None)

    def _line(
        self,
        transaction: Transaction,
        recipient: Recipient,
        message: str,
        report: DeliveryReport | None,
        known: _Open | None,
    ) -> Line:
        reverse_path = transaction.reverse_path
        return Line(
            session=transaction.session,
            id=transaction.id,
            sender="" if reverse_path is None else str(reverse_path),
            recipient=recipient,
            message=message,
            report=report,
            began=None if known is None else known.began,
            service=self._service,
        )

    def _outcome(self, report: DeliveryReport | None, reply: Reply) -> str:
        if report is None:
            if reply.accepted:
                return f"saved mail, {reply}"
            return f"not saved: {self._describe(reply)}"
        if report.error is None:
            return f"saved mail to {report.mailbox}"
        if reply.accepted:
            return f"saved mail to {report.mailbox} before: this is a retry"
        return f"save failed to {report.mailbox}: {self._describe(reply)}"

    def _log(self, line: Line, reply: Reply | None) -> None:
        text = self._prefix.expand(line) + self._format.expand(line)
        _logger.info("%s", text, extra={"fields": partial(self._fields, line, reply)})

    def _fields(self, line: Line, reply: Reply | None) -> dict[str, str]:
        fields = _fields(line, reply)
        trace_id = "" if self._trace_id is None else self._trace_id(line.session)
        return {**fields, "trace_id": trace_id} if trace_id else fields


def _fields(line: Line, reply: Reply | None) -> dict[str, str]:
    fields = {
        "user": user_of(line),
        "session": line.id,
        "from_envelope": sender_of(line),
        "to_envelope": recipient_of(line),
        "msgid": message_id_of(line),
        "remote_ip": line.session.client_ip or "",
        "reply": "" if reply is None else printable(str(reply)),
    }
    report = line.report
    if report is not None:
        fields |= {
            "mailbox": printable(report.mailbox),
            "size": str(report.size),
            "storage_id": report.storage_id,
        }
    return fields


class DebugLog(Observer):
    """Logs connections and commands, at debug."""

    def connected(self, session: Session, /) -> None:
        """A session begins."""
        _debug.debug("%s %s: connected", session.id, session.peer)

    def commanded(self, session: Session, verb: str, reply: Reply, seconds: float, /) -> None:
        """A command has its reply."""
        # Without its arguments, which may be secrets.
        _debug.debug(
            "%s %s: %s answered %a in %.3f s", session.id, session.peer, verb, str(reply), seconds
        )

    def disconnected(
        self, session: Session, octets_in: int, octets_out: int, seconds: float, /
    ) -> None:
        """The session is over."""
        _debug.debug(
            "%s %s: disconnected: %d octets read, %d written, in %.3f s",
            *(session.id, session.peer, octets_in, octets_out, seconds),
        )
