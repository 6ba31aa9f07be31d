"""Spans: one for each session, in it one for each transaction, in that one for each recipient.

The invariant: no content and no secret is in a span, and what a client has made up is no name of a
span or attribute; a session that is not sampled costs next to nothing.
"""

import logging
import time
from dataclasses import dataclass, field
from typing import Final

from opentelemetry.context import Context
from opentelemetry.trace import (
    NoOpTracer,
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

from lmtp_proto import Observer, Recipient, Reply, Session, Transaction
from mailstore import DeliveryReport

from ._export import Export, TracingOptions

_logger: Final = logging.getLogger("lmtp_server")

_NANO: Final = 1_000_000_000
# Characters of what clients and users have named.
_LONGEST: Final = 320
_UNIX: Final = "unix"

_Attributes = dict[str, AttributeValue]


@dataclass(slots=True)
class _Open:
    """A transaction that is not over."""

    span: Span
    context: Context
    reports: dict[Recipient, DeliveryReport] = field(default_factory=dict)
    answered: int = 0
    delivered: bool = False


class Tracing(Observer):
    """Traces the sessions of one worker. Nothing is made before `start()`."""

    def __init__(self, options: TracingOptions) -> None:
        self._options = options
        self._addresses = options.addresses
        self._export: Export | None = None
        self._tracer: Tracer = NoOpTracer()
        self._sessions: dict[Session, Span] = {}
        self._open: dict[Transaction, _Open] = {}

    def start(self) -> None:
        """Begin, in the process whose sessions these are: threads do not survive a fork."""
        try:
            self._export = Export(self._options)
        except Exception as error:
            # As a variable of the environment that is no good: mail matters more.
            _logger.error("traces: nothing is traced: %s", error)
            return
        self._tracer = self._export.tracer

    def close(self) -> None:
        """The sessions are over: send what waits, for a few seconds at most."""
        if self._export is not None:
            self._export.close()

    def trace_id(self, session: Session) -> str:
        """The trace of a session, in hexadecimal digits; empty where it is not traced."""
        span = self._sessions.get(session)
        return "" if span is None else format(span.get_span_context().trace_id, "032x")

    def report(
        self, transaction: Transaction, recipient: Recipient, report: DeliveryReport
    ) -> None:
        """How a delivery went, before its recipient is answered; in whatever thread."""
        known = self._open.get(transaction)
        if known is not None:
            known.reports[recipient] = report

    def connected(self, session: Session, /) -> None:
        """A session begins."""
        span = self._tracer.start_span(
            "lmtp session",
            context=Context(),
            kind=SpanKind.SERVER,
            attributes=_describe_session(session, self._options.hostname),
        )
        if span.is_recording():
            self._sessions[session] = span

    def transaction_begun(self, transaction: Transaction, /) -> None:
        """MAIL was accepted."""
        parent = self._sessions.get(transaction.session)
        if parent is None:
            return
        attributes: _Attributes = {"lmtp.transaction.id": transaction.id[:_LONGEST]}
        if self._addresses:
            reverse_path = transaction.reverse_path
            text = "" if reverse_path is None else str(reverse_path)
            attributes["lmtp.reverse_path"] = text[:_LONGEST]
        span = self._tracer.start_span(
            "lmtp transaction",
            context=set_span_in_context(parent, Context()),
            attributes=attributes,
        )
        self._open[transaction] = _Open(span, set_span_in_context(span, Context()))

    def recipient_refused(
        self, transaction: Transaction, recipient: Recipient, reply: Reply, /
    ) -> None:
        """RCPT was refused."""
        known = self._open.get(transaction)
        if known is not None:
            self._tell(known, recipient, reply, "refused", {}, 0)

    def recipient_answered(
        self, transaction: Transaction, recipient: Recipient, reply: Reply, seconds: float, /
    ) -> None:
        """A recipient has its final reply."""
        known = self._open.get(transaction)
        if known is None:
            return
        # Replies go out in the order of RCPT.
        known.answered += 1
        attributes: _Attributes = {"lmtp.recipient.id": f"{transaction.id}.{known.answered}"}
        report = known.reports.pop(recipient, None)
        outcome = "saved" if reply.accepted else "failed"
        if report is not None:
            attributes["lmtp.mailbox"] = report.mailbox[:_LONGEST]
            attributes["lmtp.message.size"] = report.size
            if report.error is None:
                attributes["lmtp.storage_id"] = report.storage_id
            elif reply.accepted:
                outcome = "retry"
            if self._addresses:
                attributes["lmtp.user"] = report.user[:_LONGEST]
        known.delivered = known.delivered or reply.accepted
        self._tell(known, recipient, reply, outcome, attributes, round(seconds * _NANO))

    def transaction_ended(self, transaction: Transaction, octets: int, _seconds: float, /) -> None:
        """The transaction is over."""
        known = self._open.pop(transaction, None)
        if known is None:
            return
        outcome = "failed" if known.answered else "dropped"
        if known.delivered:
            outcome = "delivered"
        known.span.set_attributes(
            {
                "lmtp.transaction.outcome": outcome,
                "lmtp.transaction.recipients": len(transaction.recipients),
                "lmtp.content.size": octets,
            }
        )
        known.span.end()

    def shut_down(self, session: Session, reply: Reply, /) -> None:
        """The server ends the session."""
        span = self._sessions.get(session)
        if span is not None:
            span.set_attributes(_describe_reply(reply))

    def disconnected(
        self, session: Session, octets_in: int, octets_out: int, _seconds: float, /
    ) -> None:
        """The session is over."""
        span = self._sessions.pop(session, None)
        if span is None:
            return
        attributes: _Attributes = {
            # XCLIENT may have named it otherwise.
            "lmtp.session.id": session.id[:_LONGEST],
            "lmtp.session.transactions": session.transactions,
            "lmtp.session.octets_in": octets_in,
            "lmtp.session.octets_out": octets_out,
        }
        if session.lhlo_domain is not None:
            attributes["lmtp.lhlo"] = session.lhlo_domain[:_LONGEST]
        if session.tls is not None:
            attributes |= _describe_tls(session.tls)
        span.set_attributes(attributes)
        span.end()

    def _tell(
        self,
        known: _Open,
        recipient: Recipient,
        reply: Reply,
        outcome: str,
        attributes: _Attributes,
        took: int,
    ) -> None:
        """A span that ends now and took so many nanoseconds."""
        now = time.time_ns()
        attributes |= _describe_reply(reply)
        attributes["lmtp.outcome"] = outcome
        if self._addresses:
            attributes["lmtp.recipient"] = str(recipient.address)[:_LONGEST]
        span = self._tracer.start_span(
            "lmtp recipient",
            context=known.context,
            attributes=attributes,
            start_time=now - took,
        )
        if not reply.accepted:
            span.set_attribute("error.type", reply.enhanced or str(reply.code))
            span.set_status(Status(StatusCode.ERROR))
        span.end(now)


def _describe_session(session: Session, hostname: str) -> _Attributes:
    attributes: _Attributes = {
        "lmtp.session.id": session.id[:_LONGEST],
        "lmtp.listener": session.listener,
        "network.protocol.name": "lmtp",
        "network.transport": _UNIX if session.client_ip is None else "tcp",
        "server.address": hostname,
    }
    if session.client_ip is not None:
        attributes["client.address"] = session.client_ip
        port = session.peer.rpartition(":")[2]
        if port.isdecimal():
            attributes["client.port"] = int(port)
        # Behind a PROXY header the client is not who has connected.
        if session.proxy is None:
            attributes["network.peer.address"] = session.client_ip
            if port.isdecimal():
                attributes["network.peer.port"] = int(port)
    return attributes


def _describe_reply(reply: Reply) -> _Attributes:
    attributes: _Attributes = {"lmtp.reply.code": reply.code}
    if reply.enhanced:
        attributes["lmtp.reply.enhanced"] = reply.enhanced
    return attributes


def _describe_tls(tls: str) -> _Attributes:
    protocol, _, cipher = tls.partition(" ")
    attributes: _Attributes = {
        "tls.protocol.name": "tls",
        "tls.protocol.version": protocol.removeprefix("TLSv"),
    }
    if cipher:
        attributes["tls.cipher"] = cipher
    return attributes
