"""Whole sessions on every runtime: where servers listen, when replies leave, what is held."""

import hashlib
import socket
import struct
import threading
import tracemalloc
from concurrent.futures import Future
from pathlib import Path

import pytest

from lmtp_proto import Answer, Handler, Recipient, Reply, Transaction
from lmtp_sockets import BACKLOG
from lmtp_transport import Listener
from tests.adapters.harness import (
    ENVELOPE,
    PATIENCE,
    SAVED,
    Client,
    Connect,
    Mailbox,
    PendingDeliveries,
    Start,
    accepted_sockets,
    sockets_with,
    wait_for,
)
from tests.adapters.states import server_tls, start_tls

_STALL = 1.0


class TestListeners:
    def test_each_kind_of_address_is_served(
        self, start: Start, connect: Connect, tmp_path: Path
    ) -> None:
        mailbox = Mailbox()
        server = start(mailbox, "127.0.0.1:0", "[::1]:0", f"unix:{tmp_path}/lmtp")
        assert server.addresses[2] == f"unix:{tmp_path}/lmtp"
        for address in server.addresses:
            client = connect(address).greeted()
            client.deliver("b")
            client.expect(b"250 ")
        v4, v6, unix = mailbox.connected
        assert (v4.client_ip, v6.client_ip, unix.client_ip) == ("127.0.0.1", "::1", None)
        assert v4.peer.startswith("127.0.0.1:")
        assert v6.peer.startswith("[::1]:")
        assert unix.peer == "unix"

    def test_a_listening_socket_can_be_handed_in(self, start: Start, connect: Connect) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        server = start(Mailbox(), listener)
        assert server.addresses == [address]
        connect(address).greeted()
        server.stop()
        # It is the server's to close.
        assert listener.fileno() == -1

    @pytest.mark.parametrize("own", [True, False], ids=["address", "handed-in"])
    def test_the_backlog_is_not_lowered(self, start: Start, own: bool) -> None:
        most = int(Path("/proc/sys/net/core/somaxconn").read_text())
        if own:
            address, backlog = start(Mailbox()).address, BACKLOG
        else:
            backlog = 1000
            listener = socket.create_server(("127.0.0.1", 0), backlog=backlog)
            address = start(Mailbox(), listener).address
        host, _, port = address.rpartition(":")
        (watched,) = (
            # tcp(7), TCP_INFO: tcpi_sacked of a listening socket is its backlog.
            struct.unpack_from("I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32), 28)[0]
            for sock in sockets_with((host, int(port)))
        )
        assert watched == min(backlog, most)

    def test_a_socket_that_does_not_listen_is_refused(self, start: Start) -> None:
        with socket.socket() as unbound, pytest.raises(ValueError, match="listen"):
            start(Mailbox(), unbound)

    def test_a_place_in_use_leaves_nothing_listening(
        self, start: Start, connect: Connect, tmp_path: Path
    ) -> None:
        first = start(Mailbox())
        with pytest.raises(OSError, match="another process listens"):
            start(Mailbox(), f"unix:{tmp_path}/lmtp", first.address)
        assert not (tmp_path / "lmtp").exists()
        connect(first.address).greeted()

    def test_an_address_that_is_none_is_refused(self, start: Start) -> None:
        with pytest.raises(ValueError, match="no port"):
            start(Mailbox(), "localhost")

    @pytest.mark.parametrize("own", [True, False], ids=["address", "handed-in"])
    def test_replies_are_not_held_back(self, start: Start, connect: Connect, own: bool) -> None:
        if own:
            server = start(Mailbox())
        else:
            listener = socket.create_server(("127.0.0.1", 0))
            server = start(Mailbox(), listener)
        client = connect(server.address).greeted()
        sockets = [
            sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            for sock in accepted_sockets(client)
        ]
        assert sockets
        assert all(sockets)


class TestReplies:
    def test_a_session_in_one_packet_with_half_close(self, start: Start, connect: Connect) -> None:
        mailbox = Mailbox()
        client = connect(start(mailbox).address)
        transaction = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\nx\r\n.\r\n"
        client.send(b"LHLO client.example\r\n" + transaction * 2 + b"QUIT\r\n")
        client.half_close()
        client.expect(b"220 ", b"250 ", *[b"250 ", b"250 ", b"354 ", b"250 "] * 2, b"221 ")
        client.expect_end()
        assert mailbox.delivered == [("b", b"x\r\n")] * 2

    def test_octets_one_at_a_time(self, start: Start, connect: Connect) -> None:
        mailbox = Mailbox()
        client = connect(start(mailbox).address).greeted()
        octets = ENVELOPE + b"RCPT TO:<b@example.org>\r\nDATA\r\n..x\r\n.\r\nQUIT\r\n"
        for octet in octets:
            client.send(bytes((octet,)))
        client.expect(b"250 ", b"250 ", b"250 ", b"354 ", b"250 ", b"221 ")
        client.expect_end()
        assert mailbox.delivered == [("b", b".x\r\n")]

    def test_each_recipient_is_answered_as_early_as_its_turn(
        self, start: Start, connect: Connect
    ) -> None:
        pending = PendingDeliveries()
        client = connect(start(pending).address).greeted()
        client.deliver("b", "c", "b")
        # All deliveries begin, the same forward-path twice.
        first, second, third = pending.begun("b"), pending.begun("c"), pending.begun("b", 1)
        first.set_result(Reply(250, "first"))
        client.expect(b"250 2.0.0 first")
        third.set_result(Reply(450, "third"))
        second.set_result(Reply(550, "second"))
        client.expect(b"550 5.0.0 second", b"450 4.0.0 third")
        client.send(b"QUIT\r\n")
        client.expect(b"221 ")
        client.expect_end()

    def test_a_half_close_behind_the_dot_does_not_lose_the_replies(
        self, start: Start, connect: Connect
    ) -> None:
        pending = PendingDeliveries()
        client = connect(start(pending).address).greeted()
        client.deliver("b", "c")
        client.half_close()
        pending.begun("b").set_result(SAVED)
        client.expect(b"250 ")
        pending.begun("c").set_result(SAVED)
        client.expect(b"250 ")
        client.expect_end()
        wait_for(pending.disconnected)


class _Digest(Handler):
    """Counts and digests content."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self.longest = 0

    def open(self, transaction: Transaction, /) -> "_Digest":
        return self

    def write(self, data: bytes, /) -> None:
        self.hash.update(data)
        self.longest = max(self.longest, len(data))

    # One object is handler and sink at once: the sink's deliver() is the one that is called.
    def deliver(self, recipient: Recipient, /) -> Answer[Reply]:  # type: ignore[override]  # as said above
        return SAVED

    def close(self) -> None:
        """Nothing is held."""


class _SlowSink:
    """Takes its first octets when the test says so."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on: Future[None] = Future()
        self.size = 0

    def write(self, data: bytes, /) -> Answer[None]:
        self.size += len(data)
        if not self.begun.is_set():
            self.begun.set()
            return self.go_on
        return None

    def deliver(self, recipient: Recipient, /) -> Answer[Reply]:
        return SAVED

    def close(self) -> None:
        """Nothing is held."""


class _SlowHandler(Handler):
    def __init__(self, sink: _SlowSink) -> None:
        self._sink = sink

    def open(self, transaction: Transaction, /) -> _SlowSink:
        return self._sink


class TestContent:
    @pytest.mark.parametrize("secure", [False, True], ids=["clear", "tls"])
    def test_a_big_message_is_streamed(
        self, start: Start, connect: Connect, tmp_path: Path, secure: bool
    ) -> None:
        digest = _Digest()
        place = Listener("127.0.0.1:0", server_tls(tmp_path), implicit_tls=secure)
        client = connect(start(digest, place).address)
        if secure:
            start_tls(client)
        client.greeted()
        lines = b"." * 70 + b"\r\n" + b"x" * 998 + b"\r\n"
        number = 20_000_000 // len(lines)
        content, stuffed = lines * number, (b"." + lines) * number + b".\r\n"
        client.send(ENVELOPE + b"RCPT TO:<b@example.org>\r\nDATA\r\n")
        client.expect(b"250 ", b"250 ", b"250 ", b"354 ")
        tracemalloc.start()
        client.send(stuffed)
        client.expect(b"250 ")
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert digest.hash.digest() == hashlib.sha256(content).digest()
        assert digest.longest <= 1_048_576
        # Joining, slicing and replacing it would take five times its size.
        assert most < 4_194_304

    def test_a_slow_sink_slows_its_client_alone(self, start: Start, connect: Connect) -> None:
        sink = _SlowSink()
        server = start(_SlowHandler(sink))
        client = connect(server.address).greeted()
        client.send(ENVELOPE + b"RCPT TO:<b@example.org>\r\nDATA\r\n")
        client.expect(b"250 ", b"250 ", b"250 ", b"354 ")
        content = memoryview((b"x" * 998 + b"\r\n") * 64_000)
        sent = _send_until_stalled(client, content)
        assert sent < len(content)
        assert sink.begun.is_set()
        connect(server.address).greeted()
        sink.go_on.set_result(None)
        client.sock.settimeout(PATIENCE)
        client.send(bytes(content[sent:]) + b".\r\n")
        client.expect(b"250 ")
        assert sink.size == len(content)


def _send_until_stalled(client: Client, octets: memoryview) -> int:
    """Send until the server reads no more; how much went out."""
    client.sock.settimeout(_STALL)
    sent = 0
    try:
        while sent < len(octets):
            sent += client.sock.send(octets[sent : sent + 65_536])
    except TimeoutError:
        pass
    return sent
