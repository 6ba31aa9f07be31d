"""Delivers to a store and says how:
`python -m tests.faults.deliverer [--links] ROOT SYNC SIZE MAILDIRS...`.

Each of MAILDIRS is one message, to one or several Maildirs with commas between them. With --links
its copies are links to one file.
"""

import os
import sys

from mailstore import DeliveredTo, MaildirStore, Sync, TraceOptions
from tests.mailstore.support import deliver


def main() -> None:
    links = sys.argv[1] == "--links"
    root, sync, size, *messages = sys.argv[1 + links :]
    trace = TraceOptions(delivered_to=DeliveredTo.NONE if links else DeliveredTo.FINAL)
    store = MaildirStore(root, hostname="mx", sync=Sync(sync), trace=trace, hard_links=links)
    content = b"Subject: x\r\n\r\n" + b"x" * int(size)
    for message in messages:
        maildirs = message.split(",")
        for maildir, reply in zip(maildirs, deliver(store, content, maildirs), strict=True):
            # One system call, as the reply of a server.
            os.write(1, b"answered %d %s\n" % (reply.code, maildir.encode()))
    store.close()


if __name__ == "__main__":
    main()
