"""Templates: what they take, and that nothing gets out of their root."""

import os
import re
from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lmtp_server._users import MailTemplate, Names

TEMPLATES = [
    "./mail/{domain}/{user}",
    "/srv/mail/{user}",
    "mail/{user}@{domain}/Maildir",
    "/srv/{domain}/.{user}/x-{user}",
    "/a/{domain}:{user}/b/{domain}",
    "/srv/%d/%1n/%{user|username}",
]
_NASTY = st.one_of(
    st.text(),
    st.text(alphabet="ab./\\.-+~ \0\n{}", max_size=12),
    st.sampled_from(["..", ".", "", "/", "/etc/passwd", "../x", "a/../../b", "{user}", "a\0"]),
)


@pytest.mark.parametrize("template", TEMPLATES)
@given(user=_NASTY, domain=_NASTY)
@example(user="..", domain="..")
@example(user="a", domain="example.org")
def test_every_path_lies_at_its_depth_below_the_root(template: str, user: str, domain: str) -> None:
    parsed = MailTemplate(template)
    try:
        path = parsed.expand(Names(local=user, domain=domain))
    except ValueError:
        return
    first = re.search("[{%]", template)
    assert first is not None
    depth = template.count("/") - template[: first.start()].count("/") + 1
    assert parsed.root is not None
    assert not path.is_absolute()
    assert len(path.parts) == depth
    assert all(len(os.fsencode(part)) <= 255 for part in path.parts)
    whole = os.path.normpath(os.path.join(parsed.root, path))
    assert PurePosixPath(whole).parts == (*PurePosixPath(parsed.root).parts, *path.parts)
    assert "\0" not in whole


_NAMES = st.text(alphabet="ab.-+", min_size=1, max_size=4).filter(lambda text: text[0] != ".")


@pytest.mark.parametrize("template", [text for text in TEMPLATES if text != "/srv/mail/{user}"])
@given(first=st.tuples(_NAMES, _NAMES), second=st.tuples(_NAMES, _NAMES))
@example(first=("a", "b-a"), second=("a-b", "a"))
def test_two_users_never_share_a_path(
    template: str, first: tuple[str, str], second: tuple[str, str]
) -> None:
    parsed = MailTemplate(template)
    paths = [parsed.expand(Names(local=user, domain=domain)) for user, domain in (first, second)]
    assert (paths[0] == paths[1]) == (first == second)


@pytest.mark.parametrize(
    ("text", "root", "path"),
    [
        ("./mail/{domain}/{user}", "mail", "example.org/me"),
        ("mail//./x/{user}/", "mail/x", "me"),
        ("{domain}/{user}", "", "example.org/me"),
        ("/srv/../var/mail/{user}/Maildir", "/var/mail", "me/Maildir"),
        ("/srv/{domain}/u-{user}", "/srv", "example.org/u-me"),
        ("/srv/%d/%n", "/srv", "example.org/me"),
        ("/srv/%u", "/srv", "me@example.org"),
        ("/srv/%{user}/Maildir", "/srv", "me@example.org/Maildir"),
        ("/srv/%{user | domain | upper}/%{user | username}", "/srv", "EXAMPLE.ORG/me"),
        ("/srv/%1d/%2.3d/%-3.2d/%n", "/srv", "e/amp/or/me"),
        ("/srv/100%%/%n", "/srv/100%", "me"),
    ],
)
def test_root_and_path(text: str, root: str, path: str) -> None:
    template = MailTemplate(text)
    assert template.root == os.path.abspath(root)
    expanded = template.expand(Names(local="me", domain="example.org"))
    assert expanded == PurePosixPath(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "{user}"),
        ("/srv/mail", "{user}"),
        ("/srv/{domain}", "{user}"),
        ("/srv/{user", "no variable here"),
        ("/srv/%x/%n", "no variable here"),
        ("/srv/%{user|md5}", "no filter here"),
        ("/srv/%{uid}/%n", "no variable here"),
        ("/srv/%1n", "{user}"),
        ("/srv/%n%d", "two fields"),
        ("/srv/{user}/{home}", "in front only"),
        ("/srv/{user}/{detail}", "no variable here"),
        ("/srv/{user}/}", "no variable here"),
        ("/srv/{0}/{user}", "no variable here"),
        ("/{user}", "no directory"),
        ("/../{domain}/{user}", "no directory"),
        ("/srv/{user}/../x", "'..'"),
        ("/srv/{user}{domain}", "two fields"),
        ("/srv/{user}-{domain}", "two fields"),
        ("/srv/\0/{user}", "printable"),
        ("/srv/\n/{user}", "printable"),
    ],
)
def test_what_is_no_template(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        MailTemplate(text)


def test_a_component_no_file_system_can_hold_is_refused() -> None:
    template = MailTemplate("/srv/{user}@{domain}")
    fits = template.expand(Names(local="u" * 127, domain="d" * 127))
    assert len(str(fits)) == 255
    with pytest.raises(ValueError, match="too long"):
        template.expand(Names(local="u" * 128, domain="d" * 127))


@pytest.mark.parametrize("text", ["~/Maildir", "%h/Maildir", "{home}/Maildir", "%{home}/Maildir"])
def test_a_template_in_the_home(text: str) -> None:
    template = MailTemplate(text)
    assert template.root is None
    names = Names(local="me", domain=None, home="/home/me")
    assert template.expand(names) == PurePosixPath("Maildir")


def test_a_piece_of_a_name_is_never_hidden_or_empty() -> None:
    template = MailTemplate("/srv/%1.1n/%n")
    assert template.expand(Names(local="a.b", domain=None)) == PurePosixPath("_/a.b")
    assert template.expand(Names(local="a", domain=None)) == PurePosixPath("_/a")
