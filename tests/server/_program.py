"""`lmtp-server` as its users run it: a child process with arguments, standard error and signals."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from tests.server._forks import Forks

SECONDS = 20.0
"""How long anything here is waited for before it is taken for a failure."""

COMMAND = [sys.executable, "-m", "lmtp_server"]


_FORKS = Forks()


def run_anew(*arguments: str, cwd: Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end in a process that loads it there: the default place of mail is below
    the directory where that is done."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )


def run(*arguments: str, cwd: Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end, where all paths are given."""
    return _FORKS.run(list(arguments), cwd, stdin, SECONDS)


class Program:
    """A running `lmtp-server serve`, in a process group of its own."""

    def __init__(
        self, *arguments: str, cwd: Path, stderr: int | None = None, prefix: Sequence[str] = ()
    ) -> None:
        """Start it; `stderr` is a terminal to write to, if it is to have one, and `prefix` a
        command that becomes the command behind it."""
        self._process = subprocess.Popen(
            [*prefix, *COMMAND, "serve", *arguments],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE if stderr is None else stderr,
            text=True,
            start_new_session=True,
        )
        self.pid = self._process.pid
        self._text = ""
        self._ended = False
        self._change = threading.Condition()
        self._reader: threading.Thread | None = None
        if stderr is None:
            # Ends when the last process that holds standard error has ended.
            self._reader = threading.Thread(target=self._read)
            self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                with self._change:
                    self._text += line
                    self._change.notify_all()
        with self._change:
            self._ended = True
            self._change.notify_all()

    @property
    def stderr(self) -> str:
        """All that it has written to standard error so far."""
        return self._text

    def wait_for(self, pattern: str, count: int = 1) -> list[str]:
        """Wait until `count` lines of standard error have a match; their first groups or texts."""
        compiled = re.compile(f"^.*?{pattern}.*$", re.MULTILINE)

        def found() -> bool:
            return len(compiled.findall(self._text)) >= count

        with self._change:
            self._change.wait_for(lambda: found() or self._ended, SECONDS)
            assert found(), f"no {pattern!r} in:\n{self._text}"
            return compiled.findall(self._text)

    def addresses(self, count: int = 1) -> list[str]:
        """Wait until it listens; where."""
        return self.wait_for(r"^listening on (\S+)", count)

    def workers(self) -> set[int]:
        """The process ids of its workers."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return {int(pid) for pid in children.split()}

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor alone."""
        self._process.send_signal(number)

    def send_signal_to_all(self, number: signal.Signals) -> None:
        """Send a signal to all processes, as a terminal does."""
        os.killpg(self.pid, number)

    def wait(self) -> int:
        """Wait until all processes have ended; the exit code."""
        status = self._process.wait(SECONDS)
        self.wait_for_end()
        return status

    def wait_for_end(self) -> None:
        """Wait until no process has standard error open any more."""
        if self._reader is not None:
            self._reader.join(SECONDS)
            assert not self._reader.is_alive(), f"a process was left behind:\n{self._text}"

    def stop(self) -> int:
        """End it as an administrator does; the exit code."""
        self.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """Kill what is left of it."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        if self._reader is not None:
            self._reader.join(SECONDS)


def without_log(stderr: str) -> list[str]:
    """The lines that are no log lines."""
    return [line for line in stderr.splitlines() if not re.match(r"\d{4}-\d\d-\d\d ", line)]


def warnings(stderr: str) -> list[str]:
    """The warnings in the log, but for that to whoever runs the tests as root."""
    lines = stderr.splitlines()
    return [line for line in lines if " WARNING " in line and "started by root" not in line]
