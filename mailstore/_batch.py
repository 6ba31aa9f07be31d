"""One batch of deliveries, taken through the steps that end with all of them durable.

The invariant: a delivery is reported as done only when its content and its directory entry are
durable, and as failed only when what there was of it has been taken away again. Nothing is visible
in its mailbox before its content is durable. One that fails leaves the others of the batch alone.
"""

import logging
import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, Self

from ._files import release, write_all
from ._links import Original
from ._maildir import Maildir, MaildirCache, Parts
from ._sync import Sync, start_writeback, syncfs
from ._together import ONE_BY_ONE, Together
from ._unnamed import NoLinkError

_logger: Final = logging.getLogger("mailstore")


class Delivery:
    """One copy of a message on its way into one mailbox of the Maildir `parts`.

    `name` is its file name, `blocks` are its octets. `done` is called once, in the committer's
    thread, with None or with what went wrong. It must not raise. `mailbox` is open already, and
    stays so until then, unless it is the INBOX, which is None. With `original` it may be a link to
    that, or become it.
    """

    __slots__ = (
        *("_done", "blocks", "descriptor", "is_link", "is_original", "is_unnamed", "mailbox"),
        *("maildir", "name", "original", "parts", "written"),
    )

    maildir: Maildir

    def __init__(
        self,
        parts: Parts,
        name: str,
        blocks: tuple[bytes, ...],
        done: Callable[[Exception | None], None],
        mailbox: Maildir | None = None,
        original: Original | None = None,
    ) -> None:
        self.parts = parts
        self.mailbox = mailbox
        self.original = original
        self.is_link = self.is_original = False
        self.is_unnamed = self.written = False
        self.name = name
        self.blocks = blocks
        self._done: Callable[[Exception | None], None] | None = done
        self.descriptor = -1

    def tell(self, error: Exception | None) -> None:
        """Report the outcome; only the first counts."""
        if error is not None and self.is_original and self.original is not None:
            # Those that were to be links to it get files of their own.
            self.original.withdraw()
        done, self._done = self._done, None
        if done is not None:
            done(error)


class PreparedDelivery(Delivery):
    """A copy that lies in tmp/ of `mailbox` already, its content durable."""

    __slots__ = ()

    def __init__(
        self,
        parts: Parts,
        name: str,
        mailbox: Maildir,
        done: Callable[[Exception | None], None],
    ) -> None:
        super().__init__(parts, name, (), done, mailbox)


def commit(batch: Iterable[Delivery], cache: MaildirCache, sync: Sync, together: Together) -> None:
    """Deliver all of `batch`, and tell each how it went.

    Syncs of several files, or directories, are made at the same time: each waits for the disk.
    """
    publish = partial(_publish, sync)
    deliveries = _each(batch, partial(_find, cache))
    if sync is Sync.SYNCFS:
        with _FileSystems() as file_systems:
            # syncfs(2) tells of failures since its descriptor was opened.
            deliveries = _each(deliveries, file_systems.add, undo=_discard)
            deliveries = _each(deliveries, _write)
            deliveries = _each(deliveries, _close_named, undo=_discard)
            groups = _group(deliveries, file_systems.descriptor)
            deliveries = _sync(groups, partial(_syncfs_if_written, groups), undo=_discard)
            deliveries = _each(deliveries, publish, undo=_discard)
            groups = _group(deliveries, file_systems.descriptor)
            deliveries = _sync(groups, syncfs, undo=_withdraw)
    elif sync is not Sync.NEVER:
        deliveries = _each(deliveries, _write_out)
        deliveries = _each(deliveries, _fsync, undo=_discard, together=together)
        deliveries = _each(deliveries, _close_named, undo=_discard)
        deliveries = _each(deliveries, publish, undo=_discard)
        groups = _group(deliveries, _target)
        undo = partial(_withdraw_and_drop, cache)
        deliveries = _sync(groups, os.fsync, undo=undo, together=together)
    else:
        deliveries = _each(deliveries, _write)
        deliveries = _each(deliveries, _close_named, undo=_discard)
        deliveries = _each(deliveries, publish, undo=_discard)
    for delivery in deliveries:
        delivery.tell(None)


def _each(
    deliveries: Iterable[Delivery],
    step: Callable[[Delivery], None],
    *,
    undo: Callable[[Delivery], None] | None = None,
    together: Together = ONE_BY_ONE,
) -> list[Delivery]:
    """Take one step with each. Those that fail are undone, told so and left behind."""
    taken = list(deliveries)
    passed = []
    for delivery, error in zip(taken, together.run(step, taken), strict=True):
        if error is None:
            passed.append(delivery)
        else:
            if undo is not None:
                undo(delivery)
            delivery.tell(error)
    return passed


def _group(
    deliveries: Iterable[Delivery], descriptor_of: Callable[[Delivery], int]
) -> dict[int, list[Delivery]]:
    groups: dict[int, list[Delivery]] = {}
    for delivery in deliveries:
        groups.setdefault(descriptor_of(delivery), []).append(delivery)
    return groups


