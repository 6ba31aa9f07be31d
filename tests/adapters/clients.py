"""The client of each runtime, in the manner of the one on blocking sockets."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, Self, TypeVar, Unpack, cast

import uvloop

import lmtp_asyncio
import lmtp_blocking
import lmtp_gevent
from lmtp_transport import ClientOptions, SocketClient

T = TypeVar("T")

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
