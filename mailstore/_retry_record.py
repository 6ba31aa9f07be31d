"""Records of what was delivered lately, as they lie in a file: one behind the other, of one size.

The invariant: octets are a record only if their checksum says so. Whatever else is there, torn or
made up, gives no record and no error.
"""

import enum
import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

# Key, message, time and state; the checksum follows. Two records never share a sector in part, so
# that a disk writes one wholly or not at all.
_BODY: Final = struct.Struct("<16s16sQQ")
_TIMES: Final = struct.Struct("<32xQ24x")
_DIGEST: Final = 16
SIZE: Final = _BODY.size + _DIGEST


def digest(*fields: bytes) -> bytes:
    """16 octets that stand for these fields and no others."""
    state = hashlib.blake2b(digest_size=_DIGEST, person=b"lmtp-retries")
    for field in fields:
        state.update(len(field).to_bytes(8, "little"))
        state.update(field)
    return state.digest()


class State(enum.IntEnum):
    """How far a delivery has come."""

    BEGUN = 1
    """The message may be there or not; whether it is tells its name."""
    STORED = 2
    """It was there, durably."""


@dataclass(frozen=True, slots=True)
class Record:
    """One delivery: `key` is the digest of what makes it the same as its retry, `message` that of
    its file name without flags, `time` its begin in nanoseconds since 1970."""

    key: bytes
    message: bytes
    time: int
    state: State

    def pack(self) -> bytes:
        """The octets of the record."""
        body = _BODY.pack(self.key, self.message, self.time, self.state)
        return body + digest(body)

    @classmethod
    def unpack(cls, octets: bytes) -> Self | None:
        """The record that `octets` are, None if they are none."""
        body = octets[: _BODY.size]
        if len(octets) != SIZE or digest(body) != octets[_BODY.size :]:
            return None
        key, message, time, state = _BODY.unpack(body)
        try:
            return cls(key, message, time, State(state))
        except ValueError:
            return None


def find(octets: bytes, key: bytes) -> Iterator[tuple[int, Record]]:
    """The records with this key, each with its number."""
    place = octets.find(key)
    while place >= 0:
        number, rest = divmod(place, SIZE)
        record = None if rest else Record.unpack(octets[place : place + SIZE])
        if record is not None:
            yield number, record
        place = octets.find(key, place + 1)


def by_age(octets: bytes, now: int) -> list[int]:
    """The numbers of all records, what is no record included, those first that may go first."""
    # A time to come is as good as none: clocks are set back by little.
    ages = [abs(now - time) for (time,) in _TIMES.iter_unpack(octets)]
    return sorted(range(len(ages)), key=lambda number: -ages[number])
