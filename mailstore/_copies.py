"""Copies of a message, put into Maildirs by the batch or, if large, one by one.

The invariant: a copy counts as stored when the committer says so, whichever way it took.
"""

import os
from collections.abc import Callable
from concurrent.futures import Future

from ._batch import Delivery, PreparedDelivery
from ._committer import Committer
from ._files import write_all
from ._folders import Place, open_place
from ._maildir import Maildir, Parts
from ._names import UniqueNames
from ._options import FolderOptions
from ._spool import LineEnding, Spool
from ._sync import Sync


class CopyWriter:
    """Stores copies in Maildirs below the directory `root`, a descriptor that it takes over."""

    __slots__ = ("_committer", "_folders", "_line_ending", "_names", "_root", "_sync")

    def __init__(
        self,
        root: int,
        *,
        hostname: str,
        sync: Sync,
        line_ending: LineEnding,
        folders: FolderOptions,
    ) -> None:
        self._root = root
        self._folders = folders
        self._sync = sync
        self._line_ending = line_ending
        self._names = UniqueNames(hostname)
        self._committer = Committer(root, sync)

    def submit(
        self, parts: Parts, header: bytes, spool: Spool, done: Callable[[Exception | None], None]
    ) -> None:
        """Store `header` and a message that is in memory in an INBOX with the next batch.

        `done` is called in another thread, with None or with what went wrong. Raises RuntimeError
        after `close`.
        """
        name = self._name(header, spool)
        self._committer.submit(Delivery(parts, name, (header, spool.rest), done))

    def copy(self, place: Place, header: bytes, spool: Spool) -> None:
        """Store `header` and any message in any mailbox. Blocks until it is durable.

        A large message is copied and synced here, as it would hold up a batch; the committer sees
        to its directory entry. Raises NoFolderError, OSError, and RuntimeError after `close`.
        """
        mailbox, info = open_place(self._root, place, self._folders)
        try:
            name = self._name(header, spool) + info
            outcome: Future[Exception | None] = Future()
            if spool.in_memory:
                blocks = (header, spool.rest)
                delivery = Delivery(place.parts, name, blocks, outcome.set_result, mailbox)
            else:
                self._write(mailbox, name, header, spool)
                delivery = PreparedDelivery(place.parts, name, mailbox, outcome.set_result)
            try:
                self._committer.submit(delivery)
            except BaseException:
                mailbox.discard(name)
                raise
            error = outcome.result()
            if error is not None:
                raise error
        finally:
            mailbox.close()

    def _write(self, mailbox: Maildir, name: str, header: bytes, spool: Spool) -> None:
        """Put `header` and the message into tmp/, durably."""
        descriptor = mailbox.create(name)
        try:
            try:
                write_all(descriptor, header)
                spool.copy_to(descriptor)
                if self._sync is not Sync.NEVER:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except BaseException:
            mailbox.discard(name)
            raise

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
