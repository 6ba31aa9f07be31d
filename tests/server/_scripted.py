"""A server that answers by a script."""

import socket
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import BinaryIO, Final, Self

from tests.server._program import SECONDS

_ANSWERS: Final = {
    "": b"220 scripted.test LMTP\r\n",
    "LHLO": b"250-scripted.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n",
    "MAIL": b"250 2.1.0 OK\r\n",
    "RCPT": b"250 2.1.5 OK\r\n",
    "DATA": b"354 go on\r\n",
    "RSET": b"250 2.0.0 OK\r\n",
    "QUIT": b"221 2.0.0 bye\r\n",
}
HANG_UP: Final = b""
"""In the place of an answer: the connection is closed."""


class Scripted:
    """Serves one connection in a thread; a context manager that waits for the end of it.

    `script` has answers by the beginning of the line they answer (`""` is the greeting); the
    longest that fits counts, and what it does not have is answered as a good server would.
    `final` answers the content. `lines` are the commands that came, `content` is what stood
    between 354 and the line with the dot.
    """

    def __init__(
        self, script: Mapping[str, bytes] | None = None, *, final: bytes = b"", unix: str = ""
    ) -> None:
        self._script = {**_ANSWERS, **(script or {})}
        self._final = final
        if unix:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(unix)
            self._listener.listen()
            self.address = f"unix:{unix}"
        else:
            self._listener = socket.create_server(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._listener.settimeout(SECONDS)
        self.lines: list[str] = []
        self.content = b""
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._thread.join(SECONDS)
        self._listener.close()
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection, connection.makefile("rb") as lines:
            connection.settimeout(SECONDS)
            try:
                connection.sendall(self._script[""])
                for line in lines:
                    text = line.decode().removesuffix("\r\n")
                    self.lines.append(text)
                    answer = self._answer(text)
                    connection.sendall(answer)
                    if answer == HANG_UP:
                        break
                    if text == "DATA" and answer.startswith(b"354"):
                        self.content = _content(lines)
                        if self._final == HANG_UP:
                            break
                        connection.sendall(self._final)
            except ConnectionError:
                # The client has had enough.
                pass

    def _answer(self, line: str) -> bytes:
        fitting = [start for start in self._script if start and line.startswith(start)]
        return self._script[max(fitting, key=len)]


def _content(lines: BinaryIO) -> bytes:
    """Read up to the line with the dot, or to the end."""
    content = []
    for line in lines:
        if line == b".\r\n":
            break
        content.append(line)
    return b"".join(content)
