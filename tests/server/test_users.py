"""Users: which Maildir a recipient's mail goes to, and who has none."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmtp_proto import Address, PathError, Recipient, Reply
from lmtp_server._users import (
    Directory,
    MailTemplate,
    NameRules,
    StaticUsers,
    Userdb,
    Users,
)
from mailstore import Destination


def _locate(
    local_part: str,
    domain: str,
    *,
    template: str = "./mail/{domain}/{user}",
    delimiters: str = "+",
    detail_is_mailbox: bool = False,
) -> Destination | Reply:
    """What becomes of a recipient where everybody exists; paths are below ./mail."""
    mail = MailTemplate(template)
    users = Users(
        Directory([Userdb(name="static", driver=StaticUsers({}, paths=[mail]))]),
        mail,
        names=NameRules(hostname="MX.example.org", delimiters=delimiters),
        detail_is_mailbox=detail_is_mailbox,
    )
    found = users.locate(Recipient(address=Address(local_part, domain)))
    assert not callable(found)
    return found


def _path(found: Destination | Reply) -> str:
    assert isinstance(found, Destination)
    return os.path.relpath(found.maildir, os.path.realpath("mail"))


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
    assert _path(_locate(local_part, domain)) == path


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
        ("me", "m\u00fcller.example", "5.1.1"),
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
    assert _path(found) == f"example.org/{user}"


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
    assert _path(found) == "example.org/me"
    assert isinstance(found, Destination)
    assert found.mailbox == mailbox


@pytest.mark.parametrize("local_part", ["me", "me+"])
def test_without_a_detail_it_is_the_inbox(local_part: str) -> None:
    found = _locate(local_part, "example.org", detail_is_mailbox=True)
    assert _path(found) == "example.org/me"
    assert isinstance(found, Destination)
    assert found.mailbox == "INBOX"


def test_a_template_without_domain_needs_none() -> None:
    assert _path(_locate("me", "", template="mail/{user}")) == "me"
    assert _path(_locate("me", "example.org", template="mail/{user}")) == "me"


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
        path = _path(found)
        assert os.path.normpath(path) == path == path.lower()
        assert len(path.split("/")) == 2
        assert not path.startswith(".")
