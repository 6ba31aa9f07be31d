"""Answers that take their time: callables, futures of other threads, awaitables."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from lmtp_proto import Answer, Handler, Mail, Message, Recipient, Reply, Session, Transaction
from tests.adapters.conftest import LogLines
from tests.adapters.harness import (
    ENVELOPE,
    PATIENCE,
    SAVED,
    Client,
    Connect,
    Mailbox,
    PendingDeliveries,
    Start,
)

_REFUSED = Reply(550, "no", enhanced="5.7.1")


class _Answering(Mailbox):
    """Makes each delivery's answer as the test says."""

    def __init__(self, answer: Callable[[], Answer[Reply]]) -> None:
        super().__init__()
        self._answer = answer

    def deliver(self, message: Message, recipient: Recipient, /) -> Answer[Reply]:
        return self._answer()


def _failing() -> Reply:
    raise RuntimeError("the disk is on fire")


def _failed() -> Future[Reply]:
    future: Future[Reply] = Future()
    future.set_exception(RuntimeError("the disk is on fire"))
    return future


def _cancelled() -> Future[Reply]:
    future: Future[Reply] = Future()
    future.cancel()
    return future


def _done() -> Future[Reply]:
    future: Future[Reply] = Future()
    future.set_result(SAVED)
    return future


async def _later() -> Reply:
    await asyncio.sleep(0)
    return SAVED


async def _failing_later() -> Reply:
    await asyncio.sleep(0)
    raise RuntimeError("the disk is on fire")


class TestKinds:
    @pytest.mark.parametrize("answer", [lambda: lambda: SAVED, _done], ids=["callable", "future"])
    def test_result(
        self, start: Start, connect: Connect, answer: Callable[[], Answer[Reply]]
    ) -> None:
        client = connect(start(_Answering(answer)).address).greeted()
        client.deliver("b", "c")
        client.expect(b"250 2.0.0 saved", b"250 2.0.0 saved")

    @pytest.mark.parametrize(
        "answer",
        [lambda: _failing, _failed, _cancelled],
        ids=["callable", "future", "cancelled"],
    )
    def test_failure(
        self,
        start: Start,
        connect: Connect,
        logs: LogLines,
        answer: Callable[[], Answer[Reply]],
    ) -> None:
        client = connect(start(_Answering(answer)).address).greeted()
        client.deliver("b", "c")
        client.expect(b"451 4.3.0", b"451 4.3.0")
        logs.wait_for("ERROR")
        client.send(b"NOOP\r\n")
        client.expect(b"250 ")

    def test_future_of_a_pool_of_threads(self, start: Start, connect: Connect) -> None:
        with ThreadPoolExecutor(2) as pool:
            server = start(_Answering(lambda: pool.submit(lambda: SAVED)))
            clients = [connect(server.address).greeted() for _ in range(5)]
            for client in clients:
                client.deliver("b", "c")
            for client in clients:
                client.expect(b"250 ", b"250 ")

    def test_an_awaitable_is_for_asyncio_alone(
        self, start: Start, connect: Connect, runtime: str, logs: LogLines
    ) -> None:
        client = connect(start(_Answering(_later)).address).greeted()
        client.deliver("b", "c")
        if runtime in ("asyncio", "uvloop"):
            client.expect(b"250 2.0.0 saved", b"250 2.0.0 saved")
        else:
            client.expect(b"451 4.3.0", b"451 4.3.0")
            logs.wait_for("deliver() of the handler failed")

    def test_an_awaitable_that_raises(self, start: Start, connect: Connect) -> None:
        client = connect(start(_Answering(_failing_later)).address).greeted()
        client.deliver("b")
        client.expect(b"451 4.3.0")


