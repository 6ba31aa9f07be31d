"""The store behind the protocol: dialogues without a network."""

from collections.abc import Callable
from pathlib import Path, PurePath

import pytest

from lmtp_proto import Recipient, Reply
from mailstore import Destination, MaildirQuotas, QuotaPolicy, StoreHandler
from tests.mailstore.support import answers, client, codes, envelope, fill, mail_in, opened

_UNKNOWN = Reply(550, "no such user", enhanced="5.1.1")


def _locate(recipient: Recipient) -> PurePath | Reply | Callable[[], PurePath | Reply]:
    local_part = recipient.address.local_part
    if local_part.startswith("slow-"):
        # Has to be asked for somewhere.
        return lambda: _find(local_part.removeprefix("slow-"), recipient.address.domain)
    return _find(local_part, recipient.address.domain)


def _find(user: str, domain: str) -> PurePath | Reply:
    return _UNKNOWN if user == "nobody" else PurePath(domain, user)


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
                answer = handler.rcpt(transaction, recipient)
                reply = answer() if callable(answer) else answer
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


def test_places_that_take_a_job_to_find(tmp_path: Path, converse: Converse) -> None:
    replies, final = converse("slow-a@example.org", "slow-nobody@example.org", "a@example.org")
    assert replies == [None, _UNKNOWN, None]
    assert codes(final) == [250, 250]
    assert len(mail_in(tmp_path / "example.org" / "a")) == 1


def test_a_job_that_ends_after_the_client_has_gone(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        handler = StoreHandler(store, _locate)
        transaction = envelope(session=client())
        handler.mail(transaction.session, transaction.mail)
        (recipient,) = envelope("slow-a@example.org").recipients
        job = handler.rcpt(transaction, recipient)
        assert callable(job)
        handler.disconnect(transaction.session)
        assert job() is None


def test_the_quota_comes_with_the_place(tmp_path: Path) -> None:
    quotas = MaildirQuotas(tmp_path)
    quota = quotas.of(PurePath("a"), QuotaPolicy.parse("*:messages=1"))
    with opened(tmp_path) as store:
        handler = StoreHandler(store, lambda _: lambda: Destination(PurePath("a"), quota=quota))
        session = client()
        for code in (None, 552):
            transaction = envelope("a@example.org", session=session)
            (recipient,) = transaction.recipients
            handler.mail(session, transaction.mail)
            job = handler.rcpt(transaction, recipient)
            assert callable(job)
            reply = job()
            assert (reply.code if isinstance(reply, Reply) else reply) == code
            if reply is None:
                sink = handler.open(transaction)
                fill(sink, [b"Subject: x\r\n\r\n"])
                assert codes(answers(sink, transaction)) == [250]
                sink.close()
    quotas.close()
