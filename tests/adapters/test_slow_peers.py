"""Clients that are there and too slow: those that do not read, and those whose octets trickle.

Neither costs the server more than a little memory for a bounded time, and nobody else notices.
"""

import socket
import ssl
from pathlib import Path

import pytest

from lmtp_proto import Limits, Settings
from lmtp_transport import Listener
from tests.adapters.conftest import LogLines
from tests.adapters.harness import (
    ENVELOPE,
    Client,
    Connect,
    Mailbox,
    Start,
    small_buffers,
    wait_for,
)
from tests.adapters.states import Door, hello, listeners, server_tls, start_tls

# Far more than what the buffers of the system take.
_MOST = 4_000_000


@pytest.fixture(params=[False, True], ids=["clear", "tls"])
def secure(request: pytest.FixtureRequest) -> bool:
    """Whether TLS is between the two."""
    return bool(request.param)


@pytest.fixture
def narrow(tmp_path: Path, secure: bool) -> Listener:
    """A place where the kernel takes few octets on behalf of a server."""
    if secure:
        return Listener(small_buffers(), server_tls(tmp_path), implicit_tls=True)
    return Listener(small_buffers())


def _flood(client: Client) -> int:
    """Send without reading until the server has closed; how much went out, `_MOST` at most."""
    sent = 0
    try:
        while sent < _MOST:
            sent += client.sock.send(b"NOOP\r\n" * 10_000)
    except (ConnectionError, ssl.SSLEOFError):
        pass
    return sent


def _trickle(client: Client, octets: bytes) -> bytes:
    """Send an octet now and then until the server says something or closes; what it says."""
    client.sock.settimeout(0.05)
    for octet in octets:
        client.send(bytes((octet,)))
        try:
            return client.sock.recv(1000)
        except TimeoutError:
            pass
    raise AssertionError("all octets were taken")


class TestNotReading:
    def test_it_is_cut_off(
        self, start: Start, connect: Connect, narrow: Listener, secure: bool
    ) -> None:
        mailbox = Mailbox()
        settings = Settings(limits=Limits(write_timeout=0.5))
        server = start(mailbox, narrow, "127.0.0.1:0", settings=settings)
        other = connect(server.addresses[1]).greeted()
        with Client(server.address, receive_buffer=4096) as client:
            if secure:
                start_tls(client)
            sent = _flood(client)
        wait_for(mailbox.disconnected)
        # It was not read either, so neither commands nor replies have piled up.
        assert sent < _MOST
        other.deliver("b")
        other.expect(b"250 ")

    def test_others_are_served_meanwhile(
        self, start: Start, connect: Connect, narrow: Listener, secure: bool
    ) -> None:
        server = start(Mailbox(), narrow, "127.0.0.1:0")
        other = connect(server.addresses[1]).greeted()
        with Client(server.address, receive_buffer=4096) as client:
            if secure:
                start_tls(client)
            client.sock.settimeout(0.5)
            with pytest.raises(TimeoutError):
                _flood(client)
            other.deliver("b")
            other.expect(b"250 ")
            client.reset()


class TestTrickling:
    def test_content(self, start: Start, connect: Connect, narrow: Listener, secure: bool) -> None:
        mailbox = Mailbox()
        limits = Limits(content_timeout=0.3, content_rate=1_000_000)
        client = connect(start(mailbox, narrow, settings=Settings(limits=limits)).address)
        if secure:
            start_tls(client)
        client.greeted()
        client.send(ENVELOPE + b"RCPT TO:<b@example.org>\r\nDATA\r\n")
        client.expect(b"250 ", b"250 ", b"250 ", b"354 ")
        # Each octet comes in time, and all of them far too slowly.
        assert _trickle(client, b"x" * 900).startswith(b"421 4.4.2")
        assert mailbox.delivered == []

    def test_a_command(
        self, start: Start, connect: Connect, narrow: Listener, secure: bool
    ) -> None:
        settings = Settings(limits=Limits(command_timeout=0.3))
        client = connect(start(Mailbox(), narrow, settings=settings).address)
        if secure:
            start_tls(client)
        client.greeted()
        assert _trickle(client, b"NOOP " + b"x" * 900).startswith(b"421 4.4.2")

    @pytest.mark.parametrize(
        ("door", "octets"),
        [
            (Door.TLS, hello()),
            (Door.PROXY, b"PROXY TCP6 " + b"0000:" * 7 + b"0001 " + b"0000:" * 7),
        ],
        ids=["a handshake", "a PROXY header"],
    )
    def test_what_comes_first(
        self,
        start: Start,
        connect: Connect,
        logs: LogLines,
        tmp_path: Path,
        door: Door,
        octets: bytes,
    ) -> None:
        settings = Settings(limits=Limits(handshake_timeout=0.3))
        server = start(Mailbox(), *listeners(tmp_path), settings=settings)
        client = connect(server.addresses[door])
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert _trickle(client, octets) == b""
        logs.wait_for("the deadline has passed")
