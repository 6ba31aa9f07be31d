"""The store: a message is taken in once and delivered to each recipient's Maildir.

The invariant: a recipient is answered 250 only when its copy is durable. A failure of the store's
own is answered 4xx, so that the client keeps the message and tries again.
"""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import PurePath
from types import MappingProxyType
from typing import Final

from lmtp_proto import Recipient, Reply, Transaction

from ._copies import CopyWriter
from ._maildir import Parts, split_path
from ._outcome import Outcome, PendingReply
from ._quota import Quota, store_within
from ._spool import LineEnding, Spool
from ._sync import Sync
from ._trace import TraceHeader

NO_QUOTAS: Final[Mapping[Recipient, Quota]] = MappingProxyType({})


class MaildirStore:
    """Delivers into Maildirs below `root`, a directory that exists and is trusted.

    `hostname` names this host in Received and in file names. Messages above `spool_threshold`
    octets wait in an unnamed file in `spool_directory`, by default `root`: on the same file
    system they are copied cheaply. Raises OSError if `root` cannot be opened.

    A store may be used by several threads and across fork(2).
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        hostname: str,
        sync: Sync = Sync.FSYNC,
        line_ending: LineEnding = LineEnding.LF,
        spool_directory: str | os.PathLike[str] | None = None,
        spool_threshold: int = 128 * 1024,
    ) -> None:
        self._root = os.path.abspath(root)
        self._hostname = hostname
        self._line_ending = line_ending
        self._spool_directory = os.fspath(spool_directory or self._root)
        self._spool_threshold = spool_threshold
        self._copies = CopyWriter(
            os.open(self._root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC),
            hostname=hostname,
            sync=sync,
            line_ending=line_ending,
        )

    def open(
        self,
        transaction: Transaction,
        maildirs: Mapping[Recipient, PurePath],
        quotas: Mapping[Recipient, Quota] = NO_QUOTAS,
    ) -> "MaildirSink":
        """A sink for the content of one message.

        `maildirs` says for each recipient of the transaction where its Maildir is: below the root,
        absolute or relative to it. Missing directories are made. Recipients with the same Maildir
        get one copy and the same outcome.

        `quotas` has the quota of each recipient that has one. A copy that does not fit is refused;
        one that fits is counted once it is stored.
        """
        spool = Spool(
            self._spool_directory,
            threshold=self._spool_threshold,
            line_ending=self._line_ending,
        )
        trace = TraceHeader(
            transaction,
            self._hostname,
            line_end="\r\n" if self._line_ending is LineEnding.CRLF else "\n",
        )

        def parts_of(recipient: Recipient) -> Parts:
            return split_path(self._root, maildirs[recipient])

        return MaildirSink(self._copies, transaction.id, parts_of, spool, trace, quotas)

    def close(self) -> None:
        """Finish the deliveries that were begun and release all descriptors."""
        self._copies.close()


class MaildirSink:
    """Takes the content of one message and delivers it (an `lmtp_proto.Sink`)."""

    __slots__ = ("_copies", "_id", "_outcomes", "_parts_of", "_quotas", "_spool", "_trace")

    def __init__(
        self,
        copies: CopyWriter,
        transaction_id: str,
        parts_of: Callable[[Recipient], Parts],
        spool: Spool,
        trace: TraceHeader,
        quotas: Mapping[Recipient, Quota] = NO_QUOTAS,
    ) -> None:
        self._copies = copies
        self._id = transaction_id
        self._parts_of = parts_of
        self._spool = spool
        self._trace = trace
        self._quotas = quotas
        self._outcomes: dict[Parts, Outcome] = {}

    def write(self, data: bytes, /) -> Callable[[], None] | None:
        """Take the next octets; a job, if there is one, raises OSError."""
        return self._spool.write(data)

    def deliver(self, recipient: Recipient, /) -> PendingReply | Callable[[], Reply]:
        """Deliver to one recipient: a reply to come, or a job that blocks for a spooled message and
        for a recipient with a quota.

        Raises ValueError for a Maildir that is not below the root of the store.
        """
        parts = self._parts_of(recipient)
        outcome = self._outcomes.get(parts)
        if outcome is not None:
            return outcome.reply_to(recipient)
        outcome = self._outcomes[parts] = Outcome(parts, self._id)
        self._spool.finish()
        header = self._trace.for_recipient(recipient)
        if recipient in self._quotas:
            return self._within(self._quotas[recipient], outcome, recipient, header)
        if not self._spool.in_memory:
            copy = partial(self._copies.copy, parts, header, self._spool)
            return partial(self._store, outcome, recipient, copy)
        reply = outcome.reply_to(recipient)
        try:
            self._copies.submit(parts, header, self._spool, outcome.set)
        except RuntimeError as error:
            outcome.set(error)
        return reply

    def close(self) -> None:
        """Let the message go. Deliveries that were begun come to their end."""
        self._spool.close()

    def _within(
        self, quota: Quota, outcome: Outcome, recipient: Recipient, header: bytes
    ) -> Callable[[], Reply]:
        if self._spool.in_memory:
            store = self._copies.begin(outcome.parts, header, self._spool)
        else:
            store = partial(self._copies.copy, outcome.parts, header, self._spool)
        size = len(header) + self._spool.size
        enforced = not recipient.parameters.ignore_quota
        bounded = partial(store_within, quota, size, store, enforced=enforced)
        return partial(self._store, outcome, recipient, bounded)

    def _store(self, outcome: Outcome, recipient: Recipient, store: Callable[[], None]) -> Reply:
        reply = outcome.reply_to(recipient)
        try:
            store()
        except Exception as error:
            outcome.set(error)
        else:
            outcome.set(None)
        return reply.result()
