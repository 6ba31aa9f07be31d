"""The store: a message is taken in once and delivered to each recipient's mailbox.

The invariant: a recipient is answered 250 only when its copy is durable. A failure of the store's
own is answered 4xx, so that the client keeps the message and tries again.
"""

import errno
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import PurePath
from types import MappingProxyType
from typing import Final, TypeVar

from lmtp_proto import Pending, Recipient, Reply, Transaction

from ._committer import StoreObserver
from ._copies import CopyWriter
from ._destination import Destination
from ._folders import NoFolderError, Place, find_place
from ._in_place import InPlace
from ._incoming import IncomingMessage
from ._links import Original
from ._maildir import split_path
from ._options import DeliveredTo, FolderOptions, TraceOptions
from ._outcome import MailLoopError, Outcome, PendingReply, refusal, tell
from ._quota import Quota, store_within
from ._report import Landing, Report, Reporter
from ._retries import Retries, RetryOptions
from ._spool import LineEnding, Spool
from ._sync import Sync
from ._trace import TraceHeader
from ._turns import Turns

T = TypeVar("T")

_FOLDERS: Final = FolderOptions()
_TRACE: Final = TraceOptions()
BUSY: Final = TimeoutError(errno.ETIMEDOUT, "others wait for the same Maildir")
NO_QUOTAS: Final[Mapping[Recipient, Quota]] = MappingProxyType({})


