"""What no client should send: a right reply or a clean close, and nobody else notices."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.server._peer import Peer
from tests.server._program import Program

Start = Callable[..., Program]


@pytest.fixture
def program(start: Start, runtime: str) -> Program:
    """A daemon with one worker, so that all connections are in one process."""
    return start("--listen", "127.0.0.1:0", "--workers", "1", "--runtime", runtime)


@contextmanager
def _bystander(program: Program, folder: Path) -> Iterator[None]:
    """A delivery that is half-way while the worst happens to others, and then is completed."""
    (address,) = program.addresses()
    (worker,) = program.workers()
    with Peer(address) as peer:
        peer.greet()
        peer.begin("bystander@example.test")
        peer.write(b"Subject: bystander\r\n\r\nfirst half\r\n")
        yield
        peer.write(b"second half\r\n.\r\n")
        assert peer.reply().startswith("250 2.0.0 ")
        assert peer.say("QUIT").startswith("221 ")
    assert program.workers() == {worker}
    (message,) = (folder / "mail").rglob("new/*")
    assert message.read_bytes().endswith(b"\n\nfirst half\nsecond half\n")
    assert program.stop() == 0
    assert not list((folder / "mail").rglob("tmp/*"))
    assert "Traceback" not in program.stderr


def test_garbage(program: Program, folder: Path) -> None:
    with _bystander(program, folder), Peer(program.addresses()[0]) as peer:
        peer.greet()
        assert peer.say("FROBNICATE now").startswith("500 5.5.1 ")
        assert peer.say("").startswith("500 5.5.")
        assert peer.say("mail me something").startswith("501 5.5.4 ")
        assert peer.say("EHLO client.test").startswith("500 5.5.1 ")
        peer.write(b"\x00\xff\xfe\x80binary\r\n")
        assert peer.reply().startswith("500 5.5.2 ")
        peer.write(b"NOOP\nNOOP\r\n")
        assert peer.reply().startswith("500 5.5.2 ")
        # None of it cost the session its place.
        assert peer.say("NOOP").startswith("250 ")
        assert peer.say("DATA").startswith("503 5.5.1 ")
        assert peer.say("MAIL FROM:<a@example.test>").startswith("250 ")


def test_endless_faults_end_the_session(program: Program, folder: Path) -> None:
    with _bystander(program, folder), Peer(program.addresses()[0]) as peer:
        peer.greet()
        peer.write(b"X\r\n" * 100)
        replies = peer.read_to_end().splitlines()
        assert all(reply.startswith(b"500 ") for reply in replies[:-1])
        assert replies[-1].startswith(b"421 4.7.0 ")


def test_over_long_lines(program: Program, folder: Path) -> None:
    with _bystander(program, folder), Peer(program.addresses()[0]) as peer:
        peer.greet()
        peer.write(b"NOOP " + b"x" * 1_000_000 + b"\r\n")
        assert peer.reply().startswith("500 5.5.")
        assert peer.say("NOOP").startswith("250 ")
        assert peer.say(f"MAIL FROM:<{'u' * 5000}@example.test>").startswith("500 5.5.")
        assert peer.say("RCPT TO:<a@example.test>").startswith("503 ")


def test_a_line_without_end(program: Program, folder: Path) -> None:
    with _bystander(program, folder), Peer(program.addresses()[0]) as peer:
        peer.greet()
        peer.write(b"NOOP " + b"x" * 100_000)
        peer.socket.shutdown(socket.SHUT_WR)
        assert peer.read_to_end().count(b"\n") <= 1


@pytest.mark.parametrize("opening", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00"])
def test_other_protocols_are_sent_away(program: Program, folder: Path, opening: bytes) -> None:
    with _bystander(program, folder), Peer(program.addresses()[0]) as peer:
        assert peer.reply().startswith("220 ")
        peer.write(opening + b"\r\n")
        assert peer.read_to_end().count(b"500 ") == 1


@pytest.mark.parametrize("way", ["half-closed", "closed", "reset"])
def test_content_that_never_ends(program: Program, folder: Path, way: str) -> None:
    with _bystander(program, folder), Peer(program.addresses()[0]) as peer:
        peer.greet()
        peer.begin("victim@example.test", "other@example.test")
        # Above what is kept in memory.
        peer.write(b"Subject: torn\r\n\r\n" + b"torn\r\n" * 100_000)
        if way == "half-closed":
            peer.socket.shutdown(socket.SHUT_WR)
            assert b"250 " not in peer.read_to_end()
        elif way == "reset":
            peer.reset()
        else:
            peer.close()
        program.wait_for("went away amid a transaction")


def test_peers_that_vanish_at_any_step(program: Program, folder: Path) -> None:
    steps = [
        b"LHLO client.test\r\n",
        b"MAIL FROM:<a@example.test>\r\n",
        b"RCPT TO:<victim@example.test>\r\n",
        b"DATA\r\n",
        b"Subject: torn\r\n",
    ]
    with _bystander(program, folder):
        for count in range(len(steps) + 1):
            with Peer(program.addresses()[0]) as peer:
                peer.write(b"".join(steps[:count]))
                peer.replies(min(count, 4) + 1)
                peer.reset()


def test_only_crlf_dot_crlf_ends_content(program: Program, folder: Path) -> None:
    with Peer(program.addresses()[0]) as peer:
        peer.greet()
        peer.begin("a@example.test")
        peer.write(b"Subject: x\r\n\r\n\n.\nMAIL FROM:<evil@example.test>\r\n\r.\r\n\n.\r\n.\r\n")
        assert peer.reply().startswith("250 ")
        assert peer.say("NOOP").startswith("250 ")
    (message,) = (folder / "mail").rglob("new/*")
    assert b"MAIL FROM:<evil@example.test>" in message.read_bytes()
    assert program.stop() == 0


def test_a_maildir_that_cannot_be_made_fails_alone_and_for_now(
    program: Program, folder: Path
) -> None:
    program.addresses()
    (folder / "mail/example.test").mkdir(parents=True)
    (folder / "mail/example.test/blocked").write_text("a file in the way")
    with Peer(program.addresses()[0]) as peer:
        peer.greet()
        peer.begin("a@example.test", "blocked@example.test", "b@example.test")
        peer.write(b"Subject: x\r\n\r\nx\r\n.\r\n")
        codes = [reply[:3] for reply in peer.replies(3)]
    assert codes == ["250", "451", "250"]
    assert len(list((folder / "mail").rglob("new/*"))) == 2
    assert program.stop() == 0
    assert any("blocked" in line for line in program.stderr.splitlines())
