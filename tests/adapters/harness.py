"""Servers on each runtime, run in a thread of the test, and a plain client to talk to them.

Everything waits for events and is bounded by timeouts; nothing sleeps.
"""

import asyncio
import os
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Final, Self, TypeAlias

import gevent
import uvloop

import lmtp_asyncio
import lmtp_blocking
import lmtp_gevent
from lmtp_proto import (
    Answer,
    Handler,
    Message,
    Recipient,
    Reply,
    Session,
    Settings,
)
from lmtp_sockets import TcpAddress, parse_address
from lmtp_transport import Listener
from tests.adapters.blocking import mark_thread

Place: TypeAlias = str | socket.socket | Listener

RUNTIMES: Final = ("blocking", "gevent", "asyncio", "uvloop")

# Seconds for anything that is to happen; reached only when it does not.
PATIENCE: Final = 20.0
# Seconds between two looks at the clients of a server that retires.
_RETIRING: Final = 0.01

SAVED: Final = Reply(250, "saved", enhanced="2.0.0")
ENVELOPE: Final = b"LHLO client.example\r\nMAIL FROM:<a@example.org>\r\n"


class RunningServer:
    """A server that accepts connections."""

    def __init__(
        self,
        runtime: str,
        handler: Handler,
        listeners: tuple[Place, ...],
        settings: Settings | None,
        **options: Any,
    ) -> None:
        self._handler = handler
        self._listeners = listeners
        self._settings = settings
        self._options = options
        self._ready: Future[list[str]] = Future()
        self._stop: Future[float] = Future()
        self._retires = False
        self._failure: BaseException | None = None
        run = {
            "blocking": self._run_blocking,
            "gevent": self._run_gevent,
            "asyncio": lambda: self._run_asyncio(asyncio.new_event_loop),
            "uvloop": lambda: self._run_asyncio(uvloop.new_event_loop),
        }[runtime]
        self._thread = threading.Thread(target=self._guard, args=(run,), name=f"{runtime}-server")
        self._thread.start()
        try:
            self.addresses = self._ready.result(PATIENCE)
        except BaseException:
            self._thread.join(PATIENCE)
            raise

    @property
    def address(self) -> str:
        """Where the first listener is."""
        return self.addresses[0]

    def begin_retire(self) -> None:
        """Have the server retire, and then stopped, without waiting for it."""
        self._retires = True
        self.begin_stop()

    def begin_stop(self, grace: float = PATIENCE) -> None:
        """Have the server stopped, without waiting for it."""
        if not self._stop.done():
            self._stop.set_result(grace)

    def join(self) -> None:
        """Wait until `stop()` of the server has returned; raise what it has raised."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the server does not stop"
        if self._failure is not None:
            raise self._failure

    def stop(self, grace: float = PATIENCE) -> None:
        """Have the server stopped."""
        self.begin_stop(grace)
        self.join()

    def _guard(self, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:
            if self._ready.done():
                self._failure = error
            else:
                self._ready.set_exception(error)

    def _run_blocking(self) -> None:
        server = lmtp_blocking.Server(self._handler, settings=self._settings, **self._options)
        server.start(*self._listeners)
        self._ready.set_result(server.addresses)
        grace = self._stop.result()
        while self._retires and server.retire():
            time.sleep(_RETIRING)
        server.stop(grace)

    def _run_gevent(self) -> None:
        mark_thread()
        hub = gevent.get_hub()
        try:
            server = lmtp_gevent.Server(self._handler, settings=self._settings, **self._options)
            server.start(*self._listeners)
            self._ready.set_result(server.addresses)
            grace = hub.threadpool.apply(self._stop.result)
            while self._retires and server.retire():
                gevent.sleep(_RETIRING)
            server.stop(grace)
        finally:
            hub.destroy(destroy_loop=True)

    def _run_asyncio(self, loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        async def main() -> None:
            server = lmtp_asyncio.Server(self._handler, settings=self._settings, **self._options)
            await server.start(*self._listeners)
            self._ready.set_result(server.addresses)
            grace = await asyncio.wrap_future(self._stop)
            # retire() is made to be called again and again.
            while self._retires and server.retire():  # noqa: ASYNC110
                await asyncio.sleep(_RETIRING)
            await server.stop(grace)

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main())


@contextmanager
def serving(
    runtime: str,
    handler: Handler,
    *listeners: Place,
    settings: Settings | None = None,
    **options: Any,
) -> Iterator[RunningServer]:
    """Run a server on `runtime`, one of RUNTIMES; without listeners at a free port of 127.0.0.1."""
    server = RunningServer(runtime, handler, listeners or ("127.0.0.1:0",), settings, **options)
    try:
        yield server
    finally:
        server.stop()


_LAST_LINE: Final = re.compile(rb"\d{3} ")


class Client:
    """A connection to a server, on a blocking socket. Lines are given and taken without CRLF."""

    def __init__(self, address: str, *, receive_buffer: int | None = None) -> None:
        place = parse_address(address)
        if isinstance(place, TcpAddress):
            family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
            name: Any = (place.host, place.port)
        else:
            family, name = socket.AF_UNIX, place.path
        self.sock = socket.socket(family)
        self.sock.settimeout(PATIENCE)
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            self.sock.connect(name)
        except BaseException:
            self.sock.close()
            raise
        self._input = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, octets: bytes) -> None:
        """Write all of `octets`."""
        self.sock.sendall(octets)

    def line(self) -> bytes:
        """Read one line; `b""` at the end, where it must not be amid a line."""
        while b"\r\n" not in self._input:
            octets = self._receive()
            if not octets:
                assert not self._input, f"the end amid the line {self._input!r}"
                return b""
            self._input += octets
        line, _, self._input = self._input.partition(b"\r\n")
        return line

    def reply(self) -> bytes:
        """Read the lines of one reply and give the last of them; `b""` at the end."""
        while True:
            line = self.line()
            if not line or _LAST_LINE.match(line):
                return line

    def expect(self, *beginnings: bytes) -> None:
        """Read as many replies; each must begin as said."""
        for beginning in beginnings:
            reply = self.reply()
            assert reply.startswith(beginning), f"{reply!r} instead of {beginning!r}"

    def expect_end(self) -> None:
        """The server must close, and say nothing before."""
        assert self.reply() == b""

    def rest(self) -> bytes:
        """Read everything up to the end."""
        while octets := self._receive():
            self._input += octets
        rest, self._input = self._input, b""
        return rest

    def greeted(self) -> Self:
        """Read the greeting."""
        self.expect(b"220 ")
        return self

    def deliver(self, *local_parts: str, content: bytes = b"Subject: x\r\n\r\ntext\r\n") -> None:
        """Send a whole transaction with its LHLO at once; its replies up to the 354 are read."""
        paths = b"".join(b"RCPT TO:<%s@example.org>\r\n" % part.encode() for part in local_parts)
        self.send(ENVELOPE + paths + b"DATA\r\n" + content + b".\r\n")
        self.expect(b"250 ", b"250 ", *[b"250 "] * len(local_parts), b"354 ")

    def start_tls(self, context: ssl.SSLContext, name: str = "localhost") -> Self:
        """Do the handshake now."""
        self.sock = context.wrap_socket(self.sock, server_hostname=name)
        return self

    def half_close(self) -> None:
        """Send no more."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Vanish: the server's next read or write fails."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        """Close the connection."""
        self.sock.close()

    def _receive(self) -> bytes:
        try:
            return self.sock.recv(65_536)
        except (ConnectionResetError, ssl.SSLEOFError):
            return b""


