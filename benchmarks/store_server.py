"""The store behind asyncio on uvloop, in workers like the daemon's, with what it takes to choose.

Run as `python -m benchmarks.store_server`. What it delivers lies in Maildirs named by local parts.
"""

import argparse
import gc
import sys
from pathlib import PurePosixPath

import lmtp_sockets
from benchmarks import _workers
from benchmarks.discard_server import serve
from lmtp_proto import Recipient, Settings
from lmtp_transport import Listener
from mailstore import DeliveredTo, MaildirStore, StoreHandler, Sync, TraceOptions

# As the daemon's workers have it.
_COLLECT_AFTER = 20_000
_SWITCH_INTERVAL = 0.0005


def _locate(recipient: Recipient) -> PurePosixPath:
    return PurePosixPath(recipient.address.local_part)


def main() -> int:
    """Listen, say so on standard error and serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store_server")
    parser.add_argument("--mail", required=True, help="an existing directory")
    parser.add_argument("--sync", type=Sync, choices=list(Sync), default=Sync.OPTIMIZED)
    parser.add_argument(
        "--hard-links",
        action="store_true",
        help="one file for all recipients of a message, which then cannot say who they are",
    )
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    settings = Settings(hostname="benchmark.example")
    listener = lmtp_sockets.listen(lmtp_sockets.parse_address("127.0.0.1:0"))
    store = MaildirStore(
        arguments.mail,
        hostname="benchmark",
        sync=arguments.sync,
        hard_links=arguments.hard_links,
        trace=TraceOptions(
            delivered_to=DeliveredTo.NONE if arguments.hard_links else DeliveredTo.FINAL
        ),
    )
    handler = StoreHandler(store, _locate)
    print(f"listening on {lmtp_sockets.format_address(listener)}", file=sys.stderr, flush=True)
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 20)
    sys.setswitchinterval(_SWITCH_INTERVAL)
    workers: int = arguments.workers
    place = Listener(listener, shared=workers > 1)
    _workers.run(workers, lambda: serve("uvloop", handler, place, settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
