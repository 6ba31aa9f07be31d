"""The pool for runtimes that wait in place, such as threads and greenlets."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Final, Generic, Protocol, Self, TypeVar, Unpack, assert_never

from lmtp_proto import Address, Body, MailParameters, Recipient, Result
from lmtp_sockets import parse_address

from ._client import ClientOptions
from ._pool import (
    LEAVE_TIME,
    AwaitTurn,
    Connect,
    Leave,
    Probe,
    Submit,
    Watched,
    through_pool,
)
from ._pool_book import PoolBook, PoolSettings
from ._socket_client import SocketClient

S = TypeVar("S", bound=SocketClient)

_NO_PARAMETERS: Final = MailParameters()


class SocketTurn(Protocol):
    """A runtime's `Event`."""

    def set(self) -> object:
        """Wake whoever waits."""

    def clear(self) -> object:
        """Nobody is to be woken yet."""

    def wait(self, timeout: float, /) -> object:
        """Wait until set, for so many seconds at most."""


class SocketPool(ABC, Generic[S]):
    """Connections to one server, opened when they are needed and used again and again.

    For any number of callers at a time. `prepare(client)` is called with each new connection,
    where it is told, and may `start_tls()` and `authenticate()`; what it raises, `submit()` raises.
    `options` are those of `Client`. Raises ValueError for an address that is none.
    """

    def __init__(
        self,
        address: str,
        settings: PoolSettings | None = None,
        *,
        prepare: Callable[[S], object] | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        parse_address(address)
        self._address = address
        self._settings = settings or PoolSettings()
        self._prepare = prepare
        self._options = options
        self._book: PoolBook[S] = PoolBook(self._settings, time.monotonic)

    @abstractmethod
    def _connect(self, address: str, options: ClientOptions) -> S:
        """Open a connection."""

    @abstractmethod
    def _turn(self) -> SocketTurn:
        """What one caller waits with."""

    def submit(
        self,
        reverse_path: Address | None,
        recipients: Sequence[Recipient],
        content: Iterable[bytes],
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
        closed, what `Client()` raises when connecting fails, and what `Client.submit()` raises.
        """
        watched = Watched(content)
        turn = self._turn()
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
                        step.results = step.client.submit(
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
                    self._perform(step, turn)
        finally:
            steps.close()

    def close(self) -> None:
        """Take leave on connections that are not in use, and close those in use when they are not
        any more; who waits for one gets a RuntimeError."""
        for client in self._book.close():
            client.leave(LEAVE_TIME)

    def _perform(
        self, step: AwaitTurn | Connect[S] | Probe[S] | Leave[S], turn: SocketTurn
    ) -> None:
        match step:
            case AwaitTurn():
                turn.wait(max(step.deadline - time.monotonic(), 0.0))
            case Connect():
                try:
                    step.client = self._opened()
                except Exception as error:
                    step.error = error
            case Probe():
                try:
                    reply = step.client.reset(timeout=self._settings.probe_timeout)
                except BaseException:
                    step.client.abort()
                    raise
                step.alive = reply.code == 250 and step.client.usable
            case Leave():
                step.client.leave(step.seconds)
            case _:
                assert_never(step)

    def _opened(self) -> S:
        client = self._connect(self._address, self._options)
        try:
            if self._prepare is not None and client.usable:
                self._prepare(client)
        except BaseException:
            client.abort()
            raise
        return client

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
