"""What goes wrong stays with the connection it concerns: handlers, peers, time, descriptors."""

import os
import resource
import signal
from contextlib import ExitStack
from ipaddress import ip_network
from pathlib import Path

import pytest

from lmtp_proto import (
    Answer,
    Limits,
    Mail,
    MemorySink,
    Message,
    Recipient,
    Reply,
    Session,
    Settings,
    Transaction,
)
from lmtp_transport import Listener
from tests.adapters.conftest import LogLines
from tests.adapters.harness import (
    ENVELOPE,
    SAVED,
    Client,
    Connect,
    Mailbox,
    PendingDeliveries,
    Start,
    wait_for,
)
from tests.adapters.process import Program

_CONTENT = b"RCPT TO:<b@example.org>\r\nDATA\r\nx\r\n.\r\n"


class _Raising(Mailbox):
    """Raises once, at the hook of that name."""

    def __init__(self, hook: str) -> None:
        super().__init__()
        self._hook: str | None = hook

    def fail(self, hook: str) -> None:
        """Raise if it is time."""
        if self._hook == hook:
            self._hook = None
            raise RuntimeError("the disk is on fire")

    def connect(self, session: Session, /) -> Answer[Reply | None]:
        self.fail("connect")
        return None

    def mail(self, session: Session, mail: Mail, /) -> Answer[Reply | None]:
        self.fail("mail")
        return None

    def rcpt(self, transaction: Transaction, recipient: Recipient, /) -> Answer[Reply | None]:
        self.fail("rcpt")
        return None

    def vrfy(self, session: Session, text: str, /) -> Answer[Reply | None]:
        self.fail("vrfy")
        return None

    def open(self, transaction: Transaction, /) -> "_RaisingSink":
        self.fail("open")
        return _RaisingSink(self, transaction)

    def deliver(self, message: Message, recipient: Recipient, /) -> Answer[Reply]:
        self.fail("deliver")
        return super().deliver(message, recipient)

    def disconnect(self, session: Session, /) -> None:
        super().disconnect(session)
        self.fail("disconnect")


class _RaisingSink(MemorySink):
    def __init__(self, handler: _Raising, transaction: Transaction) -> None:
        super().__init__(handler.deliver, transaction)
        self._handler = handler

    def write(self, data: bytes, /) -> None:
        self._handler.fail("write")
        super().write(data)

    def close(self) -> None:
        super().close()
        self._handler.fail("close")


class TestRaisingHandler:
    @pytest.mark.parametrize(
        ("hook", "octets", "replies"),
        [
            ("mail", ENVELOPE, [b"250 ", b"451 4.3.0"]),
            ("rcpt", ENVELOPE + b"RCPT TO:<b@example.org>\r\n", [b"250 ", b"250 ", b"451 4.3.0"]),
            ("vrfy", b"VRFY b\r\n", [b"451 4.3.0"]),
            (
                "open",
                ENVELOPE + b"RCPT TO:<b@example.org>\r\nDATA\r\n",
                [b"250 ", b"250 ", b"250 ", b"451 4.3.0"],
            ),
            ("write", ENVELOPE + _CONTENT, [b"250 ", b"250 ", b"250 ", b"354 ", b"451 4.3.0"]),
            ("deliver", ENVELOPE + _CONTENT, [b"250 ", b"250 ", b"250 ", b"354 ", b"451 4.3.0"]),
            ("close", ENVELOPE + _CONTENT, [b"250 ", b"250 ", b"250 ", b"354 ", b"250 "]),
        ],
    )
    def test_the_session_goes_on(
        self,
        start: Start,
        connect: Connect,
        logs: LogLines,
        hook: str,
        octets: bytes,
        replies: list[bytes],
    ) -> None:
        server = start(_Raising(hook))
        other = connect(server.address).greeted()
        client = connect(server.address).greeted()
        client.send(octets)
        client.expect(*replies)
        assert logs.wait_for(f"{hook}() of the handler failed").startswith("ERROR")
        for connection in (client, other):
            connection.send(b"RSET\r\n")
            connection.expect(b"250 ")
            connection.deliver("b")
            connection.expect(b"250 ")

    def test_at_the_greeting_its_session_is_sent_away(
        self, start: Start, connect: Connect, logs: LogLines
    ) -> None:
        server = start(_Raising("connect"))
        client = connect(server.address)
        client.expect(b"421 4.3.0")
        client.expect_end()
        logs.wait_for("connect() of the handler failed")
        connect(server.address).greeted()

    def test_at_the_end_the_connection_is_closed(
        self, start: Start, connect: Connect, logs: LogLines
    ) -> None:
        server = start(_Raising("disconnect"))
        other = connect(server.address).greeted()
        client = connect(server.address).greeted()
        client.send(b"QUIT\r\n")
        client.expect(b"221 ")
        client.expect_end()
        logs.wait_for("conversation failed")
        other.deliver("b")
        other.expect(b"250 ")


