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
    server = Server(
        service.handler, settings=service.settings, max_connections=service.max_connections
    )
    await server.start(*service.listeners)
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    loop.add_reader(service.channel.fileno(), told.set)
    for seconds in service.live(server.retire):
        try:
            await asyncio.wait_for(told.wait(), seconds)
        except TimeoutError:
            pass
        told.clear()
    loop.remove_reader(service.channel.fileno())
    await server.stop(service.drain)
