"""Copies of a message, put into Maildirs by the batch or, if large, one by one.

The invariant: a copy counts as stored when the committer says so, whichever way it took.
"""

import os
from collections.abc import Callable
from concurrent.futures import Future

from ._batch import Delivery, PreparedDelivery
from ._committer import Committer
from ._files import write_all
from ._maildir import Parts, open_maildir
from ._names import UniqueNames
from ._spool import LineEnding, Spool
from ._sync import Sync


class CopyWriter:
    """Stores copies in Maildirs below the directory `root`, a descriptor that it takes over."""

    __slots__ = ("_committer", "_line_ending", "_names", "_root", "_sync")

    def __init__(self, root: int, *, hostname: str, sync: Sync, line_ending: LineEnding) -> None:
        self._root = root
        self._sync = sync
        self._line_ending = line_ending
        self._names = UniqueNames(hostname)
        self._committer = Committer(root, sync)

    def submit(
        self, parts: Parts, header: bytes, spool: Spool, done: Callable[[Exception | None], None]
    ) -> None:
        """Store `header` and a message that is in memory with the next batch.

        `done` is called in another thread, with None or with what went wrong. Raises RuntimeError
        after `close`.
        """
        name = self._name(header, spool)
        self._committer.submit(Delivery(parts, name, (header, spool.rest), done))

    def begin(self, parts: Parts, header: bytes, spool: Spool) -> Callable[[], None]:
        """What stores `header` and a message that is in memory, even after the spool was closed.

        To be called once. Blocks until the copy is durable. Raises OSError, and RuntimeError after
        `close`.
        """
        outcome: Future[Exception | None] = Future()
        name = self._name(header, spool)
        delivery = Delivery(parts, name, (header, spool.rest), outcome.set_result)

        def store() -> None:
            self._committer.submit(delivery)
            error = outcome.result()
            if error is not None:
                raise error

        return store

    def copy(self, parts: Parts, header: bytes, spool: Spool) -> None:
        """Store `header` and any message. Blocks until it is durable.

        Copies and syncs by itself, as a large message would hold up a batch, and leaves the
        directory entry to the committer. Raises OSError, and RuntimeError after `close`.
        """
        name = self._name(header, spool)
        maildir = open_maildir(self._root, parts)
        try:
            descriptor = maildir.create(name)
            try:
                try:
                    write_all(descriptor, header)
                    spool.copy_to(descriptor)
                    if self._sync is not Sync.NEVER:
                        os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                outcome: Future[Exception | None] = Future()
                self._committer.submit(PreparedDelivery(parts, name, maildir, outcome.set_result))
                error = outcome.result()
                if error is not None:
                    raise error
            except BaseException:
                maildir.discard(name)
                raise
        finally:
            maildir.close()

    def close(self) -> None:
        """Finish what was submitted and close the root."""
        self._committer.close()
        os.close(self._root)

    def _name(self, header: bytes, spool: Spool) -> str:
        size = len(header) + spool.size
        virtual_size = len(header) + spool.virtual_size
        if self._line_ending is LineEnding.LF:
            virtual_size += header.count(b"\n")
        return self._names.make(size, virtual_size)
