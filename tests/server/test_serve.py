"""Listening and delivering: ready lines, addresses, Maildirs."""

import os
import pty
import shlex
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from tests.server._peer import Peer, deliver
from tests.server._program import SECONDS, Program, run, without_log

Start = Callable[..., Program]

CONTENT = b"Subject: x\r\n\r\nfirst\r\n..dot\r\n"


def _stored(maildir: Path) -> list[bytes]:
    """The messages of a Maildir with nothing left half-done in it, without trace header fields."""
    assert not list((maildir / "tmp").iterdir())
    return [
        file.read_bytes()[file.read_bytes().index(b"Subject:") :]
        for file in (maildir / "new").iterdir()
    ]


def test_ready_lines_come_alone_and_are_true(start: Start, folder: Path, runtime: str) -> None:
    program = start(
        *("--listen", "127.0.0.1:0", "--listen", "[::1]:0", "--listen", "unix:./s"),
        *("--runtime", runtime, "--workers", "2", "--hostname", "mx.example.org"),
    )
    addresses = program.addresses(3)
    assert addresses[0].startswith("127.0.0.1:")
    assert addresses[1].startswith("[::1]:")
    assert addresses[2] == "unix:./s"
    for number, address in enumerate([*addresses[:2], f"unix:{folder}/s"]):
        assert not address.endswith(":0")
        replies = deliver(
            address, f"a{number}@example.test", f"b{number}+x@EXAMPLE.test", content=CONTENT
        )
        assert [reply[:9] for reply in replies] == ["250 2.0.0"] * 2
        for user in "ab":
            maildir = folder / f"mail/example.test/{user}{number}"
            assert _stored(maildir) == [b"Subject: x\n\nfirst\n.dot\n"]
    assert program.stop() == 0
    assert without_log(program.stderr) == [f"listening on {address}" for address in addresses]
    assert "Traceback" not in program.stderr


def test_recipients_without_maildir_are_refused_alone(start: Start, folder: Path) -> None:
    program = start("--listen", "127.0.0.1:0", "--workers", "1")
    (address,) = program.addresses()
    with Peer(address) as peer:
        peer.greet()
        assert peer.say("MAIL FROM:<>").startswith("250 ")
        assert peer.say("RCPT TO:<a/b@example.test>").startswith("550 5.1.1 <a/b@example.test> ")
        assert peer.say("RCPT TO:<+foo@example.test>").startswith("550 5.1.1 ")
        assert peer.say('RCPT TO:<"../../x"@example.test>').startswith("550 5.1.1 ")
        assert peer.say("RCPT TO:<a@[127.0.0.1]>").startswith("550 5.1.2 ")
        assert peer.say("RCPT TO:<a@example.test>").startswith("250 2.1.5 ")
        assert peer.say("DATA").startswith("354 ")
        peer.write(CONTENT + b".\r\n")
        assert peer.reply().startswith("250 2.0.0 ")
        assert peer.say("QUIT").startswith("221 ")
    assert program.stop() == 0
    assert [path.name for path in (folder / "mail").iterdir()] == ["example.test"]
    assert [path.name for path in (folder / "mail/example.test").iterdir()] == ["a"]
    assert len(program.wait_for("a/b@example.test")) == 1


def test_postmaster_needs_no_domain(start: Start, folder: Path) -> None:
    program = start("--listen", "unix:s", "--workers", "1", "--hostname", "mx.example.org")
    program.addresses()
    assert deliver(f"unix:{folder}/s", "Postmaster")[0].startswith("250 ")
    assert len(_stored(folder / "mail/mx.example.org/postmaster")) == 1
    assert program.stop() == 0


def test_workers_share_the_listeners(start: Start, folder: Path, runtime: str) -> None:
    program = start("--listen", "127.0.0.1:0", "--workers", "3", "--runtime", runtime)
    (address,) = program.addresses()
    assert len(program.workers()) == 3
    threads = [
        threading.Thread(target=lambda: [deliver(address, "a@example.test") for _ in range(5)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert len(_stored(folder / "mail/example.test/a")) == 20
    assert program.stop() == 0


def test_a_stale_socket_makes_room_and_goes_at_the_end(start: Start, folder: Path) -> None:
    first = start("--listen", "unix:s", "--workers", "1")
    first.addresses()
    first.kill()
    assert (folder / "s").is_socket()

    second = start("--listen", "unix:s", "--workers", "1")
    second.addresses()
    assert deliver(f"unix:{folder}/s", "a@example.test")[0].startswith("250 ")
    third = run("serve", "--listen", "unix:s", cwd=folder)
    assert third.returncode == os.EX_CONFIG
    assert b"another process listens there" in third.stderr
    assert deliver(f"unix:{folder}/s", "a@example.test")[0].startswith("250 ")
    assert second.stop() == 0
    assert not (folder / "s").exists()


def test_a_terminal_shows_how_to_send_a_first_message(start: Start, folder: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        program = start("--listen", "127.0.0.1:0", "--workers", "1", stderr=theirs)
    finally:
        os.close(theirs)
    with open(ours, "rb", buffering=0) as terminal:
        text = b""
        # Root is warned in a line of its own.
        while len(lines := without_log(text.decode())) < 2 or not text.endswith(b"\n"):
            text += terminal.read(4096)
        ready, hint = lines
        assert ready.startswith("listening on ")
        before, _, command = hint.partition(" | ")
        maildir = folder / "mail/example.org/me/new"
        assert before.startswith(f"send a first message, to lie in ./{maildir.relative_to(folder)}")
        sent = subprocess.run(
            shlex.split(command), cwd=folder, input=b"hello\n", capture_output=True, timeout=SECONDS
        )
        assert sent.returncode == 0, sent.stderr.decode()
        (file,) = maildir.iterdir()
        assert file.read_bytes().endswith(b"\nhello\n")
        assert program.stop() == 0
