"""Replies: what a server says to a command, and how a client reads it.

A `Reply` is checked when it is made, so that whatever is sent is well formed: RFC 5321 4.2 for the
lines, RFC 2034 and RFC 3463 for the enhanced status code.
"""

import re
from functools import lru_cache
from typing import Final

from ._errors import RemoteProtocolError

# RFC 5321 4.5.3.1.5: a reply line has at most 512 octets, CRLF included.
_LINE_LIMIT: Final = 512
# RFC 4954 4: the longest line of an authentication exchange.
_CHALLENGE_LIMIT: Final = 12_288
_ENHANCED: Final = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")
_UNPRINTABLE: Final = re.compile(r"[^ -~]")


class Reply:
    """One reply, immutable.

    `code` is the three-digit reply code (200 to 599), `lines` the text, one item a line.
    `enhanced` is the enhanced status code such as `"5.1.1"`; left out it is the general one of the
    code's class (`"5.0.0"`), as RFC 2034 4 wants one in every 2xx, 4xx and 5xx reply; `""` leaves
    it out, as the greeting and the LHLO reply must. Octets that are not printable ASCII become
    "?" and a line is cut at 512 octets (12,288 of code 334), so that no text can break the reply.

    Raises ValueError for a code or enhanced status code that no reply can have.
    """

    __slots__ = ("code", "enhanced", "lines", "wire")

    def __init__(self, code: int, *lines: str, enhanced: str | None = None) -> None:
        if not 200 <= code <= 599:
            raise ValueError(f"reply code {code} is not between 200 and 599 (RFC 5321 4.2.1)")
        kind = code // 100
        if enhanced is None:
            enhanced = "" if kind == 3 else f"{kind}.0.0"
        elif enhanced and (_ENHANCED.fullmatch(enhanced) is None or enhanced[0] != str(kind)):
            raise ValueError(
                f"enhanced status code {enhanced!r} does not fit reply code {code} (RFC 3463 2)"
            )
        self.code: Final = code
        self.enhanced: Final = enhanced
        self.lines: Final = lines or ("",)
        self.wire: Final = _encode(code, enhanced, self.lines)
        """The octets to send, CRLF included."""

    @property
    def text(self) -> str:
        """The text of all lines, joined by newlines."""
        return "\n".join(self.lines)

    @property
    def accepted(self) -> bool:
        """Whether the reply is positive: 2xx or 3xx."""
        return self.code < 400

    def __bytes__(self) -> bytes:
        return self.wire

    def __str__(self) -> str:
        return " ".join(part for part in (str(self.code), self.enhanced, self.text) if part)

    def __repr__(self) -> str:
        return f"<Reply {self!s}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Reply):
            return NotImplemented
        return (self.code, self.enhanced, self.lines) == (other.code, other.enhanced, other.lines)

    def __hash__(self) -> int:
        return hash((self.code, self.enhanced, self.lines))


def _encode(code: int, enhanced: str, lines: tuple[str, ...]) -> bytes:
    status = f"{enhanced} " if enhanced else ""
    if len(lines) == 1:
        # By far the most frequent, and made for each recipient of each message.
        line = lines[0]
        if not (line.isascii() and line.isprintable()):
            line = _UNPRINTABLE.sub("?", line)
        limit = _CHALLENGE_LIMIT if code == 334 else _LINE_LIMIT
        return f"{code} {status}{line}"[: limit - 2].encode("ascii") + b"\r\n"
    room = _LINE_LIMIT - len("250-\r\n") - len(status)
    out = []
    for line in lines:
        if not (line.isascii() and line.isprintable()):
            line = _UNPRINTABLE.sub("?", line)
        out.append(f"{code}-{status}{line[:room]}\r\n")
    last = out[-1]
    out[-1] = f"{last[:3]} {last[4:]}"
    return "".join(out).encode("ascii")


_REPLY_LINE: Final = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)


# Most replies come back, word for word; what does not costs a look-up more.
@lru_cache(maxsize=256)
def _whole_reply(line: bytes) -> Reply | None:
    """The reply that `line` is all of; None when others follow it, or it is none."""
    match = _REPLY_LINE.fullmatch(line)
    if match is None or match[2] == b"-":
        return None
    return received_reply(int(match[1]), [(match[3] or b"").decode("utf-8", "replace")])


class ReplyReader:
    """Puts the lines of a reply together, as a client reads them.

    The text is kept as UTF-8 where it is (RFC 6531 3.7.4), undecodable octets are replaced.
    `limit` bounds the octets of one reply.
    """

    __slots__ = ("_code", "_limit", "_lines", "_size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._code = b""
        self._lines: list[str] = []
        self._size = 0

    def add(self, line: bytes) -> Reply | None:
        """Take one line without its line end; give the reply once its last line is there.

        Raises RemoteProtocolError for a line that is not a reply line, for lines with different
        codes and for a reply that is longer than the limit.
        """
        if not self._lines and len(line) <= _LINE_LIMIT:
            reply = _whole_reply(line)
            if reply is not None:
                return reply
        match = _REPLY_LINE.fullmatch(line)
        if match is None:
            raise RemoteProtocolError(f"not a reply line: {line[:80]!r}")
        code, separator, text = match.groups()
        if self._lines and code != self._code:
            raise RemoteProtocolError(f"reply code changed from {self._code!r} to {code!r}")
        self._size += len(line)
        if self._size > self._limit:
            raise RemoteProtocolError(f"a reply of more than {self._limit} octets")
        self._code = code
        self._lines.append((text or b"").decode("utf-8", "replace"))
        if separator == b"-":
            return None
        reply = received_reply(int(code), self._lines)
        self._lines = []
        self._size = 0
        return reply


def received_reply(code: int, lines: list[str]) -> Reply:
    """The `Reply` for lines read from the wire: the enhanced status code is taken off each."""
    enhanced = ""
    word = lines[0].partition(" ")[0]
    if _ENHANCED.fullmatch(word) and word[0] == str(code // 100):
        enhanced = word
        lines = [
            line[len(word) + 1 :] if line.partition(" ")[0] == word else line for line in lines
        ]
    return Reply(code, *lines, enhanced=enhanced)
