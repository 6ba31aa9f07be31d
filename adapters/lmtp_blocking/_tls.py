"""TLS between a conversation and its connection.

It turns octets in memory and has no socket of its own: deadlines and the end of a connection are
what they are without TLS. Nothing is read or written in the clear by it.
"""

import ssl
import time
from collections.abc import Callable
from typing import Final

_BLOCK: Final = 65_536
# Seconds to say that no more is written.
_LEAVE: Final = 1.0


class Tls:
    """A client's TLS over `receive(deadline)` and `send(data, deadline)`, as `Stream` has them.

    Raises ValueError where `context` is to verify a name and there is none.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        server_hostname: str | None,
        receive: Callable[[float], bytes | None],
        send: Callable[[bytes, float], None],
    ) -> None:
        # Without a socket ssl does not look at it, and would verify no name at all.
        if context.check_hostname and not server_hostname:
            raise ValueError("server_hostname is needed: the context verifies the server's name")
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=server_hostname
        )
        self._receive = receive
        self._send = send

    def shake_hands(self, deadline: float) -> str:
        """Do the handshake: protocol and cipher.

        Raises ssl.SSLError where it fails, TimeoutError where it is not over by `deadline`.
        """
        while True:
            try:
                self._object.do_handshake()
            except ssl.SSLWantReadError:
                self._flush(deadline)
                if not self._fill(deadline):
                    raise TimeoutError("the TLS handshake was not over in time") from None
            except ssl.SSLError:
                # The server is told what is wrong with it.
                self._flush(deadline)
                raise
            else:
                self._flush(deadline)
                cipher = self._object.cipher()
                return f"{self._object.version()} {cipher[0] if cipher else ''}"

    def receive(self, deadline: float) -> bytes | None:
        """As `Stream.receive()`; what is no TLS is the end."""
        while True:
            try:
                return self._object.read(_BLOCK)
            except ssl.SSLWantReadError:
                if not self._fill(deadline):
                    return None
            except ssl.SSLError:
                return b""

    def send(self, data: bytes, deadline: float) -> None:
        """As `Stream.send()`."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._object.write(rest) :]
        except ssl.SSLError:
            # The server has broken TLS, or wants another handshake: it is given up.
            return
        self._flush(deadline)

    def leave(self) -> None:
        """Say that no more is written (RFC 8446 6.1)."""
        try:
            self._object.unwrap()
        except ssl.SSLError:
            # The server has not said the same yet; nobody waits for it.
            pass
        self._flush(time.monotonic() + _LEAVE)

    def _flush(self, deadline: float) -> None:
        if self._outgoing.pending:
            self._send(self._outgoing.read(), deadline)

    def _fill(self, deadline: float) -> bool:
        """Read once; False when `deadline` has passed."""
        octets = self._receive(deadline)
        if octets is None:
            return False
        if octets:
            self._incoming.write(octets)
        else:
            self._incoming.write_eof()
        return True
