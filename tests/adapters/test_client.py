"""`Client` over real sockets, on every runtime."""

import itertools
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lmtp_proto import (
    Address,
    Dialect,
    Limits,
    LocalProtocolError,
    OfferedLimits,
    Recipient,
    Settings,
)
from tests.adapters.clients import MakeClient
from tests.adapters.harness import PATIENCE, Mailbox, serving, sockets_with
from tests.server._scripted import Scripted

_PIPELINING = b"250-host\r\n250 PIPELINING\r\n"


def _recipients(*local_parts: str) -> list[Recipient]:
    return [Recipient(address=Address(each, "example.org")) for each in local_parts]


@contextmanager
def _hasty(words: bytes, *, closes: bool) -> Iterator[str]:
    """A server that says 354, then `words` amid the content, and closes or reads no more."""
    over = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(PATIENCE)
            connection.sendall(b"220 host\r\n")
            connection.recv(4096)
            connection.sendall(_PIPELINING)
            heard = b""
            while not heard.endswith(b"DATA\r\n"):
                heard += connection.recv(4096)
            connection.sendall(b"250 ok\r\n" * 2 + b"354 go\r\n")
            connection.recv(4096)
            connection.sendall(words)
            if not closes:
                over.wait(PATIENCE)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        over.set()
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.mark.parametrize("closes", [False, True])
@pytest.mark.parametrize("words", [b"421 4.3.2 bye\r\n", b"552 5.3.4 too big\r\n"])
def test_a_server_that_answers_amid_an_endless_content(
    client_of: MakeClient, words: bytes, closes: bool
) -> None:
    with _hasty(words, closes=closes) as address, client_of(address) as client:
        (result,) = client.submit(None, _recipients("a"), itertools.repeat(b"x" * 998 + b"\r\n"))
        assert result.reply.wire == words
        assert not client.usable


@pytest.mark.parametrize("chunk_size", [0, 1000, 262_144])
def test_a_large_content(client_of: MakeClient, chunk_size: int) -> None:
    mailbox = Mailbox()
    content = b"".join(b".%d\r\n" % number for number in range(200_000))
    with (
        serving("blocking", mailbox) as server,
        client_of(server.address, chunk_size=chunk_size) as client,
    ):
        for pieces in ([content], [content[:7], b"", content[7:]]):
            (result,) = client.submit(None, _recipients("a"), pieces, size=len(content))
            assert result.reply.code == 250
    assert mailbox.delivered == [("a", content)] * 2


def test_a_content_that_raises_is_not_delivered(client_of: MakeClient) -> None:
    def content() -> Iterator[bytes]:
        yield b"Subject: x\r\n\r\n"
        raise OSError("no such disk")

    mailbox = Mailbox()
    with serving("blocking", mailbox) as server:
        with client_of(server.address) as client:
            with pytest.raises(OSError, match="no such disk"):
                client.submit(None, _recipients("a"), content())
            assert not client.usable
            (result,) = client.submit(None, _recipients("a"), [b"hi\r\n"])
            assert result.reply.code == 451
        with client_of(server.address) as client, pytest.raises(LocalProtocolError):
            client.submit(None, _recipients("ü"), [b"hi\r\n"])
    assert mailbox.delivered == []


def test_the_limits_that_a_server_offers_are_kept(client_of: MakeClient) -> None:
    script = {"LHLO": b"250-host\r\n250-PIPELINING\r\n250 LIMITS MAILMAX=1 RCPTMAX=1\r\n"}
    with Scripted(script, final=b"250 2.0.0 ok\r\n") as server, client_of(server.address) as client:
        assert client.offered_limits == OfferedLimits(transactions=1, recipients=1)
        assert client.refusal is None
        first, second = (client.submit(None, _recipients("a", "b"), [b"hi\r\n"]) for _ in "12")
        assert [result.reply.code for result in first] == [250, 452]
        assert [result.reply for result in second] == [client.refusal] * 2
        assert not client.usable
    # The client takes its leave all the same.
    assert server.lines[-1] == "QUIT"


def test_a_server_that_says_nothing(client_of: MakeClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with client_of(address, limits=Limits(reply_timeout=0.01)) as client:
            assert client.greeting.code == 451
            assert not client.usable


def test_an_lmtp_server_is_no_smtp_server(client_of: MakeClient) -> None:
    with serving("blocking", Mailbox(), settings=Settings(hostname="lmtp.example.org")) as server:
        client = client_of(server.address, dialect=Dialect.SMTP)
        with client:
            # RFC 2033 4.1: neither EHLO nor HELO.
            assert client.greeting.code == 500
            assert client.keywords == {}


def test_commands_are_not_held_back(client_of: MakeClient) -> None:
    with serving("blocking", Mailbox()) as server, client_of(server.address):
        host, _, port = server.address.rpartition(":")
        options = [
            sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            for sock in sockets_with((host, int(port)))
        ]
        # The listener's and the client's.
        assert options == [1, 1]
