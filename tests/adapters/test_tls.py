"""TLS on every runtime: from the first octet and by STARTTLS."""

import hashlib
import socket
import ssl
from pathlib import Path
from typing import Final

import pytest
import trustme

from lmtp_proto import Extension, Limits, Settings
from lmtp_transport import Listener, ServerTls
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

# A key for each test would cost more than all that is tested.
_AUTHORITY: Final = trustme.CA()
_OTHER_AUTHORITY: Final = trustme.CA()


class _Files:
    """Certificates on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.authority = folder / "ca.pem"
        _AUTHORITY.cert_pem.write_to_path(self.authority)

    def write(self, name: str, file: str = "server") -> tuple[Path, Path]:
        """A certificate for `name`, and its key."""
        issued = _AUTHORITY.issue_cert(name)
        certificate, key = self._folder / f"{file}.pem", self._folder / f"{file}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        return certificate, key


@pytest.fixture
def files(tmp_path: Path) -> _Files:
    """Make certificates."""
    return _Files(tmp_path)


@pytest.fixture
def tls(files: _Files) -> ServerTls:
    """Make a server's TLS as `localhost`."""
    return ServerTls(*files.write("localhost"))


def _trusting(authority: trustme.CA = _AUTHORITY) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def _lhlo(client: Client) -> list[bytes]:
    """Say LHLO; what is offered."""
    client.send(b"LHLO client.example\r\n")
    lines = [client.line()]
    while lines[-1][3:4] == b"-":
        lines.append(client.line())
    return [line[4:] for line in lines[1:]]


class TestStartTls:
    def test_a_message_by_starttls(self, start: Start, connect: Connect, tls: ServerTls) -> None:
        mailbox = Mailbox()
        server = start(mailbox, Listener("127.0.0.1:0", tls))
        client = connect(server.address).greeted()
        assert b"STARTTLS" in _lhlo(client)
        client.send(b"STARTTLS\r\n")
        client.expect(b"220 2.0.0")
        client.start_tls(_trusting())
        # RFC 3207 4.2: both begin anew.
        client.send(b"MAIL FROM:<a@example.org>\r\n")
        client.expect(b"503 ")
        assert b"STARTTLS" not in _lhlo(client)
        client.deliver("b", "c")
        client.expect(b"250 ", b"250 ")
        client.send(b"STARTTLS\r\nQUIT\r\n")
        client.expect(b"503 ", b"221 ")
        client.expect_end()
        (session,) = mailbox.connected
        assert session.tls is not None
        assert session.tls.startswith("TLSv1.3 TLS_")
        assert session.certificate is None
        assert [name for name, _ in mailbox.delivered] == ["b", "c"]

    def test_without_a_certificate_it_is_not_offered(self, start: Start, connect: Connect) -> None:
        client = connect(start(Mailbox()).address).greeted()
        assert b"STARTTLS" not in _lhlo(client)
        client.send(b"STARTTLS\r\n")
        client.expect(b"502 ")

    def test_it_is_the_listener_that_offers_it(self, start: Start) -> None:
        with pytest.raises(ValueError, match="STARTTLS is offered by listeners"):
            start(Mailbox(), settings=Settings(extensions=frozenset({Extension.STARTTLS})))

    def test_plaintext_behind_it_is_never_executed(
        self, start: Start, connect: Connect, tls: ServerTls
    ) -> None:
        # CVE-2011-0411.
        mailbox = Mailbox()
        client = connect(start(mailbox, Listener("127.0.0.1:0", tls)).address).greeted()
        _lhlo(client)
        client.send(b"STARTTLS\r\nLHLO evil.example\r\nMAIL FROM:<evil@example.org>\r\n")
        client.expect(b"220 ")
        client.start_tls(_trusting())
        client.send(b"RCPT TO:<b@example.org>\r\nNOOP\r\n")
        client.expect(b"503 5.5.1 LHLO first", b"250 ")
        assert mailbox.connected[0].lhlo_domain is None

    def test_what_is_no_handshake_ends_the_session_alone(
        self, start: Start, connect: Connect, tls: ServerTls, logs: LogLines
    ) -> None:
        server = start(Mailbox(), Listener("127.0.0.1:0", tls))
        client = connect(server.address).greeted()
        client.send(b"STARTTLS\r\n")
        client.expect(b"220 ")
        client.send(b"MAIL FROM:<a@example.org>\r\n" * 3)
        # An alert perhaps, then the end.
        assert not client.rest().startswith(b"250")
        logs.wait_for("the TLS handshake failed")
        connect(server.address).greeted()


