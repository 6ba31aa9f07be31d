"""The plugins beside Dovecot's: the lines of `mail_log`, and what `push_notification` sends."""

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email.header import decode_header, make_header
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from benchmarks.peers.dovecot import PrivateDovecot
from lmtp_blocking import Client
from lmtp_proto import Recipient, parse_mailbox
from tests.server._program import SECONDS, Program

pytestmark = pytest.mark.interop

_ACTIVE = "/private/vendor/vendor.dovecot/http-notify"
_SETTINGS = """
recipient_delimiter = +
lmtp_save_to_detail_mailbox = yes
lda_mailbox_autocreate = yes
mail_attribute_dict = file:%h/attributes
imap_metadata = yes
protocol lmtp {{
  mail_plugins = notify mail_log push_notification
}}
plugin {{
  mail_log_events = save
  mail_log_fields = box msgid size vsize from subject
  push_notification_driver = ox:url={url}
}}
"""
_OURS = """
recipient_delimiter = "+"
save_to_detail_mailbox = true
mailbox_autocreate = true
plugins = ["mail_log", "push_notification"]
[plugin.mail_log]
fields = ["box", "msgid", "size", "vsize", "from", "subject"]
[plugin.push_notification]
url = "{url}"
"""
_LONG = "\N{LATIN SMALL LETTER U WITH DIAERESIS}" * 60
_FOLDED = "=?utf-8?b?R3LDvMOfZQ==?= from\n afar"
_MESSAGES = [
    f"From: =?utf-8?q?J=C3=B6?= <a@b.example>\nSubject: {_FOLDED}\nMessage-ID: <1@b>\n\nbody\n",
    "X: no more\n\nbody\n",
    f"From: {_LONG}\nSubject: {'x' * 80}\nMessage-ID: <{'i' * 90}>\n\nbody\n",
    f"From: {'f' * 81}\nSubject: {'x' * 79}\nMessage-ID: \n\nbody\n",
]
_RECIPIENTS = ["joe@example.org", "joe+Some.Box@example.org"]


class _Receiver(HTTPServer):
    """Keeps what it is sent: method, type and JSON."""

    def __init__(self) -> None:
        self.pushes: list[tuple[str, str, dict[str, object]]] = []
        self._change = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with receiver._change:
                    receiver.pushes.append((self.command, self.headers["Content-Type"], body))
                    receiver._change.notify_all()
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
                """Nobody reads it."""

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/push"

    def wait_for(self, count: int) -> None:
        """Wait until so many have come."""
        with self._change:
            assert self._change.wait_for(lambda: len(self.pushes) >= count, SECONDS), self.pushes


@contextmanager
def _receiver() -> Iterator[_Receiver]:
    with _Receiver() as receiver:
        thread = threading.Thread(target=receiver.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield receiver
        finally:
            receiver.shutdown()
            thread.join()


def _send(address: str) -> None:
    recipients = [Recipient(address=parse_mailbox(each)) for each in _RECIPIENTS]
    with Client(address, connect_timeout=SECONDS) as client:
        for message in _MESSAGES:
            content = message.replace("\n", "\r\n").encode()
            results = client.submit(parse_mailbox("s@b.example"), recipients, [content])
            assert all(result.reply.accepted for result in results)


def _lines(log: str) -> list[str]:
    """The lines of mail_log, without process, session and sizes, which count what each server has
    written in front; in an order of their own, as recipients are served at the same time."""
    found = re.findall(r"(lmtp\([^)]+\))<\d+><[^<>]+>: (?:Info: )?(save: .*)", log)
    return sorted(f"{user}: {re.sub(r'size=[0-9]+', 'size=', text)}" for user, text in found)


def _complete(dovecot: PrivateDovecot) -> str:
    """Its log, once it has all lines: another process writes them."""
    end = time.monotonic() + SECONDS
    while len(_lines(log := dovecot.log())) < len(_MESSAGES) * len(_RECIPIENTS):
        assert time.monotonic() < end, log
        time.sleep(0.05)
    return log


def _decoded(pushes: Sequence[tuple[str, str, dict[str, object]]]) -> list[object]:
    """What is in both: of the INBOX, without what only an IMAP server knows."""
    kept = ("user", "event", "folder", "from", "subject")
    return [
        (method, kind, {name: _text(body[name]) for name in kept if name in body})
        for method, kind, body in pushes
        if body["folder"] == "INBOX"
    ]


def _text(value: object) -> str:
    return " ".join(str(make_header(decode_header(str(value)))).split())


def test_the_plugins_of_dovecot_side_by_side(dovecot: type[PrivateDovecot], tmp_path: Path) -> None:
    with _receiver() as theirs, dovecot(settings=_SETTINGS.format(url=theirs.url)) as running:
        arguments = [
            "mailbox",
            "metadata",
            "set",
            "-u",
            _RECIPIENTS[0],
            "-s",
            "",
            _ACTIVE,
            "user=x",
        ]
        command = ["doveadm", "-c", f"{running.folder}/dovecot.conf", *arguments]
        subprocess.run(command, check=True, timeout=SECONDS)
        _send(running.lmtp_address)
        theirs.wait_for(len(_MESSAGES))
        log = _complete(running)
    with _receiver() as ours:
        (tmp_path / "ours.toml").write_text(_OURS.format(url=ours.url))
        flags = ["--config", "ours.toml", "--listen", "127.0.0.1:0", "--workers", "1"]
        program = Program(*flags, cwd=tmp_path)
        try:
            _send(program.addresses()[0])
            assert program.stop() == 0
        finally:
            program.kill()
        ours.wait_for(len(_MESSAGES) * len(_RECIPIENTS))
    assert _lines(program.stderr) == _lines(log)
    assert len(_lines(log)) == len(_MESSAGES) * len(_RECIPIENTS)
    assert _decoded(ours.pushes) == _decoded(theirs.pushes)
    assert len(theirs.pushes) == len(_MESSAGES)
