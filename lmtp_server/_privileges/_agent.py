"""An agent: a process that has become one user for good and writes that user's mail.

It serves one worker over one channel until that is at its end. The worker says what came in, for
which of the user's addresses and for which of the user's mailboxes. Whose mail it is, where it lies
and what it may amount to the worker cannot say: the broker's directory has said so.

The invariant: an agent does nothing that its user could not do, and nothing that a worker sends
makes it tell of mail, run a program or write outside the user's Maildir.
"""

import errno
import logging
import os
import resource
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePath
from typing import Final

from lmtp_proto import (
    Address,
    Mail,
    MailParameters,
    OriginalRecipient,
    PathError,
    Pending,
    RcptParameters,
    Recipient,
    Reply,
    Session,
    Transaction,
    parse_mailbox,
)
from lmtp_server._mail_root import make
from mailstore import (
    DeliveryReport,
    Destination,
    FolderOptions,
    LineEnding,
    MaildirQuotas,
    MaildirStore,
    Quota,
    Report,
    RetryOptions,
    StoreHandler,
    StoreObserver,
    Sync,
    TraceOptions,
)

from ._descriptors import keep_only
from ._drop import drop
from ._packets import Packet, PacketError, encode, receive, send
from ._report_fields import write_report
from ._user import MailUser

_logger: Final = logging.getLogger("lmtp_server")

# What waits for the disk, or for a lock of one user, at the same time.
_JOBS: Final = 4
# Content in files is read in such pieces; a message up to a megabyte is held in memory.
_PIECE: Final = 256 * 1024
_IN_MEMORY: Final = 1 << 20
_MAILDIR: Final = PurePath()
# In the place of recipients that are not this user's.
_SOMEBODY: Final = Recipient(address=Address("postmaster", ""))
_WELCOME: Final = Reply(250, "recipient OK", enhanced="2.1.5")
_MOST_RECIPIENTS: Final = 1_000_000
_LONGEST_RECORD: Final = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentOptions:
    """What all agents have in common."""

    hostname: str
    sync: Sync = Sync.OPTIMIZED
    line_ending: LineEnding = LineEnding.LF
    folders: FolderOptions = field(default_factory=FolderOptions)
    trace: TraceOptions = field(default_factory=TraceOptions)
    retries: RetryOptions | None = None
    memory: int = 1 << 30
    """Octets of address space that an agent may have."""
    reports: bool = False
    """Whether agents say how each delivery went, beside the reply."""
    batches: bool = False
    """Whether agents say how long the store has taken for each batch of copies."""
    time: float = 120.0
    """Seconds for which it may compute, or owe answers and give none, before it is killed."""


def run_agent(channel: socket.socket, user: MailUser, options: AgentOptions) -> None:
    """Become `user`, for good, and write mail until `channel` is at its end.

    To be called in a process of root's that was made for this and is good for nothing else
    afterwards. Raises PrivilegesError, PacketError and OSError.
    """
    keep_only({2, channel.fileno()})
    for number in (signal.SIGALRM, signal.SIGXCPU):
        signal.signal(number, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (options.memory, options.memory))
    os.umask(0o077)
    os.chdir("/")
    drop(user.identity, chroot=user.chroot)
    agent = _Agent(channel, user, options)
    logging.getLogger().handlers = [_Relay(agent.tell)]
    agent.serve()


class _Relay(logging.Handler):
    """Hands log records to the worker, which knows where the log is."""

    def __init__(self, tell: Callable[[Mapping[str, object]], None]) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """Send the record; where that fails, nobody is left to tell."""
        try:
            text = self.format(record)[:_LONGEST_RECORD]
            self._tell({"log": record.levelno, "text": text})
        except Exception:
            return


