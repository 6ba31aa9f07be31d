"""An LMTP server on aiosmtpd in a process of its own: `python -m
benchmarks.peers.aiosmtpd_server`.

Invariant: it gives one final reply for each recipient. aiosmtpd's LMTP class gives one a message,
so the handlers return them all in one string, as Mailman does. Nothing else is added to or taken
from aiosmtpd, but TCP_NODELAY and a backlog on the listening socket and a heap for its reads, all
in its favour.
"""

import argparse
import asyncio
import itertools
import os
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import SMTP, Envelope, Session

from benchmarks import _workers
from benchmarks.peers._heap import keep_reads_on_the_heap

_BACKLOG = 4096
# Above aiosmtpd's default of 32 MiB: the benchmarks send more.
_SIZE_LIMIT = 1 << 30
_THREADS = 16


class DiscardHandler:
    """Takes every message and drops it."""

    # The name is aiosmtpd's.
    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  # aiosmtpd's
        """Return one reply for each recipient, joined."""
        return "\r\n".join(["250 2.0.0 discarded"] * len(envelope.rcpt_tos))


class MaildirHandler:
    """Delivers to the Maildir `root`/<local-part> of each recipient: file and new/ synced, in a
    pool of threads.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._pool = ThreadPoolExecutor(_THREADS)
        self._count = itertools.count()
        self._known: set[Path] = set()

    # The name is aiosmtpd's.
    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  # aiosmtpd's
        """Deliver to all recipients at once; return one reply for each, joined, in order."""
        loop = asyncio.get_running_loop()
        replies = await asyncio.gather(
            *(
                loop.run_in_executor(self._pool, self._deliver, envelope, recipient)
                for recipient in envelope.rcpt_tos
            )
        )
        return "\r\n".join(replies)

    def _deliver(self, envelope: Envelope, recipient: str) -> str:
        maildir = self._root / recipient.partition("@")[0]
        if maildir not in self._known:
            for folder in ("tmp", "new", "cur"):
                (maildir / folder).mkdir(parents=True, exist_ok=True)
            self._known.add(maildir)
        content = envelope.content
        assert isinstance(content, bytes)
        trace = f"Return-Path: <{envelope.mail_from}>\nDelivered-To: {recipient}\n"
        name = f"{time.time():.6f}.P{os.getpid()}Q{next(self._count)}.benchmark"
        with open(maildir / "tmp" / name, "wb") as file:
            file.write(trace.encode() + content.replace(b"\r\n", b"\n"))
            file.flush()
            os.fsync(file.fileno())
        os.rename(maildir / "tmp" / name, maildir / "new" / name)
        new = os.open(maildir / "new", os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(new)
        finally:
            os.close(new)
        return "250 2.0.0 saved"


async def _serve(handler: DiscardHandler | MaildirHandler, listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(
        lambda: LMTP(handler, hostname="benchmark.example", data_size_limit=_SIZE_LIMIT),
        sock=listener,
        backlog=_BACKLOG,
    )
    await stop.wait()
    server.close()


def _listen(address: str) -> socket.socket:
    if address.startswith("unix:"):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address.removeprefix("unix:"))
    else:
        host, _, port = address.rpartition(":")
        # With the protocol left at 0, asyncio does not set TCP_NODELAY on what it accepts.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((host, int(port)))
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def _run(loop: str, handler: DiscardHandler | MaildirHandler, listener: socket.socket) -> None:
    if loop == "uvloop":
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(handler, listener))
    else:
        asyncio.run(_serve(handler, listener))


def main() -> int:
    """Listen, say so on standard error and serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.aiosmtpd_server")
    parser.add_argument("--listen", default="127.0.0.1:0", help="HOST:PORT or unix:PATH")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--mail", type=Path, help="deliver to Maildirs below this folder; without it, discard"
    )
    arguments = parser.parse_args()
    keep_reads_on_the_heap()
    listener = _listen(arguments.listen)
    name = listener.getsockname()
    address = f"unix:{name}" if isinstance(name, str) else f"{name[0]}:{name[1]}"
    print(f"listening on {address}", file=sys.stderr, flush=True)

    def serve() -> None:
        # Made after the fork: a pool's threads do not survive one.
        handler = DiscardHandler() if arguments.mail is None else MaildirHandler(arguments.mail)
        _run(arguments.loop, handler, listener)

    _workers.run(arguments.workers, serve)
    return 0


if __name__ == "__main__":
    sys.exit(main())
