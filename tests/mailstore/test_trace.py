"""The trace header as it stands in the file."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmtp_proto import (
    Address,
    Mail,
    OriginalRecipient,
    RcptParameters,
    Recipient,
    Reply,
    Session,
    Transaction,
)
from mailstore import DeliveredTo, LineEnding, Sync, TraceOptions
from tests.mailstore.support import client, codes, deliver, envelope, mail_in, opened, without_trace

_CONTENT = b"Subject: x\r\n\r\nbody\r\n"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """It is noon of 6 May 2030 in a zone west of Greenwich that is off by half an hour."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "XXX3:30")
        time.tzset()
        patch.setattr(time, "time", lambda: 1904311800.0)
        yield
    time.tzset()


def _delivered(root: Path, transaction: Transaction) -> list[bytes]:
    maildirs = [f"u{number}" for number in range(len(transaction.recipients))]
    with opened(root) as store:
        assert set(codes(deliver(store, _CONTENT, maildirs, transaction=transaction))) == {250}
    return [mail_in(root / maildir)[0] for maildir in maildirs]


def test_one_recipient_over_tcp(tmp_path: Path, clock: None) -> None:
    (message,) = _delivered(tmp_path, envelope("to@example.org"))
    assert message == (
        b"Return-Path: <from@example.net>\n"
        b"Delivered-To: to@example.org\n"
        b"Received: from client.example.net ([192.0.2.1])\n"
        b"\tby mx.example.org with LMTP id ID1\n"
        b"\tfor <to@example.org>;\n"
        b"\tMon, 6 May 2030 12:00:00 -0330\n"
        b"Subject: x\n\nbody\n"
    )


def test_several_recipients_are_not_told_of_each_other(tmp_path: Path, clock: None) -> None:
    messages = _delivered(tmp_path, envelope("a@example.org", "b@example.org"))
    for name, message in zip((b"a", b"b"), messages, strict=True):
        assert message.startswith(
            b"Return-Path: <from@example.net>\n"
            b"Delivered-To: " + name + b"@example.org\n"
            b"Received: from client.example.net ([192.0.2.1])\n"
            b"\tby mx.example.org with LMTP id ID1;\n"
            b"\tMon, 6 May 2030 12:00:00 -0330\n"
        )


@pytest.mark.parametrize(
    ("session", "expected"),
    [
        (client(client_ip=None), b"Received: from client.example.net\n\tby "),
        (client(client_ip="2001:db8::1"), b"client.example.net ([IPv6:2001:db8::1])\n"),
        (client(lhlo_domain="[192.0.2.7]"), b"Received: from [192.0.2.7] ([192.0.2.1])\n"),
        (client(lhlo_domain=None), b"Received: from unknown ([192.0.2.1])\n"),
        (client(lhlo_domain="my_host-1"), b"Received: from my_host-1 ([192.0.2.1])\n"),
        (client(tls="TLSv1.3"), b"\tby mx.example.org with LMTPS id ID1\n"),
    ],
)
def test_the_client_is_named(tmp_path: Path, session: Session, expected: bytes) -> None:
    transaction = envelope("to@example.org", session=session)
    assert expected in _delivered(tmp_path, transaction)[0]


def test_ids_are_written_as_they_are(tmp_path: Path) -> None:
    transaction = envelope("to@example.org", transaction_id="aB-_09:T2")
    assert b"id aB-_09:T2\n" in _delivered(tmp_path, transaction)[0]


def test_null_reverse_path(tmp_path: Path) -> None:
    message = _delivered(tmp_path, envelope("to@example.org", sender=None))[0]
    assert message.startswith(b"Return-Path: <>\n")


def test_local_parts_are_quoted_again(tmp_path: Path) -> None:
    transaction = envelope('o "x" o@example.org', sender="a b@example.net")
    message = _delivered(tmp_path, transaction)[0]
    assert message.startswith(
        b'Return-Path: <"a b"@example.net>\nDelivered-To: "o \\"x\\" o"@example.org\n'
    )


def test_crlf_line_ends(tmp_path: Path) -> None:
    with opened(tmp_path, line_ending=LineEnding.CRLF) as store:
        deliver(store, _CONTENT)
    (message,) = mail_in(tmp_path / "user")
    assert message.count(b"\n") == message.count(b"\r\n")
    assert message.endswith(_CONTENT)


