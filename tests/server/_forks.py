"""Commands of `lmtp-server` in forks of a process that has loaded it: to load takes longer than to
run most of them.

Run as a program, this is that process. A command comes on its standard input, a socket of packets:
arguments, directory and environment as JSON, with the three standard descriptors; its exit code
goes back.
"""

import atexit
import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

_MODULES: Final = ("config", "deliver", "quota", "send", "serve", "user")
_MOST: Final = 1 << 17


class Forks:
    """Starts the process with the first command, and ends it with this one."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self._end)

    def run(
        self, arguments: list[str], cwd: Path, stdin: bytes, seconds: float
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command to its end. Raises TimeoutError when that takes too long."""
        if self._socket is None:
            self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                command = [sys.executable, "-m", __name__]
                self._process = subprocess.Popen(command, stdin=theirs.fileno())
        ours = self._socket
        ours.settimeout(seconds)
        packet = json.dumps([arguments, str(cwd), dict(os.environ)]).encode()
        with (
            tempfile.TemporaryFile() as given,
            tempfile.TemporaryFile() as output,
            tempfile.TemporaryFile() as errors,
        ):
            given.write(stdin)
            given.seek(0)
            files = [given.fileno(), output.fileno(), errors.fileno()]
            try:
                socket.send_fds(ours, [packet], files)
                code = int(ours.recv(16))
            except TimeoutError:
                # It waits for the command: the next one gets another process.
                self._end()
                raise
            output.seek(0)
            errors.seek(0)
            return subprocess.CompletedProcess(arguments, code, output.read(), errors.read())

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _main() -> None:
    for name in _MODULES:
        importlib.import_module(f"lmtp_server._commands._{name}")
    channel = socket.socket(fileno=os.dup(0))
    while True:
        packet, descriptors, _, _ = socket.recv_fds(channel, _MOST, 3)
        if not packet:
            return
        child = os.fork()
        if not child:
            channel.close()
            for number, descriptor in enumerate(descriptors):
                os.dup2(descriptor, number)
                os.close(descriptor)
            arguments, cwd, environment = json.loads(packet)
            os.chdir(cwd)
            os.environ.clear()
            os.environ.update(environment)
            sys.argv[1:] = arguments
            # Ends with SystemExit, as a program does.
            runpy.run_module("lmtp_server", run_name="__main__", alter_sys=True)
            return
        for descriptor in descriptors:
            os.close(descriptor)
        _, status = os.waitpid(child, 0)
        channel.send(str(os.waitstatus_to_exitcode(status)).encode())


if __name__ == "__main__":
    _main()
