"""Delivers one message several times to a store that recognises retries, and says how:
`python -m tests.faults.retrier ROOT SYNC SIZE MAILDIR TIMES`.
"""

import os
import sys

from mailstore import MaildirStore, RetryOptions, Sync
from tests.mailstore.support import deliver


def main() -> None:
    root, sync, size, maildir, times = sys.argv[1:]
    store = MaildirStore(root, hostname="mx", sync=Sync(sync), retries=RetryOptions())
    content = b"Subject: x\r\n\r\n" + b"x" * int(size)
    for _ in range(int(times)):
        (reply,) = deliver(store, content, [maildir])
        # One system call, as the reply of a server.
        os.write(1, b"answered %d %s\n" % (reply.code, reply.text.encode()))
    store.close()


if __name__ == "__main__":
    main()
