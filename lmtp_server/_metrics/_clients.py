"""The connections of a small server in an event loop.

The invariant: there are never more than so many; one more ends the oldest, and each ends when its
time is over, whatever its client does.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Final

_MOST: Final = 64
# Seconds from connecting to the last octet of the answer.
_PATIENCE: Final = 10.0

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Clients:
    """Answers each client by `answer`; no line of theirs has more than `limit` octets."""

    def __init__(self, answer: Answer, *, limit: int) -> None:
        self._answer = answer
        self._limit = limit
        # In the order they have come.
        self._tasks: dict[asyncio.Task[None], None] = {}

    async def serve(self, listener: socket.socket) -> asyncio.Server:
        """Accept connections here."""
        return await asyncio.start_server(self._take, sock=listener, limit=self._limit)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._tasks) >= _MOST:
            oldest = next(iter(self._tasks))
            del self._tasks[oldest]
            oldest.cancel()
        self._tasks[task] = None
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._answer(reader, writer)
                await writer.drain()
                writer.write_eof()
                await self._read_rest(reader)
        except (OSError, TimeoutError, asyncio.CancelledError):
            # It is gone, too slow, or has had to make room.
            pass
        finally:
            self._tasks.pop(task, None)
            # Not close(): that waits for the client to take what is left.
            writer.transport.abort()

    @staticmethod
    async def _read_rest(reader: asyncio.StreamReader) -> None:
        """To close with octets unread may cost the client its answer."""
        while await reader.read(65536):
            pass
