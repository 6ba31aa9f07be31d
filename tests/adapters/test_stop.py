"""The end of a server: deliveries are finished and answered, everybody is told, nothing hangs."""

import ctypes
import os
import signal
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest

from lmtp_proto import Answer, Mail, Message, Recipient, Reply, Sink, Transaction
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
    small_buffers,
    wait_for,
)
from tests.adapters.process import Program


class TestGraceful:
    def test_idle_clients_are_told(self, start: Start, connect: Connect) -> None:
        server = start(Mailbox())
        greeted = connect(server.address).greeted()
        ready = connect(server.address).greeted()
        ready.send(ENVELOPE + b"RCPT TO:<b@example.org>\r\n")
        ready.expect(b"250 ", b"250 ", b"250 ")
        server.stop()
        for client in (greeted, ready):
            client.expect(b"421 4.3.2")
            client.expect_end()

    def test_a_running_delivery_is_finished_and_answered(
        self, start: Start, connect: Connect
    ) -> None:
        pending = PendingDeliveries()
        server = start(pending)
        idle = connect(server.address).greeted()
        client = connect(server.address).greeted()
        client.deliver("b", "c")
        futures = [pending.begun("b"), pending.begun("c")]
        server.begin_stop()
        # When one client has been told, the stop has reached all.
        idle.expect(b"421 4.3.2")
        with pytest.raises(ConnectionRefusedError):
            connect(server.address)
        for future in futures:
            future.set_result(SAVED)
        client.expect(b"250 ", b"250 ", b"421 4.3.2")
        client.expect_end()
        server.join()

    def test_a_server_that_retires_lets_transactions_end(
        self, start: Start, connect: Connect
    ) -> None:
        mailbox = Mailbox()
        server = start(mailbox)
        fresh = connect(server.address).greeted()
        rested, amid = (connect(server.address).greeted() for _ in range(2))
        rested.deliver("b")
        rested.expect(b"250 ")
        amid.send(ENVELOPE + b"RCPT TO:<c@example.org>\r\n")
        amid.expect(b"250 ", b"250 ", b"250 ")
        server.begin_retire()
        rested.expect(b"421 4.3.2")
        rested.expect_end()
        with pytest.raises(ConnectionRefusedError):
            connect(server.address)
        amid.send(b"DATA\r\nx\r\n.\r\n")
        amid.expect(b"354 ", b"250 ", b"421 4.3.2")
        amid.expect_end()
        # Who has come before it may have a first transaction.
        fresh.deliver("d")
        fresh.expect(b"250 ", b"421 4.3.2")
        fresh.expect_end()
        server.join()

    def test_a_server_without_clients_retires_at_once(self, start: Start) -> None:
        server = start(Mailbox())
        server.begin_retire()
        server.join()

    def test_so_is_a_running_job(self, start: Start, connect: Connect) -> None:
        handler = _Blocked()
        server = start(handler)
        idle = connect(server.address).greeted()
        client = connect(server.address).greeted()
        client.deliver("b")
        assert handler.begun.wait(PATIENCE)
        server.begin_stop()
        idle.expect(b"421 4.3.2")
        # Whichever of the two the session sees first, the reply is not lost.
        client.half_close()
        handler.go_on.set_result(SAVED)
        client.expect(b"250 ")
        assert client.rest() in (b"", b"421 4.3.2 the server is shutting down\r\n")
        server.join()

    def test_content_that_is_not_complete_is_not_delivered(
        self, start: Start, connect: Connect
    ) -> None:
        mailbox = Mailbox()
        server = start(mailbox)
        client = connect(server.address).greeted()
        client.send(ENVELOPE + b"RCPT TO:<b@example.org>\r\nDATA\r\nSubject: half\r\n")
        client.expect(b"250 ", b"250 ", b"250 ", b"354 ")
        server.stop()
        client.expect(b"421 4.3.2")
        client.expect_end()
        assert mailbox.delivered == []

    def test_nobody_is_accepted_any_more(self, start: Start, tmp_path: Path) -> None:
        server = start(Mailbox(), "127.0.0.1:0", f"unix:{tmp_path}/lmtp")
        server.stop()
        with pytest.raises(ConnectionRefusedError):
            Client(server.addresses[0])
        assert not (tmp_path / "lmtp").exists()

    def test_a_server_without_clients(self, start: Start) -> None:
        start(Mailbox()).stop(grace=0)


