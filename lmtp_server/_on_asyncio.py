"""A worker's service on asyncio or another event loop with its interface."""

import asyncio
from collections.abc import Callable

from lmtp_asyncio import Server

from ._runtimes import Service


def run_on_asyncio(
    service: Service, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> None:
    """Serve on the loop that `loop_factory` makes, asyncio's own by default."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(_serve(service))


async def _serve(service: Service) -> None:
    server = Server(service.handler, settings=service.settings)
    await server.start(*service.listeners)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(service.channel.fileno(), ended.set)
    service.ready()
    await ended.wait()
    loop.remove_reader(service.channel.fileno())
    await server.stop(service.drain)