class _Watch:
    """Ends the process when it computes, or owes answers, for too long.

    The kernel does it, by signals that nothing catches: whatever hangs, it is over.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._owed = 0
        self._lock = threading.Lock()

    def begin(self, count: int) -> None:
        """So many answers more are owed."""
        with self._lock:
            self._owed += count
            self._set()

    def end(self) -> None:
        """One of them was given."""
        with self._lock:
            self._owed -= 1
            self._set()

    def _set(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, self._seconds if self._owed else 0)
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = int(used.ru_utime + used.ru_stime + self._seconds) + 1
        _, most = resource.getrlimit(resource.RLIMIT_CPU)
        if most != resource.RLIM_INFINITY:
            limit = min(limit, most)
        resource.setrlimit(resource.RLIMIT_CPU, (limit, most))


class _Maildir:
    """The user's Maildir, opened, with who delivers into it."""

    def __init__(
        self,
        user: MailUser,
        options: AgentOptions,
        report: Report | None,
        observer: StoreObserver | None,
    ) -> None:
        self._path = user.mail
        self._policy = user.quota
        make(user.mail)
        self.store = MaildirStore(
            user.mail,
            hostname=options.hostname,
            sync=options.sync,
            line_ending=options.line_ending,
            spool_threshold=_IN_MEMORY,
            folders=options.folders,
            trace=options.trace,
            retries=options.retries,
            observer=observer,
        )
        self._status = os.stat(user.mail)
        self._quotas = MaildirQuotas(user.mail, sync=options.sync)
        self._destinations: dict[Recipient, Destination] = {}
        self.handler = StoreHandler(
            self.store, self._destinations.__getitem__, quota=self._quota, report=report
        )

    def is_there(self) -> bool:
        """Whether the path still leads to it."""
        try:
            return os.path.samestat(self._status, os.stat(self._path))
        except OSError:
            return False

    def accept(
        self, transaction: Transaction, wanted: Mapping[Recipient, Destination]
    ) -> dict[Recipient, object]:
        """What the handler says to each of the recipients."""
        self._destinations.update(wanted)
        try:
            self.handler.mail(transaction.session, transaction.mail)
            return {recipient: self.handler.rcpt(transaction, recipient) for recipient in wanted}
        finally:
            for recipient in wanted:
                del self._destinations[recipient]

    def close(self) -> None:
        """Finish what was begun."""
        self.store.close()
        self._quotas.close()

    def _quota(self, _recipient: Recipient) -> Quota | None:
        return None if self._policy is None else self._quotas.of(_MAILDIR, self._policy)


class _Batches(StoreObserver):
    """Tells the worker of each batch, by `tell`."""

    def __init__(self, tell: Callable[[Mapping[str, object]], None]) -> None:
        self._tell = tell

    def batch_committed(self, deliveries: int, seconds: float, /) -> None:
        """It was stored, or has failed."""
        # The worker may have gone.
        with suppress(OSError):
            self._tell({"batch": deliveries, "microseconds": round(seconds * 1_000_000)})


class _Users:
    """Those who use the content of a message; the last one to release it closes it. There is one
    from the beginning."""

    def __init__(self, close: Callable[[], None]) -> None:
        self._close = close
        self._count = 1
        self._lock = threading.Lock()

    def add(self) -> None:
        """One more."""
        with self._lock:
            self._count += 1

    def release(self) -> None:
        """One less."""
        with self._lock:
            self._count -= 1
            last = not self._count
        if last:
            self._close()