@pytest.mark.parametrize(
    ("content", "stored"),
    [
        (b"Return-Path: <x@y>\r\nSubject: x\r\n\r\nb", b"Subject: x\n\nb"),
        (b"A: 1\r\nRETURN-path :\r\n <x@y>\r\n\t(z)\r\nB: 2\r\n\r\nb", b"A: 1\nB: 2\n\nb"),
        (b"A: 1\r\nReturn-Path: <x>\r\nReturn-Path: <y>\r\n\r\nb", b"A: 1\n\nb"),
        # Neither a name that only begins so, nor text of the body, nor of another field.
        (b"Return-Path-X: <x>\r\n\r\nb", b"Return-Path-X: <x>\n\nb"),
        (b"A: 1\r\n\r\nReturn-Path: <x>\r\n", b"A: 1\n\nReturn-Path: <x>\n"),
        (b"A: 1\r\n Return-Path: <x>\r\n\r\nb", b"A: 1\n Return-Path: <x>\n\nb"),
        (b"\r\nReturn-Path: <x>\r\n\r\nb", b"\nReturn-Path: <x>\n\nb"),
        (b"\nReturn-Path: <x>\r\n\r\nb", b"\nReturn-Path: <x>\n\nb"),
        (b"A: 1\n\nReturn-Path: <x>\r\n\r\nb", b"A: 1\n\nReturn-Path: <x>\n\nb"),
    ],
)
@pytest.mark.parametrize("threshold", [128 * 1024, 64])
def test_return_path_of_the_content_is_left_out(
    tmp_path: Path, content: bytes, stored: bytes, threshold: int
) -> None:
    # Long enough to be spooled in a file with the low threshold.
    content += b"x" * 100
    stored += b"x" * 100
    with opened(tmp_path, spool_threshold=threshold) as store:
        assert codes(deliver(store, content)) == [250]
    (message,) = mail_in(tmp_path / "user")
    assert message.endswith(stored)
    assert message.lower().count(b"return-path") == 1 + stored.lower().count(b"return-path")


