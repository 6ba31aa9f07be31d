"""A server that answers each of its connections by a script of its own."""

import socket
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import BinaryIO, Final, Self, TypeAlias

from tests.adapters.harness import PATIENCE

_ANSWERS: Final = {
    "": b"220 scripted.test LMTP\r\n",
    "LHLO": b"250-scripted.test\r\n250 PIPELINING\r\n",
    "MAIL": b"250 2.1.0 OK\r\n",
    "RCPT": b"250 2.1.5 OK\r\n",
    "DATA": b"354 go on\r\n",
    ".": b"250 2.0.0 OK\r\n",
    "RSET": b"250 2.0.0 OK\r\n",
    "QUIT": b"221 2.0.0 bye\r\n",
}

HANG_UP: Final = b"hang up"
"""In the place of an answer: the connection is closed."""
SILENCE: Final = b""
"""In the place of an answer: there is none, nor to anything that is said later."""

Script: TypeAlias = Mapping[str, bytes | Sequence[bytes]]


class InTurn:
    """Serves as many connections as it has scripts, in threads; waits for them at the end.

    A script has answers by verb (`""` is the greeting, `.` the end of the content); of several the
    first answers the first such command, and the last one all others. What it does not have is
    answered as a good server would; behind a 421 the connection is closed. `lines` has the commands
    of each connection, `contents` what came behind 354.
    """

    def __init__(self, *scripts: Script) -> None:
        self._scripts = scripts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.lines: list[list[str]] = []
        self.contents: list[bytes] = []
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._listener.close()
            return
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        self._listener.close()

    def _accept(self) -> None:
        for script in self._scripts:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            lines: list[str] = []
            self.lines.append(lines)
            thread = threading.Thread(target=self._serve, args=(connection, script, lines))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket, script: Script, said: list[str]) -> None:
        heard: dict[str, int] = {}

        def answer(verb: str) -> bool:
            answers = script.get(verb, _ANSWERS.get(verb, b"500 5.5.1 what?\r\n"))
            if not isinstance(answers, bytes):
                number = heard.setdefault(verb, 0)
                heard[verb] += 1
                answers = answers[min(number, len(answers) - 1)]
            if answers == HANG_UP:
                return False
            connection.sendall(answers)
            if answers == SILENCE:
                while connection.recv(65_536):
                    pass
            return b"421 " not in answers and answers != SILENCE

        with connection, connection.makefile("rb") as octets:
            connection.settimeout(PATIENCE)
            try:
                go_on = answer("")
                while go_on and (line := octets.readline()):
                    text = line.decode(errors="replace").rstrip("\r\n")
                    said.append(text)
                    go_on = answer(text[:4])
                    if go_on and text == "DATA" and script.get("DATA") is None:
                        complete = self._read_content(octets)
                        go_on = complete and answer(".")
            except OSError:
                # The client has had enough.
                pass

    def _read_content(self, octets: BinaryIO) -> bool:
        content = []
        while (line := octets.readline()) != b".\r\n":
            if not line:
                return False
            content.append(line)
        self.contents.append(b"".join(content))
        return True
