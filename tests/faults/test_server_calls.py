"""The system calls of a server on each runtime: what comes of errors, and the number of writes."""

import os
import re
import shutil
import signal
import subprocess
import threading
from concurrent.futures import Future
from pathlib import Path
from subprocess import DEVNULL

import pytest

from lmtp_sockets import ACCEPT_PAUSE
from tests.adapters.harness import PATIENCE, RUNTIMES, Client
from tests.adapters.process import Program

_ERRORS = 2


@pytest.fixture(scope="module")
def strace() -> str:
    """Find a strace that works."""
    path = shutil.which("strace")
    if path is None:
        pytest.skip("strace is not installed")
    if subprocess.run([path, "-o", "/dev/null", "true"], check=False, stderr=DEVNULL).returncode:
        pytest.skip("strace may not trace here")
    return path


class _Trace:
    """The calls of a server; complete when the server has ended."""

    def __init__(self, strace: str, folder: Path, *options: str) -> None:
        # strace ends behind the server: the end of a pipe tells when.
        self._path = folder / "trace"
        os.mkfifo(self._path)
        # -D: the server stays the direct child, and signals are for it.
        self.command = (strace, "-D", "-f", "-ttt", "-yy", "-o", str(self._path), *options)
        self._text: Future[str] = Future()
        threading.Thread(target=self._read, daemon=True).start()

    def lines(self, pattern: str) -> list[str]:
        """All that match."""
        lines = self._text.result(PATIENCE).splitlines()
        return [line for line in lines if re.search(pattern, line)]

    def _read(self) -> None:
        self._text.set_result(self._path.read_text())


def _session(address: str) -> None:
    with Client(address) as client:
        client.greeted().deliver("b")
        client.expect(b"250 ")


def _time(line: str) -> float:
    return float(line.split()[1])


def _failing(error: str) -> tuple[str, ...]:
    inject = f"inject=accept,accept4:error={error}:when=1..{_ERRORS}"
    return ("-e", "trace=accept,accept4", "-e", inject)


@pytest.mark.parametrize("runtime", RUNTIMES)
class TestAccept:
    @pytest.mark.parametrize("error", ["ENFILE", "ENOBUFS"])
    def test_a_lack_is_waited_for(
        self, strace: str, tmp_path: Path, runtime: str, error: str
    ) -> None:
        trace = _Trace(strace, tmp_path, *_failing(error))
        with Program(runtime, tracer=trace.command) as program:
            _session(program.address)
            assert program.end(signal.SIGTERM) == 0
            assert program.output.count("cannot accept a connection") == _ERRORS
        first, second = trace.lines(f" = -1 {error} .*INJECTED")
        # A machine under load makes the pause longer, never shorter.
        assert _time(second) - _time(first) > ACCEPT_PAUSE * 0.9

    def test_a_connection_that_has_broken_off_is_passed_over(
        self, strace: str, tmp_path: Path, runtime: str
    ) -> None:
        trace = _Trace(strace, tmp_path, *_failing("ECONNABORTED"))
        with Program(runtime, tracer=trace.command) as program:
            _session(program.address)
            assert program.end(signal.SIGTERM) == 0
            assert "cannot accept" not in program.output
        assert len(trace.lines(" = -1 ECONNABORTED .*INJECTED")) == _ERRORS


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_replies_to_what_came_at_once_leave_in_one_write(
    strace: str, tmp_path: Path, runtime: str
) -> None:
    trace = _Trace(strace, tmp_path, "-e", "trace=write,writev,sendto,sendmsg,sendmmsg")
    with (
        Program(runtime, tracer=trace.command) as program,
        Client(program.address) as client,
    ):
        port = client.sock.getsockname()[1]
        client.greeted().deliver("b", "c", "d")
        client.expect(b"250 ", b"250 ", b"250 ")
        client.deliver("b", "c", "d")
        client.expect(b"250 ", b"250 ", b"250 ")
        client.send(b"QUIT\r\n")
        client.expect(b"221 ")
        client.expect_end()
        assert program.end(signal.SIGTERM) == 0
    # The greeting, two transactions and the end.
    assert len(trace.lines(f"->127.0.0.1:{port}]>")) == 4
