"""What final delivery takes from a message's header: Return-Path, one field with an address, and
how many hosts it has passed.

The invariant: a header is looked at as a whole or not at all, in time that grows with its length.
"""

import re
from functools import lru_cache
from typing import Final, NamedTuple

from lmtp_proto import PathError, parse_mailbox

_END_OF_HEADER: Final = re.compile(rb"\n\r?\n")
_RETURN_PATH: Final = re.compile(
    rb"^return-path[ \t]*:.*\n(?:[ \t].*\n)*", re.IGNORECASE | re.MULTILINE
)
_RECEIVED: Final = re.compile(rb"^received[ \t]*:", re.IGNORECASE | re.MULTILINE)
_BRACKETS: Final = re.compile(r"<([^<>]*)>")
# A field that goes on in further lines, up to where anybody reads it.
_FIELD_LIMIT: Final = 1024
_FOLD: Final = re.compile(rb"\r?\n(?=[ \t])")


class HeaderFields(NamedTuple):
    """Fields of a message, as they came but in one line and no longer than 1 KiB; empty where there
    is none."""

    message_id: bytes = b""
    subject: bytes = b""
    sender: bytes = b""
    """The field From."""


def header_length(block: bytearray, limit: int, *, complete: bool) -> int:
    """How many octets of a message, of which `block` is the beginning or all, are its header.

    0 if there is none, or none that ends within `limit` octets.
    """
    if block.startswith((b"\r\n", b"\n")):
        return 0
    match = _END_OF_HEADER.search(block, 0, limit)
    if match is not None:
        return match.end()
    return len(block) if complete else 0


def hops_in(header: bytes | bytearray) -> int:
    """How many fields Received there are (RFC 5321 6.3)."""
    lower = header.lower()
    count = lower.count(b"\nreceived:") + lower.startswith(b"received:")
    # RFC 5322 4.5.7: there may be blanks before the colon, but nobody writes them.
    if lower.count(b"\nreceived ") or lower.count(b"\nreceived\t"):
        return sum(1 for _ in _RECEIVED.finditer(lower))
    return count


def without_return_path(header: bytes) -> bytes:
    """The header without its Return-Path fields."""
    if b"return-path" not in header.lower():
        return header
    return _RETURN_PATH.sub(b"", header)


def address_in(header: bytes, name: str) -> str | None:
    """The address in the first field `name`, alone or in angle brackets; None if there is none."""
    match = _field(name).search(header)
    if match is None:
        return None
    text = match[1].decode("utf-8", "replace").strip()
    brackets = _BRACKETS.search(text)
    try:
        return str(parse_mailbox(brackets[1] if brackets else text))
    except PathError:
        return None


def fields_in(header: bytes | bytearray) -> HeaderFields:
    """The fields that tell one message from another; of several with one name the first."""
    lower = header.lower()
    return HeaderFields(
        _body(header, lower, b"message-id:"),
        _body(header, lower, b"subject:"),
        _body(header, lower, b"from:"),
    )


def _body(header: bytes | bytearray, lower: bytes | bytearray, name: bytes) -> bytes:
    # Searching for octets is many times faster than a pattern that knows no case.
    begin = 0 if lower.startswith(name) else lower.find(b"\n" + name) + 1
    if not begin and not lower.startswith(name):
        return b""
    begin += len(name)
    last = begin + _FIELD_LIMIT
    end = header.find(b"\n", begin, last)
    while end >= 0 and header[end + 1 : end + 2] in {b" ", b"\t"}:
        end = header.find(b"\n", end + 1, last)
    piece = bytes(header[begin : last if end < 0 else end])
    return (_FOLD.sub(b"", piece) if b"\n" in piece else piece).strip()


@lru_cache(maxsize=4)
def _field(name: str) -> re.Pattern[bytes]:
    # An address does not go on in the next line.
    return re.compile(
        rb"^" + re.escape(name.encode("ascii")) + rb"[ \t]*:(.*)$", re.IGNORECASE | re.MULTILINE
    )