def test_return_path_of_a_header_without_body(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        deliver(store, b"A: 1\r\nReturn-Path: <x>\r\n")
    (message,) = mail_in(tmp_path / "user")
    assert without_trace(message) == b"A: 1\n"


_texts = st.text(
    st.one_of(st.sampled_from('\r\n\0\t ()<>:;"\\,é\x85\u2028\x7f\ud800'), st.characters()),
    max_size=30,
)


# No address has a control character: it could not be made.
_local_parts = _texts.map(lambda text: re.sub(r"[\x00-\x1f\x7f-\x9f]", "", text))


@settings(max_examples=300)
@given(
    lhlo=_texts,
    ip=_texts,
    hostname=_texts,
    transaction_id=_texts,
    sender=_local_parts,
    recipient=_local_parts,
    domain=st.sampled_from(["example.org", "[192.0.2.1]", "[x:<(;)>]", "é.example", ""]),
)
def test_nothing_from_the_wire_makes_a_line_of_its_own(
    tmp_path_factory: pytest.TempPathFactory,
    lhlo: str,
    ip: str,
    hostname: str,
    transaction_id: str,
    sender: str,
    recipient: str,
    domain: str,
) -> None:
    root = tmp_path_factory.mktemp("root")
    transaction = Transaction(
        session=client(lhlo_domain=lhlo, client_ip=ip),
        id=transaction_id,
        mail=Mail(reverse_path=Address(sender, domain)),
        recipients=[Recipient(address=Address(recipient, domain))],
    )
    with opened(root, hostname=hostname, sync=Sync.NEVER) as store:
        assert codes(deliver(store, _CONTENT, transaction=transaction)) == [250]
    (message,) = mail_in(root / "user")
    header, _, rest = message.partition(b"\nSubject: x\n")
    assert rest == b"\nbody\n"
    lines = header.split(b"\n")
    starts = [b"Return-Path: <", b"Delivered-To: ", b"Received: from ", b"\tby ", b"\tfor <", b"\t"]
    assert len(lines) == len(starts)
    for line, start in zip(lines, starts, strict=True):
        assert line.startswith(start)
        text = line.removeprefix(b"\t").decode()
        assert text.isprintable()
    # The clauses of Received are those that the store wrote.
    assert lines[2].count(b"(") <= 1
    assert lines[3].count(b" with LMTP id ") == 1
    assert lines[3].count(b";") == 0


def _fields(
    root: Path,
    trace: TraceOptions,
    *,
    orcpt: OriginalRecipient | None = None,
    header: bytes = b"",
    threshold: int = 1000,
) -> list[bytes]:
    """The lines of the header of one message, delivered with these options."""
    transaction = envelope("to@example.org")
    recipient = Recipient(
        address=Address("to", "example.org"), parameters=RcptParameters(orcpt=orcpt)
    )
    transaction.recipients[:] = [recipient]
    content = header + b"Subject: x\r\n\r\nX-Original-To: body@example.org\r\n" + bytes(200)
    with opened(root, trace=trace, spool_threshold=threshold) as store:
        assert codes(deliver(store, content, transaction=transaction)) == [250]
    (message,) = mail_in(root / "user")
    return message.partition(b"\n\n")[0].split(b"\n")


_ORCPT = OriginalRecipient("rfc822", "orig+x@example.com")


@pytest.mark.parametrize(
    ("delivered_to", "orcpt", "expected"),
    [
        (DeliveredTo.FINAL, _ORCPT, b"Delivered-To: to@example.org"),
        (DeliveredTo.ORIGINAL, _ORCPT, b"Delivered-To: orig+x@example.com"),
        (DeliveredTo.ORIGINAL, None, b"Delivered-To: to@example.org"),
        (
            DeliveredTo.ORIGINAL,
            OriginalRecipient("UTF-8", "\xfc@example.com"),
            "Delivered-To: \xfc@example.com".encode(),
        ),
        # The address of something that is no mail.
        (
            DeliveredTo.ORIGINAL,
            OriginalRecipient("x400", "/C=de/"),
            b"Delivered-To: to@example.org",
        ),
    ],
)
def test_delivered_to(
    tmp_path: Path, delivered_to: DeliveredTo, orcpt: OriginalRecipient | None, expected: bytes
) -> None:
    lines = _fields(tmp_path, TraceOptions(delivered_to=delivered_to), orcpt=orcpt)
    assert [line for line in lines if line.startswith(b"Delivered-To")] == [expected]


def test_fields_that_are_not_wanted(tmp_path: Path) -> None:
    options = TraceOptions(return_path=False, received=False, delivered_to=DeliveredTo.NONE)
    lines = _fields(tmp_path, options, header=b"Return-Path: <kept@example.net>\r\n")
    assert lines == [b"Return-Path: <kept@example.net>", b"Subject: x"]


@pytest.mark.parametrize(
    ("header", "orcpt", "expected"),
    [
        (b"X-Original-To: a@example.net\r\n", None, b"a@example.net"),
        (b"x-original-TO : Name <a@example.net>\r\n", None, b"a@example.net"),
        (b"X-Original-To: a@x.org\r\nX-Original-To: b@x.org\r\n", None, b"a@x.org"),
        (b"X-Original-To: a@example.net\r\n", _ORCPT, b"orig+x@example.com"),
        # Not one address: nothing is taken from it.
        (b"X-Original-To: a@x.org, b@x.org\r\n", None, b"to@example.org"),
        (b"X-Original-To:\r\n", None, b"to@example.org"),
        (b"X-Original-To: \x1b[2J@x.org\r\n", None, b"to@example.org"),
        (b"Y-X-Original-To: a@x.org\r\n", None, b"to@example.org"),
        (b"X-Original-To2: a@x.org\r\n", None, b"to@example.org"),
        (b"", None, b"to@example.org"),
    ],
)
def test_the_original_recipient_in_a_field(
    tmp_path: Path, header: bytes, orcpt: OriginalRecipient | None, expected: bytes
) -> None:
    options = TraceOptions(
        delivered_to=DeliveredTo.ORIGINAL, original_recipient_header="X-Original-To"
    )
    for threshold in (1000, 100):
        root = tmp_path / str(threshold)
        root.mkdir()
        lines = _fields(root, options, orcpt=orcpt, header=header, threshold=threshold)
        assert lines[1] == b"Delivered-To: " + expected


@pytest.mark.parametrize("name", ["a b", "a:", "\n", "\xe9"])
def test_a_field_that_can_be_none(name: str) -> None:
    with pytest.raises(ValueError, match="header field"):
        TraceOptions(original_recipient_header=name)


def _hops(count: int, line: bytes = b"Received: from a by b\r\n\t; date\r\n") -> bytes:
    return line * count + b"Received-SPF: pass\r\nSubject: x\r\n\r\nbody\r\n" + line * 200


@pytest.mark.parametrize("size", [0, 300_000])
@pytest.mark.parametrize("name", [b"Received:", b"received:", b"RECEIVED \t:"])
def test_a_message_that_goes_in_circles(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: bytes, size: int
) -> None:
    line = name + b" from a by b\r\n\t; date\r\n"
    with opened(tmp_path) as store:
        assert codes(deliver(store, _hops(100, line) + bytes(size))) == [250]
        replies = deliver(store, _hops(101, line) + bytes(size), ["user", "other"])
    text = "mail loop: more than 100 Received fields"
    assert replies == [
        Reply(554, f"<r{number}@example.org> {text}", enhanced="5.4.6") for number in range(2)
    ]
    assert len(mail_in(tmp_path / "user")) == 1
    assert not (tmp_path / "other").exists()
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2


def test_the_limit_of_hops_is_an_option(tmp_path: Path) -> None:
    with opened(tmp_path, trace=TraceOptions(hop_limit=3)) as store:
        assert codes(deliver(store, _hops(3)) + deliver(store, _hops(4))) == [250, 554]
    with opened(tmp_path, trace=TraceOptions(hop_limit=0)) as store:
        assert codes(deliver(store, _hops(1000))) == [250]
    with pytest.raises(ValueError, match="negative"):
        TraceOptions(hop_limit=-1)


def test_hops_of_a_header_that_is_too_long_to_be_looked_at(tmp_path: Path) -> None:
    with opened(tmp_path, spool_threshold=10_000) as store:
        assert codes(deliver(store, _hops(101, b"Received: x\r\n" + b"\tx\r\n" * 20))) == [554]
        # What has no header has no hops in it either.
        assert codes(deliver(store, b"\r\n" + _hops(1000))) == [250]
