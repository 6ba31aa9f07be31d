"""The command `ping`: a short session with a server, for health checks.

The invariant: exit code 0 means that a server has greeted, and has answered LHLO and NOOP in time.
"""

import os
import socket
import ssl
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from lmtp_sockets import connect, parse_address

from ._columns import printable

if TYPE_CHECKING:
    # Without --to only.
    from lmtp_server._settings import ServeSettings

_LINE = 4096
# Lines of one reply.
_LINES = 100


class _PingError(Exception):
    """It does not work; `code` is the exit code for it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def find_address(settings: "ServeSettings") -> tuple[str, bool] | None:
    """Where the server of these settings can be pinged, and whether TLS comes first there; None
    where there is no such place."""
    for each in settings.listeners:
        if not each.proxy_networks and not each.address.startswith("systemd"):
            return each.address, each.tls == "implicit"
    return None


def ping(address: str, *, timeout: float, implicit_tls: bool = False) -> int:
    """Speak LMTP at `address`, for `timeout` seconds at most; the exit code."""
    deadline = time.monotonic() + timeout

    def left() -> float:
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        return seconds

    try:
        with connect(parse_address(address), left()) as sock:
            if implicit_tls:
                with _secure(sock, left()) as secured:
                    _speak(secured, left)
            else:
                _speak(sock, left)
    except _PingError as error:
        sys.stderr.write(f"lmtp-server: {address}: {printable(str(error))}\n")
        return error.code
    except OSError as error:
        why = error.strerror or str(error)
        if isinstance(error, TimeoutError):
            why = f"no answer in {timeout:g} s"
        sys.stderr.write(f"lmtp-server: {address}: {printable(why)}\n")
        return os.EX_TEMPFAIL
    return os.EX_OK


def _secure(sock: socket.socket, timeout: float) -> ssl.SSLSocket:
    # Whether it works is asked, not whose it is.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    sock.settimeout(timeout)
    return context.wrap_socket(sock)


def _speak(sock: socket.socket, left: Callable[[], float]) -> None:
    received = bytearray()
    _expect(sock, received, left, "greeting", 220)
    for command, code in (("LHLO localhost", 250), ("NOOP", 250)):
        sock.settimeout(left())
        sock.sendall(f"{command}\r\n".encode())
        _expect(sock, received, left, command, code)
    try:
        sock.sendall(b"QUIT\r\n")
        _expect(sock, received, left, "QUIT", 221)
    except (OSError, _PingError):
        # What was asked is answered.
        pass


def _expect(
    sock: socket.socket, received: bytearray, left: Callable[[], float], what: str, code: int
) -> None:
    """Read a reply, which should have this code. Raises _PingError."""
    for _ in range(_LINES):
        while b"\n" not in received:
            if len(received) > _LINE:
                raise _PingError(os.EX_UNAVAILABLE, f"{what}: this is not LMTP")
            sock.settimeout(left())
            octets = sock.recv(_LINE)
            if not octets:
                raise _PingError(os.EX_TEMPFAIL, f"{what}: the connection is closed")
            received += octets
        end = received.index(b"\n") + 1
        line = bytes(received[:end]).decode("latin-1").rstrip()
        del received[:end]
        if not line[:3].isdigit() or line[3:4] not in ("", " ", "-"):
            raise _PingError(os.EX_UNAVAILABLE, f"{what}: this is not LMTP: {line[:80]}")
        if line[3:4] != "-":
            if line[:3] != str(code):
                status = os.EX_TEMPFAIL if line[0] == "4" else os.EX_UNAVAILABLE
                raise _PingError(status, f"{what}: {line}")
            return
    raise _PingError(os.EX_UNAVAILABLE, f"{what}: this is not LMTP")
