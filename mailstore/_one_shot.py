"""One message delivered by a program of its own, without a server.

The invariant: the reply is the one that a client of the server would have got; what is answered 250
is on disk.
"""

from collections.abc import Iterable

from lmtp_proto import Reply, Transaction

from ._destination import Destination
from ._report import Report
from ._store import NO_QUOTAS, MaildirStore


def deliver_one(
    store: MaildirStore,
    transaction: Transaction,
    destination: Destination,
    content: Iterable[bytes],
    *,
    report: Report | None = None,
) -> Reply:
    """Deliver `content`, whose lines end in LF or CRLF, to the one recipient of `transaction`,
    within the quota of `destination`; `report` is told how it went.

    Raises what `content` raises, and OSError if it cannot be kept; then nothing was delivered.
    """
    (recipient,) = transaction.recipients
    quota = destination.quota
    quotas = NO_QUOTAS if quota is None else {recipient: quota}
    sink = store.open(transaction, {recipient: destination}, quotas, report=report)
    try:
        for piece in content:
            job = sink.write(piece)
            if job is not None:
                job()
        answer = sink.deliver(recipient)
        return answer() if callable(answer) else answer.result()
    finally:
        sink.close()