class TestImplicitTls:
    def test_a_message(self, start: Start, connect: Connect, tls: ServerTls) -> None:
        mailbox = Mailbox()
        server = start(mailbox, Listener("127.0.0.1:0", tls, implicit_tls=True))
        client = connect(server.address).start_tls(_trusting()).greeted()
        assert b"STARTTLS" not in _lhlo(client)
        client.deliver("b")
        client.expect(b"250 ")
        assert mailbox.connected[0].tls is not None

    def test_requiretls_is_offered(self, start: Start, connect: Connect, tls: ServerTls) -> None:
        settings = Settings(extensions=frozenset({Extension.REQUIRETLS}))
        server = start(
            Mailbox(), Listener("127.0.0.1:0", tls, implicit_tls=True), settings=settings
        )
        client = connect(server.address).start_tls(_trusting()).greeted()
        assert _lhlo(client) == [b"REQUIRETLS"]

    def test_a_unix_socket(
        self, start: Start, connect: Connect, tls: ServerTls, tmp_path: Path
    ) -> None:
        place = Listener(f"unix:{tmp_path}/lmtps", tls, implicit_tls=True)
        client = connect(start(Mailbox(), place).address).start_tls(_trusting()).greeted()
        client.send(b"QUIT\r\n")
        client.expect(b"221 ")
        client.expect_end()

    def test_who_says_nothing_is_dropped(
        self, start: Start, connect: Connect, tls: ServerTls, logs: LogLines
    ) -> None:
        server = start(
            Mailbox(),
            Listener("127.0.0.1:0", tls, implicit_tls=True),
            settings=Settings(limits=Limits(handshake_timeout=0.1)),
        )
        assert connect(server.address).rest() == b""
        logs.wait_for("TLS handshake failed: the deadline has passed")

    def test_plaintext_is_dropped(
        self, start: Start, connect: Connect, tls: ServerTls, logs: LogLines
    ) -> None:
        server = start(Mailbox(), Listener("127.0.0.1:0", tls, implicit_tls=True))
        client = connect(server.address)
        client.send(ENVELOPE)
        # Nothing but an alert: no reply in the clear.
        assert b"250" not in client.rest()
        logs.wait_for("TLS handshake failed: ")

    def test_one_connection_too_many_is_closed_without_a_word(
        self, start: Start, connect: Connect, tls: ServerTls
    ) -> None:
        server = start(
            Mailbox(), Listener("127.0.0.1:0", tls, implicit_tls=True), max_connections=1
        )
        connect(server.address).start_tls(_trusting()).greeted()
        assert connect(server.address).rest() == b""


class TestTransfer:
    def test_a_large_message_arrives_whole(
        self, start: Start, connect: Connect, tls: ServerTls
    ) -> None:
        mailbox = Mailbox()
        server = start(mailbox, Listener("127.0.0.1:0", tls, implicit_tls=True))
        client = connect(server.address).start_tls(_trusting()).greeted()
        content = b"".join(b"line %d\r\n" % number for number in range(150_000))
        client.deliver("b", content=content)
        client.expect(b"250 ")
        (_, found) = mailbox.delivered[0]
        assert hashlib.sha256(found).digest() == hashlib.sha256(content).digest()

    def test_many_replies_at_once(self, start: Start, connect: Connect, tls: ServerTls) -> None:
        server = start(Mailbox(), Listener("127.0.0.1:0", tls, implicit_tls=True))
        client = connect(server.address).start_tls(_trusting()).greeted()
        client.send(b"HELP\r\n" * 2000)
        for _ in range(2000):
            client.expect(b"214 ")

    def test_half_closed_behind_the_dot_it_still_gets_its_replies(
        self, start: Start, connect: Connect, tls: ServerTls
    ) -> None:
        mailbox = PendingDeliveries()
        server = start(mailbox, Listener("127.0.0.1:0", tls, implicit_tls=True))
        client = connect(server.address).start_tls(_trusting()).greeted()
        client.deliver("b")
        delivery = mailbox.begun("b")
        # Without the leave of TLS; its own shutdown() would end the reading too.
        socket.socket.shutdown(client.sock, socket.SHUT_WR)
        delivery.set_result(SAVED)
        client.expect(b"250 ")

    def test_a_client_that_vanishes_ends_its_session_alone(
        self, start: Start, connect: Connect, tls: ServerTls
    ) -> None:
        mailbox = Mailbox()
        server = start(mailbox, Listener("127.0.0.1:0", tls, implicit_tls=True))
        client = connect(server.address).start_tls(_trusting()).greeted()
        client.send(ENVELOPE)
        client.reset()
        wait_for(mailbox.disconnected)
        connect(server.address).start_tls(_trusting()).greeted()

    def test_a_cut_amid_the_content_delivers_nothing(
        self, start: Start, connect: Connect, tls: ServerTls
    ) -> None:
        mailbox = Mailbox()
        server = start(mailbox, Listener("127.0.0.1:0", tls, implicit_tls=True))
        client = connect(server.address).start_tls(_trusting()).greeted()
        client.send(ENVELOPE + b"RCPT TO:<b@example.org>\r\nDATA\r\nhalf a message\r\n")
        client.expect(b"250 ", b"250 ", b"250 ", b"354 ")
        socket.socket.shutdown(client.sock, socket.SHUT_WR)
        wait_for(mailbox.disconnected)
        assert mailbox.delivered == []

    def test_a_stop_is_announced(self, start: Start, connect: Connect, tls: ServerTls) -> None:
        server = start(Mailbox(), Listener("127.0.0.1:0", tls, implicit_tls=True))
        client = connect(server.address).start_tls(_trusting()).greeted()
        server.begin_stop()
        client.expect(b"421 4.3.2")
        client.expect_end()
        server.join()


