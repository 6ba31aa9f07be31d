"""Plugins, found by their entry points, in a running server."""

import json
import os
import textwrap
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from lmtp_blocking import Client
from lmtp_proto import Recipient, parse_mailbox
from tests.server._program import Program, run_anew

_PLUGIN = """
    import threading
    from pathlib import Path

    from lmtp_proto import Reply
    from lmtp_server.plugins import hookimpl

    class Judge:
        def __init__(self, table):
            if table.get("fault"):
                raise ValueError("fault: not this", "nor that")
            self.slow = threading.Event()

        @hookimpl
        def lmtp_connect(self, session):
            if Path("closed").exists():
                return Reply(554, "not today", enhanced="5.7.1")

        @hookimpl
        def lmtp_rcpt(self, transaction, recipient):
            match recipient.address.local_part:
                case "spammed":
                    return Reply(550, "not for spam", enhanced="5.7.1")
                case "broken":
                    raise RuntimeError("rcpt fell over")
                case "slow":
                    self.slow.wait(20)
                case "quick":
                    self.slow.set()

        @hookimpl
        def lmtp_before_delivery(self, delivery):
            match delivery.user:
                case "late":
                    return Reply(452, "later", enhanced="4.3.1")
                case "raises":
                    raise RuntimeError("before fell over")
                case "wrong":
                    return Reply(250, "no refusal")

        @hookimpl
        def lmtp_after_delivery(self, delivery, reply):
            with open("after", "a") as file:
                name = delivery.content.text("subject")
                print(delivery.user, delivery.mailbox, reply.code, name, file=file)
            if delivery.user == "last":
                raise RuntimeError("after fell over")
"""
_MESSAGE = (
    b"From: J\xc3\xb6 <a@b.example>\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n"
    b"Message-ID: <1@b.example>\r\n\r\nbody\r\n"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the server runs; the plugin `judge` is installed."""
    site = tmp_path / "site"
    info = site / "judge-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "judge.py").write_text(textwrap.dedent(_PLUGIN))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: judge\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[lmtp_server.plugins]\njudge = judge:Judge\n")
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
    return tmp_path


def _serve(folder: Path, settings: str, runtime: str = "asyncio") -> Program:
    # Names without a domain are shorter.
    (folder / "c.toml").write_text(f'auth_username_format = "%Ln"\n{settings}')
    flags = ["--config", "c.toml", "--listen", "127.0.0.1:0", "--mail", "mail/{user}"]
    return Program(*flags, "--workers", "1", "--runtime", runtime, cwd=folder)


@pytest.fixture
def judged(request: pytest.FixtureRequest, folder: Path) -> Iterator[Program]:
    program = _serve(folder, 'plugins = ["judge"]', getattr(request, "param", "asyncio"))
    yield program
    program.kill()


def _send(address: str, *users: str) -> dict[str, bytes]:
    recipients = [Recipient(address=parse_mailbox(f"{user}@x.example")) for user in users]
    with Client(address, connect_timeout=20) as client:
        results = client.submit(parse_mailbox("a@b.example"), recipients, [_MESSAGE])
    return {each.recipient.address.local_part: each.reply.wire for each in results}


@pytest.mark.parametrize("judged", ["asyncio", "gevent", "blocking"], indirect=True)
def test_hooks_judge_and_are_told(judged: Program, folder: Path) -> None:
    (address,) = judged.addresses()
    replies = _send(address, "fine", "late", "raises", "wrong", "spammed", "broken", "last")
    assert {user: reply[:9] for user, reply in replies.items()} == {
        "fine": b"250 2.0.0",
        "late": b"452 4.3.1",
        "raises": b"451 4.3.0",
        "wrong": b"451 4.3.0",
        "spammed": b"550 5.7.1",
        "broken": b"451 4.3.0",
        "last": b"250 2.0.0",
    }
    judged.wait_for("lmtp_rcpt failed")
    judged.wait_for("lmtp_before_delivery failed")
    judged.wait_for("no reply that refuses")
    judged.wait_for("lmtp_after_delivery failed")
    assert judged.stop() == 0
    assert sorted((folder / "after").read_text().splitlines()) == [
        "fine INBOX 250 Grüße",
        "last INBOX 250 Grüße",
        "late INBOX 452 Grüße",
        "raises INBOX 451 Grüße",
        "wrong INBOX 451 Grüße",
    ]
    for user, count in {"fine": 1, "last": 1, "late": 0, "raises": 0, "wrong": 0}.items():
        assert len(list((folder / "mail" / user).glob("new/*"))) == count


def test_a_slow_hook_holds_up_nobody_else(judged: Program) -> None:
    (address,) = judged.addresses()
    replies: list[dict[str, bytes]] = []
    slow = threading.Thread(target=lambda: replies.append(_send(address, "slow")))
    slow.start()
    # It sets free the one before.
    assert _send(address, "quick")["quick"].startswith(b"250")
    slow.join()
    assert replies[0]["slow"].startswith(b"250")


def test_a_client_is_sent_away(judged: Program, folder: Path) -> None:
    (address,) = judged.addresses()
    (folder / "closed").touch()
    with Client(address, connect_timeout=20) as client:
        assert client.greeting.code == 554


def test_faults_are_told_with_others(folder: Path) -> None:
    (folder / "c.toml").write_text(
        'plugins = ["judge", "nobody", "mail_log", "push_notification"]\nworkers = 0\n'
        '[plugin.judge]\nfault = true\n[plugin.mail_log]\nfields = ["colour"]\n[plugin.other]\n'
    )
    result = run_anew("serve", "--config", "c.toml", cwd=folder)
    assert result.returncode == 78
    text = result.stderr.decode()
    for part in [
        "workers: 0 is not allowed",
        "plugin.judge: fault: not this",
        "plugin.judge: nor that",
        "nobody: there is no such plugin; there are judge, mail_log, push_notification",
        "plugin.mail_log: fields: ['colour'] is not allowed",
        "plugin.push_notification: url: it must be there",
        "plugin.other: it is not in use",
    ]:
        assert part in text, text


def test_mail_log(folder: Path) -> None:
    program = _serve(
        folder,
        'plugins = ["mail_log"]\n[plugin.mail_log]\n'
        'fields = ["subject", "from", "size", "vsize", "msgid", "box"]\n',
    )
    try:
        _send(program.addresses()[0], "fine")
        program.wait_for(
            r"lmtp\(fine\)<\d+><[^<>.]+>: save: box=INBOX, msgid=<1@b.example>,"
            rf" size={len(_MESSAGE) - 5}, vsize={len(_MESSAGE)}, from=Jö <a@b.example>,"
            " subject=Grüße"
        )
    finally:
        program.kill()


def test_push_notification(folder: Path) -> None:
    bodies: list[object] = []
    came = threading.Event()

    class _Receiver(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            # The first is not to the receiver's liking.
            self.send_response(500 if len(bodies) == 1 else 204)
            self.end_headers()
            if len(bodies) == 2:
                came.set()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name there
            pass

    with HTTPServer(("127.0.0.1", 0), _Receiver) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        (folder / "secret").write_text(f"http://127.0.0.1:{server.server_port}/push\n")
        program = _serve(
            folder,
            'plugins = ["push_notification"]\n[plugin.push_notification]\n'
            'url = { file = "secret" }\n',
        )
        try:
            (address,) = program.addresses()
            for user in ("one", "two"):
                assert _send(address, user)[user].startswith(b"250")
            assert came.wait(20)
            program.wait_for("cannot notify 127.0.0.1: it answered 500")
            assert program.stop() == 0
        finally:
            program.kill()
            server.shutdown()
            thread.join()
    shared = {
        "event": "messageNew",
        "folder": "INBOX",
        "from": "Jö <a@b.example>",
        "subject": "Grüße",
    }
    assert bodies == [{"user": "one", **shared}, {"user": "two", **shared}]


def test_the_example_of_the_page(folder: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()
    code = page.split("<!-- example: plugin -->\n```python\n")[1].split("```")[0]
    (folder / "site" / "holidays.py").write_text(code)
    entry = page.split('[project.entry-points."lmtp_server.plugins"]\n')[1].split("```")[0]
    (folder / "site" / "judge-1.0.dist-info" / "entry_points.txt").write_text(
        "[lmtp_server.plugins]\n" + entry.replace('"', "")
    )
    program = _serve(folder, 'plugins = ["holidays"]\n[plugin.holidays]\naway = ["bob"]\n')
    try:
        replies = _send(program.addresses()[0], "bob", "fine")
    finally:
        program.kill()
    assert replies["bob"].startswith(b"450 4.2.1")
    assert replies["fine"].startswith(b"250")
