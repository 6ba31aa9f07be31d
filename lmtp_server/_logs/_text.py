"""Log records as text: for people, and as JSON.

The invariant: one event is one line of printable characters and of bounded length, whatever text
and traceback belong to it.
"""

import json
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

TIMESTAMP: Final = "%Y-%m-%d %H:%M:%S.%f"
_LIMIT: Final = 32_768


def printable(text: str, limit: int = _LIMIT) -> str:
    """`text` with "?" in the place of characters that are not printable - those that turn the
    direction of writing are none - and no longer than `limit` characters."""
    text = text[:limit]
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "?" for c in text)


def one_line(text: str) -> str:
    """The lines of `text` in one."""
    if text.isprintable():
        return text[:_LIMIT]
    return printable(" | ".join(text.splitlines()).replace("\t", " "))


class LineFormatter(logging.Formatter):
    """The message and, in the same line, the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        if record.exc_info is None:
            # The rest of what the base class does is for texts that are made otherwise.
            return one_line(record.getMessage())
        return one_line(super().format(record))


class PlainFormatter(LineFormatter):
    """When, how grave, which process, and the message. `timestamp` is for strftime(3), with %f for
    microseconds."""

    def __init__(self, timestamp: str = TIMESTAMP) -> None:
        super().__init__()
        # In one second only the fraction changes.
        self._parts = timestamp.split("%f") if "%%" not in timestamp else None
        self._timestamp = timestamp
        self._second = -1
        self._stamps: list[str] = []

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        when = self._when(record.created)
        return f"{when} {record.levelname} {record.process} {super().format(record)}"

    def _when(self, created: float) -> str:
        if self._parts is None:
            return printable(datetime.fromtimestamp(created).strftime(self._timestamp))
        second = int(created)
        if second != self._second:
            self._second = second
            local = datetime.fromtimestamp(second)
            self._stamps = [printable(local.strftime(part)) for part in self._parts]
        return f"{int((created - second) * 1_000_000):06}".join(self._stamps)


class JsonFormatter(LineFormatter):
    """An object with time, level, pid, logger, message, and the fields of deliveries."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            "pid": record.process,
            "logger": record.name,
            "message": super().format(record),
        }
        return json.dumps({**line, **fields_of(record)})


def fields_of(record: logging.LogRecord) -> Mapping[str, str]:
    """What a record says beside its message, by name: made where it is asked for."""
    make: Callable[[], Mapping[str, str]] | None = getattr(record, "fields", None)
    return {} if make is None else make()
