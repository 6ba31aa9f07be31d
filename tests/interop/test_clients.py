"""Other people's LMTP clients deliver to the daemon: smtp-source, swaks, Postfix."""

import email
import email.policy
import smtplib
from collections import Counter
from collections.abc import Callable

import pytest

from tests.interop.daemon import Daemon
from tests.interop.lmtp import NASTY, split_trace
from tests.interop.postfix import PrivatePostfix, smtp_source, swaks

New = Callable[[str], list[bytes]]
StartDaemon = Callable[..., Daemon]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("unix", "users"),
    [(False, ["user"]), (False, ["user", "2user", "3user"]), (True, ["user", "2user", "3user"])],
    ids=["tcp-one", "tcp-three", "unix-three"],
)
@pytest.mark.usefixtures("_smtp_source")
def test_smtp_source_delivers_every_message_once(
    daemon: StartDaemon, runtime: str, unix: bool, users: list[str], new: New
) -> None:
    server = daemon(runtime, unix=unix)

    smtp_source(
        server.addresses[0], messages=2000, recipients=len(users), connections=20, octets=1024
    )

    bodies: set[bytes] = set()
    for user in users:
        identities = Counter[bytes]()
        for stored in new(user):
            header, _, body = split_trace(stored)[1].partition(b"\n\n")
            identities.update(
                line for line in header.splitlines() if line.startswith(b"Message-Id: ")
            )
            bodies.add(body)
        assert len(identities) == identities.total() == 2000
    # smtp-source sends the same 1024 octets, and the CRLF that ends them, again and again.
    (body,) = bodies
    assert len(body.replace(b"\n", b"\r\n")) in range(1024, 1024 + 80 + 2)


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
@pytest.mark.usefixtures("_swaks")
def test_swaks_gets_one_reply_for_each_recipient(
    daemon: StartDaemon, runtime: str, unix: bool, new: New
) -> None:
    server = daemon(runtime, unix=unix)

    status, replies = swaks(
        server.addresses[0],
        recipients=["a@example.test", "b/c@example.test", "d+detail@example.test"],
        body="one two three",
    )

    assert status == 0
    data = next(n for n, reply in enumerate(replies) if reply.startswith("354"))
    assert [reply[:5] for reply in replies[data - 4 : data]] == [
        "250 2",  # MAIL
        "250 2",
        "550 5",
        "250 2",
    ]
    assert [reply[:5] for reply in replies[data + 1 :]] == ["250 2", "250 2", "221 2"]
    for user in ("a", "d"):
        (stored,) = new(user)
        assert stored.endswith(b"\n\none two three\n\n\n")


@pytest.mark.usefixtures("_swaks")
def test_swaks_is_told_when_the_only_recipient_is_refused(
    daemon: StartDaemon, runtime: str
) -> None:
    status, replies = swaks(daemon(runtime).addresses[0], recipients=["b/c@example.test"])

    # swaks: 24 = no recipient was accepted.
    assert status == 24
    assert [reply[:5] for reply in replies[-2:]] == ["550 5", "221 2"]


def _send_through(postfix: PrivatePostfix) -> dict[str, bytes]:
    """Hand 50 messages to Postfix, every fifth to a refused recipient too; by Message-ID."""
    # Postfix folds lines longer than SMTP allows, and wants a header to start with.
    bodies = [
        content.partition(b"\r\n\r\n")[2]
        for name, content in NASTY.items()
        if name not in ("longer line", "1 MB")
    ]
    sent: dict[str, bytes] = {}
    with smtplib.SMTP(*postfix.smtp_address) as client:
        for number in range(50):
            identity = f"<{number}@client.test>"
            sent[identity] = b"X-Test: Postfix\r\nMessage-ID: %b\r\n\r\n%b" % (
                identity.encode(),
                bodies[number % len(bodies)],
            )
            refused = ["no/body@example.test"] if number % 5 == 0 else []
            assert not client.sendmail(
                "sender@example.test",
                ["a@example.test", *refused, "b@example.test", "c+detail@example.test"],
                sent[identity],
            )
    return sent


def _bounced(stored: bytes) -> str:
    """Check a bounce of Postfix's and return the Message-ID of the message that it gives back."""
    bounce = email.message_from_bytes(stored, policy=email.policy.default)
    assert bounce["Return-Path"] == "<>"
    _, report, original = bounce.iter_parts()
    # RFC 3464: the fields of the message, then those of each recipient.
    _, fields = report.iter_parts()
    assert fields["Final-Recipient"] == "rfc822; no/body@example.test"
    assert fields["Action"] == "failed"
    assert fields["Status"].startswith("5.1.")
    assert fields["Diagnostic-Code"].startswith("smtp; 550 5.1.")
    (message,) = original.iter_parts()
    return str(message["Message-ID"])


@pytest.mark.timeout(60)
@pytest.mark.parametrize("unix", [True, False], ids=["unix", "tcp"])
def test_postfix_hands_over_and_bounces(
    daemon: StartDaemon,
    runtime: str,
    unix: bool,
    postfix: type[PrivatePostfix],
    new: New,
) -> None:
    address = daemon(runtime, unix=unix).addresses[0]
    transport = f"lmtp:{address}" if unix else "lmtp:inet:[{}]:{}".format(*address.split(":"))

    with postfix(transport) as running:
        sent = _send_through(running)
        running.wait_until_queue_empty()
        log = running.log()

    for user in ("a", "b", "c"):
        traces, contents = zip(*map(split_trace, new(user)), strict=True)
        assert all(b"by mx.test (Postfix) with ESMTP id" in trace for trace in traces)
        assert sorted(content.replace(b"\n", b"\r\n") for content in contents) == sorted(
            sent.values()
        )
    assert sorted(map(_bounced, new("sender"))) == sorted(list(sent)[::5])
    assert log.count("status=sent") == 3 * 50 + 10
    assert log.count("status=bounced") == 10
    assert "status=deferred" not in log
    assert "warning:" not in log
