"""The runtimes a worker can serve on, and the choice between them.

The invariant: only the runtime that was chosen is imported, and only in a worker.
"""

import importlib.util
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, assert_never, get_args

from lmtp_proto import Handler, Settings

Runtime = Literal["asyncio", "uvloop", "gevent", "blocking"]

RUNTIMES: Final[tuple[Runtime, ...]] = get_args(Runtime)
# The names of package and extra are those of the runtime.
_EXTRAS: Final = ("uvloop", "gevent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What a runtime is to do: serve `listeners` until `channel` is readable, then stop.

    `ready` is called once connections are accepted; sessions that are not over `drain` seconds
    after the stop are cut off.
    """

    handler: Handler
    settings: Settings
    listeners: Sequence[socket.socket]
    channel: socket.socket
    ready: Callable[[], None]
    drain: float


def fastest() -> Runtime:
    """The fastest runtime that is installed."""
    return "asyncio" if missing("uvloop") else "uvloop"


def missing(runtime: Runtime) -> bool:
    """Whether the package that `runtime` needs is not installed."""
    return runtime in _EXTRAS and importlib.util.find_spec(runtime) is None


def run(runtime: Runtime, service: Service) -> None:
    """Serve on `runtime`; returns when the service has stopped."""
    match runtime:
        case "asyncio":
            from ._on_asyncio import run_on_asyncio

            run_on_asyncio(service)
        case "uvloop":
            import uvloop

            from ._on_asyncio import run_on_asyncio

            run_on_asyncio(service, uvloop.new_event_loop)
        case "gevent":
            from ._on_gevent import run_on_gevent

            run_on_gevent(service)
        case "blocking":
            from ._on_blocking import run_on_blocking

            run_on_blocking(service)
        case _:
            assert_never(runtime)
