"""The daemon as its users run it: a child process with flags, standard error and signals."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

_READY = "listening on "
_START_SECONDS = 20.0
_STOP_SECONDS = 20.0


class Daemon:
    """A running `lmtp-server serve`, in a process group of its own.

    Attributes:
        addresses: Where it listens, in the order of its ready lines.
    """

    def __init__(
        self,
        *,
        mail: str,
        listen: Sequence[str] = ("127.0.0.1:0",),
        runtime: str | None = None,
        workers: int = 2,
        flags: Sequence[str] = (),
    ) -> None:
        """Start the daemon and wait until it listens.

        Args:
            mail: Template of the Maildirs.
            listen: Addresses to listen on.
            runtime: A runtime, or None for the daemon's own choice.
            workers: Number of worker processes.
            flags: Further flags.
        """
        command = [sys.executable, "-m", "lmtp_server", "serve", "--mail", mail]
        command += ["--hostname", "store.test", "--workers", str(workers)]
        command += flags
        for address in listen:
            command += ["--listen", address]
        if runtime is not None:
            command += ["--runtime", runtime]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._lines: list[str] = []
        self._ready = threading.Event()
        self._expected = len(listen)
        self.addresses: list[str] = []
        # Ends when the last process that holds the daemon's standard error has ended.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._ready.wait(_START_SECONDS) or len(self.addresses) < self._expected:
            self.kill()
            raise RuntimeError(f"{' '.join(command)}\ndid not get ready:\n{self.stderr}")

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                self._lines.append(line)
                if line.startswith(_READY):
                    self.addresses.append(line.removeprefix(_READY).strip())
                    if len(self.addresses) == self._expected:
                        self._ready.set()
        self._ready.set()

    @property
    def stderr(self) -> str:
        """All that it has written to standard error so far."""
        return "".join(self._lines)

    def stop(self) -> None:
        """End it as an administrator does; it must drain, exit 0 and have no traceback to show."""
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self._reader.join(_STOP_SECONDS)
        if self._reader.is_alive():
            self.kill()
            raise AssertionError(f"the daemon left processes behind:\n{self.stderr}")
        assert status == 0, self.stderr
        assert not [line for line in self._lines if "Traceback" in line]

    def kill(self) -> None:
        """Kill all of its processes at once, and wait until the last one has ended."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        self._reader.join(_STOP_SECONDS)
        assert not self._reader.is_alive(), "a process of the daemon outlived its process group"


def send(
    address: str, *, sender: str, recipients: Sequence[str], file: Path | None, content: bytes = b""
) -> tuple[int, list[str]]:
    """Run `lmtp-server send`.

    Args:
        address: Where to deliver.
        sender: Its --from.
        recipients: Its --rcpt, in order.
        file: The message; None sends `content` through standard input.
        content: What standard input holds.

    Returns:
        Its exit status and the lines it printed.
    """
    command = [sys.executable, "-m", "lmtp_server", "send", "--to", address, "--from", sender]
    for recipient in recipients:
        command += ["--rcpt", recipient]
    finished = subprocess.run(
        [*command, "-" if file is None else str(file)],
        input=content,
        capture_output=True,
        timeout=_START_SECONDS,
        check=False,
    )
    assert b"Traceback" not in finished.stderr, finished.stderr.decode()
    return finished.returncode, finished.stdout.decode().splitlines()
