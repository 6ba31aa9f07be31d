"""Clients and servers that go wrong: at each place each runtime's client ends in the same way."""

import asyncio
import itertools
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path

import gevent
import gevent.event
import pytest
import trustme

import lmtp_asyncio
import lmtp_gevent
from lmtp_proto import Address, Limits, Recipient, Result
from lmtp_sockets import UnixAddress, listen
from lmtp_transport import Listener, PoolSettings, ServerTls
from tests.adapters.clients import LOOPS, MakeClient
from tests.adapters.harness import PATIENCE, Mailbox, serving, small_buffers, wait_for
from tests.adapters.in_turn import HANG_UP, SILENCE, InTurn, Script

_CHUNKING = b"250-host\r\n250-PIPELINING\r\n250 CHUNKING\r\n"
_PLAIN = b"250-host\r\n250 8BITMIME\r\n"
_BYE = b"421 4.3.2 bye\r\n"


def _recipients(*local_parts: str) -> list[Recipient]:
    return [Recipient(address=Address(each, "example.org")) for each in local_parts]


def _told(results: list[Result]) -> list[str]:
    return [f"{result.reply.code} {result.reply.enhanced}" for result in results]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (HANG_UP, "451 4.4.2"),
        (SILENCE, "451 4.4.2"),
        (_BYE, "421 4.3.2"),
        (b"nonsense\r\n", "451 4.5.0"),
    ],
    ids=["end", "silence", "421", "nonsense"],
)
@pytest.mark.parametrize(
    ("lhlo", "verb"),
    [
        (_CHUNKING, "BDAT"),
        *itertools.product((_CHUNKING, _PLAIN), ("", "LHLO", "MAIL", "RCPT", "DATA", ".")),
    ],
)
def test_a_server_that_fails_at_each_place(
    client_of: MakeClient, lhlo: bytes, verb: str, answer: bytes, expected: str
) -> None:
    script: Script = {"LHLO": lhlo, verb: answer}
    # Silence alone is waited for to its end.
    patience = 0.1 if answer == SILENCE else PATIENCE
    limits = Limits(reply_timeout=patience, final_reply_timeout=patience)
    chunk_size = 262_144 if verb == "BDAT" else 0
    with (
        InTurn(script) as server,
        client_of(server.address, limits=limits, chunk_size=chunk_size) as client,
    ):
        for _ in range(2):
            results = client.submit(None, _recipients("a", "b"), [b"x\r\n"])
            assert _told(results) == [expected] * 2
            assert not client.usable
        assert (client.failure is not None) == (answer == b"nonsense\r\n")


def test_each_recipient_has_a_result(client_of: MakeClient) -> None:
    script: Script = {
        "RCPT": [b"250 ok\r\n", b"550 5.1.1 no\r\n", b"250 ok\r\n", b"250 ok\r\n"],
        ".": b"250 2.0.0 ok\r\n452 4.2.2 full\r\n554 5.6.0 bad\r\n",
    }
    with InTurn(script) as server, client_of(server.address) as client:
        results = client.submit(None, _recipients("a", "b", "c", "d"), [b".x\r\n"])
        assert _told(results) == ["250 2.0.0", "550 5.1.1", "452 4.2.2", "554 5.6.0"]
        assert client.reset().code == 250
    assert server.contents == [b"..x\r\n"]
    assert server.lines[0][-2:] == ["RSET", "QUIT"]


