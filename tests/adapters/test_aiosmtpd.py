"""Handlers written for aiosmtpd: what they are given, here and there, and what a client is told."""

# ruff: noqa: N802  # the names of hooks are aiosmtpd's

import asyncio
import io
import mailbox
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
from aiosmtpd.handlers import Debugging, Mailbox, Sink
from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import MISSING, AuthResult

from lmtp_asyncio import AiosmtpdHandler, LoginPassword
from lmtp_proto import STANDARD_EXTENSIONS, Extension, Settings
from lmtp_transport import Listener, ServerTls
from tests.adapters.conftest import LogLines
from tests.adapters.harness import PATIENCE, Client, serving

_CONTENT: Final = b"Subject: hello\r\n\r\n.dot\r\n\xfctf\r\n"
_STUFFED: Final = _CONTENT.replace(b"\r\n.", b"\r\n..")
_LHLO: Final = b"LHLO client.example\r\n"
_MAIL: Final = b"MAIL FROM:<sender@example.net> BODY=8BITMIME SIZE=100\r\n"


@pytest.fixture(params=["asyncio", "uvloop"])
def serve(request: pytest.FixtureRequest) -> Iterator[Callable[..., Client]]:
    """Serve a handler on each loop, and connect."""
    clients: list[Client] = []
    servers = []

    def serve(handler: object, *listeners: Listener, **options: Any) -> Client:
        settings = options.pop("settings", None)
        shim = AiosmtpdHandler(handler, **options)
        servers.append(serving(request.param, shim, *listeners, settings=settings))
        clients.append(Client(servers[-1].__enter__().address).greeted())
        return clients[-1]

    yield serve
    for client in clients:
        client.close()
    for server in servers:
        server.__exit__(None, None, None)


@contextmanager
def _aiosmtpd(handler: object, **options: Any) -> Iterator[Client]:
    """A client of aiosmtpd's own LMTP server."""
    port: Future[int] = Future()
    loop = asyncio.new_event_loop()

    async def listen() -> None:
        server = await loop.create_server(lambda: LMTP(handler, **options), "127.0.0.1", 0)
        port.set_result(server.sockets[0].getsockname()[1])
        await stop.wait()
        server.close()

    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(listen(),))
    thread.start()
    try:
        with Client(f"127.0.0.1:{port.result(PATIENCE)}") as client:
            yield client.greeted()
            client.expect_end()
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(PATIENCE)
        loop.close()


def _transaction(client: Client, *recipients: str, content: bytes = _STUFFED) -> list[bytes]:
    """Send a message; the replies behind the content."""
    client.send(_LHLO + _MAIL)
    client.expect(b"250 ", b"250 ")
    for recipient in recipients:
        client.send(b"RCPT TO:<%s>\r\n" % recipient.encode())
        client.expect(b"250 ")
    client.send(b"DATA\r\n")
    client.expect(b"354 ")
    client.send(content + b".\r\n")
    return [client.reply() for _ in recipients]


def test_sink(serve: Callable[..., Client]) -> None:
    client = serve(Sink())
    assert _transaction(client, "a@example.org", "b@example.org") == [b"250 2.0.0 OK"] * 2
    client.send(b"QUIT\r\n")
    client.expect(b"221 ")


def _stored(folder: Path) -> list[tuple[list[tuple[str, str]], object]]:
    return [
        # The port is another each time.
        ([(k, v) for k, v in message.items() if k != "X-Peer"], message.get_payload())
        for message in mailbox.Maildir(folder, create=False)
    ]


def test_mailbox_stores_what_it_stores_in_aiosmtpd(
    serve: Callable[..., Client], tmp_path: Path
) -> None:
    client = serve(Mailbox(tmp_path / "here"))
    replies = _transaction(client, "a@example.org", "b@example.org")
    assert replies == [b"250 2.0.0 OK"] * 2
    with _aiosmtpd(Mailbox(tmp_path / "there")) as other:
        other.send(_LHLO)
        other.expect(b"250 ")
        other.send(_MAIL)
        other.expect(b"250 ")
        for name in (b"a", b"b"):
            other.send(b"RCPT TO:<%s@example.org>\r\n" % name)
            other.expect(b"250 ")
        other.send(b"DATA\r\n")
        other.expect(b"354 ")
        other.send(_STUFFED + b".\r\n")
        # One for two recipients.
        other.expect(b"250 ")
        other.send(b"QUIT\r\n")
        other.expect(b"221 ")
    (here,), (there,) = _stored(tmp_path / "here"), _stored(tmp_path / "there")
    assert here == there
    assert ("X-RcptTo", "a@example.org, b@example.org") in here[0]


