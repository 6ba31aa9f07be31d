"""A plain LMTP client that shares no code with the packages under test, and raw mail to send."""

import re
import socket
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Final, Self

_SECONDS = 20.0

# Contents that are easily damaged on their way, as sent: CRLF line ends, dots not yet doubled.
NASTY: Final[dict[str, bytes]] = {
    "empty": b"",
    "one empty line": b"\r\n",
    "only empty lines": b"\r\n\r\n\r\n",
    "plain": b"Subject: plain\r\n\r\nbody\r\n",
    "no header": b"\r\nbody alone\r\n",
    "no body": b"Subject: no body\r\n",
    "a lone dot": b".\r\n",
    "dots": b"Subject: dots\r\n\r\n.\r\n..\r\n...\r\n.x\r\n..x\r\nx.\r\n.\r\n\r\n.\r\n",
    "8-bit": b"Subject: 8-bit \xe9\r\n\r\n" + bytes(range(0x80, 0x100)) + b"\r\n",
    "control characters": b"Subject: controls\r\n\r\n"
    + bytes(octet for octet in range(1, 0x20) if octet not in b"\r\n")
    + b"\x7f\r\n",
    "longest line of RFC 5322": b"Subject: 998\r\n\r\n" + b"x" * 998 + b"\r\n",
    "longer line": b"Subject: 5000\r\n\r\n" + b"y" * 5000 + b"\r\n",
    "From in the body": b"Subject: From\r\n\r\nFrom the body\r\n>From it\r\nFrom \r\n",
    "trailing blanks": b"Subject: blanks \r\n\r\n \r\n\t\r\nx \t\r\n\r\n\r\n",
    # Not Return-Path: final delivery may take that out (RFC 5321 4.4).
    "own trace headers": b"Subject: trace\r\nDelivered-To: y@example.test\r\n"
    b"Received: from z\r\n\tby z; z\r\n\r\nReturn-Path: <x@example.test>\r\n",
    "1 MB": b"Subject: 1 MB\r\n\r\n" + b".0123456789abcdef0123456789abcdef\xff\r\n" * 29_000,
}

_TRACE_HEADER = re.compile(rb"(?:Return-Path|Delivered-To|Received):[^\n]*\n(?:[ \t][^\n]*\n)*")


def split_trace(stored: bytes) -> tuple[bytes, bytes]:
    """Split a stored message, LF or CRLF, into the trace headers in front of it and the rest."""
    end = 0
    while found := _TRACE_HEADER.match(stored, end):
        end = found.end()
    return stored[:end], stored[end:]


class Client:
    """One LMTP connection; a context manager. Raises OSError when the connection breaks."""

    def __init__(self, address: str) -> None:
        """Connect to `HOST:PORT` or `unix:PATH` and introduce oneself."""
        target: str | tuple[str, int]
        if address.startswith("unix:"):
            family, target = socket.AF_UNIX, address.removeprefix("unix:")
        else:
            host, _, port = address.rpartition(":")
            family, target = socket.AF_INET, (host, int(port))
        self._socket = socket.socket(family)
        try:
            self._socket.settimeout(_SECONDS)
            self._socket.connect(target)
            self._replies = self._socket.makefile("rb")
            self._expect(b"220")
            self._command(b"LHLO client.test", b"250")
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._replies.close()
        self._socket.close()

    def deliver(self, sender: str, recipients: Sequence[str], content: bytes) -> Iterator[bytes]:
        """Send one message and yield the final reply of each recipient as it comes.

        `content` has CRLF line ends and, unless empty, ends in one. A recipient that is refused
        before the content is an AssertionError.
        """
        self._command(b"MAIL FROM:<%b>" % sender.encode(), b"250")
        for recipient in recipients:
            self._command(b"RCPT TO:<%b>" % recipient.encode(), b"250")
        self._command(b"DATA", b"354")
        # RFC 5321 4.5.2
        self._socket.sendall(re.sub(rb"(?m)^\.", b"..", content) + b".\r\n")
        for _ in recipients:
            yield self._reply()

    def _command(self, line: bytes, code: bytes) -> None:
        self._socket.sendall(line + b"\r\n")
        self._expect(code)

    def _expect(self, code: bytes) -> None:
        reply = self._reply()
        assert reply.startswith(code), reply

    def _reply(self) -> bytes:
        while True:
            line = self._replies.readline()
            if not line.endswith(b"\r\n"):
                raise ConnectionResetError("the server closed the connection")
            if line[3:4] != b"-":
                return line
