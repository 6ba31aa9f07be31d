"""A tiny LMTP server that answers as a test tells it to and keeps the content."""

import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Gives the replies to a verb, with the number of recipients so far. The end of content has the verb
# ".", a connection that has just been opened the verb "". None closes the connection.
Script = Callable[[str, int], bytes | None]


def right(verb: str, recipients: int) -> bytes:
    """Return the replies of a right server."""
    if verb == "LHLO":
        return b"250-test\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
    if verb == ".":
        return b"250 2.0.0 saved\r\n" * recipients
    code = {"": "220", "DATA": "354", "QUIT": "221"}.get(verb, "250")
    return f"{code} text\r\n".encode()


class _Scripted:
    daemon_threads = True

    def __init__(self, script: Script) -> None:
        self.script = script
        self.contents: list[bytes] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """The client's cut is what the tests look at: the server's side of it is no news."""


class _TcpServer(_Scripted, socketserver.ThreadingTCPServer):
    def __init__(self, script: Script) -> None:
        _Scripted.__init__(self, script)
        socketserver.ThreadingTCPServer.__init__(self, ("127.0.0.1", 0), _Handler)

    def address(self) -> str:
        return f"127.0.0.1:{self.socket.getsockname()[1]}"


class _UnixServer(_Scripted, socketserver.ThreadingUnixStreamServer):
    def __init__(self, script: Script, path: str) -> None:
        _Scripted.__init__(self, script)
        socketserver.ThreadingUnixStreamServer.__init__(self, path, _Handler)

    def address(self) -> str:
        return f"unix:{self.socket.getsockname()}"


class _Handler(socketserver.StreamRequestHandler):
    server: _TcpServer | _UnixServer

    def handle(self) -> None:
        recipients = 0
        if not self._answer("", 0):
            return
        for line in self.rfile:
            verb = line[:4].decode().strip().upper()
            recipients = 0 if verb == "MAIL" else recipients + (verb == "RCPT")
            if not self._answer(verb, recipients) or verb == "QUIT":
                return
            if verb == "DATA":
                self.server.contents.append(self._content())
                if not self._answer(".", recipients):
                    return

    def _answer(self, verb: str, recipients: int) -> bool:
        replies = self.server.script(verb, recipients)
        if replies is not None:
            self.wfile.write(replies)
        return replies is not None

    def _content(self) -> bytes:
        """Return the content as it was on the wire, without the end mark."""
        lines: list[bytes] = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line)
        return b"".join(lines)


@contextmanager
def scripted(script: Script, *, path: str | None = None) -> Iterator[tuple[str, list[bytes]]]:
    """Run it on loopback, or on the UNIX socket `path`.

    Gives its address and the list that takes each content, still dot-stuffed.
    """
    server = _TcpServer(script) if path is None else _UnixServer(script, path)
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.address(), server.contents
        finally:
            server.shutdown()
            thread.join()