def test_debugging(serve: Callable[..., Client]) -> None:
    stream = io.StringIO()
    client = serve(Debugging(stream))
    assert _transaction(client, "a@example.org") == [b"250 2.0.0 OK"]
    lines = stream.getvalue().splitlines()
    assert lines[1] == "mail options: ['SIZE=100', 'BODY=8BITMIME']"
    assert lines[3] == "Subject: hello"
    assert lines[4].startswith("X-Peer: ('127.0.0.1', ")


class Recorder:
    """Notes all that hooks are given, and does by itself what aiosmtpd leaves to them."""

    def __init__(self) -> None:
        self.notes: list[object] = []

    def note(self, hook: str, server: Any, session: Any, envelope: Any, *rest: object) -> None:
        # The two offer other extensions.
        shown = [item for item in rest if not (isinstance(item, list) and "250 HELP" in item)]
        self.notes.append(deepcopy((hook, *shown)))
        self.notes.append(
            deepcopy(vars(envelope)) | {"mail_options": sorted(envelope.mail_options)}
        )
        self.notes.append((session.peer[0], session.host_name, session.extended_smtp, session.ssl))
        assert server.session is session
        assert server.envelope is envelope
        assert server.event_handler is self
        assert server.hostname == "mx.example.org"
        assert session.loop is server.loop is asyncio.get_running_loop()

    async def handle_EHLO(
        self, server: Any, session: Any, envelope: Any, hostname: str, responses: list[str]
    ) -> list[str]:
        self.note("EHLO", server, session, envelope, hostname, responses)
        session.host_name = hostname
        return responses

    async def handle_MAIL(
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        self.note("MAIL", server, session, envelope, address, sorted(options))
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 sender taken"

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, *rest: Any) -> str:
        self.note("RCPT", server, session, envelope, *rest)
        if rest[0].startswith("no"):
            return "550 5.1.1 nobody"
        envelope.rcpt_tos.append(rest[0].upper())
        return "250 recipient taken"

    async def handle_VRFY(self, server: Any, session: Any, envelope: Any, *rest: Any) -> str:
        self.note("VRFY", server, session, envelope, *rest)
        return "252 perhaps"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.note("DATA", server, session, envelope)
        return "250 taken"


_DIALOGUE: Final = [
    (_LHLO, b"250 "),
    (_MAIL, b"250 2.1.0 sender taken"),
    (b"RCPT TO:<nobody@example.org>\r\n", b"550 5.1.1 nobody"),
    (b'RCPT TO:<"a b"@example.org>\r\n', b"250 "),
    (b"VRFY <alice@example.org>\r\n", b"252 "),
    (b"DATA\r\n", b"354 "),
    (_STUFFED + b".\r\n", b"250 "),
    (b"MAIL FROM:<>\r\n", b"250 "),
    (b"RSET\r\n", b"250 "),
    (b"MAIL FROM:<other@example.net> SMTPUTF8\r\n", b"250 "),
    (b"RCPT TO:<carol@example.org>\r\n", b"250 "),
    (b"DATA\r\n", b"354 "),
    (b".\r\n", b"250 "),
    (b"QUIT\r\n", b"221 "),
]


def _held(client: Client) -> None:
    for sent, expected in _DIALOGUE:
        client.send(sent)
        client.expect(expected)


def test_hooks_are_given_what_aiosmtpd_gives_them(serve: Callable[..., Client]) -> None:
    here, there = Recorder(), Recorder()
    settings = Settings(extensions=STANDARD_EXTENSIONS | {Extension.SMTPUTF8})
    _held(serve(here, hostname="mx.example.org", settings=settings))
    with _aiosmtpd(there, hostname="mx.example.org", enable_SMTPUTF8=True) as client:
        _held(client)
    assert here.notes == there.notes
    assert len(here.notes) == 3 * 10


