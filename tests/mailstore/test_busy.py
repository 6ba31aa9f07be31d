"""A mailbox that is locked or slow: its own mail waits, for a bounded time, and no other."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path, PurePath
from typing import cast

import pytest

from lmtp_proto import Address, Recipient, Reply
from mailstore import Destination, FolderOptions, MaildirStore, Quota, StoreHandler
from tests.mailstore.support import client, codes, deliver, envelope, fill, opened

_LOCKED = Destination(PurePath("locked"), keywords=("wanted",))
_CONTENT = b"Subject: x\r\n\r\nbody\r\n"
_PATIENT = FolderOptions(lock_timeout=60.0)
_BUSY = Reply(451, "<to@example.org> Timeout while waiting for lock", enhanced="4.2.0")


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Where an adapter runs jobs; smaller than what waits for one mailbox."""
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """Somebody else's lock, as fresh as can be."""
    path = tmp_path / "locked" / "dovecot-uidlist.lock"
    path.parent.mkdir()
    path.touch()
    return path


def _begin(
    store: MaildirStore, pool: ThreadPoolExecutor, place: Destination, content: bytes = _CONTENT
) -> Callable[[], Reply]:
    """Deliver as an adapter does; what waits for the reply."""
    transaction = envelope("to@example.org")
    (recipient,) = transaction.recipients
    sink = store.open(transaction, {recipient: place})
    fill(sink, [content])
    answer = sink.deliver(recipient)
    reply: Callable[[], Reply] = pool.submit(answer).result if callable(answer) else answer.result

    def end() -> Reply:
        try:
            return reply()
        finally:
            sink.close()

    return end


def test_others_are_not_held_up(tmp_path: Path, pool: ThreadPoolExecutor, lock: Path) -> None:
    with opened(tmp_path, folders=_PATIENT) as store:
        waiting = [
            _begin(store, pool, _LOCKED, b"Subject: %d\r\n\r\n" % number) for number in range(12)
        ]
        for _ in range(3):
            # In folders and with keywords as well, and large.
            others = [
                _begin(store, pool, Destination(PurePath("free"), keywords=("wanted",))),
                _begin(store, pool, Destination(PurePath("free"), "Lists")),
                _begin(store, pool, Destination(PurePath("other")), bytes(300_000)),
            ]
            assert codes(reply() for reply in others) == [250] * 3
            # What needs no lock does not wait for it.
            assert codes(deliver(store, _CONTENT, ["locked"])) == [250]
        assert list((tmp_path / "locked").glob("cur/*")) == []
        lock.unlink()
        assert codes(reply() for reply in waiting) == [250] * 12
    delivered = sorted((tmp_path / "locked" / "cur").iterdir(), key=lambda path: path.name)
    subjects = [b"Subject: %d\n" % number for number in range(12)]
    for path, subject in zip(delivered, subjects, strict=True):
        assert subject in path.read_bytes()


def test_waiting_has_an_end(
    tmp_path: Path, pool: ThreadPoolExecutor, lock: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path, folders=FolderOptions(lock_timeout=0.2)) as store:
        waiting = [_begin(store, pool, _LOCKED) for _ in range(12)]
        assert [reply() for reply in waiting] == [_BUSY] * 12
        assert list((tmp_path / "locked").glob("*/*")) == []
        assert len(caplog.records) == 12
        lock.unlink()
        assert _begin(store, pool, _LOCKED)().code == 250


