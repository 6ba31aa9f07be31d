"""What there is to say of a delivery: the values of the variables of a log line.

The invariant: each value is printable text on one line, of bounded length; nothing is looked up
that no format asks for.
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from lmtp_proto import Recipient, Session
from mailstore import DeliveryReport

from ._fields import decoded
from ._text import printable

# As Dovecot bounds them.
_MESSAGE_ID: Final = 200
_FIELD: Final = 80
# An address (RFC 5321 4.5.3.1.3), and what an original recipient may have more.
_ADDRESS: Final = 320
_MESSAGE: Final = 1000


# Not frozen: that takes longer to make.
@dataclass(slots=True, kw_only=True)
class Line:
    """One delivery, or one that never was."""

    session: Session
    id: str
    """Of the transaction, as the reply has it."""
    sender: str
    recipient: Recipient
    message: str
    """What happened."""
    report: DeliveryReport | None
    """How the store has dealt with it, None where it never came that far."""
    began: float | None
    """When MAIL came, in the time of time.monotonic()."""
    service: str = "lmtp"
    """What has delivered it."""


def user_of(line: Line) -> str:
    """Who it is; the recipient where that is not known."""
    user = "" if line.report is None else line.report.user
    return printable(user or str(line.recipient), _ADDRESS)


def message_id_of(line: Line) -> str:
    """The Message-ID."""
    body = b"" if line.report is None else line.report.fields.message_id
    return printable(body.decode("utf-8", "replace"), _MESSAGE_ID) or "unspecified"


def _subject(line: Line) -> str:
    return "" if line.report is None else decoded(line.report.fields.subject, _FIELD)


def _from(line: Line) -> str:
    return "" if line.report is None else decoded(line.report.fields.sender, _FIELD)


def sender_of(line: Line) -> str:
    """The reverse-path; empty for the null one."""
    return printable(line.sender, _ADDRESS)


def recipient_of(line: Line) -> str:
    """The original recipient, where one is known."""
    original = line.recipient.parameters.orcpt
    return printable(str(line.recipient) if original is None else original.address, _ADDRESS)


def _size(line: Line) -> str:
    return "0" if line.report is None else str(line.report.size)


def _virtual_size(line: Line) -> str:
    return "0" if line.report is None else str(line.report.virtual_size)


def _delivery_time(line: Line) -> str:
    return "0" if line.report is None else str(round(line.report.seconds * 1000))


def _session_time(line: Line) -> str:
    return "0" if line.began is None else str(round((time.monotonic() - line.began) * 1000))


def _storage_id(line: Line) -> str:
    return "" if line.report is None else printable(line.report.storage_id, _ADDRESS)


def _message(line: Line) -> str:
    return printable(line.message, _MESSAGE)


def _username(line: Line) -> str:
    name, at, _ = user_of(line).rpartition("@")
    return name if at else user_of(line)


def _domain(line: Line) -> str:
    return user_of(line).rpartition("@")[2] if "@" in user_of(line) else ""


def _process(_line: Line) -> str:
    return str(os.getpid())


def _service(line: Line) -> str:
    return line.service


def _remote_ip(line: Line) -> str:
    return line.session.client_ip or ""


def _session(line: Line) -> str:
    return printable(line.id, _ADDRESS)


VALUES: Final[Mapping[str, Callable[[Line], str]]] = {
    "message": _message,
    "msgid": message_id_of,
    "subject": _subject,
    "from": _from,
    "from_envelope": sender_of,
    "to_envelope": recipient_of,
    "size": _size,
    "vsize": _virtual_size,
    "delivery_time": _delivery_time,
    "session_time": _session_time,
    "storage_id": _storage_id,
    "user": user_of,
    "username": _username,
    "domain": _domain,
    "pid": _process,
    "process:pid": _process,
    "service": _service,
    "protocol": _service,
    "session": _session,
    "remote_ip": _remote_ip,
    "rip": _remote_ip,
}
"""By the names that Dovecot has for them."""