class Statuses:
    """Says what the test says."""

    def __init__(self, status: object) -> None:
        self.status = status
        self.calls = 0

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> Any:
        self.calls += 1
        if isinstance(self.status, Exception):
            raise self.status
        return self.status


@pytest.mark.parametrize(
    ("status", "replies"),
    [
        ("250 ok", [b"250 2.0.0 ok"] * 3),
        (b"250 ok\r\n", [b"250 2.0.0 ok"] * 3),
        ("550 5.7.1 spam", [b"550 5.7.1 spam"] * 3),
        ("250 5.7.1 odd", [b"250 2.0.0 5.7.1 odd"] * 3),
        ("452", [b"452 4.0.0 "] * 3),
        ("250-2.6.0 first\r\n250 2.6.0 last", [b"250 2.6.0 last"] * 3),
        (MISSING, [b"250 2.0.0 OK"] * 3),
        ("250 a\r\n550 5.2.2 b\n452 c", [b"250 2.0.0 a", b"550 5.2.2 b", b"452 4.0.0 c"]),
        ("250-a\r\n250 b\r\n550 c\r\n250 d", [b"250 2.0.0 b", b"550 5.0.0 c", b"250 2.0.0 d"]),
        # Not one for each, but all mean the same.
        ("250 a\r\n250 b", [b"250 2.0.0 a"] * 3),
        ("550 a\r\n550 b\r\n551 c\r\n550 d", [b"550 5.0.0 a"] * 3),
        # Who is meant?
        ("250 a\r\n550 b", [b"451 4.3.0 internal error"] * 3),
        ("250 a\r\n550 b\r\n550 c\r\n550 d", [b"451 4.3.0 internal error"] * 3),
        # No status, or one that fits no recipient.
        ("ok", [b"451 4.3.0 internal error"] * 3),
        ("", [b"451 4.3.0 internal error"] * 3),
        (None, [b"451 4.3.0 internal error"] * 3),
        (250, [b"451 4.3.0 internal error"] * 3),
        ("250-a", [b"451 4.3.0 internal error"] * 3),
        ("250-a\r\n550 b", [b"451 4.3.0 internal error"] * 3),
        ("354 go on", [b"451 4.3.0 internal error"] * 3),
        (RuntimeError("secret"), [b"451 4.3.0 internal error"] * 3),
    ],
)
def test_statuses(
    serve: Callable[..., Client], status: object, replies: list[bytes], logs: LogLines
) -> None:
    handler = Statuses(status)
    client = serve(handler)
    for _ in range(2):
        assert _transaction(client, "a@b", "b@b", "a@b") == replies
    assert handler.calls == 2
    if replies[0].startswith(b"451"):
        logs.wait_for("ERROR")
    client.send(b"NOOP\r\n")
    client.expect(b"250 ")


class Plain:
    """Hooks that are no coroutine functions, and fail when they are told to."""

    def handle_exception(self, error: Exception) -> str:
        return f"451 4.5.0 {error}"

    def handle_EHLO(self, server: Any, session: Any, envelope: Any, hostname: str) -> str:
        session.host_name = hostname
        return "550 5.7.1 not you" if hostname == "evil" else "250 HELP"

    def handle_MAIL(self, server: Any, session: Any, envelope: Any, address: str, _: Any) -> Any:
        if address == "<>":
            raise RuntimeError("no notifications")
        if address == "two@example.org":
            return "250 a\r\n250 b"
        return MISSING

    def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, _: Any) -> Any:
        # Taken, but not kept.
        return "250 dropped" if address.startswith("drop") else MISSING

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if "push" in envelope.content:
            await server.push("250 a")
        return f"250 {envelope.rcpt_tos} {type(envelope.content).__name__}"


def _said(client: Client, *commands: bytes) -> list[bytes]:
    replies = []
    for command in commands:
        client.send(command + b"\r\n")
        replies.append(client.reply())
    return replies


