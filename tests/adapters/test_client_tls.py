"""The clients under TLS: STARTTLS, whom they trust, and AUTH behind it."""

import base64
import itertools
import smtplib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import pytest
import trustme

from lmtp_blocking import LMTP
from lmtp_proto import (
    STANDARD_EXTENSIONS,
    Address,
    Answer,
    Credentials,
    Extension,
    ExternalClient,
    Limits,
    LocalProtocolError,
    LoginClient,
    PlainClient,
    Recipient,
    Reply,
    Session,
    Settings,
)
from tests.adapters.clients import MakeClient
from tests.adapters.harness import PATIENCE, Mailbox
from tests.protocol.driver import Driver
from tests.server._scripted import HANG_UP, Scripted

_AUTHORITY: Final = trustme.CA()
_ISSUED: Final = _AUTHORITY.issue_cert("localhost", "127.0.0.1")
_MECHANISMS: Final = ("PLAIN", "LOGIN", "EXTERNAL")
_MESSAGE: Final = b"Subject: x\r\n\r\ntext\r\n"
_STARTTLS: Final = {
    "LHLO": b"250-scripted.test\r\n250 STARTTLS\r\n",
    "STARTTLS": b"220 2.0.0 begin\r\n",
}


class Gate(Mailbox):
    """Believes whoever knows the password, or needs none."""

    def authenticate(self, session: Session, credentials: Credentials, /) -> Answer[Reply | None]:
        if credentials.password in ("secret", None):
            return None
        return super().authenticate(session, credentials)


