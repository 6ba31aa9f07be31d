"""The pool on asyncio."""

import asyncio
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import Final, Self, Unpack, assert_never

from lmtp_proto import Address, Body, MailParameters, Recipient, Result
from lmtp_sockets import parse_address
from lmtp_transport import (
    LEAVE_TIME,
    AwaitTurn,
    ClientOptions,
    Connect,
    Leave,
    PoolBook,
    PoolSettings,
    Probe,
    Submit,
    Watched,
    WatchedAsync,
    through_pool,
)

from ._client import Client

_NO_PARAMETERS: Final = MailParameters()


class Pool:
    """Connections to one server, opened when they are needed and used again and again.

    For any number of tasks of one loop. `prepare(client)` is awaited with each new connection,
    where it is told, and may `start_tls()` and `authenticate()`; what it raises, `submit()` raises.
    `options` are those of `Client.connect()`. Raises ValueError for an address that is none.
    """

    def __init__(
        self,
        address: str,
        settings: PoolSettings | None = None,
        *,
        prepare: Callable[[Client], Awaitable[object]] | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        parse_address(address)
        self._address = address
        self._settings = settings or PoolSettings()
        self._prepare = prepare
        self._options = options
        self._book: PoolBook[Client] = PoolBook(self._settings, time.monotonic)

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
        """Send one message as `Client.submit()` does, over a connection of the pool.

        Where one that was used before turns out to be gone, the message is sent over a new one, as
        long as nothing of `content` was read and the server has said nothing of any recipient; so
        nobody gets it twice.

        Raises TimeoutError when no connection is to be had in time, RuntimeError when the pool is
        closed, what `Client.connect()` raises when connecting fails, and what `Client.submit()`
        raises. Cancelling cuts the connection that is in use.
        """
        watched = WatchedAsync(content) if isinstance(content, AsyncIterable) else Watched(content)
        turn = asyncio.Event()
        deadline = time.monotonic() + self._settings.timeout
        steps = through_pool(self._book, turn, watched, deadline, time.monotonic)
        try:
            while True:
                try:
                    step = next(steps)
                except StopIteration as end:
                    results: list[Result] = end.value
                    return results
                if isinstance(step, Submit):
                    try:
                        step.results = await step.client.submit(
                            reverse_path,
                            recipients,
                            watched,
                            size=size,
                            body=body,
                            parameters=parameters,
                        )
                    except Exception as error:
                        step.error = error
                    except BaseException:
                        step.client.abort()
                        raise
                else:
                    await self._perform(step, turn)
        finally:
            steps.close()

    async def close(self) -> None:
        """Take leave on connections that are not in use, and close those in use when they are not
        any more; who waits for one gets a RuntimeError."""
        leaving = (client.leave(LEAVE_TIME) for client in self._book.close())
        await asyncio.gather(*leaving)

    async def _perform(
        self,
        step: AwaitTurn | Connect[Client] | Probe[Client] | Leave[Client],
        turn: asyncio.Event,
    ) -> None:
        match step:
            case AwaitTurn():
                try:
                    async with asyncio.timeout(step.deadline - time.monotonic()):
                        await turn.wait()
                except TimeoutError:
                    pass
            case Connect():
                try:
                    step.client = await self._opened()
                except Exception as error:
                    step.error = error
            case Probe():
                try:
                    reply = await step.client.reset(timeout=self._settings.probe_timeout)
                except BaseException:
                    step.client.abort()
                    raise
                step.alive = reply.code == 250 and step.client.usable
            case Leave():
                await step.client.leave(step.seconds)
            case _:
                assert_never(step)

    async def _opened(self) -> Client:
        client = await Client.connect(self._address, **self._options)
        try:
            if self._prepare is not None and client.usable:
                await self._prepare(client)
        except BaseException:
            client.abort()
            raise
        return client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