class TestTogether:
    def test_jobs_hold_up_no_other_session(self, start: Start, connect: Connect) -> None:
        go_on = threading.Event()

        def job() -> Reply:
            assert go_on.wait(PATIENCE)
            return SAVED

        server = start(_Answering(lambda: job))
        waiting = connect(server.address).greeted()
        waiting.deliver("b")
        # This one is served only if the job runs beside it.
        other = connect(server.address).greeted()
        other.send(b"LHLO other.example\r\nQUIT\r\n")
        other.expect(b"250 ", b"221 ")
        go_on.set()
        waiting.expect(b"250 ")

    def test_many_futures_completed_at_once(self, start: Start, connect: Connect) -> None:
        pending = PendingDeliveries()
        server = start(pending)
        clients = [connect(server.address).greeted() for _ in range(30)]
        for number, client in enumerate(clients):
            client.deliver(f"u{number}", f"v{number}")
        futures = [
            pending.begun(f"{letter}{number}") for number in range(30) for letter in ("u", "v")
        ]
        for future in futures:
            future.set_result(SAVED)
        for client in clients:
            client.expect(b"250 ", b"250 ")

    def test_a_future_that_completes_out_of_turn_is_not_lost(
        self, start: Start, connect: Connect
    ) -> None:
        pending = PendingDeliveries()
        client = connect(start(pending).address).greeted()
        client.deliver("b", "c", "d")
        last, middle, first = pending.begun("d"), pending.begun("c"), pending.begun("b")
        for future in (last, middle, first):
            future.set_result(SAVED)
        client.expect(b"250 ", b"250 ", b"250 ")


class _JobAtEachHook(Handler):
    """Answers everything by a job; `refuse` names the hook that refuses."""

    def __init__(self, refuse: str | None = None) -> None:
        self._refuse = refuse

    def _job(self, hook: str) -> Callable[[], Reply | None]:
        return lambda: _REFUSED if self._refuse == hook else None

    def connect(self, session: Session, /) -> Answer[Reply | None]:
        return self._job("connect")

    def mail(self, session: Session, mail: Mail, /) -> Answer[Reply | None]:
        return self._job("mail")

    def rcpt(self, transaction: Transaction, recipient: Recipient, /) -> Answer[Reply | None]:
        return self._job("rcpt")

    def vrfy(self, session: Session, text: str, /) -> Answer[Reply | None]:
        return self._job("vrfy")

    def open(self, transaction: Transaction, /) -> Answer["_JobSink | Reply"]:
        return lambda: _REFUSED if self._refuse == "open" else _JobSink(self._job)


class _JobSink:
    def __init__(self, job: Callable[[str], Callable[[], Reply | None]]) -> None:
        self._job = job

    def write(self, data: bytes, /) -> Answer[Reply | None]:
        return self._job("write")

    def deliver(self, recipient: Recipient, /) -> Answer[Reply]:
        job = self._job("deliver")
        return lambda: job() or SAVED

    def close(self) -> None:
        """Nothing is held."""


def _transaction(client: Client) -> list[bytes]:
    """All replies to a VRFY and a transaction, step by step."""
    replies = []
    for octets in (b"VRFY b\r\n", ENVELOPE, b"RCPT TO:<b@example.org>\r\n", b"DATA\r\n"):
        client.send(octets)
        replies += [client.reply() for _ in range(octets.count(b"\r\n"))]
    if replies[-1].startswith(b"354 "):
        client.send(b"x\r\n.\r\n")
        replies.append(client.reply())
    return [reply[:3] for reply in replies]


class TestHooks:
    def test_each_may_answer_by_a_job(self, start: Start, connect: Connect) -> None:
        client = connect(start(_JobAtEachHook()).address).greeted()
        assert _transaction(client) == [b"252", b"250", b"250", b"250", b"354", b"250"]

    @pytest.mark.parametrize(
        ("hook", "replies"),
        [
            ("vrfy", [b"550", b"250", b"250", b"250", b"354", b"250"]),
            ("mail", [b"252", b"250", b"550", b"503", b"503"]),
            ("rcpt", [b"252", b"250", b"250", b"550", b"503"]),
            ("open", [b"252", b"250", b"250", b"250", b"550"]),
            ("write", [b"252", b"250", b"250", b"250", b"354", b"550"]),
            ("deliver", [b"252", b"250", b"250", b"250", b"354", b"550"]),
        ],
    )
    def test_each_may_refuse_by_a_job(
        self, start: Start, connect: Connect, hook: str, replies: list[bytes]
    ) -> None:
        client = connect(start(_JobAtEachHook(hook)).address).greeted()
        assert _transaction(client) == replies
