"""The line of each recipient in the log of a daemon, and the id in each refusal."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lmtp_proto import Mail, Recipient, Session, Transaction, parse_mailbox
from lmtp_server._logs import DeliveryLog, LineFormat
from mailstore import DeliveryReport, HeaderFields
from tests.server._peer import Peer
from tests.server._program import Program, run

Start = Callable[..., Program]

_CONTENT = (
    b"Message-ID: <1@example.org>\r\nSubject: =?utf-8?q?h=C3=A4?=\r\n =?utf-8?b?aMOk?=\x1b[2J\r\n"
    b"From: A <a@example.org>\r\n\r\nbody\r\n.\r\n"
)


def _session(peer: Peer) -> str:
    """Deliver to a folder, to nobody and to the INBOX: the id that the replies have."""
    peer.greet()
    assert peer.say("MAIL FROM:<a@example.org>").startswith("250 ")
    assert peer.say("RCPT TO:<u+fold@example.test>").startswith("250 ")
    refusal = peer.say("RCPT TO:<a/b@example.test>")
    match = re.match(r"550 5\.1\.1 <a/b@example\.test> (\S+) User doesn't exist", refusal)
    assert match is not None, refusal
    assert peer.say("RCPT TO:<u@example.test>").startswith("250 ")
    assert peer.say("DATA").startswith("354 ")
    peer.write(_CONTENT)
    assert peer.reply() == f"250 2.0.0 <u+fold@example.test> {match[1]} Saved"
    assert peer.reply() == f"250 2.0.0 <u@example.test> {match[1]} Saved"
    return match[1]


def test_each_recipient_has_a_line_as_dovecots(start: Start, config: Callable[..., str]) -> None:
    settings = config(
        'listen = ["127.0.0.1:0"]',
        "workers = 1",
        "save_to_detail_mailbox = true",
        "mailbox_autocreate = true",
    )
    program = start("--config", settings)
    (address,) = program.addresses()
    (worker,) = program.workers()
    with Peer(address) as peer:
        session = _session(peer)
        # Another transaction of the session has an id of its own.
        peer.begin("v@example.test")
        peer.write(b"\r\nx\r\n.\r\n")
        assert peer.reply().endswith(f" {session}:T2 Saved")
    assert program.stop() == 0
    lines = program.wait_for(r"(lmtp\(.*)", 4)
    assert lines == [
        (
            f"lmtp(a/b@example.test)<{worker}><{session}>: msgid=unspecified: refused: 550 5.1.1"
            f" <a/b@example.test> {session} User doesn't exist: a/b@example.test"
        ),
        f"lmtp(u@example.test)<{worker}><{session}>: msgid=<1@example.org>: saved mail to fold",
        f"lmtp(u@example.test)<{worker}><{session}>: msgid=<1@example.org>: saved mail to INBOX",
        f"lmtp(v@example.test)<{worker}><{session}:T2>: msgid=unspecified: saved mail to INBOX",
    ]


def test_all_variables_of_both_dovecots(
    start: Start, folder: Path, config: Callable[..., str]
) -> None:
    new = (
        "%{message}|%{msgid}|%{subject}|%{from}|%{from_envelope}|%{to_envelope}|%{size}|%{vsize}|"
        "%{delivery_time}|%{session_time}|%{storage_id}|%{subject | upper}"
    )
    settings = config(
        'listen = ["unix:./s"]',
        "workers = 1",
        "save_to_detail_mailbox = true",
        "[log]",
        f"deliver_format = '{new}|%$|%m|%s|%f|%e|%p|%w|%3s'",
        "prefix = '%s(%n %d)<%{process:pid}>: '",
    )
    program = start("--config", settings)
    program.addresses()
    with Peer(f"unix:{folder}/s") as peer:
        _session(peer)
    assert program.stop() == 0
    *_, line = program.wait_for(r"(lmtp\(u example.test\).*)", 2)
    prefix, _, text = line.partition(": ")
    assert re.fullmatch(r"lmtp\(u example\.test\)<\d+>", prefix)
    values = text.split("|")
    size, virtual_size = values[6:8]
    assert int(virtual_size) == int(size) + 6
    (stored,) = [file.name for file in (folder / "mail").rglob("new/*") if file.name == values[10]]
    assert values == [
        *("saved mail to INBOX", "<1@example.org>", "h\xe4h\xe4?[2J", "A <a@example.org>"),
        *("a@example.org", "u@example.test", size, virtual_size),
        *(values[8] if values[8].isdigit() else "", values[9] if values[9].isdigit() else ""),
        *(stored, "H\xc4H\xc4?[2J", "saved mail to INBOX", "<1@example.org>", "h\xe4h\xe4?[2J"),
        *("A <a@example.org>", "a@example.org", size, virtual_size, "h\xe4h"),
    ]


def test_what_is_not_saved_is_told_with_the_id(
    start: Start, folder: Path, config: Callable[..., str]
) -> None:
    settings = config('listen = ["unix:./s"]', "workers = 1", "[limits]", "message_size = 100")
    program = start("--config", settings)
    program.addresses()
    with Peer(f"unix:{folder}/s") as peer:
        peer.greet()
        peer.begin("u@example.test")
        peer.write(b"x" * 90 + b"\r\n" + b"x" * 90 + b"\r\n.\r\n")
        refusal = peer.reply()
        match = re.match(r"552 5\.3\.4 (\S+) ", refusal)
        assert match is not None, refusal
        # One that cannot be read is refused with the id as well.
        peer.say("MAIL FROM:<>")
        assert f" {match[1]}:T2 " in peer.say("RCPT TO:<u@example.test> BAD=1")
        (folder / "mail/example.test").mkdir(parents=True)
        (folder / "mail/example.test/w").write_text("no directory")
        assert peer.say("RCPT TO:<w@example.test>").startswith("250 ")
        assert peer.say("DATA").startswith("354 ")
        peer.write(b"Message-ID: <2@example.org>\r\n\r\n.\r\n")
        failure = peer.reply()
        assert failure.startswith(f"451 4.3.0 <w@example.test> {match[1]}:T2 ")
    assert program.stop() == 0
    assert len(program.wait_for(rf"msgid=unspecified: not saved: {re.escape(refusal)}$")) == 1
    text = f"msgid=<2@example.org>: save failed to INBOX: {failure}"
    assert len(program.wait_for(rf"lmtp\(w@example.test\)<.*: {re.escape(text)}$")) == 1


def test_secrets_of_auth_are_not_logged(start: Start, folder: Path) -> None:
    program = start("--listen", "unix:s", "--workers", "1")
    program.addresses()
    with Peer(f"unix:{folder}/s") as peer:
        peer.greet()
        assert peer.say("AUTH PLAIN AHNlY3JldABzZWNyZXQ=").startswith("502 ")
    assert program.stop() == 0
    assert len(program.wait_for("to: AUTH PLAIN$")) == 1
    assert "AHNl" not in program.stderr


@pytest.mark.parametrize(
    ("subject", "shown"),
    [
        (b"a\x00b\tc\xff\xe2\x80\xaed", "a?b?c\ufffd?d"),
        (b"=?iso-8859-1*en?Q?f=FCr_alle?=", "f\xfcr alle"),
        (b"=?utf-8?B?w6Q=?= =?utf-8?B?w6Q?= x", "\xe4\xe4 x"),
        (b"=?utf-8?Q?=0A=1B=E2=80=AE?= x", "??? x"),
        (
            b"=?no-such?Q?a?= =?rot13?Q?a?= =?utf-8?X?a?=",
            "=?no-such?Q?a?==?rot13?Q?a?==?utf-8?X?a?=",
        ),
        (b"=?utf-8?B?w6Q?= =?utf-8?B?abcde?=", "\xe4=?utf-8?B?abcde?="),
        (b"=?" * 500, "=?" * 40),
        (b"s" * 1000, "s" * 80),
    ],
)
def test_headers_of_strangers_stay_text_on_one_line(
    subject: bytes, shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    log = DeliveryLog(LineFormat("%{subject}"), LineFormat("", prefix=True))
    _report(log, HeaderFields(subject=subject))
    assert caplog.messages == [shown]


def test_what_was_stored_after_a_session_was_cut_off_is_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    _report(DeliveryLog(LineFormat("%m %$"), LineFormat("%u: ", prefix=True)), HeaderFields(b"<1>"))
    assert caplog.messages == ["me: <1> saved mail to INBOX: the client has gone and was not told"]


def _report(log: DeliveryLog, fields: HeaderFields) -> None:
    """Report a delivery of a transaction that is over."""
    recipient = Recipient(address=parse_mailbox("a@example.org"))
    transaction = Transaction(
        session=Session(peer="unix"),
        id="ID",
        mail=Mail(reverse_path=None),
        recipients=[recipient],
    )
    report = DeliveryReport(user="me", mailbox="INBOX", fields=fields)
    log.report(transaction, recipient, report)


def test_a_format_with_another_variable_is_a_fault(
    folder: Path, config: Callable[..., str]
) -> None:
    settings = config("[log]", 'deliver_format = "%{x}"', 'prefix = "%m"')
    checked = run("config", "check", "--config", settings, cwd=folder)
    assert checked.returncode == os.EX_CONFIG
    first, second = checked.stderr.decode().splitlines()
    assert "settings.toml:2: log.deliver_format: %{x} is no variable here: only delivery_" in first
    assert "settings.toml:3: log.prefix: '%m' is no variable here: only %{delivery_" in second
