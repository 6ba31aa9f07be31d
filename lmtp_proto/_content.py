"""Content on the wire: the dot that ends it and the dots that are stuffed into it.

RFC 5321 4.5.2. Only CRLF "." CRLF ends the content (4.1.1.4): no other sequence of CR, LF and "."
does, whatever the pieces it arrives in. Each octet is searched a constant number of times, by
primitives that run in C.
"""

from typing import Final

_END: Final = b"\r\n.\r\n"
_STUFFED: Final = b"\r\n."


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
        keep = 0
        # The octets may end amid the end of the content: then the last one is one of these.
        if octets[-1] in _END:
            keep = next((n for n in (4, 3, 2, 1) if octets.endswith(_END[:n])), 0)
        self._held = octets[len(octets) - keep :]
        content = octets[: len(octets) - keep]
        if first >= 0:
            content = content.replace(_STUFFED, b"\r\n")
        if not self._started and content:
            self._started = True
            content = content[2:]
        return content, -1


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
