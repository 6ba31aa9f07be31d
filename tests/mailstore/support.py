"""What the tests of the store share: transactions, and an adapter reduced to the bone."""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

import pytest

from lmtp_proto import Address, Mail, Recipient, Reply, Session, Transaction
from mailstore import (
    Destination,
    FolderOptions,
    LineEnding,
    MaildirSink,
    MaildirStore,
    RetryOptions,
    Sync,
    TraceOptions,
)

HOSTNAME = "mx.example.org"


def address(text: str) -> Address:
    local_part, _, domain = text.rpartition("@")
    return Address(local_part, domain)


def client(
    *,
    client_ip: str | None = "192.0.2.1",
    lhlo_domain: str | None = "client.example.net",
    tls: str | None = None,
) -> Session:
    return Session(peer="test", client_ip=client_ip, lhlo_domain=lhlo_domain, tls=tls)


def envelope(
    *recipients: str,
    sender: str | None = "from@example.net",
    session: Session | None = None,
    transaction_id: str = "ID1",
) -> Transaction:
    return Transaction(
        session=session or client(),
        id=transaction_id,
        mail=Mail(reverse_path=None if sender is None else address(sender)),
        recipients=[Recipient(address=address(recipient)) for recipient in recipients],
    )


@contextmanager
def opened(
    root: Path,
    *,
    hostname: str = HOSTNAME,
    sync: Sync = Sync.OPTIMIZED,
    line_ending: LineEnding = LineEnding.LF,
    spool_directory: Path | None = None,
    spool_threshold: int = 128 * 1024,
    folders: FolderOptions | None = None,
    trace: TraceOptions | None = None,
    hard_links: bool = False,
    retries: RetryOptions | None = None,
) -> Iterator[MaildirStore]:
    store = MaildirStore(
        root,
        hostname=hostname,
        sync=sync,
        line_ending=line_ending,
        spool_directory=spool_directory,
        spool_threshold=spool_threshold,
        folders=folders or FolderOptions(),
        trace=trace or TraceOptions(),
        hard_links=hard_links,
        retries=retries,
    )
    try:
        yield store
    finally:
        store.close()


def fill(sink: MaildirSink, pieces: Iterable[bytes]) -> None:
    """Write the content as an adapter does: each job is over before the next write."""
    for piece in pieces:
        job = sink.write(piece)
        if job is not None:
            job()


def answers(sink: MaildirSink, transaction: Transaction) -> list[Reply]:
    """The replies for all recipients. Everything is begun before anything is waited for."""
    begun = [sink.deliver(recipient) for recipient in transaction.recipients]
    known = [answer() if callable(answer) else answer for answer in begun]
    return [answer if isinstance(answer, Reply) else answer.result() for answer in known]


def deliver(
    store: MaildirStore,
    content: bytes,
    maildirs: Iterable[str | PurePath | Destination] = ("user",),
    *,
    transaction: Transaction | None = None,
) -> list[Reply]:
    """Deliver one message, to one recipient for each of `maildirs`."""
    places = [PurePath(place) if isinstance(place, str) else place for place in maildirs]
    if transaction is None:
        transaction = envelope(*(f"r{number}@example.org" for number in range(len(places))))
    sink = store.open(transaction, dict(zip(transaction.recipients, places, strict=True)))
    try:
        fill(sink, [content])
        return answers(sink, transaction)
    finally:
        sink.close()


def refuse_unnamed(monkeypatch: pytest.MonkeyPatch, number: int = errno.EOPNOTSUPP) -> None:
    """Let Maildirs lie on a file system that has no files without names."""
    real = os.open

    def refuse(path: str, flags: int, *args: int, **options: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE and "dir_fd" in options:
            raise OSError(number, os.strerror(number))
        return real(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", refuse)


def codes(replies: Iterable[Reply]) -> list[int]:
    return [reply.code for reply in replies]


def mail_in(maildir: Path) -> list[bytes]:
    """The messages in new/, sorted."""
    return sorted(path.read_bytes() for path in (maildir / "new").iterdir())


def files_below(root: Path) -> list[str]:
    """Every file that is not a directory, by its path."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


def without_trace(message: bytes, line_end: bytes = b"\n") -> bytes:
    """What follows the trace header."""
    lines = message.split(line_end)
    assert lines[0].startswith(b"Return-Path: ")
    received = 2 if lines[1].startswith(b"Delivered-To: ") else 1
    assert lines[received].startswith(b"Received: ")
    first = received + 1
    while lines[first].startswith(b"\t"):
        first += 1
    return line_end.join(lines[first:])
