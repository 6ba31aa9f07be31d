"""Copies of a message, put into Maildirs by the batch or, if large, one by one.

The invariant: a copy counts as stored when the committer says so, whichever way it took.
"""

import os
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

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
        name = self.name_for(header, spool)
        self._committer.submit(Delivery(parts, name, (header, spool.rest), done))

    def begin(self, place: Place, header: bytes, spool: Spool, *, name: str) -> Callable[[], None]:
        """What stores `header` and any message in any mailbox, even after the spool was closed.

        To be called once. Blocks until the copy is durable. A large message is copied and synced
        there, as it would hold up a batch; the committer sees to its directory entry. `name` is
        that of the file, without flags. Raises NoFolderError, OSError, and
        RuntimeError after `close`.
        """
        if not spool.in_memory:
            return partial(self._store_copy, place, name, header, spool)
        return partial(self._store_blocks, place, name, (header, spool.rest))

    def _store_blocks(self, place: Place, name: str, blocks: tuple[bytes, ...]) -> None:
        outcome: Future[Exception | None] = Future()
        if place.is_plain:
            self._commit(Delivery(place.parts, name, blocks, outcome.set_result), outcome)
            return
        mailbox, info = open_place(self._root, place, self._folders)
        try:
            delivery = Delivery(place.parts, name + info, blocks, outcome.set_result, mailbox)
            self._commit(delivery, outcome)
        finally:
            mailbox.close()

    def _store_copy(self, place: Place, name: str, header: bytes, spool: Spool) -> None:
        outcome: Future[Exception | None] = Future()
        mailbox, info = open_place(self._root, place, self._folders)
        name += info
        try:
            self._write(mailbox, name, header, spool)
            delivery = PreparedDelivery(place.parts, name, mailbox, outcome.set_result)
            try:
                self._commit(delivery, outcome)
            except BaseException:
                mailbox.discard(name)
                raise
        finally:
            mailbox.close()

    def _commit(self, delivery: Delivery, outcome: "Future[Exception | None]") -> None:
        self._committer.submit(delivery)
        error = outcome.result()
        if error is not None:
            raise error

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

    def name_for(self, header: bytes, spool: Spool) -> str:
        """A new name for the file of `header` and a message, without flags."""
        size = len(header) + spool.size
        virtual_size = len(header) + spool.virtual_size
        if self._line_ending is LineEnding.LF:
            virtual_size += header.count(b"\n")
        return self._names.make(size, virtual_size)