class _Agent:
    def __init__(self, channel: socket.socket, user: MailUser, options: AgentOptions) -> None:
        self._channel = channel
        self._user = user
        self._options = options
        self._watch = _Watch(options.time)
        self._pool = ThreadPoolExecutor(_JOBS, thread_name_prefix="agent")
        self._maildir: _Maildir | None = None
        # Until their recipients are answered.
        self._reports: dict[Recipient, DeliveryReport] = {}
        # Recipients of the message that comes next.
        self._recipients: list[object] = []
        self._lock = threading.Lock()

    def tell(self, fields: Mapping[str, object]) -> None:
        """Send a packet to the worker."""
        send(self._channel, encode(fields))

    def serve(self) -> None:
        """Take packets until there are no more, and finish what they asked for."""
        while (packet := receive(self._channel)) is not None:
            try:
                self._take(packet)
            finally:
                if packet.descriptor >= 0:
                    os.close(packet.descriptor)
        self._pool.shutdown()
        if self._maildir is not None:
            self._maildir.close()

    def _take(self, packet: Packet) -> None:
        kind = packet.text("do")
        if kind == "recipients":
            self._add_recipients(packet)
        elif kind == "deliver":
            self._add_recipients(packet)
            recipients, self._recipients = self._recipients, []
            self._deliver(packet, recipients)
        elif kind == "check":
            self._check(packet)
        else:
            raise PacketError("asks for what no agent does")

    def _add_recipients(self, packet: Packet) -> None:
        recipients = packet.fields.get("recipients")
        if not isinstance(recipients, list):
            raise PacketError("recipients is no list")
        self._recipients += recipients

    def _deliver(self, packet: Packet, items: list[object]) -> None:
        wanted = [_Wanted(item) for item in items]
        count = packet.number("count")
        if count > _MOST_RECIPIENTS or any(each.index >= count for each in wanted):
            raise PacketError("recipients that cannot be")
        recipients = [_SOMEBODY] * count
        for each in wanted:
            recipients[each.index] = each.recipient
        transaction = Transaction(
            session=_session(packet),
            id=packet.text("id"),
            mail=_mail(packet),
            recipients=recipients,
        )
        self._watch.begin(len(wanted))
        if packet.descriptor < 0:
            rest = self._store(transaction, wanted, [packet.octets])
            if rest is not None:
                self._start(rest)
            return
        source = os.dup(packet.descriptor)
        self._start(partial(self._store_file, transaction, wanted, source))

    def _store_file(self, transaction: Transaction, wanted: "list[_Wanted]", source: int) -> None:
        try:
            rest = self._store(transaction, wanted, _pieces(source))
        finally:
            os.close(source)
        if rest is not None:
            rest()

    def _store(
        self, transaction: Transaction, wanted: "list[_Wanted]", pieces: Iterable[bytes]
    ) -> Callable[[], None] | None:
        """Store a message and tell how it went. What it gives, if anything, is to be called for
        the part that may take long."""
        owed = {each.recipient: each.number for each in wanted}
        jobs: list[tuple[int, Recipient, Callable[[], Reply]]] = []
        rest: Callable[[], None] | None = None
        try:
            maildir = self._open()
            answers = maildir.accept(
                transaction, {each.recipient: each.destination for each in wanted}
            )
            sink = maildir.handler.open(transaction)
            users = _Users(sink.close)
            maildir.handler.disconnect(transaction.session)
            try:
                for piece in pieces:
                    job = sink.write(piece)
                    if job is not None:
                        job()
                for recipient, answer in answers.items():
                    delivery = answer if isinstance(answer, Reply) else sink.deliver(recipient)
                    number = owed.pop(recipient)
                    if isinstance(delivery, Reply):
                        self._reply(number, delivery, recipient)
                    elif callable(delivery):
                        jobs.append((number, recipient, delivery))
                    else:
                        users.add()
                        done = partial(self._done, number, recipient, delivery, users)
                        delivery.add_done_callback(done)
            finally:
                if jobs:
                    rest = partial(self._run, jobs, users)
                else:
                    users.release()
        except Exception as error:
            _report(self._user, error)
            for recipient, number in owed.items():
                self._reply(number, _failure(error, recipient), recipient)
        return rest

    def _done(
        self,
        number: int,
        recipient: Recipient,
        pending: Pending[Reply],
        users: "_Users",
        _same: object,
    ) -> None:
        users.release()
        self._reply(number, pending.result(), recipient)

    def _run(
        self, jobs: "list[tuple[int, Recipient, Callable[[], Reply]]]", users: "_Users"
    ) -> None:
        try:
            for number, recipient, job in jobs:
                try:
                    reply = job()
                except Exception as error:
                    _report(self._user, error)
                    reply = _failure(error, recipient)
                self._reply(number, reply, recipient)
        finally:
            users.release()

    def _check(self, packet: Packet) -> None:
        """Say whether a message would be let in now."""
        wanted = _Wanted(packet.fields.get("recipient"))
        mail = Mail(reverse_path=None, parameters=MailParameters(size=packet.number("size")))
        transaction = Transaction(
            session=Session(peer="check"), id="check", mail=mail, recipients=[]
        )
        self._watch.begin(1)
        self._start(partial(self._ask, transaction, wanted))

    def _ask(self, transaction: Transaction, wanted: "_Wanted") -> None:
        try:
            maildir = self._open()
            answer = maildir.accept(transaction, {wanted.recipient: wanted.destination})
            maildir.handler.disconnect(transaction.session)
            said = answer[wanted.recipient]
            if callable(said):
                said = said()
            reply = said if isinstance(said, Reply) else _WELCOME
        except Exception as error:
            _report(self._user, error)
            reply = _failure(error, wanted.recipient)
        self._reply(wanted.number, reply, wanted.recipient)

    def _open(self) -> _Maildir:
        """The user's Maildir, opened anew where the path leads to another by now. OSError."""
        with self._lock:
            if self._maildir is not None and not self._maildir.is_there():
                # Its descriptors stay open: deliveries may be on their way there.
                self._maildir = None
            if self._maildir is None:
                report = self._report if self._options.reports else None
                observer = _Batches(self.tell) if self._options.batches else None
                self._maildir = _Maildir(self._user, self._options, report, observer)
            return self._maildir

    def _start(self, job: Callable[[], None]) -> None:
        try:
            self._pool.submit(job)
        except RuntimeError:
            # The worker has gone, and no thread begins anything new.
            job()

    def _report(
        self, _transaction: Transaction, recipient: Recipient, report: DeliveryReport
    ) -> None:
        self._reports[recipient] = report

    def _reply(self, number: int, reply: Reply, recipient: Recipient) -> None:
        said: dict[str, object] = {
            "number": number,
            "reply": [reply.code, reply.enhanced, *reply.lines],
        }
        report = self._reports.pop(recipient, None)
        if report is not None:
            said["report"] = write_report(report)
        try:
            self.tell(said)
        except OSError:
            # The worker has gone; what was begun is finished all the same.
            pass
        self._watch.end()


