"""systemd's journal, by its native protocol (systemd.journal-fields(7)), with fields.

The invariant: no text ends a field that it stands in.
"""

import logging
from typing import Final

from ._socket import SocketDestination
from ._syslog import FACILITIES, severity
from ._text import LineFormatter, fields_of

_LIMIT: Final = 32_000


class Journal(SocketDestination):
    """Sends records to `path` with the facility of syslog."""

    def __init__(self, path: str, facility: str) -> None:
        self._facility = FACILITIES[facility]
        super().__init__(path, LineFormatter())

    def encode(self, record: logging.LogRecord) -> bytes:
        """The datagram for a record."""
        fields = {
            "MESSAGE": self.format(record)[:_LIMIT],
            "PRIORITY": str(severity(record.levelno)),
            "SYSLOG_FACILITY": str(self._facility),
            "SYSLOG_IDENTIFIER": "lmtp-server",
            "SYSLOG_PID": str(record.process),
            "LOGGER": record.name,
            **{f"LMTP_{name.upper()}": text for name, text in fields_of(record).items()},
        }
        return b"".join(_field(name, text) for name, text in fields.items())


def _field(name: str, text: str) -> bytes:
    value = text.encode("utf-8", "replace")
    if b"\n" in value:
        return name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
    return name.encode() + b"=" + value + b"\n"
