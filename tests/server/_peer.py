"""The other side of a connection, octet by octet."""

import socket
import struct
from types import TracebackType
from typing import Self

from tests.server._program import SECONDS


def connect(address: str) -> socket.socket:
    """Connect to `HOST:PORT` or `unix:PATH`."""
    if address.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX)
        target: str | tuple[str, int] = address.removeprefix("unix:")
    else:
        host, _, port = address.rpartition(":")
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        target = (host.strip("[]"), int(port))
    try:
        sock.settimeout(SECONDS)
        sock.connect(target)
    except BaseException:
        sock.close()
        raise
    return sock


class Peer:
    """An LMTP client that says what it is told to say; a context manager."""

    def __init__(self, address: str) -> None:
        self.socket = connect(address)
        self._lines = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._lines.close()
        self.socket.close()

    def reset(self) -> None:
        """Close the connection as a broken one: what is on its way is lost."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def write(self, octets: bytes) -> None:
        """Send octets."""
        self.socket.sendall(octets)

    def reply(self) -> str:
        """Read one reply; its last line, `""` when the connection is closed."""
        while True:
            line = self._lines.readline()
            if line[3:4] != b"-":
                return line.decode().removesuffix("\r\n")

    def replies(self, count: int) -> list[str]:
        """Read so many replies."""
        return [self.reply() for _ in range(count)]

    def say(self, line: str) -> str:
        """Send a command line; its reply."""
        self.write(line.encode() + b"\r\n")
        return self.reply()

    def greet(self) -> None:
        """Read the greeting and introduce oneself."""
        assert self.reply().startswith("220 ")
        assert self.say("LHLO client.test").startswith("250 ")

    def begin(self, *recipients: str) -> None:
        """Begin a transaction, up to the 354."""
        assert self.say("MAIL FROM:<sender@example.test>").startswith("250 ")
        for recipient in recipients:
            reply = self.say(f"RCPT TO:<{recipient}>")
            assert reply.startswith("250 "), reply
        assert self.say("DATA").startswith("354 ")

    def read_to_end(self) -> bytes:
        """Read until the server closes."""
        return self._lines.read()


def deliver(
    address: str, *recipients: str, content: bytes = b"Subject: x\r\n\r\nx\r\n"
) -> list[str]:
    """Deliver one message over a connection of its own; the final replies."""
    with Peer(address) as peer:
        peer.greet()
        peer.begin(*recipients)
        peer.write(content + b".\r\n")
        return peer.replies(len(recipients))