def test_plain_functions_and_failures(serve: Callable[..., Client]) -> None:
    client = serve(Plain(), decode_data=True)
    replies = _said(
        client,
        b"LHLO evil",
        b"MAIL FROM:<a@b>",
        b"LHLO good",
        b"MAIL FROM:<>",
        b"MAIL FROM:<two@example.org>",
        b"MAIL FROM:<a@b>",
        b"RCPT TO:<drop@b>",
        b"DATA",
        b"RCPT TO:<keep@b>",
        b"VRFY <keep@b>",
        b"DATA",
    )
    assert [reply for number, reply in enumerate(replies) if number != 2] == [
        b"550 5.7.1 not you",
        b"503 5.5.1 LHLO first",
        b"451 4.5.0 no notifications",
        b"451 4.3.0 internal error",
        b"250 2.1.0 sender OK",
        b"250 2.0.0 dropped",
        b"503 5.5.1 no valid recipients",
        b"250 2.1.5 recipient OK",
        b"252 2.5.2 try RCPT",
        b"354 end with a dot on a line of its own",
    ]
    client.send(b"\xff\r\n.\r\n")
    assert [client.reply(), client.reply()] == [b"250 2.0.0 ['keep@b'] str"] * 2
    client.send(b"MAIL FROM:<a@b>\r\nRCPT TO:<keep@b>\r\nBDAT 4 LAST\r\npush")
    client.expect(b"250 ", b"250 ", b"451 4.5.0 server.push() cannot be used here")


def _login(user: bytes, password: bytes, as_whom: bytes = b"") -> bytes:
    return b"AUTH PLAIN " + b64encode(b"\0".join((as_whom, user, password)))


class Greets:
    async def handle_MAIL(
        self, server: Any, session: Any, envelope: Any, address: str, _: Any
    ) -> str:
        envelope.mail_from = address
        return f"250 {session.authenticated} {session.auth_data} {session.login_data}"