class _Closing(PendingDeliveries):
    """Tells when the sink is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = threading.Semaphore(0)

    def open(self, transaction: Transaction, /) -> "_ClosingSink":
        return _ClosingSink(self, transaction)


class _ClosingSink:
    def __init__(self, handler: _Closing, transaction: Transaction) -> None:
        self._handler = handler
        self._transaction = transaction

    def write(self, data: bytes, /) -> None:
        """Drop it."""

    def deliver(self, recipient: Recipient, /) -> Answer[Reply]:
        message = Message(transaction=self._transaction, content=b"")
        return self._handler.deliver(message, recipient)

    def close(self) -> None:
        self._handler.closed.release()


class _Blocked(Mailbox):
    """A job that ends when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.go_on: Future[Reply] = Future()

    def deliver(self, message: Message, recipient: Recipient, /) -> Answer[Reply]:
        return self._job

    def _job(self) -> Reply:
        self.begun.set()
        return self.go_on.result(PATIENCE)


class _LateOpening(Mailbox):
    """Opens sinks when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.sink: Future[Sink | Reply] = Future()

    def open(self, transaction: Transaction, /) -> Answer[Sink | Reply]:
        self.asked.set()
        return self.sink


class TestCut:
    def test_a_delivery_that_outlives_the_grace(
        self, start: Start, connect: Connect, logs: LogLines
    ) -> None:
        handler = _Closing()
        server = start(handler)
        client = connect(server.address).greeted()
        client.deliver("b")
        future = handler.begun("b")
        server.stop(grace=0.1)
        client.expect_end()
        wait_for(handler.closed)
        wait_for(handler.disconnected)
        logs.wait_for("1 sessions are cut off")
        # Nobody waits for it any more, and that is no fault.
        future.set_result(SAVED)

    def test_a_sink_that_comes_too_late_is_closed(self, start: Start, connect: Connect) -> None:
        handler = _LateOpening()
        closing = _Closing()
        server = start(handler)
        client = connect(server.address).greeted()
        client.send(ENVELOPE + b"RCPT TO:<b@example.org>\r\nDATA\r\n")
        client.expect(b"250 ", b"250 ", b"250 ")
        assert handler.asked.wait(PATIENCE)
        server.stop(grace=0.1)
        wait_for(handler.disconnected)
        transaction = Transaction(
            session=handler.connected[0], id="late", mail=Mail(reverse_path=None), recipients=[]
        )
        handler.sink.set_result(closing.open(transaction))
        wait_for(closing.closed)

    def test_a_job_that_outlives_the_grace(
        self, start: Start, connect: Connect, runtime: str
    ) -> None:
        handler = _Blocked()
        server = start(handler)
        client = connect(server.address).greeted()
        client.deliver("b")
        assert handler.begun.wait(PATIENCE)
        server.begin_stop(grace=0.1)
        client.expect_end()
        handler.go_on.set_result(SAVED)
        server.join()
        wait_for(handler.disconnected)

    def test_a_client_that_does_not_read(self, start: Start, connect: Connect) -> None:
        mailbox = Mailbox()
        server = start(mailbox, small_buffers())
        with Client(server.address, receive_buffer=4096) as client:
            client.sock.settimeout(1.0)
            with pytest.raises(TimeoutError):
                client.send(b"NOOP\r\n" * 700_000)
            server.stop(grace=0.1)
            wait_for(mailbox.disconnected)


class TestServe:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
    def test_a_signal_ends_it_well(self, runtime: str, number: signal.Signals) -> None:
        with Program(runtime) as program, Client(program.address) as client:
            client.greeted().deliver("b")
            client.expect(b"250 ")
            program.signal(number)
            client.expect(b"421 4.3.2")
            client.expect_end()
            assert program.wait() == 0
            program.wait_for("served")

    def test_a_signal_that_another_thread_gets(self, runtime: str) -> None:
        with Program(runtime) as program, Client(program.address) as client:
            # There is one for the session or the listener, where the runtime has any.
            client.greeted()
            thread = max(int(name) for name in os.listdir(f"/proc/{program.pid}/task"))
            assert ctypes.CDLL(None).tgkill(program.pid, thread, signal.SIGTERM) == 0
            client.expect(b"421 4.3.2")
            client.expect_end()
            assert program.wait() == 0
