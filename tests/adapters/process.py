"""An embedder's server in a process of its own, for what concerns whole processes.

`python -m tests.adapters.process RUNTIME MAX_CONNECTIONS` listens at a free port of 127.0.0.1, says
so on standard error, where its log goes too, and serves until it is told to stop.
"""

import asyncio
import logging
import resource
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

from lmtp_sockets import format_address, listen, parse_address

_ROOT: Final = Path(__file__).parents[2]
_READY: Final = "listening on "
_PATIENCE: Final = 20.0


class Program:
    """The process, seen from the test."""

    def __init__(
        self, runtime: str, *, max_connections: int = 1000, tracer: Sequence[str] = ()
    ) -> None:
        """`tracer` is a command that runs the one behind it in its own place."""
        program = ["-W", "error", "-m", "tests.adapters.process", runtime, str(max_connections)]
        self._process = subprocess.Popen(
            [*tracer, sys.executable, *program],
            cwd=_ROOT,
            env={"PYTHONPATH": f"{_ROOT}:{_ROOT / 'adapters'}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
        )
        self.pid = self._process.pid
        self.output = ""
        """What it has written so far."""
        self._said = threading.Condition()
        self._ended = False
        # Read to the end: a full pipe would stop the program.
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        self.wait_for(_READY)
        self.address = self.output.partition(_READY)[2].split()[0]
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def wait_for(self, text: str) -> None:
        """Wait until it has written a line that holds `text`."""
        with self._said:
            assert self._said.wait_for(lambda: text in self.output or self._ended, _PATIENCE)
            assert text in self.output, self.output

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def end(self, number: int) -> int:
        """Send it a signal and wait for its exit status."""
        self.signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for its exit status."""
        return self._process.wait(_PATIENCE)

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._said:
                self.output += line
                self._said.notify_all()
        with self._said:
            self._ended = True
            self._said.notify_all()


def _main(runtime: str, max_connections: int) -> None:
    from tests.adapters.harness import Mailbox

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    logging.basicConfig(level=logging.INFO)
    listener = listen(parse_address("127.0.0.1:0"))
    sys.stderr.write(f"{_READY}{format_address(listener)}\n")
    sys.stderr.flush()
    if runtime == "blocking":
        import lmtp_blocking

        lmtp_blocking.serve(Mailbox(), listener, max_connections=max_connections)
    elif runtime == "gevent":
        import lmtp_gevent

        lmtp_gevent.serve(Mailbox(), listener, max_connections=max_connections)
    else:
        import uvloop

        import lmtp_asyncio

        factory = uvloop.new_event_loop if runtime == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(lmtp_asyncio.serve(Mailbox(), listener, max_connections=max_connections))
    sys.stderr.write("served\n")


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))
