"""What one user's mail may do to others', behind a server of each runtime."""

from contextlib import ExitStack
from pathlib import Path, PurePath

import pytest

from lmtp_proto import Recipient
from mailstore import (
    Destination,
    FolderOptions,
    MaildirQuotas,
    QuotaPolicy,
    StoreHandler,
    UserLimits,
)
from tests.adapters.harness import RUNTIMES, Client, serving
from tests.mailstore.support import mail_in, opened


def _locate(recipient: Recipient) -> Destination:
    return Destination(PurePath(recipient.address.local_part), keywords=("wanted",))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_locked_mailbox_holds_up_nobody_else(tmp_path: Path, runtime: str) -> None:
    lock = tmp_path / "locked" / "dovecot-uidlist.lock"
    lock.parent.mkdir()
    lock.touch()
    with ExitStack() as stack:
        store = stack.enter_context(opened(tmp_path, folders=FolderOptions(lock_timeout=60.0)))
        server = stack.enter_context(serving(runtime, StoreHandler(store, _locate)))

        def connect() -> Client:
            return stack.enter_context(Client(server.addresses[0])).greeted()

        # More than the pool of any runtime has threads.
        waiting = [connect() for _ in range(20)]
        for client in waiting:
            client.deliver("locked")
        for _ in range(3):
            other = connect()
            other.deliver("free", "other")
            other.expect(b"250 2.0.0 <free@", b"250 2.0.0 <other@")
        lock.unlink()
        for client in waiting:
            client.expect(b"250 2.0.0 <locked@")
    assert len(list((tmp_path / "locked" / "cur").iterdir())) == 20


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_one_session_after_the_other_and_many_at_a_time(tmp_path: Path, runtime: str) -> None:
    quotas = MaildirQuotas(tmp_path)
    limits = UserLimits(2)
    policy = QuotaPolicy.parse("*:messages=15")
    with ExitStack() as stack:
        stack.callback(quotas.close)
        stack.callback(limits.close)
        handler = StoreHandler(
            stack.enter_context(opened(tmp_path)),
            lambda recipient: PurePath(recipient.address.local_part),
            quota=lambda recipient: quotas.of(PurePath(recipient.address.local_part), policy),
            user_limits=limits,
        )
        server = stack.enter_context(serving(runtime, handler))
        clients = [stack.enter_context(Client(server.addresses[0])) for _ in range(3)]
        for client in clients:
            client.greeted()
        for number in range(15):
            content = b"Subject: %d\r\n\r\n" % number
            content += b"%d\r\n" % number * (40_000 if number % 5 == 0 else 1)
            clients[number % 3].deliver("user", content=content)
            clients[number % 3].expect(b"250 2.0.0 ")
        # Two have a place until their message is over; a place that a full mailbox needs not is
        # given back.
        envelope = b"MAIL FROM:<>\r\nRCPT TO:<%s@example.org>\r\n"
        for client in clients:
            client.send(envelope % b"user")
            client.expect(b"250 ", b"552 5.2.2 ")
        refused = b"451 4.3.0 <other@example.org> Too many concurrent deliveries for user"
        for client, reply in zip(clients, (b"250 ", b"250 ", refused), strict=True):
            client.send(b"RSET\r\n" + envelope % b"other")
            client.expect(b"250 ", b"250 ", reply)
        clients[0].send(b"DATA\r\nx\r\n.\r\n")
        clients[0].expect(b"354 ", b"250 2.0.0 ")
        # Whoever is told that a message is over may be faster than who gives its place back.
        clients[0].send(b"NOOP\r\n")
        clients[0].expect(b"250 ")
        clients[2].send(b"RCPT TO:<other@example.org>\r\n")
        clients[2].expect(b"250 ")
    ordered = sorted((tmp_path / "user" / "new").iterdir(), key=lambda path: path.name)
    subjects = [b"\nSubject: %d\n" % number for number in range(15)]
    for path, subject in zip(ordered, subjects, strict=True):
        assert subject in path.read_bytes()
    assert len(mail_in(tmp_path / "other")) == 1
