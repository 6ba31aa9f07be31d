"""The store: a message is taken in once and delivered to each recipient's Maildir.

The invariant: a recipient is answered 250 only when its copy is durable. A failure of the store's
own is answered 4xx, so that the client keeps the message and tries again.
"""

import errno
import logging
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import PurePath
from typing import Final

from lmtp_proto import Recipient, Reply, Transaction

from ._copies import CopyWriter
from ._maildir import Parts, split_path
from ._spool import LineEnding, Spool
from ._sync import Sync
from ._trace import TraceHeader

_logger: Final = logging.getLogger("mailstore")


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
        self, transaction: Transaction, maildirs: Mapping[Recipient, PurePath]
    ) -> "MaildirSink":
        """A sink for the content of one message.

        `maildirs` says for each recipient of the transaction where its Maildir is: below the root,
        absolute or relative to it. Missing directories are made. Recipients with the same Maildir
        get one copy and the same outcome.
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

        return MaildirSink(self._copies, transaction.id, parts_of, spool, trace)

    def close(self) -> None:
        """Finish the deliveries that were begun and release all descriptors."""
        self._copies.close()


class MaildirSink:
    """Takes the content of one message and delivers it (an `lmtp_proto.Sink`)."""

    __slots__ = ("_copies", "_id", "_outcomes", "_parts_of", "_spool", "_trace")

    def __init__(
        self,
        copies: CopyWriter,
        transaction_id: str,
        parts_of: Callable[[Recipient], Parts],
        spool: Spool,
        trace: TraceHeader,
    ) -> None:
        self._copies = copies
        self._id = transaction_id
        self._parts_of = parts_of
        self._spool = spool
        self._trace = trace
        self._outcomes: dict[Parts, _Outcome] = {}

    def write(self, data: bytes, /) -> Callable[[], None] | None:
        """Take the next octets; a job, if there is one, raises OSError."""
        return self._spool.write(data)

    def deliver(self, recipient: Recipient, /) -> Future[Reply] | Callable[[], Reply]:
        """Deliver to one recipient: a future, or for a spooled message a job that blocks.

        Raises ValueError for a Maildir that is not below the root of the store.
        """
        parts = self._parts_of(recipient)
        outcome = self._outcomes.get(parts)
        if outcome is not None:
            return outcome.reply_to(recipient)
        outcome = self._outcomes[parts] = _Outcome(parts, self._id)
        self._spool.finish()
        header = self._trace.for_recipient(recipient)
        if not self._spool.in_memory:
            return partial(self._copy, outcome, recipient, header)
        reply = outcome.reply_to(recipient)
        try:
            self._copies.submit(parts, header, self._spool, outcome.set)
        except RuntimeError as error:
            outcome.set(error)
        return reply

    def close(self) -> None:
        """Let the message go. Deliveries that were begun come to their end."""
        self._spool.close()

    def _copy(self, outcome: "_Outcome", recipient: Recipient, header: bytes) -> Reply:
        reply = outcome.reply_to(recipient)
        try:
            self._copies.copy(outcome.parts, header, self._spool)
        except Exception as error:
            outcome.set(error)
        else:
            outcome.set(None)
        return reply.result()


class _Outcome:
    """Whether one copy was stored, for every recipient that shares it."""

    __slots__ = ("_error", "_id", "_lock", "_set", "_waiting", "parts")

    def __init__(self, parts: Parts, transaction_id: str) -> None:
        self.parts = parts
        self._id = transaction_id
        self._lock = threading.Lock()
        self._set = False
        self._error: Exception | None = None
        self._waiting: list[tuple[Recipient, Future[Reply]]] = []

    def reply_to(self, recipient: Recipient) -> Future[Reply]:
        """The reply for one of the recipients, as soon as the outcome is known."""
        future: Future[Reply] = Future()
        # From here on it cannot be cancelled: a delivery that was begun comes to its end.
        future.set_running_or_notify_cancel()
        with self._lock:
            if not self._set:
                self._waiting.append((recipient, future))
                return future
        future.set_result(self._reply(recipient))
        return future

    def set(self, error: Exception | None) -> None:
        """The copy was stored, or failed with `error`."""
        with self._lock:
            self._error = error
            self._set = True
        for recipient, future in self._waiting:
            future.set_result(self._reply(recipient))

    def _reply(self, recipient: Recipient) -> Reply:
        error = self._error
        if error is None:
            return Reply(250, f"<{recipient}> {self._id} Saved", enhanced="2.0.0")
        reply = _refusal(error, recipient)
        _logger.error(
            "%s: delivery to <%s> in %a failed with %s: %a: %s",
            self._id,
            str(recipient).encode("ascii", "backslashreplace").decode(),
            "/".join(self.parts),
            errno.errorcode.get(getattr(error, "errno", None) or 0, type(error).__name__),
            str(error),
            reply,
            exc_info=None if isinstance(error, OSError) else error,
        )
        return reply


def _refusal(error: Exception, recipient: Recipient) -> Reply:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.ENOSPC:
        return Reply(452, f"<{recipient}> insufficient system storage", enhanced="4.3.1")
    if number == errno.EDQUOT:
        return Reply(552, f"<{recipient}> mailbox is full", enhanced="5.2.2")
    return Reply(451, f"<{recipient}> temporary internal error", enhanced="4.3.0")
