"""The store behind the protocol: dialogues without a network."""

from collections.abc import Callable
from pathlib import Path, PurePath

import pytest

from lmtp_proto import Recipient, Reply
from mailstore import StoreHandler
from tests.mailstore.support import answers, client, codes, envelope, fill, mail_in, opened

_UNKNOWN = Reply(550, "no such user", enhanced="5.1.1")


def _locate(recipient: Recipient) -> PurePath | Reply:
    if recipient.address.local_part == "nobody":
        return _UNKNOWN
    return PurePath(recipient.address.domain, recipient.address.local_part)


@pytest.fixture
def converse(tmp_path: Path) -> object:
    """Runs one transaction: the replies to RCPT, then those to the content."""
    session = client()
    with opened(tmp_path) as store:
        handler = StoreHandler(store, _locate)

        def run(*recipients: str) -> tuple[list[Reply | None], list[Reply]]:
            transaction = envelope(session=session)
            handler.mail(session, transaction.mail)
            replies = []
            for recipient in envelope(*recipients).recipients:
                reply = handler.rcpt(transaction, recipient)
                assert reply is None or isinstance(reply, Reply)
                replies.append(reply)
                if reply is None:
                    transaction.recipients.append(recipient)
            sink = handler.open(transaction)
            fill(sink, [b"Subject: x\r\n\r\n"])
            final = answers(sink, transaction)
            sink.close()
            return replies, final

        yield run
        handler.disconnect(session)


Converse = Callable[..., tuple[list[Reply | None], list[Reply]]]


def test_accepted_and_refused(tmp_path: Path, converse: Converse) -> None:
    replies, final = converse("a@example.org", "nobody@example.org", "b@example.com")
    assert replies == [None, _UNKNOWN, None]
    assert codes(final) == [250, 250]
    assert len(mail_in(tmp_path / "example.org" / "a")) == 1
    assert len(mail_in(tmp_path / "example.com" / "b")) == 1
    assert not (tmp_path / "example.org" / "nobody").exists()


def test_transactions_follow_each_other(tmp_path: Path, converse: Converse) -> None:
    for _ in range(3):
        assert codes(converse("a@example.org", "a@example.org")[1]) == [250, 250]
    assert len(mail_in(tmp_path / "example.org" / "a")) == 3
