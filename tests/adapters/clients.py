"""The client of each runtime, in the manner of the one on blocking sockets."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol, Self, TypeAlias, TypeVar, Unpack, cast

import gevent
import uvloop

import lmtp_asyncio
import lmtp_blocking
import lmtp_gevent
from lmtp_proto import Recipient, Result
from lmtp_transport import ClientOptions, PoolSettings, SocketClient, SocketPool

T = TypeVar("T")

Message: TypeAlias = tuple[Recipient, Iterable[bytes]]

LOOPS: Final[dict[str, Callable[[], asyncio.AbstractEventLoop]]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


class MakeClient(Protocol):
    """Connect, on the runtime of the test."""

    def __call__(self, address: str, /, **options: Unpack[ClientOptions]) -> SocketClient: ...


class _OnLoop:
    """An object of `lmtp_asyncio`, whose loop runs while one of its methods does."""

    def __init__(
        self,
        factory: Callable[[], asyncio.AbstractEventLoop],
        make: Callable[[], Awaitable[Any]],
    ) -> None:
        self._runner = asyncio.Runner(loop_factory=factory)
        try:
            self._made = self._run(make)
        except BaseException:
            self._runner.close()
            raise

    def __getattr__(self, name: str) -> object:
        found = getattr(self._made, name)
        if not asyncio.iscoroutinefunction(found):
            return found
        return lambda *args, **options: self._run(lambda: found(*args, **options))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: Any) -> None:
        try:
            self._run(lambda: self._made.__aexit__(*failure))
        finally:
            self._runner.close()

    def _run(self, make: Callable[[], Awaitable[T]]) -> T:
        async def run() -> T:
            return await make()

        return self._runner.run(run())


def client_maker(runtime: str) -> MakeClient:
    """What makes the client of a runtime."""
    if runtime == "blocking":
        return lmtp_blocking.Client
    if runtime == "gevent":
        return lmtp_gevent.Client

    def make(address: str, /, **options: Unpack[ClientOptions]) -> SocketClient:
        client = _OnLoop(LOOPS[runtime], lambda: lmtp_asyncio.Client.connect(address, **options))
        return cast(SocketClient, client)

    return make


class MakePool(Protocol):
    """Make a pool, on the runtime of the test."""

    def __call__(
        self,
        address: str,
        /,
        settings: PoolSettings | None = None,
        *,
        prepare: Callable[[Any], Any] | None = None,
        **options: Unpack[ClientOptions],
    ) -> SocketPool[Any]: ...


def pool_maker(runtime: str) -> MakePool:
    """What makes the pool of a runtime; `prepare` is the runtime's own kind of function."""
    if runtime == "blocking":
        return lmtp_blocking.Pool
    if runtime == "gevent":
        return lmtp_gevent.Pool

    def make(
        address: str,
        /,
        settings: PoolSettings | None = None,
        *,
        prepare: Callable[[Any], Any] | None = None,
        **options: Unpack[ClientOptions],
    ) -> SocketPool[Any]:
        async def made() -> lmtp_asyncio.Pool:
            return lmtp_asyncio.Pool(address, settings, prepare=prepare, **options)

        return cast("SocketPool[Any]", _OnLoop(LOOPS[runtime], made))

    return make


def on_loop(pool: SocketPool[Any]) -> lmtp_asyncio.Pool:
    """The pool itself, for what runs on its loop."""
    made = cast(_OnLoop, pool)._made
    assert isinstance(made, lmtp_asyncio.Pool)
    return made


Outcome: TypeAlias = list[Result] | Exception


def at_once(
    runtime: str,
    pool: SocketPool[Any],
    messages: Sequence[Message],
    done: Callable[[Outcome], object] = lambda _: None,
) -> list[Outcome]:
    """Submit messages to one recipient each at the same time: what came of each, of which `done`
    is told as soon as it is known."""

    def submit(message: Message) -> Outcome:
        outcome: Outcome
        recipient, content = message
        try:
            outcome = pool.submit(None, [recipient], content)
        except Exception as error:
            outcome = error
        done(outcome)
        return outcome

    if runtime == "blocking":
        with ThreadPoolExecutor(len(messages)) as threads:
            return list(threads.map(submit, messages))
    if runtime == "gevent":
        greenlets = [gevent.spawn(submit, message) for message in messages]
        gevent.joinall(greenlets)
        return [greenlet.get() for greenlet in greenlets]
    made = on_loop(pool)

    async def submit_on_loop(message: Message) -> Outcome:
        outcome: Outcome
        recipient, content = message
        try:
            outcome = await made.submit(None, [recipient], content)
        except Exception as error:
            outcome = error
        done(outcome)
        return outcome

    async def submit_all() -> list[Outcome]:
        return await asyncio.gather(*map(submit_on_loop, messages))

    return cast(_OnLoop, pool)._run(submit_all)
