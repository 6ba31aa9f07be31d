"""The system's log, by the protocol of syslog(3): RFC 3164 as it is spoken on /dev/log."""

import logging
import time
from collections.abc import Mapping
from typing import Final

from ._socket import SocketDestination
from ._text import LineFormatter

# Numbers of syslog.h.
FACILITIES: Final[Mapping[str, int]] = {
    "kern": 0,
    "user": 1,
    "mail": 2,
    "daemon": 3,
    "auth": 4,
    "syslog": 5,
    "lpr": 6,
    "news": 7,
    "uucp": 8,
    "cron": 9,
    "authpriv": 10,
    "ftp": 11,
    **{f"local{number}": 16 + number for number in range(8)},
}
_MONTHS: Final = [
    "Jan",
    "Feb",
    "Mar",
    "Apr",
    "May",
    "Jun",
    "Jul",
    "Aug",
    "Sep",
    "Oct",
    "Nov",
    "Dec",
]
# What rsyslog and others take at most, with room for what stands in front.
_LIMIT: Final = 8000


def severity(level: int) -> int:
    """The severity of syslog.h for a level of the logging module."""
    if level >= logging.ERROR:
        return 3
    if level >= logging.WARNING:
        return 4
    return 6 if level >= logging.INFO else 7


class Syslog(SocketDestination):
    """Sends lines to `path` as `facility`."""

    def __init__(self, path: str, facility: str) -> None:
        self._facility = FACILITIES[facility]
        super().__init__(path, LineFormatter())

    def encode(self, record: logging.LogRecord) -> bytes:
        """The datagram for a record."""
        local = time.localtime(record.created)
        when = time.strftime("%H:%M:%S", local)
        # RFC 3164 4.1.2: in English, the day with a blank for a nought.
        stamp = f"{_MONTHS[local.tm_mon - 1]} {local.tm_mday:2} {when}"
        priority = self._facility * 8 + severity(record.levelno)
        line = f"<{priority}>{stamp} lmtp-server[{record.process}]: {self.format(record)}"
        return line.encode("utf-8", "replace")[:_LIMIT]