class _Wanted:
    """One recipient as the worker tells of it. Raises PacketError."""

    __slots__ = ("destination", "index", "number", "recipient")

    def __init__(self, item: object) -> None:
        if not isinstance(item, dict):
            raise PacketError("a recipient is no object")
        packet = Packet(item, b"", -1)
        self.index = packet.number("index")
        self.number = packet.number("number")
        orcpt = packet.texts("orcpt")
        try:
            self.recipient = Recipient(
                address=parse_mailbox(packet.text("to")),
                parameters=RcptParameters(
                    orcpt=OriginalRecipient(*orcpt) if len(orcpt) == 2 else None,
                    ignore_quota=item.get("ignore_quota") is True,
                ),
            )
            self.destination = Destination(
                _MAILDIR,
                mailbox=packet.text("mailbox"),
                flags=packet.text("flags"),
                keywords=packet.texts("keywords"),
            )
        except ValueError as error:
            raise PacketError(f"a recipient that cannot be: {error}") from None


def _session(packet: Packet) -> Session:
    return Session(
        peer=packet.text("peer"),
        client_ip=packet.optional_text("client_ip"),
        lhlo_domain=packet.optional_text("lhlo_domain"),
        tls=packet.optional_text("tls"),
    )


def _mail(packet: Packet) -> Mail:
    sender = packet.optional_text("reverse_path")
    parameters = MailParameters(envid=packet.optional_text("envid"))
    try:
        return Mail(
            reverse_path=None if sender is None else parse_mailbox(sender), parameters=parameters
        )
    except PathError as error:
        raise PacketError(f"a reverse-path that cannot be: {error}") from None


def _pieces(source: int) -> Iterator[bytes]:
    """The content of a file, from its beginning."""
    # What else a descriptor may be can block, or never end.
    if not stat.S_ISREG(os.fstat(source).st_mode):
        raise OSError(errno.EINVAL, "the content is in no file")
    offset = 0
    while piece := os.pread(source, _PIECE, offset):
        yield piece
        offset += len(piece)


def _failure(error: Exception, recipient: Recipient) -> Reply:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return Reply(452, f"<{recipient}> insufficient system storage", enhanced="4.3.1")
    if isinstance(error, OSError) and error.errno == errno.EDQUOT:
        return Reply(452, f"<{recipient}> mailbox is full", enhanced="4.2.2")
    return Reply(451, f"<{recipient}> temporary internal error", enhanced="4.3.0")


def _report(user: MailUser, error: Exception) -> None:
    if isinstance(error, OSError):
        _logger.error("mail of %a cannot be stored in %a: %s", user.name, user.mail, error)
    else:
        _logger.error("mail of %a cannot be stored", user.name, exc_info=error)