def test_waiting_has_an_end_behind_what_has_none(
    tmp_path: Path, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, hung, answers = os.open, threading.Event(), threading.Event()

    def slow(path: str, flags: int, *args: int, dir_fd: int | None = None) -> int:
        if path == "dovecot-keywords":
            hung.set()
            answers.wait()
        return real(path, flags, *args, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", slow)
    with opened(tmp_path, folders=FolderOptions(lock_timeout=0.2)) as store:
        first = [_begin(store, pool, _LOCKED) for _ in range(5)]
        assert hung.wait(20)
        late = [_begin(store, pool, _LOCKED) for _ in range(5)]
        assert [reply() for reply in late] == [_BUSY] * 5
        # The disk answers again.
        answers.set()
        # Each of them has yet to get the lock, and a slow machine may make that too long as well.
        served = [reply() for reply in first]
        assert all(reply == _BUSY or reply.code == 250 for reply in served)
        assert _begin(store, pool, _LOCKED)().code == 250
    stored = [reply for reply in served if reply.code == 250]
    assert len(list((tmp_path / "locked").glob("cur/*"))) == len(stored) + 1


def test_what_waits_is_finished_by_close(
    tmp_path: Path, pool: ThreadPoolExecutor, lock: Path
) -> None:
    with closing(MaildirStore(tmp_path, hostname="mx", folders=_PATIENT)) as store:
        waiting = [_begin(store, pool, _LOCKED) for _ in range(12)]
        unlock = pool.submit(lock.unlink)
        assert waiting[0]().code == 250
    unlock.result()
    assert len(list((tmp_path / "locked").glob("cur/*"))) == 12
    assert codes(reply() for reply in waiting) == [250] * 12


def test_a_forked_worker_waits_for_nobody(
    tmp_path: Path, pool: ThreadPoolExecutor, lock: Path
) -> None:
    with opened(tmp_path, folders=_PATIENT) as store:
        waiting = [_begin(store, pool, _LOCKED) for _ in range(12)]
        child = os.fork()
        if not child:
            status = 1
            try:
                lock.unlink()
                assert codes(deliver(store, _CONTENT, [_LOCKED, _LOCKED])) == [250, 250]
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert codes(reply() for reply in waiting) == [250] * 12
    assert len(list((tmp_path / "locked").glob("cur/*"))) == 13


class _Slow:
    """A quota whose counter answers when it is told to."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self.answers = threading.Event()

    def check(self, size: int, *, folder: str = "INBOX") -> None:
        self.asked.release()
        self.answers.wait()


def _rcpt(handler: StoreHandler, pool: ThreadPoolExecutor, user: str) -> Callable[[], Reply | None]:
    session = client()
    transaction = envelope(session=session)
    handler.mail(session, transaction.mail)
    answer = handler.rcpt(transaction, Recipient(address=Address(user, "example.org")))
    if callable(answer):
        return pool.submit(answer).result
    assert isinstance(answer, Future)
    return answer.result


def test_rcpt_while_mail_is_counted(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    slow, free = _Slow(), _Slow()
    free.answers.set()
    quotas = {"slow": slow, "free": free}
    with opened(tmp_path, folders=FolderOptions(lock_timeout=0.2)) as store:
        handler = StoreHandler(
            store,
            lambda recipient: PurePath(recipient.address.local_part),
            # Nothing is delivered.
            quota=lambda recipient: cast("Quota", quotas[recipient.address.local_part]),
        )
        first = [_rcpt(handler, pool, "slow") for _ in range(5)]
        for _ in first:
            assert slow.asked.acquire(timeout=20)
        late = [_rcpt(handler, pool, "slow") for _ in range(5)]
        assert _rcpt(handler, pool, "free")() is None
        busy = Reply(451, "<slow@example.org> Timeout while waiting for lock", enhanced="4.2.0")
        assert [reply() for reply in late] == [busy] * 5
        slow.answers.set()
        assert [reply() for reply in first] == [None] * 5


def test_no_more_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with opened(tmp_path, folders=_PATIENT) as store:
        deliver(store, _CONTENT, [_LOCKED])
        transaction = envelope("a@example.org", "b@example.org")
        places = [Destination(PurePath("locked"), name) for name in ("INBOX", "Lists")]
        sink = store.open(transaction, dict(zip(transaction.recipients, places, strict=True)))
        fill(sink, [bytes(300_000)])
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            begun = [sink.deliver(recipient) for recipient in transaction.recipients]
        known = [answer() if callable(answer) else answer.result() for answer in begun]
        assert codes(known) == [250, 451]
        sink.close()
        assert codes(deliver(store, _CONTENT, places)) == [250, 250]
