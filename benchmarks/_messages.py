"""Message content for load: a small header and lines of 76 base64-like characters, CRLF line ends.

The same arguments always give the same octets, so that two servers compared in one run receive the
same mail.
"""

import functools
import random

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_HEADER = (
    b"From: Load <load@example.com>\r\n"
    b"To: Mailbox <u0@example.org>\r\n"
    b"Subject: load\r\n"
    b"Date: Sun, 22 Nov 2026 12:00:00 +0000\r\n"
    b"Message-ID: <load@example.com>\r\n"
    b"\r\n"
)
_LINE = 76
# Every 200th line begins with a dot when dots are asked for.
_DOT_EVERY = 200
# Random lines are repeated after this many: making them afresh costs more than sending them.
_DISTINCT_LINES = 2000


@functools.cache
def _block(dots: bool) -> bytes:
    """Return the lines that make up every body."""
    generator = random.Random(2033)
    lines = []
    for number in range(_DISTINCT_LINES):
        line = bytes(generator.choices(_ALPHABET, k=_LINE))
        if dots and number % _DOT_EVERY == _DOT_EVERY // 2:
            line = b"." + line[1:]
        lines.append(line + b"\r\n")
    return b"".join(lines)


def content(size: int, *, dots: bool = True) -> bytes:
    """Return message content of exactly `size` octets, before dot-stuffing.

    Raises ValueError for a `size` that has no room for the header and a line.
    """
    room = size - len(_HEADER)
    if room < _LINE:
        raise ValueError(f"message size {size}: give at least {len(_HEADER) + _LINE} octets")
    block = _block(dots)
    # The last line is cut to fit, and is a line all the same: no bare CR in it, CRLF behind it.
    body = (block * (room // len(block) + 1))[: room - 2]
    if body.endswith(b"\r"):
        body = body[:-1] + b"="
    elif body.endswith(b"\n"):
        body = body[:-2] + b"=="
    return _HEADER + body + b"\r\n"


def on_the_wire(message: bytes) -> bytes:
    """Return `message` dot-stuffed and closed by the end of content (RFC 5321 4.5.2)."""
    stuffed = message.replace(b"\r\n.", b"\r\n..")
    if stuffed.startswith(b"."):
        stuffed = b"." + stuffed
    return stuffed + b".\r\n"
