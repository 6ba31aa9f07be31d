"""What was sent is what others read: mailbox.Maildir and Dovecot's IMAP over the daemon's mail."""

import imaplib
import mailbox
from collections.abc import Callable
from pathlib import Path

from benchmarks.peers.dovecot import PrivateDovecot
from tests.interop.daemon import Daemon
from tests.interop.lmtp import NASTY, Client, split_trace

StartDaemon = Callable[..., Daemon]


def _deliver_all(address: str) -> None:
    with Client(address) as client:
        for content in NASTY.values():
            recipients = ["a@example.test", "b@example.test"]
            replies = list(client.deliver("sender@example.test", recipients, content))
            assert [reply[:9] for reply in replies] == [b"250 2.0.0"] * 2


def test_maildir_of_the_standard_library_reads_what_was_sent(
    daemon: StartDaemon, runtime: str, folder: Path
) -> None:
    _deliver_all(daemon(runtime).addresses[0])

    for user in ("a", "b"):
        box = mailbox.Maildir(folder / "mail/example.test" / user, create=False)
        messages = [split_trace(box.get_bytes(key)) for key in box.iterkeys()]
        assert sorted(content.replace(b"\n", b"\r\n") for _, content in messages) == sorted(
            NASTY.values()
        )
        for trace, _ in messages:
            assert trace.startswith(b"Return-Path: <sender@example.test>\n")
            assert b"\nDelivered-To: %b@example.test\n" % user.encode() in trace
            assert trace.count(b"\nReceived: ") == 1


def test_imap_of_dovecot_reads_what_was_sent(
    daemon: StartDaemon,
    runtime: str,
    folder: Path,
    template: str,
    dovecot: type[PrivateDovecot],
) -> None:
    _deliver_all(daemon(runtime).addresses[0])

    with dovecot(mail=template) as reader:
        reader.own(folder / "mail")
        for user in ("a", "b"):
            with imaplib.IMAP4(*reader.imap_address) as client:
                client.login(f"{user}@example.test", "any")
                client.select("INBOX", readonly=True)
                _, parts = client.fetch("1:*", "(RFC822.SIZE BODY.PEEK[])")
            fetched = [part for part in parts if isinstance(part, tuple)]
            assert sorted(split_trace(data)[1] for _, data in fetched) == sorted(NASTY.values())
            # Dovecot takes the size from the file's name.
            for item, data in fetched:
                assert b"RFC822.SIZE %d " % len(data) in item
        log = reader.log()
    assert not [line for line in log.splitlines() if ": Info: " not in line]