def _accept_content(connection: socket.socket) -> None:
    """Say everything up to 354."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.settimeout(PATIENCE)
    connection.sendall(b"220 host\r\n")
    for reply in (b"250 host", b"250 ok", b"250 ok", b"354 go"):
        connection.recv(4096)
        connection.sendall(reply + b"\r\n")


def test_a_server_that_does_not_read(client_of: MakeClient) -> None:
    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            _accept_content(connection)
            over.wait(PATIENCE)

    over = threading.Event()
    with small_buffers() as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with client_of(address, limits=Limits(write_timeout=0.2)) as client:
            results = client.submit(None, _recipients("a"), itertools.repeat(b"x" * 65_536))
            assert _told(results) == ["451 4.4.2"]
            assert not client.usable
        over.set()
        thread.join(PATIENCE)


def test_what_a_server_said_before_it_vanished(client_of: MakeClient) -> None:
    """Writing fails before anybody has read it."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            _accept_content(connection)
            # By now whoever reads when something comes has read 354.
            assert begun.wait(PATIENCE)
            connection.sendall(b"552 5.3.4 too big\r\n")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        gone.set()

    def content() -> Iterator[bytes]:
        begun.set()
        assert gone.wait(PATIENCE)
        yield from itertools.repeat(b"y" * 65_536, 100)

    begun, gone = threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        with client_of(f"127.0.0.1:{listener.getsockname()[1]}") as client:
            assert _told(client.submit(None, _recipients("a"), content())) == ["552 5.3.4"]
            assert not client.usable
        thread.join(PATIENCE)


class TestConnecting:
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    def test_a_host(self, client_of: MakeClient, host: str) -> None:
        mailbox = Mailbox()
        with serving("blocking", mailbox) as server:
            port = server.address.rpartition(":")[2]
            with client_of(f"{host}:{port}") as client:
                assert _told(client.submit(None, _recipients("a"), [b"x\r\n"])) == ["250 2.0.0"]

    def test_a_unix_socket(self, client_of: MakeClient, tmp_path: Path) -> None:
        mailbox = Mailbox()
        with (
            serving("blocking", mailbox, f"unix:{tmp_path}/s") as server,
            client_of(server.address) as client,
        ):
            assert _told(client.submit(None, _recipients("a"), [b"x\r\n"])) == ["250 2.0.0"]

    @pytest.mark.parametrize(
        ("address", "error"),
        [
            ("127.0.0.1:1", ConnectionRefusedError),
            ("unix:/nowhere/at/all", FileNotFoundError),
            ("host.invalid:24", socket.gaierror),
        ],
    )
    def test_nobody_listens(
        self, client_of: MakeClient, address: str, error: type[OSError]
    ) -> None:
        with pytest.raises(error, match=f"cannot connect to {address}: "):
            client_of(address)

    def test_what_is_no_address(self, client_of: MakeClient) -> None:
        with pytest.raises(ValueError, match="no port"):
            client_of("localhost")

    def test_a_queue_that_is_full(self, client_of: MakeClient, tmp_path: Path) -> None:
        path = f"{tmp_path}/s"
        with listen(UnixAddress(path), backlog=0) as listener, socket.socket(socket.AF_UNIX) as one:
            one.connect(path)
            with pytest.raises(TimeoutError, match="cannot connect to unix:"):
                client_of(f"unix:{path}", connect_timeout=0.1)

            def serve() -> None:
                for _ in range(2):
                    connection, _ = listener.accept()
                    with connection:
                        connection.sendall(_BYE)

            thread = threading.Thread(target=serve)
            thread.start()
            with client_of(f"unix:{path}") as client:
                assert client.greeting.code == 421
            thread.join(PATIENCE)