class Mailbox(Handler):
    """Accepts everything and delivers each message at once, into a list."""

    def __init__(self) -> None:
        self.delivered: list[tuple[str, bytes]] = []
        """Local part and content, in the order of delivery."""
        self.connected: list[Session] = []
        self.disconnected = threading.Semaphore(0)
        """Released when a session is over."""

    def connect(self, session: Session, /) -> Answer[Reply | None]:
        self.connected.append(session)
        return None

    def deliver(self, message: Message, recipient: Recipient, /) -> Answer[Reply]:
        self.delivered.append((recipient.address.local_part, message.content))
        return SAVED

    def disconnect(self, session: Session, /) -> None:
        self.disconnected.release()


class PendingDeliveries(Mailbox):
    """Hands out futures: the test says when a delivery is done."""

    def __init__(self) -> None:
        super().__init__()
        self._pending: dict[str, list[Future[Reply]]] = {}
        self._asked = threading.Condition()

    def deliver(self, message: Message, recipient: Recipient, /) -> Answer[Reply]:
        super().deliver(message, recipient)
        future: Future[Reply] = Future()
        with self._asked:
            self._pending.setdefault(recipient.address.local_part, []).append(future)
            self._asked.notify_all()
        return future

    def begun(self, local_part: str, number: int = 0) -> Future[Reply]:
        """Wait until the delivery to a recipient has begun; `number` tells equal ones apart."""
        with self._asked:
            assert self._asked.wait_for(
                lambda: len(self._pending.get(local_part, [])) > number, PATIENCE
            ), f"no delivery to {local_part}"
            return self._pending[local_part][number]


def wait_for(semaphore: threading.Semaphore) -> None:
    """Take one from `semaphore`, which must come."""
    assert semaphore.acquire(timeout=PATIENCE)


def small_buffers() -> socket.socket:
    """Listen where the kernel takes few octets on behalf of a server."""
    listener = socket.socket()
    # Accepted sockets inherit them.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener


def sockets_with(name: object) -> Iterator[socket.socket]:
    """Find the sockets of this process that are connected to `name`, or listen there."""
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            copy = os.dup(int(descriptor))
        except OSError:
            continue
        try:
            sock = socket.socket(fileno=copy)
        except OSError:
            os.close(copy)
            continue
        with sock:
            try:
                listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                found = (sock.getsockname() if listens else sock.getpeername()) == name
            except OSError:
                found = False
            if found:
                yield sock


def accepted_sockets(client: Client) -> Iterator[socket.socket]:
    """Find the server's end of a TCP connection within this process."""
    return sockets_with(client.sock.getsockname())


Start = Callable[..., RunningServer]
"""Start a server as `serving()` does, on the runtime of the test."""

Connect = Callable[[str], Client]
"""Open a connection."""
