"""A Redis or Valkey server, private to the test that starts it."""

import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

_START_SECONDS = 20.0
_POLL_SECONDS = 0.02


class PrivateRedis:
    """A server on a UNIX socket and, where `port` is given, on 127.0.0.1; keeps nothing on disk.

    Attributes:
        url: Where it is.
    """

    def __init__(self, *, port: int = 0) -> None:
        self._port = port
        self._folder = Path(tempfile.mkdtemp(prefix="redis-"))
        self.url = f"unix://{self._folder}/socket"
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def program() -> str | None:
        """Where the server is on this machine."""
        return shutil.which("valkey-server") or shutil.which("redis-server")

    def __enter__(self) -> Self:
        program = self.program()
        assert program is not None
        command = [program, "--port", str(self._port), "--bind", "127.0.0.1"]
        command += ["--unixsocket", f"{self._folder}/socket", "--dir", str(self._folder)]
        command += ["--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + _START_SECONDS
        while not (self._folder / "socket").exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{' '.join(command)} did not start")
            time.sleep(_POLL_SECONDS)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def stop(self) -> None:
        """End it; who is connected loses the connection."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            # Where the next one is ready is where there is one.
            (self._folder / "socket").unlink(missing_ok=True)
