"""What a store reports of its deliveries."""

import logging
from pathlib import Path

import pytest

from lmtp_proto import Recipient, Transaction
from mailstore import (
    DeliveryReport,
    Destination,
    FolderOptions,
    HeaderFields,
    MaildirStore,
    RetryOptions,
)
from tests.mailstore.support import answers, envelope, fill, opened

_HEADER = (
    b"Received: x\r\nmessage-id: <1@x>\r\nSUBJECT: one\r\n two\r\nFrom:a@b \r\nSubject: no\r\n\r\n"
)
_FIELDS = HeaderFields(b"<1@x>", b"one two", b"a@b")


def _reports(store: MaildirStore, content: bytes, *mailboxes: str) -> list[DeliveryReport]:
    """Deliver to mailboxes of a user; the reports, in order."""
    names = [f"r{number}@example.org" for number in range(len(mailboxes))]
    transaction = envelope(*names)
    reports: dict[Recipient, DeliveryReport] = {}

    def report(told: Transaction, recipient: Recipient, report: DeliveryReport) -> None:
        assert told is transaction
        assert recipient not in reports
        reports[recipient] = report

    destinations = {
        recipient: Destination(Path("user"), mailbox=mailbox, user="me")
        for recipient, mailbox in zip(transaction.recipients, mailboxes, strict=True)
    }
    sink = store.open(transaction, destinations, report=report)
    try:
        fill(sink, [content])
        answers(sink, transaction)
    finally:
        sink.close()
    return [reports[recipient] for recipient in transaction.recipients]


@pytest.mark.parametrize("size", [0, 500_000])
@pytest.mark.parametrize("autocreate", [True, False])
def test_where_a_message_lies_and_what_it_is(tmp_path: Path, size: int, autocreate: bool) -> None:
    content = _HEADER + b"x" * size + b"\r\n"
    with opened(tmp_path, folders=FolderOptions(autocreate=autocreate)) as store:
        inbox, again, folder = _reports(store, content, "INBOX", "inbox", "K\xe4se")
    assert inbox.storage_id == again.storage_id
    for report in (inbox, folder):
        (found,) = list(tmp_path.rglob(f"new/{report.storage_id}"))
        assert report.user == "me"
        assert report.error is None
        assert report.fields == _FIELDS
        assert report.virtual_size == len(content)
        assert report.size == len(content) - content.count(b"\n")
        assert found.read_bytes().endswith(content.replace(b"\r\n", b"\n")[-report.size :])
        assert report.seconds >= 0
    assert inbox.mailbox == again.mailbox == "INBOX"
    assert folder.mailbox == ("K\xe4se" if autocreate else "INBOX")


def test_what_was_not_stored(tmp_path: Path) -> None:
    (tmp_path / "user").write_text("no directory")
    with opened(tmp_path, folders=FolderOptions(refuse_missing=True)) as store:
        broken, missing = _reports(store, _HEADER, "INBOX", "../x")
    assert isinstance(broken.error, OSError)
    assert missing.error is not None
    assert (broken.mailbox, missing.mailbox) == ("INBOX", "../x")
    assert broken.storage_id == missing.storage_id == ""
    assert broken.fields == missing.fields == _FIELDS


def test_loops_and_retries(tmp_path: Path) -> None:
    loop = b"Received: x\r\n" * 101 + b"\r\n"
    with opened(tmp_path, retries=RetryOptions()) as store:
        (looped,) = _reports(store, loop, "INBOX")
        (first,) = _reports(store, _HEADER, "INBOX")
        (second,) = _reports(store, _HEADER, "INBOX")
    assert "more than 100 Received" in str(looped.error)
    assert first.error is None
    assert second.error is not None
    assert second.storage_id == ""


@pytest.mark.parametrize(
    ("header", "fields"),
    [
        (b"", HeaderFields()),
        (b"\r\nSubject: body\r\n", HeaderFields()),
        (b"X-Subject: x\r\nSubject-X: y\r\n\r\n", HeaderFields()),
        (b"Subject: no end of the header", HeaderFields(subject=b"no end of the header")),
        (b"Subject: " + b"s" * 5000 + b"\r\n\r\n", HeaderFields(subject=b"s" * 1023)),
        (b"From:\r\n\ta\r\n\tb\r\nSubject:\r\n\r\n", HeaderFields(sender=b"a\tb")),
    ],
)
def test_fields_of_strange_headers(tmp_path: Path, header: bytes, fields: HeaderFields) -> None:
    with opened(tmp_path) as store:
        (report,) = _reports(store, header, "INBOX")
    assert report.fields == fields


def test_a_report_that_fails_costs_no_reply(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def report(*_: object) -> None:
        raise ValueError("no")

    transaction = envelope("a@example.org")
    with opened(tmp_path) as store:
        sink = store.open(transaction, {transaction.recipients[0]: Path("user")}, report=report)
        fill(sink, [_HEADER])
        (reply,) = answers(sink, transaction)
        sink.close()
    assert reply.code == 250
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO] == [
        "a report failed"
    ]