def _sync(
    groups: dict[int, list[Delivery]],
    sync: Callable[[int], None],
    *,
    undo: Callable[[Delivery], None],
    together: Together = ONE_BY_ONE,
) -> list[Delivery]:
    """Sync the descriptor of each group once. A group whose sync fails has failed as a whole."""
    passed = []
    errors = together.run(sync, list(groups))
    for deliveries, error in zip(groups.values(), errors, strict=True):
        if error is None:
            passed += deliveries
        else:
            for delivery in deliveries:
                undo(delivery)
                delivery.tell(error)
    return passed


def _syncfs_if_written(groups: dict[int, list[Delivery]], descriptor: int) -> None:
    # Copies that were prepared, and links to what is durable, do without.
    if any(delivery.written for delivery in groups[descriptor]):
        syncfs(descriptor)


class _FileSystems:
    """One descriptor for each file system that a batch writes to."""

    def __init__(self) -> None:
        self._descriptors: dict[int, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        for descriptor in self._descriptors.values():
            release(descriptor)

    def add(self, delivery: Delivery) -> None:
        maildir = delivery.maildir
        if maildir.device not in self._descriptors:
            descriptor = os.open(".", os.O_RDONLY, dir_fd=maildir.target)
            self._descriptors[maildir.device] = descriptor

    def descriptor(self, delivery: Delivery) -> int:
        return self._descriptors[delivery.maildir.device]


def _find(cache: MaildirCache, delivery: Delivery) -> None:
    delivery.maildir = delivery.mailbox or cache.get(delivery.parts)


def _target(delivery: Delivery) -> int:
    return delivery.maildir.target


def _write(delivery: Delivery) -> None:
    if isinstance(delivery, PreparedDelivery):
        return
    original = delivery.original
    if original is not None and original.fits(delivery.maildir):
        # Its content is there, or is among what is written and synced before anything is published.
        delivery.is_link = True
        return
    descriptor = delivery.maildir.create_unnamed()
    if descriptor is None:
        _create(delivery)
    else:
        delivery.is_unnamed = True
        _fill(delivery, descriptor)
    if original is not None:
        delivery.is_original = original.offer(delivery.descriptor, delivery.maildir)


def _create(delivery: Delivery) -> None:
    _fill(delivery, delivery.maildir.create(delivery.name))


def _fill(delivery: Delivery, descriptor: int) -> None:
    delivery.descriptor = descriptor
    delivery.written = True
    try:
        write_all(delivery.descriptor, *delivery.blocks)
    except BaseException:
        _discard(delivery)
        raise


def _write_out(delivery: Delivery) -> None:
    _write(delivery)
    if delivery.descriptor >= 0:
        start_writeback(delivery.descriptor)


def _fsync(delivery: Delivery) -> None:
    if delivery.descriptor >= 0:
        os.fsync(delivery.descriptor)


def _close(delivery: Delivery) -> None:
    # Network file systems report some failures only here. The descriptor is gone all the same.
    descriptor, delivery.descriptor = delivery.descriptor, -1
    if descriptor >= 0:
        os.close(descriptor)


def _close_named(delivery: Delivery) -> None:
    # Of one without a name nothing would be left.
    if not delivery.is_unnamed:
        _close(delivery)


def _publish(sync: Sync, delivery: Delivery) -> None:
    try:
        if _link(delivery):
            return
    except NoLinkError:
        _write_alone(delivery, sync)
    delivery.maildir.publish(delivery.name)


def _link(delivery: Delivery) -> bool:
    """Publish a delivery that has no name in tmp/; False for one that has. Raises NoLinkError."""
    if delivery.is_link:
        assert delivery.original is not None
        delivery.original.link(delivery.maildir.target, delivery.name)
        return True
    if not delivery.is_unnamed:
        return False
    delivery.maildir.publish_unnamed(delivery.descriptor, delivery.name)
    try:
        _close(delivery)
    except OSError:
        _withdraw(delivery)
        raise
    return True


def _write_alone(delivery: Delivery, sync: Sync) -> None:
    """Put into tmp/, durably and with a name, what could not be given one in the mailbox."""
    _close(delivery)
    _create(delivery)
    if sync is not Sync.NEVER:
        os.fsync(delivery.descriptor)
    _close(delivery)


def _discard(delivery: Delivery) -> None:
    try:
        _close(delivery)
    except OSError:
        # The delivery has failed anyway.
        pass
    delivery.maildir.discard(delivery.name)


def _withdraw(delivery: Delivery) -> None:
    try:
        delivery.maildir.withdraw(delivery.name)
    except OSError as error:
        # A message twice is allowed, a lost one is not.
        _logger.warning("%a stays although it is not durable: %s", delivery.name, error)


def _withdraw_and_drop(cache: MaildirCache, delivery: Delivery) -> None:
    _withdraw(delivery)
    # A descriptor is not synced again once that has failed.
    cache.drop(delivery.parts)