@pytest.mark.parametrize("by", ["authenticator", "callback", "nobody"])
def test_auth(serve: Callable[..., Client], by: str, tmp_path: Path) -> None:
    def authenticator(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> Any:
        assert mechanism == "PLAIN"
        if data.password == b"told":
            return AuthResult(success=False, handled=False, message="535 5.7.8 told so")
        return AuthResult(success=data == (b"alice", b"secret"), auth_data=data)

    def callback(mechanism: str, login: bytes, password: bytes) -> bool:
        return (mechanism, login, password) == ("PLAIN", b"alice", b"secret")

    judges: dict[str, dict[str, object]] = {
        "authenticator": {"authenticator": authenticator},
        "callback": {"auth_callback": callback},
        "nobody": {},
    }
    extensions = STANDARD_EXTENSIONS | {Extension.AUTH}
    # On a UNIX socket nobody listens.
    listener = Listener(f"unix:{tmp_path}/lmtp")
    settings = Settings(extensions=extensions, auth_mechanisms=("PLAIN", "EXTERNAL"))
    client = serve(Greets(), listener, auth_required=True, settings=settings, **judges[by])
    replies = _said(
        client,
        b"LHLO a",
        b"MAIL FROM:<a@b>",
        _login(b"alice", b"wrong"),
        _login(b"alice", b"told"),
        _login(b"alice", b"secret", b"root"),
        b"AUTH EXTERNAL =",
        _login(b"alice", b"secret", b"alice"),
        b"MAIL FROM:<a@b>",
    )
    failed = b"535 5.7.8 authentication failed"
    required = b"530 5.7.0 authentication required"
    told = b"535 5.7.8 told so" if by == "authenticator" else failed
    assert replies[1:6] == [required, failed, told, failed, failed]
    if by == "nobody":
        assert replies[6:] == [failed, required]
    else:
        login = LoginPassword(b"alice", b"secret")
        shown = f"True {login} {login.login!r}".encode()
        assert replies[6:] == [b"235 2.7.0 authenticated", b"250 2.0.0 " + shown]


def test_who_is_refused_at_lhlo_may_do_nothing(
    serve: Callable[..., Client], tmp_path: Path
) -> None:
    class Refuses:
        async def handle_EHLO(self, server: Any, session: Any, envelope: Any, _: str) -> str:
            return "550 5.7.1 not you"

        async def handle_VRFY(self, server: Any, session: Any, envelope: Any, _: str) -> str:
            return "250 yes"

    settings = Settings(extensions=STANDARD_EXTENSIONS | {Extension.AUTH})
    listener = Listener(f"unix:{tmp_path}/lmtp")
    client = serve(Refuses(), listener, settings=settings, auth_callback=lambda *_: True)
    assert _said(client, b"VRFY a", b"LHLO a") == [b"250 2.0.0 yes", b"550 5.7.1 not you"]
    replies = _said(client, _login(b"alice", b"secret"), b"MAIL FROM:<a@b>")
    assert [reply[:9] for reply in replies] == [b"503 5.5.1"] * 2


class Secured:
    def __init__(self) -> None:
        self.secured: list[object] = []

    def handle_STARTTLS(self, server: Any, session: Any, envelope: Any) -> bool:
        self.secured.append(session.ssl)
        if len(self.secured) == 2:
            raise RuntimeError("crash")
        return len(self.secured) > 2

    async def handle_VRFY(self, server: Any, session: Any, envelope: Any, _: str) -> str:
        return "250 yes"

    async def handle_exception(self, error: Exception) -> str:
        return "250 nothing happened"


def test_starttls(serve: Callable[..., Client]) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    issued = authority.issue_cert("localhost")
    handler = Secured()
    with (
        issued.cert_chain_pems[0].tempfile() as certificate,
        issued.private_key_pem.tempfile() as key,
    ):
        tls = ServerTls(certificate, key)
        client = serve(handler, Listener("127.0.0.1:0", tls))
        assert _said(client, b"LHLO a", b"MAIL FROM:<a@b>")[1] == b"250 2.1.0 sender OK"
        assert handler.secured == []
        assert _said(client, b"RSET", b"STARTTLS")[1].startswith(b"220 ")
        client.start_tls(context)
        replies = _said(client, b"VRFY a", *[b"LHLO a"] * 3, b"MAIL FROM:<a@b>")
    assert handler.secured == [{"peercert": None}] * 3
    assert replies[:3] == [
        b"554 5.7.0 refused due to lack of security",
        b"554 5.7.0 refused due to lack of security",
        b"451 4.3.0 internal error",
    ]
    assert replies[4] == b"250 2.1.0 sender OK"


def test_peers(serve: Callable[..., Client], tmp_path: Path) -> None:
    peers: list[object] = []

    class Peers:
        async def handle_RCPT(self, server: Any, session: Any, envelope: Any, *_: Any) -> str:
            peers.append(session.peer)
            return "550 no"

    for listener in ("127.0.0.1:0", "[::1]:0", f"unix:{tmp_path}/lmtp"):
        client = serve(Peers(), Listener(listener))
        assert _said(client, b"LHLO a", b"MAIL FROM:<a@b>", b"RCPT TO:<a@b>")[2] == b"550 5.0.0 no"
        if listener.startswith("unix"):
            assert peers.pop() == ""
        else:
            assert peers.pop() == client.sock.getsockname()


class TestWhatCannotBeRun:
    @pytest.mark.parametrize(
        "name", ["handle_AUTH", "handle_PROXY", "auth_CRAM__MD5", "process_message"]
    )
    def test_what_decides_is_not_passed_over(self, name: str) -> None:
        handler = type("Custom", (), {name: lambda self: None})()
        with pytest.raises(ValueError, match=f"Custom has {name}, which an LMTP server cannot"):
            AiosmtpdHandler(handler)

    def test_a_class(self) -> None:
        with pytest.raises(ValueError, match="Sink is a class"):
            AiosmtpdHandler(Sink)

    def test_what_is_never_called_is_said(self, logs: LogLines) -> None:
        class Quits(Sink):
            async def handle_QUIT(self, *_: object) -> str:
                return "221 bye"

        AiosmtpdHandler(Quits())
        assert logs.wait_for("WARNING") == "WARNING handle_QUIT of Quits will not be called"
