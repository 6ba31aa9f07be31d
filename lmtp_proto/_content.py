"""Content on the wire: the dot that ends it and the dots that are stuffed into it.

RFC 5321 4.5.2. Only CRLF "." CRLF ends the content (4.1.1.4): no other sequence of CR, LF and "."
does, whatever the pieces it arrives in. Each octet is searched a constant number of times, by
primitives that run in C.
"""

from typing import Final

_END: Final = b"\r\n.\r\n"
_STUFFED: Final = b"\r\n."
# Octets from which on it pays to go from dot to dot where there are few.
_LARGE: Final = 32768
# Looking at one dot costs no more than a search of so many octets.
_OCTETS_A_DOT: Final = 8192


class DotDecoder:
    """Finds the end of one message's content and takes the stuffed dots out."""

    __slots__ = ("_held", "_started")

    def __init__(self) -> None:
        # The line end in front of the content is that of the DATA command.
        self._held = b"\r\n"
        self._started = False

    def decode(self, data: bytes) -> tuple[bytes, int]:
        """Decode the next octets: `(content, used)`.

        `used` is the number of octets of `data` up to and with the end of the content, or -1 while
        it has not come. A start of the end is held back until the next octets tell.
        """
        held = self._held
        octets = held + data
        if len(octets) > _LARGE:
            return self._decode_large(octets)
        # Without a dot there is neither an end nor a stuffed line; memchr tells at once.
        first = octets.find(_STUFFED) if b"." in octets else -1
        if first >= 0:
            end = octets.find(_END, first)
            if end >= 0:
                used = end + len(_END) - len(held)
                content = octets[: end + 2]
                if first < end:
                    content = content.replace(_STUFFED, b"\r\n")
                return content if self._started else content[2:], used
        keep = _begun(octets)
        self._held = octets[len(octets) - keep :]
        content = octets[: len(octets) - keep]
        if first >= 0:
            content = content.replace(_STUFFED, b"\r\n")
        return self._started_with(content), -1

    def _decode_large(self, octets: bytes) -> tuple[bytes, int]:
        stop = len(octets) - _begun(octets)
        content, end = _unstuff(octets, stop)
        content = self._started_with(content)
        if end >= 0:
            return content, end + len(_END) - len(self._held)
        self._held = octets[stop:]
        return content, -1

    def _started_with(self, content: bytes) -> bytes:
        """`content`, without the line end of the DATA command."""
        if self._started or not content:
            return content
        self._started = True
        return content[2:]


def _begun(octets: bytes) -> int:
    """How much of the end of the content `octets` end with."""
    # Their last octet is one of these then.
    if octets[-1] not in _END:
        return 0
    return next((n for n in (4, 3, 2, 1) if octets.endswith(_END[:n])), 0)


def _unstuff(octets: bytes, stop: int) -> tuple[bytes, int]:
    """The octets without stuffed dots, and where the end of the content begins.

    Up to that, with its first CRLF; without one, which is -1, up to `stop`, behind which all dots
    are left alone.
    """
    # Where dots are few, as in what is encoded, going from dot to dot costs next to nothing, unlike
    # a search for three octets.
    kept = []
    start = 0
    place = octets.find(b".", 0, stop)
    for _ in range(len(octets) // _OCTETS_A_DOT):
        if place < 0:
            kept.append(octets[start:stop])
            return b"".join(kept), -1
        if place >= 2 and octets[place - 2 : place] == b"\r\n":
            kept.append(octets[start:place])
            if octets[place + 1 : place + 3] == b"\r\n":
                return b"".join(kept), place - 2
            start = place + 1
        place = octets.find(b".", place + 1, stop)
    first = octets.find(_STUFFED, start, stop)
    end = octets.find(_END, first) if first >= 0 else -1
    rest = octets[start : stop if end < 0 else end + 2]
    kept.append(rest if first in (-1, end) else rest.replace(_STUFFED, b"\r\n"))
    return b"".join(kept), end


class DotEncoder:
    """Stuffs the dots of one message's content, given in any pieces.

    The content is sent octet for octet; where it does not end in CRLF the final dot would not
    stand on a line of its own, so `finish()` adds one.
    """

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = b"\r\n"

    def encode(self, data: bytes) -> bytes:
        """The octets to send for `data`."""
        tail = self._tail
        self._tail = (tail + data[-2:])[-2:]
        # Most pieces of encoded content have no dot at all.
        if b"." not in data:
            return data
        octets = tail + data
        return octets.replace(b"\r\n.", b"\r\n..")[len(tail) :]

    def finish(self) -> bytes:
        """The octets that end the content."""
        return b".\r\n" if self._tail == b"\r\n" else _END