class TestVanishedPeer:
    def test_amid_content(self, start: Start, connect: Connect, logs: LogLines) -> None:
        mailbox = Mailbox()
        server = start(mailbox)
        client = connect(server.address).greeted()
        client.send(ENVELOPE + b"RCPT TO:<b@example.org>\r\nDATA\r\nSubject: half\r\n")
        client.expect(b"250 ", b"250 ", b"250 ", b"354 ")
        client.reset()
        wait_for(mailbox.disconnected)
        logs.wait_for("the client went away amid a transaction")
        assert mailbox.delivered == []
        other = connect(server.address).greeted()
        other.deliver("c", content=b"x\r\n")
        other.expect(b"250 ")
        assert mailbox.delivered == [("c", b"x\r\n")]


class TestTime:
    def test_a_session_that_lasts_too_long(self, start: Start, connect: Connect) -> None:
        settings = Settings(limits=Limits(session_time=1.0))
        server = start(Mailbox(), settings=settings)
        busy = connect(server.address).greeted()
        busy.send(ENVELOPE + b"RCPT TO:<b@example.org>\r\nDATA\r\nx\r\n")
        busy.expect(b"250 ", b"250 ", b"250 ", b"354 ")
        idle = connect(server.address).greeted()
        idle.expect(b"421 4.4.2")
        idle.expect_end()
        # The other's time is over as well, but it may finish its message.
        busy.send(b".\r\n")
        busy.expect(b"250 ", b"421 4.4.2")
        busy.expect_end()

    def test_a_delivery_takes_its_time(self, start: Start, connect: Connect) -> None:
        pending = PendingDeliveries()
        settings = Settings(
            limits=Limits(command_timeout=0.2, content_timeout=0.2, write_timeout=0.2)
        )
        server = start(pending, settings=settings)
        client = connect(server.address).greeted()
        client.deliver("b")
        future = pending.begun("b")
        # When this one has timed out, so would the other have.
        idle = connect(server.address).greeted()
        idle.expect(b"421 4.4.2")
        future.set_result(SAVED)
        client.expect(b"250 ")


class TestLimits:
    def test_too_many_connections_are_told_so(self, start: Start, connect: Connect) -> None:
        server = start(Mailbox(), max_connections=2)
        first = connect(server.address).greeted()
        second = connect(server.address).greeted()
        third = connect(server.address)
        third.expect(b"421 4.3.2 too many connections")
        third.expect_end()
        second.send(b"NOOP\r\n")
        second.expect(b"250 ")
        first.send(b"QUIT\r\n")
        first.expect(b"221 ")
        first.close()
        # The place of the first is free as soon as its connection is closed on both sides.
        while not (reply := connect(server.address).reply()).startswith(b"220 "):
            assert reply.startswith(b"421 ")

    def test_one_peer_does_not_take_all(
        self, start: Start, connect: Connect, tmp_path: Path
    ) -> None:
        mailbox = Mailbox()
        server = start(
            mailbox, "127.0.0.1:0", "[::1]:0", f"unix:{tmp_path}/lmtp", max_connections_per_peer=2
        )
        v4, v6, unix = server.addresses
        first, _ = (connect(v4).greeted() for _ in range(2))
        third = connect(v4)
        third.expect(b"421 4.3.2 too many connections")
        third.expect_end()
        # Others are not concerned, and a UNIX socket has no peers to tell apart.
        for address in (v6, unix, unix, unix):
            connect(address).greeted()
        first.send(b"QUIT\r\n")
        first.expect(b"221 ")
        wait_for(mailbox.disconnected)
        while not (reply := connect(v4).reply()).startswith(b"220 "):
            assert reply.startswith(b"421 ")

    def test_behind_a_proxy_its_clients_are_counted(self, start: Start, connect: Connect) -> None:
        server = start(
            Mailbox(),
            Listener("127.0.0.1:0", proxies=[ip_network("127.0.0.0/8")]),
            max_connections_per_peer=1,
        )
        for host in (b"192.0.2.1", b"192.0.2.2"):
            client = connect(server.address)
            client.send(b"PROXY TCP4 %b 198.51.100.1 4711 24\r\n" % host)
            client.greeted()
        client = connect(server.address)
        client.send(b"PROXY TCP4 192.0.2.2 198.51.100.1 4712 24\r\n")
        client.expect(b"421 4.3.2")
        client.expect_end()

    def test_a_limit_nobody_could_keep(self, start: Start) -> None:
        with pytest.raises(ValueError, match="at least 1"):
            start(Mailbox(), max_connections_per_peer=0)

    def test_running_out_of_descriptors(self, runtime: str) -> None:
        with Program(runtime) as program:
            with ExitStack() as stack:
                first = stack.enter_context(Client(program.address)).greeted()
                open_files = len(os.listdir(f"/proc/{program.pid}/fd"))
                hard = resource.prlimit(program.pid, resource.RLIMIT_NOFILE)[1]
                resource.prlimit(program.pid, resource.RLIMIT_NOFILE, (open_files, hard))
                waiting = stack.enter_context(Client(program.address))
                # It says why this one waits, and goes on for the one that is in.
                program.wait_for("cannot accept a connection")
                first.deliver("b")
                first.expect(b"250 ")
                # Who leaves makes room for who waits.
                first.send(b"QUIT\r\n")
                first.expect(b"221 ")
                first.close()
                waiting.greeted()
            with Client(program.address) as client:
                client.greeted().deliver("b")
                client.expect(b"250 ")
            assert program.end(signal.SIGTERM) == 0
            # One line a pause: it has not spun meanwhile.
            assert program.output.count("cannot accept a connection") < 100
