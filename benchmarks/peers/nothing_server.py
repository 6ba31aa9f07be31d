"""The floor: what an LMTP exchange costs on an event loop, or with a thread for each connection,
where nothing is done for it. Run as `python -m benchmarks.peers.nothing_server`.

It is no LMTP server. It cuts what is read at CRLF, looks up the first four octets of each line in a
table of ready-made replies, and writes the replies to one read at once. Behind DATA it looks for
the end mark and for nothing else, and lets the content go as it came. No syntax is checked, no
order of commands, no length, no bare CR or LF, no deadline; nobody is asked, and the dots stay
doubled. Whoever says anything but LHLO, MAIL, RCPT, DATA, RSET, NOOP and QUIT is cut off.

With `--mail` it is the floor of durable delivery: the octets that are read as content go to a file
of their own, which the disk works on meanwhile, and which is synced, as is the directory, before
the replies are written.

Invariant: a client that makes no mistake gets the number and the order of replies that RFC 2033
asks for, however its octets are cut into reads.
"""

import argparse
import asyncio
import os
import signal
import socket
import sys
import tempfile
import threading
from contextlib import suppress
from typing import cast

import lmtp_sockets
from benchmarks.peers._heap import keep_reads_on_the_heap

_GREETING = b"220 nothing.example LMTP\r\n"
_FINAL = b"250 2.0.0 discarded\r\n"
_OK = b"250 2.0.0 OK\r\n"
_REPLIES = {
    b"LHLO": b"250-nothing.example\r\n250-PIPELINING\r\n250 ENHANCEDSTATUSCODES\r\n",
    b"MAIL": _OK,
    b"RCPT": _OK,
    b"DATA": b"354 end with a dot\r\n",
    b"RSET": _OK,
    b"NOOP": _OK,
    b"QUIT": b"221 2.0.0 bye\r\n",
}
_END_MARK = b"\r\n.\r\n"
# Octets of a file that are to be on their way to the disk at a time, as in the store.
_STRETCH = 4 << 20


class Protocol(asyncio.Protocol):
    """One connection."""

    __slots__ = ("_in_content", "_kept", "_mail", "_quit", "_recipients", "_rest", "_transport")

    _transport: asyncio.Transport

    def __init__(self, mail: str | None = None) -> None:
        self._mail = mail
        self._kept: _Kept | None = None
        # Of commands a line that is not whole, of content as much as may begin an end mark.
        self._rest = b""
        self._in_content = False
        self._quit = False
        self._recipients = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        # uvloop's transports have the interface, not the base class.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(_GREETING)

    def data_received(self, data: bytes) -> None:
        """Write the replies to all that `data` completes."""
        replies: list[bytes] = []
        rest: bytes | None = data
        while rest:
            rest = self._content(rest, replies) if self._in_content else self._line(rest, replies)
        if replies:
            self._transport.write(b"".join(replies))
        if self._quit:
            self._transport.close()

    def _line(self, data: bytes, replies: list[bytes]) -> bytes | None:
        """Answer the commands in `data`; what is behind DATA, None when all is taken."""
        *lines, self._rest = (self._rest + data).split(b"\r\n")
        for number, line in enumerate(lines):
            verb = line[:4]
            reply = _REPLIES.get(verb)
            if reply is None:
                self._transport.abort()
                return None
            replies.append(reply)
            if verb == b"RCPT":
                self._recipients += 1
            elif verb == b"DATA":
                behind = b"\r\n".join([*lines[number + 1 :], self._rest])
                self._in_content = True
                if self._mail is not None:
                    self._kept = _Kept(self._mail)
                # The mark may be the content's first line (RFC 5321 4.1.1.4).
                self._rest = b"\r\n"
                return behind
            elif verb == b"QUIT":
                self._quit = True
        return None

    def _content(self, data: bytes, replies: list[bytes]) -> bytes | None:
        """Drop content; what is behind its end, None while that has not come."""
        if self._kept is not None:
            self._kept.write(data)
        # All but the seam with the read before is searched where it lies: nothing is joined.
        seam = self._rest + data[:4]
        at = seam.find(_END_MARK)
        if at >= 0:
            at -= len(self._rest)
        else:
            at = data.find(_END_MARK)
            if at < 0:
                self._rest = (data if len(data) >= 4 else seam)[-4:]
                return None
        if self._kept is not None:
            self._kept.close()
            self._kept = None
        replies.extend([_FINAL] * self._recipients)
        self._recipients = 0
        self._rest = b""
        self._in_content = False
        return data[at + len(_END_MARK) :]


class _Kept:
    """A new file in `folder`."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._descriptor, _ = tempfile.mkstemp(dir=folder)
        self._length = self._started = 0

    def write(self, data: bytes) -> None:
        os.write(self._descriptor, data)
        self._length += len(data)
        if self._length - self._started >= _STRETCH:
            length = self._length - self._started
            os.posix_fadvise(self._descriptor, self._started, length, os.POSIX_FADV_DONTNEED)
            self._started = self._length

    def close(self) -> None:
        """Sync the file, and that it is there."""
        os.fsync(self._descriptor)
        os.close(self._descriptor)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(folder)
        os.close(folder)


class _Socket(asyncio.Transport):
    """As much of a transport as the protocol uses, on a socket that blocks."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self.write = sock.sendall  # type: ignore[method-assign,assignment]  # a call less
        self._sock = sock

    def close(self) -> None:
        """Let the other side see the end; what it has been sent arrives before."""
        self._sock.shutdown(socket.SHUT_RDWR)

    abort = close


def _serve_in_threads(listener: socket.socket, mail: str | None) -> None:
    """Serve until the process ends, each connection in a thread of its own."""
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=_connection, args=[sock, mail], daemon=True).start()


def _connection(sock: socket.socket, mail: str | None) -> None:
    protocol = Protocol(mail)
    with sock, suppress(OSError):
        protocol.connection_made(_Socket(sock))
        while data := sock.recv(65536):
            protocol.data_received(data)


async def _serve(listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # asyncio would set the backlog to 100.
    server = await loop.create_server(Protocol, sock=listener, backlog=4096)
    await stop.wait()
    server.close()


def main() -> int:
    """Listen, say so on standard error and serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.nothing_server")
    parser.add_argument(
        "--listen", default="127.0.0.1:0", help="HOST:PORT, [IPV6]:PORT or unix:PATH"
    )
    parser.add_argument("--loop", choices=("asyncio", "uvloop", "threads"), default="asyncio")
    parser.add_argument("--mail", help="an existing directory, for threads alone")
    arguments = parser.parse_args()
    if arguments.mail and arguments.loop != "threads":
        parser.error("--mail: waiting for the disk would hold up the loop; use --loop threads")
    keep_reads_on_the_heap()
    listener = lmtp_sockets.listen(lmtp_sockets.parse_address(arguments.listen))
    print(f"listening on {lmtp_sockets.format_address(listener)}", file=sys.stderr, flush=True)
    if arguments.loop == "threads":
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _serve_in_threads(listener, arguments.mail)
    elif arguments.loop == "uvloop":
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(listener))
    else:
        asyncio.run(_serve(listener))
    return 0


if __name__ == "__main__":
    sys.exit(main())