class TestCertificates:
    def test_names_have_their_own(self, start: Start, connect: Connect, files: _Files) -> None:
        tls = ServerTls(
            *files.write("localhost"),
            names={
                "mx.example.org": files.write("mx.example.org", "mx"),
                "*.example.net": files.write("*.example.net", "wild"),
            },
        )
        server = start(Mailbox(), Listener("127.0.0.1:0", tls, implicit_tls=True))
        for name in ("mx.example.org", "MX.example.org", "a.example.net", "localhost"):
            # The client verifies that the certificate is for this name.
            connect(server.address).start_tls(_trusting(), name).greeted()
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(server.address).start_tls(_trusting(), "other.example.org")

    def test_a_client_is_verified(
        self, start: Start, connect: Connect, files: _Files, logs: LogLines
    ) -> None:
        mailbox = Mailbox()
        tls = ServerTls(
            *files.write("localhost"), client_ca=files.authority, client_certificate_required=True
        )
        server = start(mailbox, Listener("127.0.0.1:0", tls, implicit_tls=True))
        context = _trusting()
        _AUTHORITY.issue_cert("client.example", common_name="client.example").configure_cert(
            context
        )
        connect(server.address).start_tls(context).greeted()
        (session,) = mailbox.connected
        assert session.certificate is not None
        assert ("DNS", "client.example") in tuple(
            session.certificate["subjectAltName"]  # type: ignore[arg-type]  # as ssl has it
        )
        stranger = _trusting()
        _OTHER_AUTHORITY.issue_cert("client.example").configure_cert(stranger)
        for refused in (_trusting(), stranger):
            client = connect(server.address)
            # With TLS 1.3 a client learns of it when it reads.
            with pytest.raises(ssl.SSLError):
                client.start_tls(refused).sock.recv(1)
            logs.wait_for("TLS handshake failed: ")
        assert len(mailbox.connected) == 1

    def test_a_certificate_that_is_not_required(
        self, start: Start, connect: Connect, files: _Files
    ) -> None:
        mailbox = Mailbox()
        tls = ServerTls(*files.write("localhost"), client_ca=files.authority)
        server = start(mailbox, Listener("127.0.0.1:0", tls, implicit_tls=True))
        connect(server.address).start_tls(_trusting()).greeted()
        assert mailbox.connected[0].certificate is None

    def test_old_versions_are_refused(
        self, start: Start, connect: Connect, files: _Files, logs: LogLines
    ) -> None:
        tls = ServerTls(*files.write("localhost"), minimum_version=ssl.TLSVersion.TLSv1_3)
        server = start(Mailbox(), Listener("127.0.0.1:0", tls, implicit_tls=True))
        context = _trusting()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError):
            connect(server.address).start_tls(context)
        logs.wait_for("TLS handshake failed: ")

    def test_tls_1_2_works(self, start: Start, connect: Connect, tls: ServerTls) -> None:
        mailbox = Mailbox()
        server = start(mailbox, Listener("127.0.0.1:0", tls, implicit_tls=True))
        context = _trusting()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        client = connect(server.address).start_tls(context).greeted()
        client.deliver("b")
        client.expect(b"250 ")
        assert (mailbox.connected[0].tls or "").startswith("TLSv1.2 ")

    def test_new_ones_without_a_restart(
        self, start: Start, connect: Connect, files: _Files
    ) -> None:
        tls = ServerTls(*files.write("old.example"))
        server = start(Mailbox(), Listener("127.0.0.1:0", tls, implicit_tls=True))
        old = connect(server.address).start_tls(_trusting(), "old.example").greeted()
        certificate, _ = files.write("new.example")
        tls.reload()
        connect(server.address).start_tls(_trusting(), "new.example").greeted()
        # What cannot be read changes nothing.
        certificate.write_text("no certificate")
        with pytest.raises(ssl.SSLError):
            tls.reload()
        certificate.unlink()
        with pytest.raises(FileNotFoundError):
            tls.reload()
        connect(server.address).start_tls(_trusting(), "new.example").greeted()
        # Whoever is connected notices nothing.
        old.deliver("b")
        old.expect(b"250 ")

    def test_a_key_of_another_certificate_is_told(self, files: _Files) -> None:
        certificate, _ = files.write("localhost")
        _, key = files.write("localhost", "other")
        with pytest.raises(ssl.SSLError):
            ServerTls(certificate, key)

    def test_who_is_required_must_be_known(self, files: _Files) -> None:
        with pytest.raises(ValueError, match="client_ca"):
            ServerTls(*files.write("localhost"), client_certificate_required=True)
