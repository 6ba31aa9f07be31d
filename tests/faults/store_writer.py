"""Delivers to a store until it is killed, and writes the name of each message that was acknowledged
to standard output: `python -m tests.faults.store_writer ROOT NAME SYNC`.
"""

import hashlib
import os
import random
import re
import sys
import threading
from collections import Counter
from pathlib import Path

from mailstore import DeliveredTo, MaildirStore, Sync, TraceOptions
from tests.interop.lmtp import split_trace
from tests.mailstore.support import deliver

MAILDIRS = ("a", "b", "c")
_THREADS = 4
# Octets of a body: mostly small, some larger than what is kept in memory.
_SIZE = re.compile(r",S=(\d+),W=")
_SIZES = (10, 2_000, 2_000, 2_000, 50_000, 400_000)


def message(name: str) -> bytes:
    """A message that carries its own digest."""
    chance = random.Random(name)
    size = chance.choice(_SIZES)
    body = b"\r\n".join([chance.randbytes(38).hex().encode()] * (1 + size // 78))
    content = b"Subject: " + name.encode() + b"\r\n\r\n" + body + b"\r\n"
    return content + hashlib.sha256(content).hexdigest().encode() + b"\r\n"


def name_of(content: bytes) -> str | None:
    """The name of a message as it was stored, without its trace header; None if it is not whole."""
    content = content.replace(b"\n", b"\r\n")
    digest = content[-66:-2]
    if hashlib.sha256(content[:-66]).hexdigest().encode() != digest:
        return None
    return content.partition(b"\r\n")[0].removeprefix(b"Subject: ").decode()


def stored_below(root: Path) -> tuple[Counter[tuple[str, str]], list[Path]]:
    """What is in new/ of the Maildirs: Maildir and name of each message that is whole and as large
    as its file name says, and the files that are not.
    """
    stored: Counter[tuple[str, str]] = Counter()
    torn = []
    for maildir in MAILDIRS:
        for path in (root / maildir).glob("new/*"):
            content = path.read_bytes()
            size = _SIZE.search(path.name)
            assert size is not None
            whole = int(size[1]) == len(content)
            name = name_of(split_trace(content)[1]) if whole else None
            if name is None:
                torn.append(path)
            else:
                stored[maildir, name] += 1
    return stored, torn


def main(root: Path, name: str, sync: Sync) -> None:
    stores = [
        MaildirStore(root, hostname="mx.example.org", sync=sync),
        # Copies that are links to one file, which is not for copies with a field of their own.
        MaildirStore(
            root,
            hostname="mx.example.org",
            sync=sync,
            trace=TraceOptions(delivered_to=DeliveredTo.NONE),
            hard_links=True,
        ),
    ]

    def run(number: int) -> None:
        store = stores[number % len(stores)]
        for count in range(1_000_000):
            of_message = f"{name}.{number}.{count}"
            maildirs = MAILDIRS if count % 4 == 0 else MAILDIRS[count % 3 :][:1]
            for reply in deliver(store, message(of_message), maildirs):
                if reply.code != 250:
                    os._exit(1)
            for maildir in maildirs:
                os.write(1, f"{maildir} {of_message}\n".encode())

    for number in range(_THREADS):
        threading.Thread(target=run, args=(number,)).start()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Sync(sys.argv[3]))
