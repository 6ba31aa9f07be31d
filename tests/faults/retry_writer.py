"""Delivers to a store that recognises retries until it is killed, and writes which message of which
thread was acknowledged to standard output: `python -m tests.faults.retry_writer ROOT NAME SYNC`.
"""

import os
import sys
import threading
from pathlib import Path

from mailstore import MaildirStore, RetryOptions, Sync
from tests.faults.store_writer import MAILDIRS, message
from tests.mailstore.support import deliver

THREADS = 4


def maildirs_of(count: int) -> tuple[str, ...]:
    """Where the message with this number goes."""
    return MAILDIRS if count % 4 == 0 else MAILDIRS[count % 3 :][:1]


def main(root: Path, name: str, sync: Sync) -> None:
    store = MaildirStore(root, hostname="mx.example.org", sync=sync, retries=RetryOptions())

    def run(number: int) -> None:
        for count in range(1_000_000):
            replies = deliver(store, message(f"{name}.{number}.{count}"), maildirs_of(count))
            if {reply.code for reply in replies} != {250}:
                os._exit(1)
            os.write(1, f"{number} {count}\n".encode())

    for number in range(THREADS):
        threading.Thread(target=run, args=(number,)).start()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Sync(sys.argv[3]))
