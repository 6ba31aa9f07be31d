"""The yardstick: what an exchange costs that does nothing, on asyncio, in this process.

One exchange is one request read and one reply written by an asyncio protocol that looks at neither.
Its peer is a process of its own, so that the CPU time measured is the server's alone.
"""

import asyncio
import socket
import subprocess
import sys
import time
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_REQUEST = b"x" * 100
_REPLY = b"y" * 20


class _Nothing(asyncio.Protocol):
    """Answers whatever is read with the same octets."""

    def __init__(self) -> None:
        self.closed = asyncio.get_running_loop().create_future()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(_REPLY)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(None)


def cpu_seconds_each(count: int) -> float:
    """Return the CPU seconds of this process for each of `count` exchanges."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = subprocess.Popen(
            [sys.executable, "-m", "benchmarks._exchange", str(theirs.fileno()), str(count)],
            cwd=_ROOT,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        with peer:
            seconds = asyncio.run(_serve(ours))
    if peer.returncode:
        raise RuntimeError(f"the peer of the yardstick ended with status {peer.returncode}")
    return seconds / count


async def _serve(sock: socket.socket) -> float:
    loop = asyncio.get_running_loop()
    begin = time.process_time()
    _, protocol = await loop.create_connection(_Nothing, sock=sock)
    await protocol.closed
    return time.process_time() - begin


def _ask(descriptor: int, count: int) -> None:
    """Be the peer: ask `count` times and close."""
    with socket.socket(fileno=descriptor) as sock:
        for _ in range(count):
            sock.sendall(_REQUEST)
            if len(sock.recv(len(_REPLY), socket.MSG_WAITALL)) != len(_REPLY):
                raise SystemExit("no reply")


if __name__ == "__main__":
    _ask(int(sys.argv[1]), int(sys.argv[2]))