def _trusting(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.create_default_context()
    _AUTHORITY.configure_trust(context)
    context.maximum_version = version
    return context


class SecureServer:
    """Serves one connection in a thread: the conversation in memory, TLS on its socket."""

    def __init__(
        self, mailbox: Mailbox | None = None, mechanisms: tuple[str, ...] = _MECHANISMS
    ) -> None:
        self.mailbox = mailbox or Gate()
        extensions = STANDARD_EXTENSIONS | {Extension.STARTTLS}
        if mechanisms:
            extensions |= {Extension.AUTH}
        self.driver = Driver(
            self.mailbox,
            Settings(extensions=extensions, auth_mechanisms=mechanisms),
            tls="TLS of the server",
        )
        self.left = False
        """Whether the client has said that it writes no more, as TLS has it."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _ISSUED.configure_cert(self._context)
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "SecureServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(PATIENCE)
        self._listener.close()
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        driver = self.driver
        connection, _ = self._listener.accept()
        try:
            connection.settimeout(PATIENCE)
            while not driver.closed:
                connection.sendall(driver.output)
                driver.writes.clear()
                if driver.session.tls and not isinstance(connection, ssl.SSLSocket):
                    connection = self._context.wrap_socket(
                        connection, server_side=True, suppress_ragged_eofs=False
                    )
                octets = connection.recv(65_536)
                if octets:
                    driver.receive(octets)
                else:
                    driver.eof()
            connection.sendall(driver.output)
            self.left = connection.recv(1) == b""
        except (ssl.SSLError, ConnectionError):
            driver.cut()
        finally:
            connection.close()


def _recipients(*local_parts: str) -> list[Recipient]:
    return [Recipient(address=Address(each, "example.org")) for each in local_parts]


class TestClient:
    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    @pytest.mark.parametrize("chunk_size", [0, 262_144])
    def test_a_large_content(
        self, client_of: MakeClient, version: ssl.TLSVersion, chunk_size: int
    ) -> None:
        content = b"".join(b".%d\r\n" % number for number in range(200_000))
        with SecureServer() as server:
            with client_of(server.address, chunk_size=chunk_size) as client:
                assert client.tls is None
                assert client.start_tls(_trusting(version)).code == 250
                name = {ssl.TLSVersion.TLSv1_2: "TLSv1.2", ssl.TLSVersion.TLSv1_3: "TLSv1.3"}
                assert str(client.tls).startswith(name[version] + " ")
                assert "STARTTLS" not in client.keywords
                assert client.authenticate(PlainClient("alice", "secret")).code == 235
                (result,) = client.submit(None, _recipients("a"), [content])
                assert result.reply.code == 250
            # RFC 8446 6.1: no one can have cut the session short unseen.
            server._thread.join(PATIENCE)
            assert server.left
        assert server.mailbox.delivered == [("a", content)]
        assert server.driver.session.user == "alice"

    @pytest.mark.parametrize(
        "context", [ssl.create_default_context, _trusting], ids=["unknown", "another's"]
    )
    def test_a_server_that_is_not_trusted(
        self, client_of: MakeClient, context: Callable[[], ssl.SSLContext]
    ) -> None:
        with SecureServer() as server, client_of(server.address) as client:
            with pytest.raises(ssl.SSLCertVerificationError):
                client.start_tls(context(), server_hostname="mail.example.org")
            assert (client.tls, client.usable) == (None, False)
            (result,) = client.submit(None, _recipients("a"), [_MESSAGE])
            assert result.reply.code == 451
            assert not client.authenticate(PlainClient("alice", "secret")).accepted
        assert server.mailbox.delivered == []

    def test_the_system_is_trusted_by_default(self, client_of: MakeClient) -> None:
        with (
            SecureServer() as server,
            client_of(server.address) as client,
            pytest.raises(ssl.SSLCertVerificationError),
        ):
            client.start_tls()

    def test_nothing_is_said_where_it_cannot_work(self, client_of: MakeClient) -> None:
        with SecureServer() as server, client_of(server.address) as client:
            # RFC 4954: no password goes out in the clear because TLS was asked for in a wrong way.
            with pytest.raises(LocalProtocolError, match="PLAIN"):
                client.authenticate(PlainClient("alice", "secret"))
            assert client.authenticate(ExternalClient()).code == 235
            assert client.start_tls(_trusting()).code == 250
            with pytest.raises(LocalProtocolError, match="TLS is active"):
                client.start_tls(_trusting())
            assert client.authenticate(LoginClient("alice", "wrong")).code == 535
            (result,) = client.submit(None, _recipients("a"), [_MESSAGE])
            assert result.reply.code == 250

    def test_a_unix_socket_has_no_name(
        self, client_of: MakeClient, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        path = tmp_path_factory.mktemp("s") / "lmtp"
        with Scripted(_STARTTLS, unix=str(path)) as server, client_of(server.address) as client:
            with pytest.raises(ValueError, match="hostname"):
                client.start_tls()
            assert client.usable
        assert "STARTTLS" not in server.lines

    def test_a_server_that_refuses(self, client_of: MakeClient) -> None:
        script = {**_STARTTLS, "STARTTLS": b"454 4.7.0 not now\r\n"}
        with Scripted(script, final=b"250 ok\r\n") as server, client_of(server.address) as client:
            assert client.start_tls(_trusting()).code == 454
            assert (client.tls, client.usable) == (None, True)

    def test_a_server_that_hangs_up(self, client_of: MakeClient) -> None:
        script = {**_STARTTLS, "STARTTLS": HANG_UP}
        with Scripted(script) as server, client_of(server.address) as client:
            assert client.start_tls(_trusting()).code == 451
            assert not client.usable

    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            (b"", TimeoutError),
            (b"250 what is this\r\n", ssl.SSLError),
            (None, ConnectionError),
        ],
        ids=["silence", "text", "end"],
    )
    def test_no_handshake(
        self, client_of: MakeClient, answer: bytes | None, expected: type[OSError]
    ) -> None:
        with (
            _beginning(answer) as address,
            client_of(address, limits=Limits(handshake_timeout=0.5)) as client,
        ):
            with pytest.raises(expected):
                client.start_tls(_trusting())
            assert not client.usable

    @pytest.mark.parametrize("broken", [False, True])
    def test_the_connection_breaks_under_tls(self, client_of: MakeClient, broken: bool) -> None:
        with _breaking(broken) as address, client_of(address) as client:
            assert client.start_tls(_trusting()).code == 250
            (result,) = client.submit(None, _recipients("a"), itertools.repeat(b"x" * 65_536))
            assert result.reply.code == 451
            assert not client.usable


@contextmanager
def _serving(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """Serve one connection in a thread."""

    def accept() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(PATIENCE)
            serve(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        thread = threading.Thread(target=accept)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join(PATIENCE)
        assert not thread.is_alive()


def _begin(connection: socket.socket) -> None:
    """Everything up to 220."""
    connection.sendall(b"220 host\r\n")
    connection.recv(4096)
    connection.sendall(b"250-host\r\n250 STARTTLS\r\n")
    connection.recv(4096)
    connection.sendall(b"220 begin\r\n")


@contextmanager
def _beginning(answer: bytes | None) -> Iterator[str]:
    """A server that answers the handshake so; None closes."""

    def serve(connection: socket.socket) -> None:
        _begin(connection)
        connection.recv(4096)
        if answer is not None:
            connection.sendall(answer)
            while connection.recv(4096):
                pass

    with _serving(serve) as address:
        yield address


@contextmanager
def _breaking(broken: bool) -> Iterator[str]:
    """A server that breaks TLS, or closes without a word, behind 354."""

    def serve(connection: socket.socket) -> None:
        _begin(connection)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _ISSUED.configure_cert(context)
        raw = connection.dup()
        with raw, context.wrap_socket(connection, server_side=True) as secured:
            for reply in (b"250 host", b"250 ok", b"250 ok", b"354 go"):
                secured.recv(4096)
                secured.sendall(reply + b"\r\n")
            secured.recv(4096)
            if broken:
                raw.sendall(b"250 this is no TLS\r\n" * 10)
                try:
                    while raw.recv(65_536):
                        pass
                except ConnectionError:
                    pass

    with _serving(serve) as address:
        yield address


class TestLmtp:
    def test_login_under_tls(self) -> None:
        with SecureServer() as server, LMTP(server.address, timeout=20) as lmtp:
            assert lmtp.starttls(context=_trusting()) == (220, b"2.0.0 begin TLS")
            assert not lmtp.has_extn("starttls")
            assert lmtp.login("alice", "secret") == (235, b"2.7.0 authenticated")
            assert lmtp.login("alice", "secret")[0] == 503
            outcome = lmtp.sendmail("s@example.net", "a@example.org", _MESSAGE)
            assert outcome["a@example.org"][0] == 250
        assert server.driver.session.user == "alice"
        assert server.mailbox.delivered == [("a", _MESSAGE)]

    @pytest.mark.parametrize("mechanisms", [("PLAIN",), ("LOGIN",), ("LOGIN", "PLAIN")])
    def test_who_is_not_believed(self, mechanisms: tuple[str, ...]) -> None:
        with SecureServer(mechanisms=mechanisms) as server, LMTP(server.address) as lmtp:
            lmtp.starttls(context=_trusting())
            with pytest.raises(smtplib.SMTPAuthenticationError) as caught:
                lmtp.login("alice", "wrong")
            assert caught.value.smtp_code == 535
            assert lmtp.login("alice", "secret")[0] == 235

    def test_no_mechanism_that_login_knows(self) -> None:
        with SecureServer() as server, LMTP(server.address) as lmtp:
            # In the clear the server offers EXTERNAL alone.
            with pytest.raises(smtplib.SMTPException, match="neither AUTH PLAIN nor LOGIN"):
                lmtp.login("alice", "secret")
            with pytest.raises(smtplib.SMTPNotSupportedError, match="AUTH PLAIN"):
                lmtp.auth("PLAIN", lambda challenge=None: "")
            assert lmtp.auth("external", lambda challenge=None: "carol")[0] == 235
        assert server.driver.session.user == "carol"

    @pytest.mark.parametrize("initial_response_ok", [False, True])
    def test_auth(self, initial_response_ok: bool) -> None:
        asked: list[bytes | None] = []

        def answer(challenge: bytes | None = None) -> str | None:
            asked.append(challenge)
            return "\0alice\0secret"

        with SecureServer() as server, LMTP(server.address) as lmtp:
            lmtp.starttls(context=_trusting())
            code, _ = lmtp.auth("PLAIN", answer, initial_response_ok=initial_response_ok)
            assert code == 235
        assert asked == [None if initial_response_ok else b""]
        assert server.driver.session.user == "alice"

    def test_giving_up(self) -> None:
        with SecureServer() as server, LMTP(server.address) as lmtp:
            lmtp.starttls(context=_trusting())
            with pytest.raises(smtplib.SMTPAuthenticationError) as caught:
                lmtp.auth("LOGIN", lambda challenge=None: None)
            assert caught.value.smtp_code == 501
            assert lmtp.noop()[0] == 250

    def test_not_offered(self) -> None:
        with Scripted() as server, LMTP(server.address) as lmtp:
            with pytest.raises(smtplib.SMTPNotSupportedError, match="STARTTLS"):
                lmtp.starttls(context=_trusting())
            with pytest.raises(smtplib.SMTPNotSupportedError, match="AUTH"):
                lmtp.login("alice", "secret")
            assert lmtp.rset()[0] == 250

    def test_a_server_that_refuses(self) -> None:
        script = {**_STARTTLS, "STARTTLS": b"454 4.7.0 not now\r\n"}
        with Scripted(script) as server, LMTP(server.address) as lmtp:
            with pytest.raises(smtplib.SMTPResponseException) as caught:
                lmtp.starttls(context=_trusting())
            assert caught.value.smtp_code == 454
            assert lmtp.rset()[0] == 250

    def test_a_server_that_is_not_trusted(self) -> None:
        with SecureServer() as server, LMTP(server.address) as lmtp:
            with pytest.raises(ssl.SSLCertVerificationError):
                lmtp.starttls()
            with pytest.raises(smtplib.SMTPServerDisconnected):
                lmtp.sendmail("s@example.net", "a@example.org", _MESSAGE)
        assert server.mailbox.delivered == []

    def test_a_password_is_not_shown(self) -> None:
        shown = base64.b64encode(b"\0alice\0hidden").decode()
        with SecureServer() as server, LMTP(server.address) as lmtp:
            lmtp.starttls(context=_trusting())
            with pytest.raises(smtplib.SMTPAuthenticationError) as caught:
                lmtp.login("alice", "hidden")
        for text in (repr(caught.value), repr(caught.value.__context__)):
            assert "hidden" not in text
            assert shown not in text
