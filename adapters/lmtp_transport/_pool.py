"""A pool's way with one message, as a generator of steps that a runtime performs.

A message is sent a second time only where the first connection had been used before and was lost
with no word of the server on any recipient, and nothing of the content had been read: so nobody
gets it twice.
"""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Iterator
from typing import Final, Generic, Protocol, TypeAlias, TypeVar

from lmtp_proto import Reply, Result

from ._pool_book import Open, PoolBook, Retire, Reuse, Turn, Wait

LEAVE_TIME: Final = 1.0
"""Seconds to take leave of a server whose connection is not needed any more."""
# The same where a message waits behind it, perhaps behind one such leave for each connection.
_LEAVE_IN_PASSING: Final = 0.1


class PooledClient(Protocol):
    """What a pool wants to know of a connection."""

    @property
    def usable(self) -> bool:
        """Whether it takes another message."""

    @property
    def refusal(self) -> Reply | None:
        """Why it does not."""


C = TypeVar("C", bound=PooledClient)


class AwaitTurn:
    """Wait until the caller's turn is set, until `deadline` at most."""

    __slots__ = ("deadline",)

    def __init__(self, deadline: float) -> None:
        self.deadline: Final = deadline


class Connect(Generic[C]):
    """Open a connection and make it ready: `client`, or the `error`."""

    __slots__ = ("client", "error")

    def __init__(self) -> None:
        self.client: C | None = None
        self.error: Exception | None = None


class Probe(Generic[C]):
    """Say RSET: `alive` where the reply is 250."""

    __slots__ = ("alive", "client")

    def __init__(self, client: C) -> None:
        self.client: Final = client
        self.alive = False


class Submit(Generic[C]):
    """Submit the message: `results`, or the `error` that submitting raised."""

    __slots__ = ("client", "error", "results")

    def __init__(self, client: C) -> None:
        self.client: Final = client
        self.results: list[Result] = []
        self.error: Exception | None = None


class Leave(Generic[C]):
    """Take leave for no more than `seconds`, and close."""

    __slots__ = ("client", "seconds")

    def __init__(self, client: C, seconds: float = LEAVE_TIME) -> None:
        self.client: Final = client
        self.seconds: Final = seconds


PoolStep: TypeAlias = AwaitTurn | Connect[C] | Probe[C] | Submit[C] | Leave[C]


class Watched:
    """A content, and whether it has been begun."""

    def __init__(self, content: Iterable[bytes]) -> None:
        self._content = content
        self.begun = False

    def __iter__(self) -> Iterator[bytes]:
        self.begun = True
        yield from self._content


class WatchedAsync:
    """An asynchronous content, and whether it has been begun."""

    def __init__(self, content: AsyncIterable[bytes]) -> None:
        self._content = content
        self.begun = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.begun = True
        async for piece in self._content:
            yield piece


def through_pool(
    book: PoolBook[C],
    turn: Turn,
    content: Watched | WatchedAsync,
    deadline: float,
    clock: Callable[[], float],
) -> Generator[PoolStep[C], None, list[Result]]:
    """Submit one message over a connection of the pool: its results.

    Raises TimeoutError when none is to be had by `deadline`, RuntimeError when the pool is closed,
    and what connecting or submitting raises. Whoever leaves early has closed the connection.
    """
    client, is_fresh = yield from _take(book, turn, deadline, clock)
    while True:
        submit = Submit(client)
        try:
            yield submit
        except BaseException:
            book.drop(client)
            raise
        lost = submit.error is None and not client.usable
        if is_fresh or not lost or content.begun or not _unheard(submit.results):
            break
        try:
            yield Leave(client)
        except BaseException:
            book.drop(client)
            raise
        book.replace(client)
        client = yield from _open(book)
        is_fresh = True
    if not (client.usable and book.release(client)):
        yield from _leave(book, client)
    if submit.error is not None:
        raise submit.error
    return submit.results


def _take(
    book: PoolBook[C], turn: Turn, deadline: float, clock: Callable[[], float]
) -> Generator[PoolStep[C], None, tuple[C, bool]]:
    """A connection, and whether it is new."""
    book.enqueue(turn)
    try:
        while True:
            step = book.next_step(turn)
            match step:
                case Wait(until=until):
                    if clock() >= deadline:
                        raise TimeoutError(
                            "no connection of the pool has become free in time"
                        ) from book.error
                    yield AwaitTurn(deadline if until is None else min(until, deadline))
                case Retire(client=client):
                    yield from _leave(book, client, _LEAVE_IN_PASSING)
                case Open():
                    return (yield from _open(book)), True
                case Reuse(client=client, probe=False):
                    return client, False
                case Reuse(client=client):
                    if (yield from _is_alive(book, client)):
                        return client, False
                    book.enqueue(turn, again=True)
    finally:
        book.dequeue(turn)


def _open(book: PoolBook[C]) -> Generator[PoolStep[C], None, C]:
    connect: Connect[C] = Connect()
    try:
        yield connect
    except BaseException:
        book.failed(None)
        raise
    if connect.client is None:
        error = connect.error or OSError("no connection")
        book.failed(error)
        raise error
    client = connect.client
    refusal = None if client.usable else ConnectionError(f"the server refuses: {client.refusal}")
    book.opened(client, refusal)
    return client


def _is_alive(book: PoolBook[C], client: C) -> Generator[PoolStep[C], None, bool]:
    probe = Probe(client)
    try:
        yield probe
    except BaseException:
        book.drop(client)
        raise
    if not probe.alive:
        yield from _leave(book, client)
    return probe.alive


def _leave(
    book: PoolBook[C], client: C, seconds: float = LEAVE_TIME
) -> Generator[PoolStep[C], None, None]:
    try:
        yield Leave(client, seconds)
    finally:
        # Not before: it counts as long as it is there.
        book.drop(client)


def _unheard(results: list[Result]) -> bool:
    """Whether the server said nothing of any recipient."""
    return all(result.verb is None for result in results)
