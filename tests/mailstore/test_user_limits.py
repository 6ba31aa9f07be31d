"""A bounded number of deliveries to one user at a time, over all workers."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

import pytest

from lmtp_proto import Address, Recipient, Reply, Session, Transaction
from mailstore import Destination, Quota, QuotaExceeded, StoreHandler, Sync, UserLimits
from tests.mailstore.support import answers, client, codes, envelope, fill, opened


@pytest.fixture
def limits() -> Iterator[UserLimits]:
    limits = UserLimits(3)
    yield limits
    limits.close()


@contextmanager
def _worker(act: Callable[[], bool]) -> Iterator[int]:
    """A forked process that has done `act`, successfully, and now waits for its end."""
    ready, tell = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(tell, b"1" if act() else b"0")
            signal.pause()
        finally:
            os._exit(1)
    os.close(tell)
    assert os.read(ready, 1) == b"1"
    os.close(ready)
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_user_has_so_many_places(limits: UserLimits) -> None:
    assert [limits.acquire("a") for _ in range(4)] == [True, True, True, False]
    assert limits.acquire("b")
    limits.release("a")
    assert [limits.acquire("a") for _ in range(2)] == [True, False]


def test_workers_share_the_places_and_the_dead_give_theirs_back(limits: UserLimits) -> None:
    # What the supervisor holds counts as well, and is not the workers'.
    assert limits.acquire("a")
    with _worker(lambda: limits.acquire("a")):
        with _worker(lambda: limits.acquire("a") and not limits.acquire("a")):
            assert not limits.acquire("a")
            assert limits.acquire("b")
        # Killed, and waited for.
        assert limits.acquire("a")
        assert not limits.acquire("a")
        limits.release("a")

        def restarted() -> bool:
            return limits.acquire("a") and not limits.acquire("a")

        with _worker(restarted):
            assert not limits.acquire("a")
    assert [limits.acquire("a") for _ in range(3)] == [True, True, False]


def test_a_worker_gives_back_what_is_its_own(limits: UserLimits) -> None:
    def act() -> bool:
        with pytest.raises(KeyError):
            limits.release("a")
        taken = [limits.acquire("a") for _ in range(3)]
        limits.release("a")
        limits.release("a")
        return taken == [True, True, False]

    assert limits.acquire("a")
    with _worker(act):
        assert [limits.acquire("a") for _ in range(3)] == [True, True, False]


def test_threads(limits: UserLimits) -> None:
    taken: list[bool] = []
    threads = [threading.Thread(target=lambda: taken.append(limits.acquire("a"))) for _ in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [False] * 6 + [True] * 3


@pytest.mark.parametrize("limit", [0, -1, 4097])
def test_a_limit_that_is_none(limit: int) -> None:
    with pytest.raises(ValueError, match="not 1 to 4096"):
        UserLimits(limit)


class _Full:
    """A quota without any room."""

    def check(self, size: int, *, folder: str = "INBOX") -> None:
        raise QuotaExceeded(552, "5.2.2", "full")


def _locate(recipient: Recipient) -> PurePath | Destination:
    user, _, detail = recipient.address.local_part.partition("+")
    return Destination(PurePath(user), detail) if detail else PurePath(user)


def _begin(handler: StoreHandler, session: Session) -> Transaction:
    transaction = envelope(session=session)
    handler.mail(session, transaction.mail)
    return transaction


def _rcpt(handler: StoreHandler, transaction: Transaction, local_part: str) -> Reply | None:
    recipient = Recipient(address=Address(local_part, "example.org"))
    answer = handler.rcpt(transaction, recipient)
    reply = answer() if callable(answer) else answer
    assert reply is None or isinstance(reply, Reply)
    if reply is None:
        transaction.recipients.append(recipient)
    return reply


def test_counted_from_rcpt_until_the_message_is_over(tmp_path: Path, limits: UserLimits) -> None:
    with opened(tmp_path, sync=Sync.NEVER) as store:
        handler = StoreHandler(store, _locate, user_limits=limits)
        busy, other = _begin(handler, client()), _begin(handler, client())
        # The same destination is one delivery, another mailbox of the user is another.
        for local_part in ("a", "a", "a+Lists", "a+Junk"):
            assert _rcpt(handler, busy, local_part) is None
        refusal = Reply(
            451, "<a@example.org> Too many concurrent deliveries for user", enhanced="4.3.0"
        )
        assert _rcpt(handler, other, "a") == refusal
        assert _rcpt(handler, other, "b") is None
        assert _rcpt(handler, busy, "a") is None
        sink = handler.open(busy)
        fill(sink, [b"Subject: x\r\n\r\n"])
        assert codes(answers(sink, busy)) == [250] * 5
        assert _rcpt(handler, other, "a") == refusal
        sink.close()
        assert _rcpt(handler, other, "a") is None


@pytest.mark.parametrize("end", ["MAIL", "disconnect", "abort"])
def test_a_message_that_never_comes_counts_no_more(
    tmp_path: Path, limits: UserLimits, end: str
) -> None:
    with opened(tmp_path) as store:
        handler = StoreHandler(store, _locate, user_limits=limits)
        busy, other = _begin(handler, client()), _begin(handler, client())
        for local_part in ("a", "a+1", "a+2"):
            assert _rcpt(handler, busy, local_part) is None
        assert _rcpt(handler, other, "a") is not None
        if end == "MAIL":
            _begin(handler, busy.session)
        elif end == "disconnect":
            handler.disconnect(busy.session)
        else:
            handler.open(busy).close()
        assert [_rcpt(handler, other, part) for part in ("a", "a+1", "a+2")] == [None] * 3


def test_who_is_refused_for_the_quota_does_not_count(tmp_path: Path, limits: UserLimits) -> None:
    with opened(tmp_path) as store:
        full: list[bool] = []

        def quota(_recipient: Recipient) -> Quota | None:
            return _Full() if full else None  # type: ignore[return-value]  # never asked for more

        handler = StoreHandler(store, _locate, quota=quota, user_limits=limits)
        transaction = _begin(handler, client())
        assert _rcpt(handler, transaction, "a") is None
        full.append(True)
        for _ in range(4):
            reply = _rcpt(handler, transaction, "a+Lists")
            assert reply is not None
            assert reply.code == 552
        # This one counts for the recipient that was taken.
        reply = _rcpt(handler, transaction, "a")
        assert reply is not None
        assert reply.code == 552
        full.clear()
        taken = [_rcpt(handler, transaction, part) is None for part in ("a+1", "a+2", "a+3")]
        assert taken == [True, True, False]
