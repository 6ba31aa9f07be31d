"""Copies of a message, put into Maildirs by the batch or, if large, one by one.

The invariant: a copy counts as stored when the committer says so, whichever way it took.
"""

import os
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Final

from ._batch import Delivery, PreparedDelivery
from ._committer import Committer, StoreObserver
from ._files import write_all
from ._folders import Place
from ._in_place import InPlace, open_in_place
from ._links import Original
from ._maildir import Maildir, Parts
from ._names import UniqueNames
from ._options import FolderOptions
from ._place_cache import PlaceCache
from ._report import Landing
from ._spool import LineEnding, Spool
from ._sync import Sync
from ._unnamed import NoLinkError, link_open_file

# Two descriptors each.
_OPEN_PLACES: Final = 64


class CopyWriter:
    """Stores copies in Maildirs below the directory `root`, a descriptor that it takes over."""

    __slots__ = ("_committer", "_line_ending", "_names", "_places", "_root", "_sync")

    def __init__(
        self,
        root: int,
        *,
        hostname: str,
        sync: Sync,
        line_ending: LineEnding,
        folders: FolderOptions,
        observer: StoreObserver | None = None,
    ) -> None:
        self._root = root
        self._sync = sync
        self._line_ending = line_ending
        self._names = UniqueNames(hostname)
        self._places = PlaceCache(root, folders, _OPEN_PLACES)
        self._committer = Committer(root, sync, observer)

    def submit(
        self,
        parts: Parts,
        header: bytes,
        spool: Spool,
        done: Callable[[Exception | None], None],
        original: Original | None = None,
        *,
        name: str,
    ) -> None:
        """Store `header` and a message that is in memory in an INBOX with the next batch.

        `done` is called in another thread, with None or with what went wrong. With `original` the
        copy may be a link to that, or become it. `name` is that of the file. Raises RuntimeError
        after `close`.
        """
        blocks = (header, spool.rest)
        self._committer.submit(Delivery(parts, name, blocks, done, original=original))

    def begin(
        self,
        place: Place,
        header: bytes,
        spool: Spool,
        original: Original | None = None,
        *,
        name: str,
        landing: Landing,
    ) -> Callable[[], None]:
        """What stores `header` and any message in any mailbox, even after the spool was closed.

        To be called once. Blocks until the copy is durable. A large message is copied and synced
        there, as it would hold up a batch; the committer sees to its directory entry. With
        `original` the copy may be a link to that, or become it. `name` is that of the file, without
        flags; `landing` is told where it lies. Raises NoFolderError, OSError, and RuntimeError
        after `close`.
        """
        if not spool.in_memory:
            return partial(self._store_copy, place, name, header, spool, original, landing)
        return partial(self._store_blocks, place, name, (header, spool.rest), original, landing)

    def open_in_place(self, place: Place) -> InPlace | None:
        """A file for a spool that may become the copy in `place`; None where that cannot be."""
        return open_in_place(self._root, place, durable=self._sync is not Sync.NEVER)

    def _store_blocks(
        self,
        place: Place,
        name: str,
        blocks: tuple[bytes, ...],
        original: Original | None,
        landing: Landing,
    ) -> None:
        outcome: Future[Exception | None] = Future()
        done = outcome.set_result
        if place.is_plain:
            self._commit(Delivery(place.parts, name, blocks, done, original=original), outcome)
            return
        with self._places.use(place) as (mailbox, info, landing.mailbox):
            delivery = Delivery(place.parts, name + info, blocks, done, mailbox, original)
            self._commit(delivery, outcome)

    def _store_copy(
        self,
        place: Place,
        name: str,
        header: bytes,
        spool: Spool,
        original: Original | None,
        landing: Landing,
    ) -> None:
        outcome: Future[Exception | None] = Future()
        with self._places.use(place) as (mailbox, info, landing.mailbox):
            name += info
            self._prepare(mailbox, name, header, spool, original)
            delivery = PreparedDelivery(place.parts, name, mailbox, outcome.set_result)
            try:
                self._commit(delivery, outcome)
            except BaseException:
                mailbox.discard(name)
                raise

    def _commit(self, delivery: Delivery, outcome: "Future[Exception | None]") -> None:
        self._committer.submit(delivery)
        error = outcome.result()
        if error is not None:
            raise error

    def _prepare(
        self, mailbox: Maildir, name: str, header: bytes, spool: Spool, original: Original | None
    ) -> None:
        """Put `header` and the message into tmp/, durably: by a link where that does."""
        try:
            in_place = spool.may_become(header)
            if in_place is not None and mailbox.is_in(in_place.tmp):
                self._link_spool(mailbox, name, spool)
                return
            if original is not None:
                with original.writing:
                    if original.is_wanted(mailbox):
                        self._write(mailbox, name, header, spool, original)
                        return
                if original.fits(mailbox):
                    original.link(mailbox.tmp, name)
                    return
        except NoLinkError:
            # A file of its own does as well.
            pass
        self._write(mailbox, name, header, spool)

    def _link_spool(self, mailbox: Maildir, name: str, spool: Spool) -> None:
        with spool.completed() as descriptor:
            if self._sync is not Sync.NEVER:
                os.fsync(descriptor)
            link_open_file(descriptor, mailbox.tmp, name)

    def _write(
        self,
        mailbox: Maildir,
        name: str,
        header: bytes,
        spool: Spool,
        original: Original | None = None,
    ) -> None:
        """Put `header` and the message into a new file in tmp/, durably."""
        descriptor = mailbox.create(name)
        try:
            try:
                write_all(descriptor, header)
                spool.copy_to(descriptor)
                if self._sync is not Sync.NEVER:
                    os.fsync(descriptor)
                if original is not None:
                    original.offer(descriptor, mailbox)
            finally:
                os.close(descriptor)
        except BaseException:
            if original is not None:
                original.withdraw()
            mailbox.discard(name)
            raise

    def close(self) -> None:
        """Finish what was submitted and close the root."""
        self._committer.close()
        self._places.close()
        os.close(self._root)

    def name_for(self, header: bytes, spool: Spool) -> str:
        """A new name for the file of `header` and a message, without flags."""
        size = len(header) + spool.size
        virtual_size = len(header) + spool.virtual_size
        if self._line_ending is LineEnding.LF:
            virtual_size += header.count(b"\n")
        return self._names.make(size, virtual_size)
