"""Trace header fields of final delivery: Return-Path, Delivered-To and Received (RFC 5321 4.4).

The invariant: whatever a peer sent, the result is exactly these fields. Nothing from the wire ends
a line, opens a comment or begins a field of its own.
"""

import re
import time
from functools import lru_cache
from typing import Final

from lmtp_proto import Recipient, Session, Transaction

from ._options import DeliveredTo, TraceOptions

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)
# What names, addresses of hosts and ids consist of; brackets and colons are those of literals.
_NOT_IN_TOKEN: Final = re.compile(r"[^A-Za-z0-9._:\[\]%=+/~-]")


class TraceHeader:
    """The trace header of one message, made for each of its recipients.

    `hostname` is the name of this host in Received; `when` the time of arrival in seconds since
    1970, now if left out. The octets end their lines with LF; `line_end` gives another.
    """

    __slots__ = (
        *("_delivered_to", "_line_end", "_received", "_return_path", "_single", "_stamp"),
        "hop_limit",
    )

    def __init__(
        self,
        transaction: Transaction,
        hostname: str,
        *,
        options: TraceOptions,
        when: float | None = None,
        line_end: str = "\n",
    ) -> None:
        self.hop_limit = options.hop_limit
        self._delivered_to = options.delivered_to
        session = transaction.session
        # RFC 3848: LMTPS is LMTP under TLS.
        protocol = "LMTPS" if session.tls else "LMTP"
        self._line_end = line_end
        reverse_path = transaction.reverse_path
        self._return_path = self._received = ""
        if options.return_path:
            path = _printable("" if reverse_path is None else str(reverse_path))
            self._return_path = f"Return-Path: <{path}>{line_end}"
        if options.received:
            self._received = (
                f"Received: from {_client(session)}{line_end}"
                f"\tby {_token(hostname)} with {protocol} id {_token(transaction.id)}"
            )
        # RFC 5321 7.2: naming one of several recipients would tell the others of it.
        self._single = len(transaction.recipients) == 1
        self._stamp = format_date(int(time.time() if when is None else when))

    def for_recipient(self, recipient: Recipient, original: str | None) -> bytes:
        """The octets to put in front of the copy of `recipient`.

        `original` is the original recipient that the message itself names; ORCPT counts more.
        """
        end = self._line_end
        mailbox = _printable(str(recipient.address))
        header = self._return_path
        if self._delivered_to is DeliveredTo.FINAL:
            header += f"Delivered-To: {mailbox}{end}"
        elif self._delivered_to is DeliveredTo.ORIGINAL:
            header += f"Delivered-To: {_original(recipient, original)}{end}"
        if self._received:
            clause = f"{end}\tfor <{mailbox}>" if self._single else ""
            header += f"{self._received}{clause};{end}\t{self._stamp}{end}"
        return header.encode()


def _original(recipient: Recipient, named: str | None) -> str:
    orcpt = recipient.parameters.orcpt
    # RFC 3461 4.2, RFC 6533 3: addresses of other types are not those of mail.
    if orcpt is not None and orcpt.addr_type.lower() in {"rfc822", "utf-8"}:
        named = orcpt.address
    return _printable(named or str(recipient.address))


# Many messages arrive in one second.
@lru_cache(maxsize=4)
def format_date(when: int) -> str:
    """`when` (seconds since 1970) in local time as RFC 5322 3.3 writes it, in no one's language."""
    local = time.localtime(when)
    sign = "-" if local.tm_gmtoff < 0 else "+"
    hours, minutes = divmod(abs(local.tm_gmtoff) // 60, 60)
    return (
        f"{_DAYS[local.tm_wday]}, {local.tm_mday} {_MONTHS[local.tm_mon - 1]} {local.tm_year:04}"
        f" {local.tm_hour:02}:{local.tm_min:02}:{local.tm_sec:02} {sign}{hours:02}{minutes:02}"
    )


def _client(session: Session) -> str:
    """`from` clause without the word: the name the client gave and where it really is."""
    name = _token(session.lhlo_domain or "unknown")
    address = session.client_ip
    if address is None:
        return name
    # RFC 5321 4.1.3: the literal of an IPv6 address has a tag.
    tag = "IPv6:" if ":" in address else ""
    return f"{name} ([{tag}{_token(address)}])"


def _token(text: str) -> str:
    return _NOT_IN_TOKEN.sub("?", text)


def _printable(text: str) -> str:
    """`text` without control characters, separators other than SP, and lone surrogates."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "?" for c in text)
