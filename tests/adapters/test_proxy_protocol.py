"""PROXY headers on every runtime: from whom they are awaited, and whom they name."""

import socket
import ssl
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path

import pytest
import trustme

from lmtp_proto import (
    Limits,
    ProxyEndpoint,
    ProxyHeader,
    ProxySsl,
    Settings,
    encode_proxy_header,
    encode_proxy_line,
)
from lmtp_transport import Listener, ServerTls
from tests.adapters.conftest import LogLines
from tests.adapters.harness import Connect, Mailbox, Start

_LOOPBACK = [ip_network("127.0.0.0/8")]
_HEADER = ProxyHeader(
    source=ProxyEndpoint(host="192.0.2.7", port=4711),
    destination=ProxyEndpoint(host="198.51.100.1", port=24),
)


@pytest.mark.parametrize("encode", [encode_proxy_line, encode_proxy_header])
@pytest.mark.parametrize("size", [1, 1000])
def test_the_client_is_whom_the_proxy_names(
    start: Start, connect: Connect, encode: Callable[[ProxyHeader], bytes], size: int
) -> None:
    mailbox = Mailbox()
    client = connect(start(mailbox, Listener("127.0.0.1:0", proxies=_LOOPBACK)).address)
    octets = encode(_HEADER)
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for place in range(0, len(octets), size):
        client.send(octets[place : place + size])
    client.greeted()
    client.deliver("b")
    client.expect(b"250 ")
    (session,) = mailbox.connected
    assert (session.peer, session.client_ip) == ("192.0.2.7:4711", "192.0.2.7")
    assert session.proxy == _HEADER


def test_what_comes_with_the_header_is_served(start: Start, connect: Connect) -> None:
    client = connect(start(Mailbox(), Listener("127.0.0.1:0", proxies=_LOOPBACK)).address)
    client.send(encode_proxy_line(_HEADER) + b"LHLO client.example\r\nNOOP\r\nQUIT\r\n")
    client.expect(b"220 ", b"250 ", b"250 ", b"221 ")
    client.expect_end()


def test_values_of_version_2_reach_the_handler(start: Start, connect: Connect) -> None:
    mailbox = Mailbox()
    header = ProxyHeader(
        source=_HEADER.source,
        destination=_HEADER.destination,
        authority="mx.example.org",
        ssl=ProxySsl(certificate=True, common_name="client.example", version="TLSv1.3"),
    )
    client = connect(start(mailbox, Listener("127.0.0.1:0", proxies=_LOOPBACK)).address)
    client.send(encode_proxy_header(header))
    client.greeted()
    assert mailbox.connected[0].proxy == header


def test_a_proxy_that_speaks_for_itself(start: Start, connect: Connect) -> None:
    mailbox = Mailbox()
    client = connect(start(mailbox, Listener("127.0.0.1:0", proxies=_LOOPBACK)).address)
    client.send(encode_proxy_header(ProxyHeader(local=True)))
    client.greeted()
    assert mailbox.connected[0].client_ip == "127.0.0.1"


def test_tls_begins_behind_the_header(start: Start, connect: Connect, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    certificate = tmp_path / "server.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(certificate)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    mailbox = Mailbox()
    place = Listener("127.0.0.1:0", ServerTls(certificate), implicit_tls=True, proxies=_LOOPBACK)
    client = connect(start(mailbox, place).address)
    # In one segment with the begin of the handshake.
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    client.send(encode_proxy_header(_HEADER))
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        (tls := context.wrap_bio(received, sent, server_hostname="localhost")).do_handshake()
    client.send(sent.read())
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
    text = b""
    while not text:
        received.write(client.sock.recv(65_536))
        try:
            text = tls.read()
        except ssl.SSLWantReadError:
            if sent.pending:
                client.send(sent.read())
    assert text.startswith(b"220 ")
    (session,) = mailbox.connected
    assert session.client_ip == "192.0.2.7"
    assert session.tls is not None


def test_everybody_on_a_unix_socket(start: Start, connect: Connect, tmp_path: Path) -> None:
    mailbox = Mailbox()
    place = Listener(f"unix:{tmp_path}/lmtp", proxies=[ip_network("192.0.2.0/24")])
    client = connect(start(mailbox, place).address)
    client.send(encode_proxy_line(_HEADER))
    client.greeted()
    assert mailbox.connected[0].client_ip == "192.0.2.7"


def test_others_connect_as_always(start: Start, connect: Connect) -> None:
    place = Listener("127.0.0.1:0", proxies=[ip_network("192.0.2.0/24")])
    client = connect(start(Mailbox(), place).address).greeted()
    client.send(encode_proxy_line(_HEADER))
    client.expect(b"500 ")


@pytest.mark.parametrize(
    "octets", [b"LHLO client.example\r\n", b"PROXY TCP4 x\r\n", b"\r\n\r\n\0x"]
)
def test_without_a_header_nothing_is_answered(
    start: Start, connect: Connect, logs: LogLines, octets: bytes
) -> None:
    mailbox = Mailbox()
    client = connect(start(mailbox, Listener("127.0.0.1:0", proxies=_LOOPBACK)).address)
    client.send(octets)
    assert client.rest() == b""
    logs.wait_for("no PROXY header: ")
    assert mailbox.connected == []


def test_a_header_has_to_come_in_time(start: Start, connect: Connect, logs: LogLines) -> None:
    server = start(
        Mailbox(),
        Listener("127.0.0.1:0", proxies=_LOOPBACK),
        settings=Settings(limits=Limits(handshake_timeout=0.1)),
    )
    client = connect(server.address)
    client.send(b"PROXY TCP4 ")
    assert client.rest() == b""
    logs.wait_for("no PROXY header: the deadline has passed")


def test_a_stop_does_not_wait_for_a_header(start: Start, connect: Connect) -> None:
    server = start(Mailbox(), Listener("127.0.0.1:0", proxies=_LOOPBACK))
    client = connect(server.address)
    client.send(b"PROXY ")
    server.stop()
    assert client.rest() == b""