class TestTlsFromTheFirstOctet:
    @pytest.fixture
    def secure(self, tmp_path: Path) -> Iterator[tuple[list[str], Mailbox, ssl.SSLContext]]:
        authority = trustme.CA()
        issued = authority.issue_cert("localhost", "127.0.0.1")
        issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "pem")
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        tls = ServerTls(tmp_path / "pem")
        mailbox = Mailbox()
        with serving(
            "asyncio",
            mailbox,
            Listener("127.0.0.1:0", tls, implicit_tls=True),
            Listener(f"unix:{tmp_path}/s", tls, implicit_tls=True),
        ) as server:
            yield server.addresses, mailbox, trusting

    def test_a_large_content(
        self,
        client_of: MakeClient,
        secure: tuple[list[str], Mailbox, ssl.SSLContext],
    ) -> None:
        (tcp, unix), mailbox, trusting = secure
        content = b"".join(b".%d\r\n" % number for number in range(100_000))
        for address, name in ((tcp, None), (unix, "localhost")):
            with client_of(address, tls=trusting, server_hostname=name) as client:
                assert str(client.tls).startswith("TLSv1.3 ")
                assert "STARTTLS" not in client.keywords
                assert _told(client.submit(None, _recipients("a"), [content])) == ["250 2.0.0"]
        assert mailbox.delivered == [("a", content)] * 2

    def test_whom_nobody_trusts(
        self,
        client_of: MakeClient,
        secure: tuple[list[str], Mailbox, ssl.SSLContext],
    ) -> None:
        (tcp, unix), mailbox, trusting = secure
        with pytest.raises(ssl.SSLCertVerificationError):
            client_of(tcp, tls=ssl.create_default_context())
        with pytest.raises(ssl.SSLCertVerificationError):
            client_of(tcp, tls=trusting, server_hostname="mail.example.org")
        with pytest.raises(ValueError, match="server_hostname"):
            client_of(unix, tls=trusting)
        assert mailbox.connected == []

    def test_a_server_in_the_clear(self, client_of: MakeClient) -> None:
        with InTurn({}) as server, pytest.raises(ssl.SSLError):
            client_of(server.address, tls=ssl.create_default_context())

    def test_a_server_that_says_nothing(self, client_of: MakeClient) -> None:
        with InTurn({"": SILENCE}) as server, pytest.raises(TimeoutError):
            client_of(
                server.address,
                tls=ssl.create_default_context(),
                limits=Limits(handshake_timeout=0.1),
            )


