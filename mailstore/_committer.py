"""The committer: the one thread of a process that makes its deliveries durable.

The invariant: every delivery that was submitted is told its outcome once. A batch is what has come
in while the last one was being synced; nothing waits for more to come.
"""

import logging
import resource
import threading
import time
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Final

from ._batch import Delivery, commit
from ._fork import call_in_child
from ._maildir import MaildirCache
from ._sync import Sync
from ._together import Together

_logger: Final = logging.getLogger("mailstore")

# Bounds the descriptors a batch has open, and how long its first delivery waits for its last.
_BATCH: Final = 64
# Threads beside the committer's that sync files of a batch.
_SYNCING: Final = 7
# Maildirs that are kept open at most: opening one takes a dozen system calls.
_OPEN_MAILDIRS: Final = 1024
# How many times their number of descriptors a process must be allowed: each has two.
_DESCRIPTORS: Final = 8


class StoreObserver:
    """Watches the batches of a store: override what is of interest.

    Its methods are called in the thread that delivers, so they must not block; what they raise is
    logged.
    """

    def batch_taken(self, deliveries: int, waiting: int, /) -> None:
        """So many copies are being delivered now; so many wait for the next batch."""

    def batch_committed(self, deliveries: int, seconds: float, /) -> None:
        """They were written and synced, or have failed, in so many seconds; each was told."""


class Committer:
    """Commits deliveries into Maildirs below the directory `root` (a descriptor).

    The thread starts with the first delivery, and anew in a forked child. `observer` is told of
    each batch.
    """

    def __init__(self, root: int, sync: Sync, observer: StoreObserver | None = None) -> None:
        self._sync = sync
        self._observer = observer
        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        # No limit at all is -1.
        limit = _OPEN_MAILDIRS if allowed < 0 else min(_OPEN_MAILDIRS, allowed // _DESCRIPTORS)
        self._cache = MaildirCache(root, limit)
        self._closed = False
        self._reset()
        call_in_child(self._reset)

    def _reset(self) -> None:
        """No thread and no deliveries: those of a parent process are the parent's to finish."""
        self._lock = threading.Lock()
        # None ends the thread.
        self._queue: SimpleQueue[Delivery | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._together = Together(_SYNCING)

    def submit(self, delivery: Delivery) -> None:
        """Commit `delivery` with the next batch. Raises RuntimeError after `close`."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the store is closed")
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="mailstore-committer", daemon=True)
                thread.start()
                self._thread = thread
            self._queue.put(delivery)

    def close(self) -> None:
        """Finish what was submitted, end the thread and close the Maildirs."""
        with self._lock:
            self._closed = True
            self._queue.put(None)
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        self._together.close()
        self._cache.trim(0)

    def _run(self) -> None:
        while batch := self._gather():
            try:
                self._commit(batch)
            except Exception as error:
                # Without this thread nothing would be delivered any more.
                _logger.exception("a batch of %d deliveries failed", len(batch))
                for delivery in batch:
                    delivery.tell(error)
            finally:
                self._cache.trim()

    def _commit(self, batch: list[Delivery]) -> None:
        observer = self._observer
        if observer is None:
            commit(batch, self._cache, self._sync, self._together)
            return
        self._tell(partial(observer.batch_taken, len(batch), self._queue.qsize()))
        begun = time.monotonic()
        try:
            commit(batch, self._cache, self._sync, self._together)
        finally:
            seconds = time.monotonic() - begun
            self._tell(partial(observer.batch_committed, len(batch), seconds))

    def _tell(self, tell: Callable[[], None]) -> None:
        try:
            tell()
        except Exception:
            # Nobody's mail is to suffer from who watches.
            _logger.exception("the observer of the store failed")

    def _gather(self) -> list[Delivery]:
        """What has come in, at least one delivery; nothing when the thread is to end."""
        batch: list[Delivery] = []
        while (delivery := self._queue.get()) is not None:
            batch.append(delivery)
            # Nobody else takes from the queue.
            if len(batch) == _BATCH or self._queue.empty():
                return batch
        if batch:
            self._queue.put(None)
        return batch
