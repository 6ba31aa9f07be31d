"""Bounds how often one kind of line is written: what a client can cause at will fills no disk.

The invariant: the first lines of each kind are written, and how many were left out is.
"""

import logging
import re
import time
from collections.abc import Callable
from typing import Final

INTERVAL: Final = 10.0
"""Seconds for which lines of a kind are counted."""
# More kinds than there are means that texts of clients were taken for kinds.
_MOST_KINDS: Final = 500
# Whose session it is stands in front; what is particular to it follows.
_KIND: Final = re.compile(r"(?:\S+ )?\S+: ([A-Za-z() ]{1,40})")
# A line for each recipient is what it is for.
_UNBOUNDED: Final = "lmtp_server.deliveries"


class _Kind:
    __slots__ = ("count", "since", "words")

    def __init__(self, since: float, words: str) -> None:
        self.since = since
        self.words = words
        self.count = 0


class Repeats:
    """Lets `most` lines of a kind through in ten seconds; 0 is any number. `write` takes the lines
    that say how many were left out; `clock` gives seconds that never go back."""

    def __init__(
        self,
        most: int,
        write: Callable[[logging.LogRecord], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._write = write
        self._clock = clock
        self._kinds: dict[tuple[str, int, str], _Kind] = {}
        self._since = clock()

    def admit(self, record: logging.LogRecord) -> bool:
        """Whether a record is to be written."""
        if not self._most:
            return True
        now = self._clock()
        if now - self._since >= INTERVAL:
            self.tell()
            self._since = now
        if record.name == _UNBOUNDED:
            return True
        words = str(record.msg)
        if words == "%s":
            match = _KIND.match(record.getMessage())
            words = match[1].strip() if match else "others"
        key = record.name, record.levelno, words
        kind = self._kinds.get(key)
        if kind is None:
            if len(self._kinds) >= _MOST_KINDS:
                key = record.name, record.levelno, "others"
            kind = self._kinds.setdefault(key, _Kind(now, words))
        kind.count += 1
        return kind.count <= self._most

    def tell(self) -> None:
        """Say what was left out, and begin anew."""
        kinds, self._kinds = self._kinds, {}
        for (name, level, _), kind in kinds.items():
            more = kind.count - self._most
            if more > 0:
                text = f"{more} more suppressed of: {kind.words!a}"
                self._write(
                    logging.makeLogRecord(
                        {
                            "name": name,
                            "levelno": level,
                            "levelname": logging.getLevelName(level),
                            "msg": text,
                        }
                    )
                )
