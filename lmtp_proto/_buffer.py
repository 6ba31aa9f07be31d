"""The octets that have come in and are not used yet.

Octets are never lost, never given out twice and never searched twice; what is kept between two
commands is bounded by the line limit.
"""

from enum import Enum
from typing import Final


class LineFault(Enum):
    """Why the next line is not a command line."""

    TOO_LONG = "the line is too long"
    BARE_LF = "a line feed without carriage return"
    TLS = "a TLS handshake"


# A TLS record that holds a handshake begins so, a command line never does (RFC 8446 5.1).
_TLS_HANDSHAKE: Final = 0x16
_CR: Final = 13
# The longest verb, STARTTLS, and what ends it.
_VERB_SIZE: Final = 9


class InputBuffer:
    """Cuts what comes in into lines that end in CRLF, or hands it on as content."""

    __slots__ = ("_data", "_pending", "_position", "_searched", "_skip_line", "faulty")

    def __init__(self) -> None:
        self._data = b""
        self._position = 0
        # Where the search for the next line end goes on.
        self._searched = 0
        self._pending: list[bytes] = []
        self._skip_line = False
        self.faulty = b""
        """How the line began that was last at fault: as many octets as tell its verb; read-only."""

    def feed(self, data: bytes) -> None:
        """Keep `data` for later; costs nothing per octet already kept."""
        if self._position >= len(self._data) and not self._pending:
            self._data = data
            self._position = self._searched = 0
        else:
            self._pending.append(data)

    def _gather(self) -> bool:
        """Join what was fed to what is left; False when nothing was fed."""
        pending = self._pending
        if not pending:
            return False
        position = self._position
        if position < len(self._data):
            pending.insert(0, self._data[position:])
            self._searched -= position
        else:
            self._searched = 0
        self._data = pending[0] if len(pending) == 1 else b"".join(pending)
        self._position = 0
        self._pending = []
        return True

    def next_line(self, limit: int) -> bytes | LineFault | None:
        """The next line without its CRLF, None while its end has not come.

        A TLS handshake is reported by its first octet: whoever sent it waits for an answer to it.
        A line of more than `limit` octets (CRLF included) or with a bare LF is reported as soon as
        that is known, once; the rest of it up to its CRLF is dropped. So one line has one answer,
        and nothing behind a bare LF is taken for a command.
        """
        while True:
            data = self._data
            if self._skip_line:
                if not self._drop_line() and not self._gather():
                    return None
                continue
            start = self._position
            if start == len(data):
                if not self._gather():
                    # A peer that waits holds nothing.
                    self._data = b""
                    self._position = self._searched = 0
                    return None
                continue
            end = data.find(b"\n", self._searched)
            if data[start] == _TLS_HANDSHAKE:
                return self._fault(LineFault.TLS, start)
            if start < end < start + limit and data[end - 1] == _CR:
                self._position = self._searched = end + 1
                return data[start : end - 1]
            if end < 0:
                if len(data) - start > limit:
                    return self._fault(LineFault.TOO_LONG, start)
                self._searched = len(data)
                if not self._gather():
                    self._compact()
                    return None
                continue
            if end - start >= limit:
                return self._fault(LineFault.TOO_LONG, start)
            self._position = end + 1
            return self._fault(LineFault.BARE_LF, start)

    def _fault(self, fault: LineFault, start: int) -> LineFault:
        self.faulty = self._data[start : start + _VERB_SIZE]
        self._skip_line = True
        self._searched = self._position
        return fault

    def _compact(self) -> None:
        """Let go of what has been used, so that a peer that waits holds only what it has begun."""
        if self._position:
            self._data = self._data[self._position :]
            self._searched -= self._position
            self._position = 0

    def _drop_line(self) -> bool:
        """Drop octets up to the next CRLF; False when more octets are needed to find it."""
        data = self._data
        end = data.find(b"\r\n", self._position)
        if end >= 0:
            self._position = self._searched = end + 2
            self._skip_line = False
            return True
        # A CR at the very end may be half of the CRLF.
        self._position = self._searched = len(data) - data.endswith(b"\r", self._position)
        return False

    def take(self, most: int | None = None) -> bytes:
        """Up to `most` octets as they came (all by default), empty when there are none."""
        if self._position >= len(self._data) and not self._gather():
            return b""
        start = self._position
        data = self._data
        if most is None or most >= len(data) - start:
            self._data = b""
            self._position = self._searched = 0
            return data[start:] if start else data
        self._position = self._searched = start + most
        return data[start : self._position]

    def put_back(self, data: bytes, position: int) -> None:
        """Give back `data[position:]`, the part of the last `take()` that was not used."""
        assert not self._data, "put_back() only follows a take() of everything"
        if position < len(data):
            self._data = data
            self._position = self._searched = position

    def drop(self) -> bool:
        """Drop everything; True when there was something."""
        self._gather()
        found = self._position < len(self._data)
        self._data = b""
        self._position = self._searched = 0
        return found