@pytest.mark.parametrize("runtime", LOOPS)
class TestOnALoop:
    def _run(self, runtime: str, main: Callable[[], Coroutine[object, object, None]]) -> None:
        with asyncio.Runner(loop_factory=LOOPS[runtime]) as runner:
            runner.run(main())

    @pytest.mark.parametrize("chunk_size", [0, 1000])
    def test_an_asynchronous_content(self, runtime: str, chunk_size: int) -> None:
        async def content() -> AsyncIterator[bytes]:
            for number in range(1000):
                yield b""
                yield b"%d\r\n" % number
                await asyncio.sleep(0)

        async def main() -> None:
            async with await lmtp_asyncio.Client.connect(
                server.address, chunk_size=chunk_size
            ) as client:
                results = await client.submit(None, _recipients("a"), content())
                assert _told(results) == ["250 2.0.0"]

        mailbox = Mailbox()
        with serving("blocking", mailbox) as server:
            self._run(runtime, main)
        assert mailbox.delivered == [("a", b"".join(b"%d\r\n" % each for each in range(1000)))]

    @pytest.mark.parametrize("chunk_size", [0, 10])
    def test_cancelling_amid_the_content(self, runtime: str, chunk_size: int) -> None:
        async def main() -> None:
            half = asyncio.Event()

            async def content() -> AsyncIterator[bytes]:
                yield b"a line\r\n" * 100
                half.set()
                await asyncio.Event().wait()

            client = await lmtp_asyncio.Client.connect(server.address, chunk_size=chunk_size)
            async with client:
                task = asyncio.create_task(client.submit(None, _recipients("a"), content()))
                await half.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                # At once, and not when the client is closed.
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(None, wait_for, mailbox.disconnected)
                assert not client.usable
                assert _told(await client.submit(None, _recipients("a"), [])) == ["451 4.3.0"]

        mailbox = Mailbox()
        with serving("blocking", mailbox) as server:
            self._run(runtime, main)
        assert mailbox.delivered == []

    @pytest.mark.parametrize("verb", ["", "LHLO", "MAIL", "DATA", "."])
    def test_cancelling_a_wait(self, runtime: str, verb: str) -> None:
        async def hand_over() -> None:
            async with await lmtp_asyncio.Client.connect(server.address) as client:
                await client.submit(None, _recipients("a"), [b"x\r\n"])

        async def main() -> None:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(hand_over(), 0.1)

        # That its thread ends shows that the connection was closed.
        with InTurn({verb: SILENCE}) as server:
            self._run(runtime, main)

    def test_cancelling_at_the_pool(self, runtime: str) -> None:
        async def main() -> None:
            half = asyncio.Event()

            async def content() -> AsyncIterator[bytes]:
                yield b"x\r\n"
                half.set()
                await asyncio.Event().wait()

            async with lmtp_asyncio.Pool(server.address, PoolSettings(size=1)) as pool:
                first = asyncio.create_task(pool.submit(None, _recipients("a"), content()))
                await half.wait()
                waiting = [
                    asyncio.create_task(pool.submit(None, _recipients(name), [b"y\r\n"]))
                    for name in ("b", "c")
                ]
                await asyncio.sleep(0)
                # Neither who has the connection nor who waits for it keeps it from the others.
                waiting[0].cancel()
                first.cancel()
                assert _told(await waiting[1]) == ["250 2.0.0"]

        mailbox = Mailbox()
        with serving("blocking", mailbox) as server:
            self._run(runtime, main)
        assert [name for name, _ in mailbox.delivered] == ["c"]

    def test_a_server_that_talks_without_end_is_not_read(self, runtime: str) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()

            async def content() -> AsyncIterator[bytes]:
                yield b"x\r\n"
                asked.set()
                # Meanwhile nobody wants to know what the server says.
                assert await loop.run_in_executor(None, full.wait, PATIENCE)
                yield b"y\r\n"

            async with await lmtp_asyncio.Client.connect(server) as client:
                (result,) = await client.submit(None, _recipients("a"), content())
                assert not result.reply.accepted

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                _accept_content(connection)
                # What came with the 354 would be taken at once.
                assert asked.wait(PATIENCE)
                connection.settimeout(0.5)
                try:
                    while True:
                        connection.sendall(b"450 4.0.0 and another thing\r\n" * 10_000)
                except TimeoutError:
                    full.set()
                except OSError:
                    pass

        asked, full = threading.Event(), threading.Event()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = f"127.0.0.1:{listener.getsockname()[1]}"
            thread = threading.Thread(target=serve)
            thread.start()
            self._run(runtime, main)
            thread.join(PATIENCE)
        assert full.is_set()

    def test_two_tasks_at_a_time(self, runtime: str) -> None:
        async def main() -> None:
            async with await lmtp_asyncio.Client.connect(server.address) as client:
                results = await asyncio.gather(
                    client.submit(None, _recipients("a"), [b"x\r\n"]),
                    client.submit(None, _recipients("b"), [b"x\r\n"]),
                    return_exceptions=True,
                )
                assert isinstance(results[0], list)
                assert isinstance(results[1], RuntimeError)

        mailbox = Mailbox()
        with serving("blocking", mailbox) as server:
            self._run(runtime, main)
        assert [name for name, _ in mailbox.delivered] == ["a"]


def test_a_greenlet_that_is_killed_amid_the_content() -> None:
    def content() -> Iterator[bytes]:
        yield b"a line\r\n"
        half.set()
        gevent.sleep(PATIENCE)

    half = gevent.event.Event()
    mailbox = Mailbox()
    with (
        serving("blocking", mailbox) as server,
        lmtp_gevent.Client(server.address, chunk_size=0) as client,
    ):
        greenlet = gevent.spawn(client.submit, None, _recipients("a"), content())
        assert half.wait(PATIENCE)
        greenlet.kill()
        # At once, and not when the client is closed.
        wait_for(mailbox.disconnected)
        assert not client.usable
    assert mailbox.delivered == []


def test_greenlets_take_turns() -> None:
    """A client that waits for its server does not hold up the hub."""
    said = []

    def other() -> None:
        said.append("other")
        gevent.get_hub().threadpool.apply(release.set)

    release = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            assert release.wait(PATIENCE)
            connection.sendall(_BYE)

    with listener:
        thread = threading.Thread(target=serve)
        thread.start()
        greenlet = gevent.spawn(other)
        with lmtp_gevent.Client(f"127.0.0.1:{listener.getsockname()[1]}") as client:
            assert client.greeting.code == 421
        greenlet.join()
        thread.join(PATIENCE)
    assert said == ["other"]
