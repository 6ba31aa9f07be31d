"""The runtimes a worker can serve on, and the choice between them.

The invariant: only the runtime that was chosen is imported, and only in a worker.
"""

import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, assert_never, get_args

from lmtp_proto import Handler, Settings
from lmtp_transport import Listener

from ._channel import WorkerEnd

Runtime = Literal["asyncio", "uvloop", "gevent", "blocking"]

RUNTIMES: Final[tuple[Runtime, ...]] = get_args(Runtime)
# The names of package and extra are those of the runtime.
_EXTRAS: Final = ("uvloop", "gevent")

# Seconds between two signs of life.
_BEAT: Final = 1.0
# Seconds between two looks at the clients of a server that retires.
_RETIRING: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What a runtime is to do: serve `listeners` until `channel` says that this ends.

    Connections beyond `max_connections` are answered 421. Sessions that are not over `drain`
    seconds after the stop are cut off. `beat` is called again and again, where sessions are served.
    """

    handler: Handler
    settings: Settings
    listeners: Sequence[Listener]
    max_connections: int
    channel: WorkerEnd
    beat: Callable[[], None]
    drain: float

    def live(self, retire: Callable[[], int]) -> Iterator[float]:
        """The life of a server from when it accepts connections until it is to stop: seconds to
        wait for the channel to be readable, again and again.

        `retire` is that of the server.
        """
        channel = self.channel
        channel.report_ready()
        while not (channel.stopping or channel.retiring):
            self.beat()
            yield _BEAT
            channel.hear()
        patience = time.monotonic() + self.drain
        while not channel.stopping and retire() and time.monotonic() < patience:
            self.beat()
            yield _RETIRING
            channel.hear()


def fastest() -> Runtime:
    """The fastest runtime that is installed."""
    return "asyncio" if missing("uvloop") else "uvloop"


def missing(runtime: Runtime) -> bool:
    """Whether the package that `runtime` needs is not installed."""
    return runtime in _EXTRAS and importlib.util.find_spec(runtime) is None


def load(runtime: Runtime) -> Callable[[Service], None]:
    """What serves on `runtime`, with all that it needs loaded.

    A worker may be somebody who cannot read where Python's packages lie: its supervisor calls this
    before.
    """
    match runtime:
        case "asyncio":
            from ._on_asyncio import run_on_asyncio

            return run_on_asyncio
        case "uvloop":
            import uvloop

            from ._on_asyncio import run_on_asyncio

            return partial(run_on_asyncio, loop_factory=uvloop.new_event_loop)
        case "gevent":
            from ._on_gevent import run_on_gevent

            return run_on_gevent
        case "blocking":
            from ._on_blocking import run_on_blocking

            return run_on_blocking
        case _:
            assert_never(runtime)


def run(runtime: Runtime, service: Service) -> None:
    """Serve on `runtime`; returns when the service has stopped."""
    load(runtime)(service)
