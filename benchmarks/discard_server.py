"""An embedder's server on one of the adapters, whose handler drops what it receives.

Run as `python -m benchmarks.discard_server`. It measures the protocol and the adapter: every check
is made, every reply is sent, nothing is kept.
"""

import argparse
import asyncio
import sys

import lmtp_sockets
from benchmarks import _workers
from lmtp_proto import Handler, Limits, Recipient, Reply, Settings, Transaction
from lmtp_transport import Listener

# Above the defaults: the benchmarks go to 256 MB and 10,000 connections.
_MESSAGE_SIZE = 1 << 30
_CONNECTIONS = 20_000
_DISCARDED = Reply(250, "discarded", enhanced="2.0.0")


class DiscardSink:
    """Drops the content, and takes responsibility for it all the same."""

    def write(self, data: bytes) -> None:
        """Drop `data`."""

    def deliver(self, recipient: Recipient) -> Reply:
        """Return 250."""
        return _DISCARDED

    def close(self) -> None:
        """Nothing is held."""


class DiscardHandler(Handler):
    """Accepts every recipient."""

    def open(self, transaction: Transaction) -> DiscardSink:
        """Take the content of `transaction`."""
        return DiscardSink()


def serve(runtime: str, handler: Handler, listener: Listener, settings: Settings) -> None:
    """Serve `listener` on `runtime` until SIGTERM."""
    if runtime == "gevent":
        import lmtp_gevent

        lmtp_gevent.serve(handler, listener, settings=settings, max_connections=_CONNECTIONS)
    elif runtime == "blocking":
        import lmtp_blocking

        lmtp_blocking.serve(handler, listener, settings=settings, max_connections=_CONNECTIONS)
    else:
        import lmtp_asyncio

        serving = lmtp_asyncio.serve(
            handler, listener, settings=settings, max_connections=_CONNECTIONS
        )
        if runtime == "uvloop":
            import uvloop

            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(serving)
        else:
            asyncio.run(serving)


def main() -> int:
    """Listen, say so on standard error and serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.discard_server")
    parser.add_argument(
        "--listen", default="127.0.0.1:0", help="HOST:PORT, [IPV6]:PORT or unix:PATH"
    )
    parser.add_argument(
        "--runtime", choices=("asyncio", "uvloop", "gevent", "blocking"), default="asyncio"
    )
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    settings = Settings(hostname="benchmark.example", limits=Limits(message_size=_MESSAGE_SIZE))
    listener = lmtp_sockets.listen(lmtp_sockets.parse_address(arguments.listen))
    address = lmtp_sockets.format_address(listener)
    print(f"listening on {address}", file=sys.stderr, flush=True)
    handler = DiscardHandler()
    workers: int = arguments.workers
    place = Listener(listener, shared=workers > 1)
    _workers.run(workers, lambda: serve(arguments.runtime, handler, place, settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
