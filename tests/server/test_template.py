"""Templates: what they take, and that nothing gets out of their root."""

import os
from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lmtp_server._template import MailTemplate, path_name

TEMPLATES = [
    "./mail/{domain}/{user}",
    "/srv/mail/{user}",
    "mail/{user}@{domain}/Maildir",
    "/srv/{domain}/.{user}/x-{user}",
    "/a/{domain}:{user}/b/{domain}",
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
        path = parsed.expand(user=path_name(user), domain=path_name(domain))
    except ValueError:
        return
    depth = template.count("/") - template[: template.index("{")].count("/") + 1
    assert not path.is_absolute()
    assert len(path.parts) == depth
    assert all(len(os.fsencode(part)) <= 255 for part in path.parts)
    whole = os.path.normpath(os.path.join(parsed.root, path))
    assert PurePosixPath(whole).parts == (*PurePosixPath(parsed.root).parts, *path.parts)
    assert "\0" not in whole


_NAMES = st.text(alphabet="ab.-+", min_size=1, max_size=4).filter(lambda text: text[0] != ".")


@pytest.mark.parametrize("template", [text for text in TEMPLATES if "{domain}" in text])
@given(first=st.tuples(_NAMES, _NAMES), second=st.tuples(_NAMES, _NAMES))
@example(first=("a", "b-a"), second=("a-b", "a"))
def test_two_users_never_share_a_path(
    template: str, first: tuple[str, str], second: tuple[str, str]
) -> None:
    parsed = MailTemplate(template)
    paths = [
        parsed.expand(user=path_name(user), domain=path_name(domain))
        for user, domain in (first, second)
    ]
    assert (paths[0] == paths[1]) == (first == second)


@pytest.mark.parametrize(
    ("text", "root", "path"),
    [
        ("./mail/{domain}/{user}", "mail", "example.org/me"),
        ("mail//./x/{user}/", "mail/x", "me"),
        ("{domain}/{user}", "", "example.org/me"),
        ("/srv/../var/mail/{user}/Maildir", "/var/mail", "me/Maildir"),
        ("/srv/{domain}/u-{user}", "/srv", "example.org/u-me"),
    ],
)
def test_root_and_path(text: str, root: str, path: str) -> None:
    template = MailTemplate(text)
    assert template.root == os.path.abspath(root)
    expanded = template.expand(user=path_name("me"), domain=path_name("example.org"))
    assert expanded == PurePosixPath(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "{user}"),
        ("/srv/mail", "{user}"),
        ("/srv/{domain}", "{user}"),
        ("/srv/{user", "{user}"),
        ("/srv/{user}/{detail}", "only {user} and {domain}"),
        ("/srv/{user}/}", "only {user} and {domain}"),
        ("/srv/{0}/{user}", "only {user} and {domain}"),
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
    fits = template.expand(user=path_name("u" * 127), domain=path_name("d" * 127))
    assert len(str(fits)) == 255
    with pytest.raises(ValueError, match="too long"):
        template.expand(user=path_name("u" * 128), domain=path_name("d" * 127))
