"""`lmtp-server send` delivers to the daemon and to Dovecot, and says what became of each copy."""

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.peers.dovecot import PrivateDovecot
from tests.interop.daemon import Daemon, send
from tests.interop.lmtp import NASTY, split_trace

New = Callable[[str], list[bytes]]
StartDaemon = Callable[..., Daemon]

# sysexits.h
EX_OK = 0
EX_UNAVAILABLE = 69
EX_TEMPFAIL = 75

_SENDER = "sender@example.test"


@pytest.fixture
def message(folder: Path) -> Path:
    """A file as a mail program leaves it: LF line ends."""
    file = folder / "message"
    file.write_bytes(NASTY["dots"].replace(b"\r\n", b"\n"))
    return file


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_every_recipient_gets_a_copy(
    daemon: StartDaemon, runtime: str, unix: bool, new: New, message: Path
) -> None:
    users = ["a", "b", "c"]
    recipients = [f"{user}@example.test" for user in users]

    status, lines = send(
        daemon(runtime, unix=unix).addresses[0],
        sender=_SENDER,
        recipients=recipients,
        file=message,
    )

    assert status == EX_OK
    assert [line.partition(" 2.")[0] for line in lines] == [f"{to}: 250" for to in recipients]
    for user in users:
        (stored,) = new(user)
        assert split_trace(stored)[1] == message.read_bytes()


def test_a_refused_recipient_does_not_keep_the_others_from_their_copy(
    daemon: StartDaemon, runtime: str, new: New, message: Path
) -> None:
    status, lines = send(
        daemon(runtime).addresses[0],
        sender=_SENDER,
        recipients=["a@example.test", "b/c@example.test", "d@example.test"],
        file=message,
    )

    assert status == EX_UNAVAILABLE
    assert [line[: line.index(": ") + 7] for line in lines] == [
        "a@example.test: 250 2",
        "b/c@example.test: 550 5",
        "d@example.test: 250 2",
    ]
    assert len(new("a")) == len(new("d")) == 1


def test_a_maildir_that_cannot_be_made_is_a_failure_for_now(
    daemon: StartDaemon, runtime: str, folder: Path, new: New, message: Path
) -> None:
    server = daemon(runtime)
    (folder / "mail/example.test").mkdir(parents=True, exist_ok=True)
    (folder / "mail/example.test/blocked").write_bytes(b"a file where a Maildir should be")

    status, lines = send(
        server.addresses[0],
        sender=_SENDER,
        recipients=["blocked@example.test", "a@example.test"],
        file=message,
    )

    assert status == EX_TEMPFAIL
    assert lines[0].startswith("blocked@example.test: 4")
    assert lines[1].startswith("a@example.test: 250 ")
    assert len(new("a")) == 1


@pytest.mark.timeout(90)
@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_dovecot_gets_what_was_sent(dovecot: type[PrivateDovecot], unix: bool) -> None:
    with dovecot() as server:
        address = f"unix:{server.lmtp_socket}" if unix else server.lmtp_address
        for number, content in enumerate(NASTY.values()):
            recipients = [f"a{number}@example.test", f"b{number}@example.test"]

            status, lines = send(
                address, sender=_SENDER, recipients=recipients, file=None, content=content
            )

            assert status == EX_OK
            assert [line.partition(" 2.0.0 ")[0] for line in lines] == [
                f"{recipient}: 250" for recipient in recipients
            ]
            for recipient in recipients:
                (file,) = (server.maildir(recipient) / "new").iterdir()
                assert split_trace(file.read_bytes())[1].replace(b"\n", b"\r\n") == content


def test_refusals_of_dovecot_are_passed_on(dovecot: type[PrivateDovecot], message: Path) -> None:
    with dovecot() as server:
        status, lines = send(
            server.lmtp_address,
            sender=_SENDER,
            recipients=["b/c@example.test", "a@example.test"],
            file=message,
        )

    assert status == EX_UNAVAILABLE
    assert lines[0].startswith("b/c@example.test: 550 5.1.1 ")
    assert lines[1].startswith("a@example.test: 250 2.0.0 ")