class MaildirStore:
    """Delivers into Maildirs below `root`, a directory that exists and is trusted.

    `hostname` names this host in Received and in file names. Messages above `spool_threshold`
    octets wait in an unnamed file in `spool_directory`, by default `root`: on the same file
    system they are copied cheaply. By default, that of a message to a single recipient lies in the
    tmp/ of its mailbox, if there is one by then, and becomes the copy. `folders` says how mailboxes
    other than the INBOX are treated, `trace` what is written in front of a message.

    With `hard_links`, copies of one message are one file with a name for each recipient, as with
    Dovecot's `maildir_copy_with_hardlinks`, where what is written in front of them is the same
    (with several recipients: without Delivered-To) and the Maildirs give new files the same owner,
    group and mode, and nobody else a right to write to them.

    With `retries`, a message that comes again because its reply was lost is answered 250 and not
    stored again. `observer` is told of the batches.

    Raises OSError if `root` cannot be opened.

    A store may be used by several threads and across fork(2).
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        hostname: str,
        sync: Sync = Sync.OPTIMIZED,
        line_ending: LineEnding = LineEnding.LF,
        spool_directory: str | os.PathLike[str] | None = None,
        spool_threshold: int = 128 * 1024,
        folders: FolderOptions = _FOLDERS,
        trace: TraceOptions = _TRACE,
        hard_links: bool = False,
        retries: RetryOptions | None = None,
        observer: StoreObserver | None = None,
    ) -> None:
        self._hard_links = hard_links
        self._root = os.path.abspath(root)
        self._folders = folders
        self._trace = trace
        original = trace.delivered_to is DeliveredTo.ORIGINAL
        self._field = trace.original_recipient_header if original else ""
        self._hostname = hostname
        self._line_ending = line_ending
        self._spool_directory = os.fspath(spool_directory or self._root)
        self._spools_in_place = spool_directory is None
        self._spool_threshold = spool_threshold
        directory = os.open(self._root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._retries = None if retries is None else Retries(directory, sync, retries)
        self._turns = Turns(folders.lock_timeout)
        self._copies = CopyWriter(
            directory,
            hostname=hostname,
            sync=sync,
            line_ending=line_ending,
            folders=folders,
            observer=observer,
        )

    def open(
        self,
        transaction: Transaction,
        destinations: Mapping[Recipient, PurePath | Destination],
        quotas: Mapping[Recipient, Quota] = NO_QUOTAS,
        *,
        report: Report | None = None,
    ) -> "MaildirSink":
        """A sink for the content of one message.

        `destinations` says for each recipient of the transaction where its mail goes; the bare path
        of a Maildir, below the root, absolute or relative to it, means its INBOX. Missing
        directories are made, folders if the options of the store say so. Recipients with the same
        destination get one copy and the same outcome.

        `quotas` has the quota of each recipient that has one. A copy that does not fit is refused;
        one that fits is counted once it is stored. `report` is told how each delivery went.
        """
        trace = TraceHeader(
            transaction,
            self._hostname,
            options=self._trace,
            line_end="\r\n" if self._line_ending is LineEnding.CRLF else "\n",
        )
        recipients = transaction.recipients
        head = partial(trace.for_recipient, recipients[0]) if recipients else None
        find = partial(self._find_for, destinations)
        open_in_place = None
        if self._spools_in_place and len(recipients) == 1:
            open_in_place = partial(self._open_in_place, destinations[recipients[0]])
        spool = Spool(
            self._spool_directory,
            threshold=self._spool_threshold,
            line_ending=self._line_ending,
            drop_return_path=self._trace.return_path,
            field=self._field,
            reads_fields=report is not None,
            head=head,
            in_place=open_in_place,
        )
        links = self._hard_links and len(recipients) > 1
        retries = self._retries
        message = None if retries is None else IncomingMessage(retries, transaction, find)
        reporter = None
        if report is not None:
            reporter = Reporter(report, transaction, destinations, spool)
        return MaildirSink(
            self._copies,
            transaction.id,
            find,
            spool,
            trace,
            quotas,
            turns=self._turns,
            links=links,
            message=message,
            reporter=reporter,
        )

    def folder_name(self, destination: PurePath | Destination) -> str:
        """What the rules of a quota call the mailbox of `destination`: its name on disk, or INBOX.

        Raises NoFolderError where there can be no such mailbox and that is to be refused, and
        ValueError for a Maildir that is not below the root of the store.
        """
        return _folder_name(self._find(destination))

    def in_turn(
        self,
        destination: PurePath | Destination,
        job: Callable[[], Reply | None],
        late: Reply,
    ) -> "Callable[[], Reply | None] | Future[Reply | None]":
        """`job`, which may wait for the Maildir of `destination`, as an answer that leaves the
        threads of the caller to others: its result, or `late` where its turn does not come in time.

        Raises ValueError for a Maildir that is not below the root of the store.
        """
        result: Future[Reply | None] = Future()
        parts = self._find(destination).parts
        run = partial(_settle, result, job)
        mine = self._turns.begin(parts, run, partial(result.set_result, late))
        return result if mine is None else partial(_run, mine, result)

    def _find_for(
        self, destinations: Mapping[Recipient, PurePath | Destination], recipient: Recipient
    ) -> Place:
        return self._find(destinations[recipient])

    def _open_in_place(self, destination: PurePath | Destination) -> InPlace | None:
        try:
            return self._copies.open_in_place(self._find(destination))
        except (NoFolderError, ValueError):
            return None

    def _find(self, destination: PurePath | Destination) -> Place:
        if isinstance(destination, Destination):
            parts = split_path(self._root, destination.maildir)
            return find_place(parts, destination, self._folders)
        return Place(split_path(self._root, destination))

    def close(self) -> None:
        """Finish the deliveries that were begun and release all descriptors."""
        self._turns.close()
        self._copies.close()


class MaildirSink:
    """Takes the content of one message and delivers it (an `lmtp_proto.Sink`)."""

    __slots__ = (
        *("_copies", "_find", "_id", "_links", "_message", "_original", "_outcomes", "_quotas"),
        *("_reporter", "_spool", "_trace", "_turns", "on_close"),
    )

    def __init__(
        self,
        copies: CopyWriter,
        transaction_id: str,
        find: Callable[[Recipient], Place],
        spool: Spool,
        trace: TraceHeader,
        quotas: Mapping[Recipient, Quota] = NO_QUOTAS,
        *,
        turns: Turns,
        links: bool = False,
        message: IncomingMessage | None = None,
        reporter: Reporter | None = None,
    ) -> None:
        self._reporter = reporter
        self._turns = turns
        self._links = links
        self._message = message
        self._original: Original | None = None
        self._copies = copies
        self._id = transaction_id
        self._find = find
        self._spool = spool
        self._trace = trace
        self._quotas = quotas
        self._outcomes: dict[Place, Outcome] = {}
        self.on_close: Callable[[], None] | None = None
        """Called when the message is over."""

    def write(self, data: bytes, /) -> Callable[[], None] | None:
        """Take the next octets; a job, if there is one, raises OSError."""
        if self._message is not None:
            self._message.update(data)
        return self._spool.write(data)

    def deliver(self, recipient: Recipient, /) -> PendingReply | Callable[[], Reply]:
        """Deliver to one recipient: a reply to come, or a job that blocks where it may take long,
        as for a spooled message, a mailbox other than the INBOX, a recipient with a quota, or a
        message that may be a retry.

        Raises ValueError for a Maildir that is not below the root of the store.
        """
        try:
            place = self._find(recipient)
        except NoFolderError as error:
            if self._reporter is not None:
                self._spool.finish()
                tell(self._reporter.begin(Landing(None)), recipient, error)
            return partial(refusal, error, recipient)
        outcome = self._outcomes.get(place)
        if outcome is not None:
            return outcome.reply_to(recipient)
        outcome = self._outcomes[place] = Outcome(place, self._id)
        self._spool.finish()
        landing = Landing(place.mailbox)
        if self._trace.hop_limit and self._spool.hops > self._trace.hop_limit:
            text = f"more than {self._trace.hop_limit} Received fields"
            if self._reporter is not None:
                outcome.report = self._reporter.begin(landing)
            outcome.set(MailLoopError(text))
            return outcome.reply_to(recipient)
        header = self._trace.for_recipient(recipient, self._spool.field_address)
        original = self._original_of(header) if self._links else None
        quota = self._quotas.get(recipient)
        message = self._message
        in_memory = self._spool.in_memory
        name = self._copies.name_for(header, self._spool)
        if self._reporter is not None:
            outcome.report = self._reporter.begin(landing, name)
        if quota is not None or message is not None or not (place.is_plain and in_memory):
            if quota is not None:
                place = place._replace(mailbox_limit=quota.mailbox_count)
            store = self._copies.begin(
                place, header, self._spool, original, name=name, landing=landing
            )
            if quota is not None:
                store = self._within(quota, recipient, place, len(header), store)
            if message is not None:
                written = in_memory and original is None
                store = message.once(outcome.place, name, store, written=written)
            return self._in_turn(outcome, recipient, store)
        reply = outcome.reply_to(recipient)
        try:
            self._copies.submit(place.parts, header, self._spool, outcome.set, original, name=name)
        except RuntimeError as error:
            outcome.set(error)
        return reply

    def close(self) -> None:
        """Let the message go. Deliveries that were begun come to their end."""
        self._spool.close()
        if self._original is not None:
            self._original.close()
        if self.on_close is not None:
            self.on_close()

    def _original_of(self, header: bytes) -> Original | None:
        """What copies with this header may be links to: those with the first one's are."""
        if self._original is None:
            self._original = Original(header)
        return self._original if self._original.header == header else None

    def _within(
        self,
        quota: Quota,
        recipient: Recipient,
        place: Place,
        header: int,
        store: Callable[[], None],
    ) -> Callable[[], None]:
        """`store`, with room held for the message and so many octets of header in front of it."""
        return partial(
            store_within,
            quota,
            header + self._spool.size,
            store,
            folder=_folder_name(place),
            enforced=not recipient.parameters.ignore_quota,
        )

    def _in_turn(
        self, outcome: Outcome, recipient: Recipient, store: Callable[[], None]
    ) -> PendingReply | Callable[[], Reply]:
        """`store` as a job, or, where one for the same Maildir is under way, behind that."""
        reply = outcome.reply_to(recipient)
        run = self._turns.begin(
            outcome.place.parts, partial(_store, outcome, store), partial(outcome.set, BUSY)
        )
        return reply if run is None else partial(_run, run, reply)


def _run(run: Callable[[], None], result: Pending[T]) -> T:
    run()
    return result.result()


def _settle(result: "Future[Reply | None]", job: Callable[[], Reply | None]) -> None:
    try:
        result.set_result(job())
    except Exception as error:
        result.set_exception(error)


def _store(outcome: Outcome, store: Callable[[], None]) -> None:
    try:
        store()
    except Exception as error:
        outcome.set(error)
    else:
        outcome.set(None)


def _folder_name(place: Place) -> str:
    return place.mailbox.directory[1:] or "INBOX"
