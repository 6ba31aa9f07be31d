"""Names of mailboxes: what Dovecot takes is taken, and becomes the directory that it has for it.

tests/interop/test_mailbox_names.py asks Dovecot itself.
"""

import base64
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailstore._mailbox_name import (
    Mailbox,
    MailboxNameError,
    NameEncoding,
    encode_utf7,
    parse_mailbox,
)


def _parse(name: str, *, separator: str = ".", utf8: bool = False) -> Mailbox:
    encoding = NameEncoding.UTF_8 if utf8 else NameEncoding.MODIFIED_UTF_7
    return parse_mailbox(name, separator=separator, encoding=encoding)


@pytest.mark.parametrize(
    ("name", "directory"),
    [
        ("", ""),
        ("INBOX", ""),
        ("inBox", ""),
        ("inbox.a", ".INBOX.a"),
        ("Inboxes", ".Inboxes"),
        ("\u0131nbox", ".&ATE-nbox"),
        ("a.b.c", ".a.b.c"),
        ("cur", ".cur"),
        ("a~", ".a~"),
        ("a.~b", ".a.~b"),
        (" *%\\\"'", ". *%\\\"'"),
        ("a&b", ".a&-b"),
        ("&APw-", ".&-APw-"),
        ("Entw\xfcrfe", ".Entw&APw-rfe"),
        ("\u65e5\u672c\u8a9e.\U0001f600", ".&ZeVnLIqe-.&2D3eAA-"),
        ("a\x7f\x85", ".a&AH8AhQ-"),
        ("x" * 254, "." + "x" * 254),
    ],
)
def test_directories(name: str, directory: str) -> None:
    mailbox = _parse(name)
    assert mailbox.directory == directory
    assert mailbox.creatable


@pytest.mark.parametrize(
    ("name", "separator", "directory"),
    [
        ("a/b", "/", ".a.b"),
        ("inbox/a", "/", ".INBOX.a"),
        ("a^b", "^", ".a.b"),
        ("a\\b", "/", ".a\\b"),
    ],
)
def test_separators(name: str, separator: str, directory: str) -> None:
    assert _parse(name, separator=separator).directory == directory


@pytest.mark.parametrize("name", ["Entw\xfcrfe.a&b", "a\x7f", "\U0001f600" * 63])
def test_names_in_utf_8(name: str) -> None:
    assert os.fsencode(_parse(name, utf8=True).directory) == b"." + name.encode()


@pytest.mark.parametrize("name", ["a\x01", "a\tb.c", "\n", "\x1f"])
def test_what_may_be_there_but_is_not_made(name: str) -> None:
    assert not _parse(name).creatable


@pytest.mark.parametrize(
    ("name", "separator"),
    [
        *((name, ".") for name in (".", "..", ".a", "a.", "a..b", "~", "~a", "/", "a/b", "../x")),
        *((name, "/") for name in ("/", "..", "a.b", "/a", "a/", "a//b", "a/../b", "inbox.a")),
        ("^a", "^"),
        ("a/b", "^"),
        ("a\0b", "."),
        ("\ud800", "."),
        ("x" * 255, "."),
        ("\xfc" * 96, "."),
    ],
)
def test_what_is_no_name(name: str, separator: str) -> None:
    with pytest.raises(MailboxNameError):
        _parse(name, separator=separator)


def _decode_utf7(text: str) -> str:
    """RFC 3501 5.1.3, the other way."""

    def decode(match: re.Match[str]) -> str:
        if not match[1]:
            return "&"
        padded = match[1] + "=" * (-len(match[1]) % 4)
        return base64.b64decode(padded, b"+,", validate=True).decode("utf-16-be")

    return re.sub("&([^-]*)-", decode, text)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_modified_utf_7_can_be_read_back(text: str) -> None:
    encoded = encode_utf7(text)
    assert re.fullmatch(r"[ -~]*", encoded)
    assert _decode_utf7(encoded) == text
    # There is one way to write it: no run beside a run, and nothing printable within.
    assert not re.search("&[^-]+-&[^-]", encoded)


_NAMES = st.text() | st.text(alphabet="aI./~&-\x01\xfc^\\", max_size=8)


@given(name=_NAMES, separator=st.sampled_from("./^"), utf8=st.booleans())
def test_whatever_is_taken_is_one_directory(name: str, separator: str, utf8: bool) -> None:
    try:
        mailbox = _parse(name, separator=separator, utf8=utf8)
    except MailboxNameError:
        return
    directory = mailbox.directory
    assert "/" not in directory
    assert "\0" not in directory
    assert len(os.fsencode(directory)) <= 255
    if directory:
        assert re.match(r"\.[^.]", directory)
        # Levels on disk are those of the name, and no two names share a directory but by "INBOX".
        assert directory.count(".") == name.count(separator) + 1
        plain = [os.fsencode(level).decode() for level in mailbox.levels]
        read = ".".join(plain if utf8 else map(_decode_utf7, plain))
        first, *others = name.split(separator)
        if others and first.lower() == "inbox":
            first = "INBOX"
        assert read == ".".join([first, *others])
    else:
        assert name.lower() in {"", "inbox"}
