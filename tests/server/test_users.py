"""Users: which Maildir a recipient's mail goes to, and who has none."""

import os
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmtp_proto import Address, PathError, Recipient, Reply
from lmtp_server._template import MailTemplate
from lmtp_server._users import Users
from mailstore import Destination


def _locate(
    local_part: str,
    domain: str,
    *,
    template: str = "./mail/{domain}/{user}",
    delimiters: str = "+",
    detail_is_mailbox: bool = False,
) -> PurePosixPath | Destination | Reply:
    users = Users(
        MailTemplate(template),
        hostname="MX.example.org",
        delimiters=delimiters,
        detail_is_mailbox=detail_is_mailbox,
    )
    return users.locate(Recipient(address=Address(local_part, domain)))


@pytest.mark.parametrize(
    ("local_part", "domain", "path"),
    [
        ("me", "example.org", "example.org/me"),
        ("Me", "EXAMPLE.org", "example.org/me"),
        ("me+lists", "example.org", "example.org/me"),
        ("me+", "example.org", "example.org/me"),
        ("me+a+b", "example.org", "example.org/me"),
        ("me+a/../b", "example.org", "example.org/me"),
        ("first.last_x-y=z'", "sub.example.org", "sub.example.org/first.last_x-y=z'"),
        ("postmaster", "", "mx.example.org/postmaster"),
        ("PostMaster", "", "mx.example.org/postmaster"),
        ("postmaster", "example.org", "example.org/postmaster"),
    ],
)
def test_where_mail_goes(local_part: str, domain: str, path: str) -> None:
    assert _locate(local_part, domain) == PurePosixPath(path)


@pytest.mark.parametrize(
    ("local_part", "domain", "status"),
    [
        ("", "example.org", "5.1.1"),
        ("+", "example.org", "5.1.1"),
        ("+foo", "example.org", "5.1.1"),
        ("+foo", "", "5.1.1"),
        ("me", "", "5.1.1"),
        ("postmaster+x", "", "5.1.1"),
        ("a/b", "example.org", "5.1.1"),
        ("..", "example.org", "5.1.1"),
        (".hidden", "example.org", "5.1.1"),
        ("a\\b", "example.org", "5.1.1"),
        ("a b", "example.org", "5.1.1"),
        ("a@b", "example.org", "5.1.1"),
        ("$(x)", "example.org", "5.1.1"),
        ("u" * 256, "example.org", "5.1.1"),
        ("me", "[192.0.2.1]", "5.1.2"),
        ("me", "[IPv6:2001:db8::1]", "5.1.2"),
        ("postmaster", "[192.0.2.1]", "5.1.2"),
        ("me", "m\u00fcller.example", "5.1.2"),
    ],
)
def test_who_is_refused(local_part: str, domain: str, status: str) -> None:
    reply = _locate(local_part, domain)
    assert isinstance(reply, Reply)
    assert (reply.code, reply.enhanced) == (550, status)
    assert reply.text.startswith(f"<{Address(local_part, domain)}> ")


@pytest.mark.parametrize(
    ("delimiters", "local_part", "user"),
    [
        ("", "me+lists", "me+lists"),
        ("-+", "me-a+b", "me"),
        ("+-", "me-a+b", "me"),
        ("]^-[", "me^x", "me"),
        ("]^-[", "me+x", "me+x"),
        (".", "me.x", "me"),
    ],
)
def test_delimiters(delimiters: str, local_part: str, user: str) -> None:
    found = _locate(local_part, "example.org", delimiters=delimiters)
    assert found == PurePosixPath("example.org", user)


@pytest.mark.parametrize(
    ("delimiters", "local_part", "mailbox"),
    [
        ("+", "Me+Lists.Python", "Lists.Python"),
        ("+", "me+a+b", "a+b"),
        ("-+", "me-a+b", "a+b"),
        # What a mailbox may be called is the store's to say.
        ("+", "me+../../etc", "../../etc"),
        ("+", "me+inbox", "inbox"),
    ],
)
def test_the_detail_is_a_mailbox(delimiters: str, local_part: str, mailbox: str) -> None:
    found = _locate(local_part, "example.org", delimiters=delimiters, detail_is_mailbox=True)
    assert found == Destination(PurePosixPath("example.org/me"), mailbox=mailbox)


@pytest.mark.parametrize("local_part", ["me", "me+"])
def test_without_a_detail_it_is_the_inbox(local_part: str) -> None:
    found = _locate(local_part, "example.org", detail_is_mailbox=True)
    assert found == PurePosixPath("example.org/me")


def test_a_template_without_domain_needs_none() -> None:
    assert _locate("me", "", template="/srv/{user}") == PurePosixPath("me")
    assert _locate("me", "example.org", template="/srv/{user}") == PurePosixPath("me")


@given(
    local_part=st.text() | st.text(alphabet="aB./\\+-@ \"'~$", max_size=12),
    domain=st.text() | st.sampled_from(["", "example.org", "A-b.c", "[192.0.2.1]"]),
    delimiters=st.sampled_from(["", "+", ".-+"]),
)
def test_whatever_comes_stays_below_the_root(local_part: str, domain: str, delimiters: str) -> None:
    try:
        found = _locate(local_part, domain, delimiters=delimiters)
    except PathError:
        # The protocol takes no such address.
        return
    if isinstance(found, Reply):
        assert found.code == 550
    else:
        assert not isinstance(found, Destination)
        root = os.path.abspath("mail")
        whole = os.path.normpath(os.path.join(root, found))
        assert whole.startswith(root + "/")
        assert whole.count("/") == root.count("/") + 2
        assert str(found) == str(found).lower()
