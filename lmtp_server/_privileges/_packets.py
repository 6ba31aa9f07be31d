"""Packets between processes: a small JSON object, octets behind it, perhaps one descriptor.

The invariant: a packet is read as a whole or is a `PacketError`; a descriptor that came with one
that is not wanted is closed. Nothing in a packet is run or turned into anything but plain values.
"""

import array
import json
import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_LENGTH: Final = struct.Struct("!I")
_DESCRIPTOR: Final = array.array("i").itemsize
# Enough for the content of a small message, and below what every kernel takes in one packet.
LARGEST: Final = 160 * 1024


class PacketError(Exception):
    """The other side has sent what no honest one would."""


@dataclass(frozen=True, slots=True)
class Packet:
    """What was received. The descriptor, -1 for none, is the receiver's to close."""

    fields: Mapping[str, object]
    octets: bytes
    descriptor: int

    def text(self, name: str) -> str:
        """The field `name`, a text. Raises PacketError."""
        value = self.fields.get(name)
        if not isinstance(value, str):
            raise PacketError(f"{name} is no text")
        return value

    def optional_text(self, name: str) -> str | None:
        """The field `name`, a text or None. Raises PacketError."""
        return None if self.fields.get(name) is None else self.text(name)

    def number(self, name: str) -> int:
        """The field `name`, a whole number from 0. Raises PacketError."""
        value = self.fields.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise PacketError(f"{name} is no number")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """The field `name`, a list of texts. Raises PacketError."""
        value = self.fields.get(name)
        if not isinstance(value, list):
            raise PacketError(f"{name} is no list")
        texts = tuple(item for item in value if isinstance(item, str))
        if len(texts) != len(value):
            raise PacketError(f"{name} has more than texts in it")
        return texts


def encode(fields: Mapping[str, object], octets: bytes = b"") -> bytes:
    """The octets of a packet. Raises PacketError if they are too many."""
    head = json.dumps(fields, separators=(",", ":")).encode("ascii")
    packet = b"".join((_LENGTH.pack(len(head)), head, octets))
    if len(packet) > LARGEST:
        raise PacketError(f"a packet of {len(packet)} octets is too large")
    return packet


def send(channel: socket.socket, packet: bytes, descriptor: int = -1) -> None:
    """Send a packet, perhaps with a descriptor. Raises OSError."""
    control = []
    if descriptor >= 0:
        rights = array.array("i", [descriptor]).tobytes()
        control.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, rights))
    channel.sendmsg([packet], control, socket.MSG_NOSIGNAL)


def receive(channel: socket.socket) -> Packet | None:
    """The next packet, None at the end. Raises PacketError and OSError."""
    data, control, flags, _ = channel.recvmsg(
        LARGEST, socket.CMSG_LEN(_DESCRIPTOR), socket.MSG_CMSG_CLOEXEC
    )
    descriptors = array.array("i")
    for level, kind, value in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(value[: len(value) - len(value) % _DESCRIPTOR])
    try:
        # What did not fit into the room for one descriptor was closed by the kernel.
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or len(descriptors) > 1:
            raise PacketError("too large, or with too many descriptors")
        if not data:
            if descriptors:
                raise PacketError("a descriptor without a packet")
            return None
        fields, octets = _decode(data)
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    return Packet(fields, octets, descriptors[0] if descriptors else -1)


def _decode(data: bytes) -> tuple[Mapping[str, object], bytes]:
    if len(data) < _LENGTH.size:
        raise PacketError("too short")
    end = _LENGTH.size + _LENGTH.unpack_from(data)[0]
    if end > len(data):
        raise PacketError("cut off")
    try:
        fields: object = json.loads(data[_LENGTH.size : end])
    except (ValueError, RecursionError):
        raise PacketError("no JSON") from None
    if not isinstance(fields, dict):
        raise PacketError("no JSON object")
    return fields, data[end:]


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a channel for packets, neither inherited by programs that are executed."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in pair:
        # Less would do for one packet, but the other side need not wait for the next.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * LARGEST)
    return pair
