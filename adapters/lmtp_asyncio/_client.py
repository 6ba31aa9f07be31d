"""The client on asyncio: a callback protocol, and the caller's task in which it waits.

A connection on which a message was left incomplete, be it by cancelling, is cut, so that no server
takes it for complete.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterable, Awaitable, Callable, Generator, Iterable, Sequence
from types import TracebackType
from typing import Final, Self, TypeVar, assert_never, cast

from lmtp_proto import (
    Address,
    Answer,
    Body,
    ClientMechanism,
    Dialect,
    Effect,
    GiveWay,
    Handshake,
    Interrupt,
    Limits,
    Log,
    MailParameters,
    Receive,
    Recipient,
    Reply,
    Result,
    Run,
    Send,
    Wait,
)
from lmtp_sockets import (
    LINGER,
    AwaitConnected,
    Pause,
    Resolve,
    TcpAddress,
    UnixAddress,
    connecting,
)
from lmtp_transport import ClientSession, read_pieces

T = TypeVar("T")

_NO_PARAMETERS: Final = MailParameters()
# Octets that may wait for a conversation that is busy, before the server is no longer read.
_INPUT_LIMIT: Final = 262_144
_BLOCK: Final = 65_536


class Channel(asyncio.Protocol):
    """A connection on which conversations are held, each in the task of its caller."""

    _transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._input: list[bytes] = []
        self._input_size = 0
        self._eof = False
        self._write_paused = False
        self._busy = False
        # What the task waits with for the next call of the event loop.
        self._waiter: asyncio.Future[None] | None = None
        self._lost = loop.create_future()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is there."""
        # uvloop's transports have the interface, not the base class.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Octets have come."""
        self._input.append(data)
        self._input_size += len(data)
        if self._input_size >= _INPUT_LIMIT:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        """The server sends no more; what it is told is up to the conversation."""
        self._eof = True
        self._wake()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The server is gone."""
        if exc is not None:
            self._read_last_words()
        self._eof = True
        if not self._lost.done():
            self._lost.set_result(None)
        self._wake()

    def pause_writing(self) -> None:
        """The server does not read: nothing more is written."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """The server reads again."""
        self._write_paused = False
        self._wake()

    # What the client calls.

    async def hold(self, conversation: Generator[Effect, None, T]) -> T:
        """Perform the effects of `conversation` to its end, and give its result.

        Raises RuntimeError while another one is held.
        """
        if self._busy:
            raise RuntimeError("another task is using this connection")
        self._busy = True
        try:
            while True:
                try:
                    effect = next(conversation)
                except StopIteration as end:
                    result: T = end.value
                    return result
                await self._perform(effect)
        finally:
            self._busy = False
            # Where the task is cancelled, the conversation learns that it is over.
            conversation.close()

    def cut(self) -> None:
        """End the connection; what is not written yet never is."""
        self._transport.abort()

    async def close(self) -> None:
        """Say that no more is written, leave the server `LINGER` seconds to do the same, close."""
        transport = self._transport
        try:
            if not (self._eof or transport.is_closing()):
                if transport.can_write_eof():
                    transport.write_eof()
                deadline = self._loop.time() + LINGER
                while await self._receive(deadline):
                    pass
        finally:
            transport.abort()
        # Transports close in the loop's next turn.
        await self._lost

    async def _perform(self, effect: Effect) -> None:
        match effect:
            case Receive():
                octets = await self._receive(effect.deadline)
                effect.outcome = Interrupt.TIMEOUT if octets is None else octets
            case Send():
                await self._send(effect.data, effect.deadline)
            case Run():
                await _finish(effect)
            case Wait() | Log():
                # Nothing runs beside this client, and it has nothing to log.
                pass
            case GiveWay():
                await asyncio.sleep(0)
            case Handshake():
                raise RuntimeError("no layer of this connection does TLS")
            case _:
                assert_never(effect)

    async def _receive(self, deadline: float) -> bytes | None:
        """Read what is there: `b""` when the server sends no more, None when `deadline` has
        passed."""
        if not (self._input or self._eof) and deadline <= self._loop.time():
            # A look. The loop reads the socket behind what it was to do before, so in its next turn
            # but one what was there is here.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        while not (self._input or self._eof):
            if not await self._wait(deadline):
                return None
        if not self._input:
            return b""
        octets = b"".join(self._input)
        self._input = []
        if self._input_size >= _INPUT_LIMIT and not self._transport.is_closing():
            self._transport.resume_reading()
        self._input_size = 0
        return octets

    async def _send(self, data: bytes, deadline: float) -> None:
        transport = self._transport
        if transport.is_closing():
            return
        transport.write(data)
        while self._write_paused and not transport.is_closing():
            if not await self._wait(deadline):
                transport.abort()

    async def _wait(self, deadline: float) -> bool:
        """Wait until the event loop calls, False when `deadline` came first."""
        loop = self._loop
        if deadline <= loop.time():
            return False
        self._waiter = loop.create_future()
        timer = loop.call_at(deadline, self._wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None
        return True

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _read_last_words(self) -> None:
        """Read what the server said before it closed, where the loop found out by writing."""
        try:
            descriptor = os.dup(self._transport.get_extra_info("socket").fileno())
            with socket.socket(fileno=descriptor) as sock:
                sock.setblocking(False)
                self._input.append(sock.recv(_BLOCK))
        except OSError:
            pass


class Client(ClientSession):
    """One connection to a server, for any number of messages, one after the other.

    `Client.connect()` makes it. Whatever the server says or fails to say becomes a reply for each
    recipient. Where a task is cancelled that waits here, the connection is cut.
    """

    _channel: Channel

    @classmethod
    async def connect(
        cls,
        address: str,
        *,
        domain: str = "localhost",
        limits: Limits | None = None,
        connect_timeout: float = 30.0,
        dialect: Dialect = Dialect.LMTP,
        chunk_size: int = 262_144,
        tls: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
    ) -> Self:
        """Connect to `address` (`HOST:PORT`, `[IPV6]:PORT`, `unix:PATH`) within `connect_timeout`
        seconds and say LHLO as `domain`; with `Dialect.SMTP` the client speaks to an SMTP server.

        `chunk_size` is the most octets of a BDAT chunk, 0 sends by DATA alone. With `tls` there is
        TLS from the first octet; the certificate has to be for `server_hostname`, by default the
        host that is connected to. Raises ValueError for an address that is none and where `tls`
        verifies a name and there is none, OSError where connecting fails, ssl.SSLError,
        ConnectionError or TimeoutError where the handshake does.
        """
        loop = asyncio.get_running_loop()
        client = cls(
            address,
            loop.time,
            domain=domain,
            limits=limits,
            dialect=dialect,
            chunk_size=chunk_size,
            tls=tls,
            server_hostname=server_hostname,
        )
        client._channel = await _connect(client._place, connect_timeout, loop)
        try:
            await client._hold(client._opening())
        except BaseException:
            client.abort()
            raise
        return client

    async def start_tls(
        self, context: ssl.SSLContext | None = None, *, server_hostname: str | None = None
    ) -> Reply:
        """Say STARTTLS, do the handshake and say LHLO anew: the reply that decided.

        Where that is not positive there is no TLS: a server that refuses leaves the session in the
        clear, `tls` is None then. `context` None trusts the system's certificates; they are to be
        for `server_hostname`, by default the host that was connected to. Raises LocalProtocolError,
        before anything is sent, where the server does not offer STARTTLS or TLS is active, and
        ValueError where `context` verifies a name and there is none, as on a UNIX socket. Raises
        ssl.SSLError where the handshake fails, as for a certificate that is not trusted,
        ConnectionError or TimeoutError; the connection is cut then.
        """
        self._prepare_tls(context, server_hostname)
        return await self._hold(self._submission.start_tls())

    async def authenticate(self, mechanism: ClientMechanism) -> Reply:
        """Prove who the client is (RFC 4954); the reply that decided, 235 when it is believed.

        `PlainClient` and `LoginClient` show the password to whoever listens: they are for TLS and
        UNIX sockets, which is not checked here. A refusal changes nothing. Raises
        LocalProtocolError, before anything is sent, where the server does not offer the mechanism.
        Raises what `mechanism` raises; amid the exchange the connection is cut then.
        """
        return await self._hold(self._submission.authenticate(mechanism))

    async def submit(
        self,
        reverse_path: Address | None,
        recipients: Sequence[Recipient],
        content: Iterable[bytes] | AsyncIterable[bytes],
        *,
        size: int | None = None,
        body: Body | None = None,
        parameters: MailParameters = _NO_PARAMETERS,
    ) -> list[Result]:
        """Send one message: a result for each of `recipients`, in their order.

        `reverse_path` None is the null reverse-path. `content` gives the octets in any pieces,
        lines end in CRLF; one that is not asynchronous holds up the loop for as long as it takes.
        `size` (octets) and `body` are declared where the server takes them. Recipients beyond what
        its LIMITS allow are not sent: their reply is `452 4.5.3`. Raises LocalProtocolError, before
        anything is sent, where `parameters`, those of a recipient or an address need an extension
        that the server does not offer. Raises what `content` raises: the connection is cut then and
        every further result is 451.
        """
        return await self._hold(
            self._submission.submit(
                reverse_path,
                recipients,
                _read(content),
                size=size,
                body=body,
                parameters=parameters,
            )
        )

    async def reset(self, *, timeout: float | None = None) -> Reply:
        """Say RSET, which changes nothing between two messages: 250 says that the server is there.

        Waits `timeout` seconds for the reply, None: as for any other. Without a reply the session
        is over.
        """
        return await self._hold(self._resetting(timeout))

    async def close(self) -> None:
        """Take leave, where the session goes on, and close the connection."""
        channel = self._channel
        try:
            if self._submission.over:
                channel.cut()
            else:
                await channel.hold(self._tls.over(self._submission.close()))
                await channel.hold(self._tls.leave())
        except BaseException:
            channel.cut()
            raise
        await channel.close()

    async def leave(self, timeout: float) -> None:
        """Take leave as `close()` does, but close the connection after `timeout` seconds at most,
        whatever the server does."""
        try:
            if not self._submission.over:
                await self._channel.hold(self._leaving(timeout))
        finally:
            self.abort()

    def abort(self) -> None:
        """Close the connection at once, without leave."""
        self._channel.cut()

    async def _hold(self, conversation: Generator[Effect, None, T]) -> T:
        """Hold a conversation, and cut the connection if it was the last."""
        try:
            return await self._channel.hold(self._tls.over(conversation))
        finally:
            if self._submission.over:
                self._channel.cut()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            # Amid a message there is no leave to take: the server must not take it for complete.
            self.abort()
            await self._channel.close()
        else:
            await self.close()


async def _connect(
    place: TcpAddress | UnixAddress, timeout: float, loop: asyncio.AbstractEventLoop
) -> Channel:
    sock = await _connect_socket(place, timeout, loop)
    make = loop.create_unix_connection if isinstance(place, UnixAddress) else loop.create_connection
    try:
        _, channel = await make(lambda: Channel(loop), sock=sock)
    except BaseException:
        sock.close()
        raise
    return channel


async def _connect_socket(
    place: TcpAddress | UnixAddress, timeout: float, loop: asyncio.AbstractEventLoop
) -> socket.socket:
    steps = connecting(place, timeout, loop.time)
    try:
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                sock: socket.socket = end.value
                return sock
            match step:
                case Resolve():
                    try:
                        step.addresses = await loop.getaddrinfo(
                            step.host, step.port, type=socket.SOCK_STREAM
                        )
                    except OSError as error:
                        step.error = error
                case AwaitConnected():
                    step.outcome = await _await_writable(step.sock, step.deadline, loop)
                case Pause():
                    await asyncio.sleep(step.seconds)
    finally:
        steps.close()


async def _await_writable(
    sock: socket.socket, deadline: float, loop: asyncio.AbstractEventLoop
) -> bool:
    writable = asyncio.Event()
    loop.add_writer(sock, writable.set)
    try:
        async with asyncio.timeout_at(deadline):
            await writable.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_writer(sock)
    return True


async def _finish(run: Run) -> None:
    """Run a job to its end here."""
    job = run.job
    if not isinstance(job, Awaitable):
        run.run()
        return
    try:
        run.succeed(await job)
    except Exception as error:
        run.fail(error)


def _read(
    content: Iterable[bytes] | AsyncIterable[bytes],
) -> Callable[[], Answer[bytes]]:
    """What gives the next piece of a content, `b""` at its end."""
    if not isinstance(content, AsyncIterable):
        return read_pieces(content)
    iterator = aiter(content)

    async def read() -> bytes:
        async for piece in iterator:
            # An empty piece is not the end.
            if piece:
                return piece
        return b""

    return read
