"""Messages that can be told apart, and that show whether they are whole."""

import hashlib
import random
from pathlib import Path
from typing import Final

from tests.interop.lmtp import split_trace

SIZES: Final = (10, 2_000, 2_000, 2_000, 50_000, 3_000_000)
"""Octets of a body: mostly small, some larger than what is kept in memory."""


def identified(identity: str, size: int, chance: random.Random) -> bytes:
    """A message with a body of `size` octets, lines ended by CRLF."""
    body = chance.randbytes(size // 2).hex().encode() + b"\r\n"
    return b"X-Identity: %b\r\nX-Digest: %b\r\n\r\n%b" % (
        identity.encode(),
        _digest(body.replace(b"\r\n", b"\n")),
        body,
    )


def identity_of(file: Path) -> str:
    """Check that a stored message is whole and return its identity."""
    header, _, body = split_trace(file.read_bytes())[1].partition(b"\n\n")
    fields = dict(line.partition(b": ")[::2] for line in header.splitlines())
    assert fields.get(b"X-Digest") == _digest(body), f"{file} is torn"
    return fields[b"X-Identity"].decode()


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()
