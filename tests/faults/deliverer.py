"""Delivers to a store and says how: `python -m tests.faults.deliverer ROOT SYNC SIZE MAILDIRS...`.

Each of MAILDIRS is one message, to one or several Maildirs with commas between them.
"""

import os
import sys

from mailstore import MaildirStore, Sync
from tests.mailstore.support import deliver


def main() -> None:
    root, sync, size, *messages = sys.argv[1:]
    store = MaildirStore(root, hostname="mx", sync=Sync(sync))
    content = b"Subject: x\r\n\r\n" + b"x" * int(size)
    for message in messages:
        maildirs = message.split(",")
        for maildir, reply in zip(maildirs, deliver(store, content, maildirs), strict=True):
            # One system call, as the reply of a server.
            os.write(1, b"answered %d %s\n" % (reply.code, maildir.encode()))
    store.close()


if __name__ == "__main__":
    main()
