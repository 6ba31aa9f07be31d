"""What gevent alone offers: handlers that wait in the hub, servers among other greenlets."""

from collections.abc import Iterator

import gevent
import gevent.event
import pytest
from gevent import socket

import lmtp_gevent
from lmtp_proto import Answer, Message, Recipient, Reply
from lmtp_sockets import TcpAddress, parse_address
from tests.adapters.harness import PATIENCE, SAVED, Mailbox


class _Cooperative(Mailbox):
    """Waits in the hub until a second message has come."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = gevent.event.Event()
        self.second = gevent.event.Event()

    def deliver(self, message: Message, recipient: Recipient, /) -> Answer[Reply]:
        super().deliver(message, recipient)
        self.begun.set()
        if len(self.delivered) == 2:
            self.second.set()
        assert self.second.wait(PATIENCE)
        return SAVED


@pytest.fixture
def handler() -> _Cooperative:
    return _Cooperative()


@pytest.fixture
def server(handler: _Cooperative) -> Iterator[lmtp_gevent.Server]:
    running = lmtp_gevent.Server(handler)
    running.start("127.0.0.1:0")
    yield running
    running.stop()


def _session(address: TcpAddress) -> bytes:
    with socket.create_connection((address.host, address.port), PATIENCE) as client:
        client.sendall(
            b"LHLO client.example\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\n"
            b"DATA\r\nx\r\n.\r\nQUIT\r\n"
        )
        replies = b""
        while octets := client.recv(4096):
            replies += octets
        return replies


def test_a_handler_may_wait_in_the_hub(server: lmtp_gevent.Server) -> None:
    address = parse_address(server.addresses[0])
    assert isinstance(address, TcpAddress)
    clients = [gevent.spawn(_session, address) for _ in range(2)]
    for client in clients:
        assert b"\r\n250 2.0.0 saved\r\n221 " in client.get(timeout=PATIENCE)


def test_a_stop_cuts_a_handler_that_waits_in_the_hub(
    server: lmtp_gevent.Server, handler: _Cooperative
) -> None:
    address = parse_address(server.addresses[0])
    assert isinstance(address, TcpAddress)
    client = gevent.spawn(_session, address)
    assert handler.begun.wait(PATIENCE)
    server.stop(grace=0)
    assert b"saved" not in client.get(timeout=PATIENCE)
