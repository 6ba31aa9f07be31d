"""Dovecot's files `subscriptions` and `dovecot-keywords`, as texts."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailstore._control_file import ControlFileError
from mailstore._keywords import assign, format_keywords, parse_keywords
from mailstore._subscriptions import add_subscription, escape

_V2 = b"V\t2\n\n"


@pytest.mark.parametrize(
    ("before", "levels", "after"),
    [
        (None, [b"a", b"b"], _V2 + b"a\tb\n"),
        (_V2, [b"a"], _V2 + b"a\n"),
        (_V2 + b"a\nINBOX\n", [b"b"], _V2 + b"a\nINBOX\nb\n"),
        (_V2 + b"a\tb\n", [b"a", b"b"], None),
        (_V2 + b"a\tb", [b"a", b"b"], None),
        # The part of a name is no name, and a line without an end is not lost.
        (_V2 + b"a\tb", [b"a"], _V2 + b"a\tb\na\n"),
        (b"", [b"a", b"b"], b"a.b\n"),
        (b"x\ny.z", [b"a", b"b"], b"x\ny.z\na.b\n"),
        (b"x\na.b\n", [b"a", b"b"], None),
        (None, [b"a\tb", b"\1"], _V2 + b"a\1tb\t\x011\n"),
    ],
)
def test_subscriptions(before: bytes | None, levels: list[bytes], after: bytes | None) -> None:
    assert add_subscription(before, levels) == after


@pytest.mark.parametrize("content", [b"V\t3\n\na\n", b"V\t2", b"V\t2\na\n"])
def test_subscriptions_of_another_version(content: bytes) -> None:
    with pytest.raises(ControlFileError, match="version"):
        add_subscription(content, [b"a"])


_LEVELS = st.lists(st.binary(min_size=1).filter(lambda b: b"\0" not in b), min_size=1)


@given(content=st.none() | st.binary() | st.binary().map(lambda rest: _V2 + rest), levels=_LEVELS)
def test_whatever_is_subscribed_to_stays(content: bytes | None, levels: list[bytes]) -> None:
    try:
        after = add_subscription(content, levels)
    except ControlFileError:
        return
    before = _V2 if content is None else content
    if after is None:
        return
    assert after.startswith(before)
    assert after.endswith(b"\n")
    if not before.startswith(_V2):
        return
    # What was added is one line, which says these levels and no others, and is added once.
    assert after[len(before) :].lstrip(b"\n").count(b"\n") == 1
    assert add_subscription(after, levels) is None
    line = after[:-1].split(b"\n")[-1]
    assert line.count(b"\t") == len(levels) - 1


@given(one=st.binary(), other=st.binary())
def test_escaping_keeps_texts_apart(one: bytes, other: bytes) -> None:
    assert (escape(one) == escape(other)) == (one == other)
    assert not set(b"\0\t\r\n") & set(escape(one))


@pytest.mark.parametrize(
    ("content", "keywords"),
    [
        (b"", {}),
        (b"0 Junk\n1 $Label\n", {0: b"Junk", 1: b"$Label"}),
        (b"25 z\n26 beyond\n-1 before\n99999999999 far\n", {25: b"z"}),
        (b"3 a b\n", {3: b"a b"}),
        (b"4 \n5\n\n", {}),
        (b"1 one\n1 other\n", {1: b"other"}),
        # As atoi(3) has it.
        (b"7x seven\n", {7: b"seven"}),
        (b"\t+2 two\n", {2: b"two"}),
        (b"none zero\n", {0: b"zero"}),
        # A line that was not written whole.
        (b"0 a\n1 b", {0: b"a"}),
        (b"0 a\r\n", {0: b"a"}),
    ],
)
def test_keywords(content: bytes, keywords: dict[int, bytes]) -> None:
    assert parse_keywords(content) == keywords


def test_letters() -> None:
    keywords = {0: b"Junk", 2: b"$Forwarded"}
    assert assign(keywords, ["$forwarded", "JUNK"]) == ("ac", False)
    assert assign(keywords, ["new", "Junk"]) == ("ab", True)
    assert keywords == {0: b"Junk", 1: b"new", 2: b"$Forwarded"}


def test_the_twenty_seventh_keyword_is_left_out() -> None:
    keywords: dict[int, bytes] = {}
    letters, _ = assign(keywords, [f"k{number}" for number in range(27)])
    assert letters == string.ascii_lowercase
    assert assign(keywords, ["k26", "k3"]) == ("d", False)


_LINES = st.lists(st.sampled_from([b"0 a", b"1 A", b"30 x", b"x", b""])).map(b"\n".join)


@given(st.binary() | _LINES)
def test_any_keywords_can_be_written_and_read(content: bytes) -> None:
    keywords = parse_keywords(content)
    assert set(keywords) <= set(range(26))
    assert parse_keywords(format_keywords(keywords)) == keywords


@given(
    content=st.binary(),
    names=st.lists(st.text(alphabet="aAbB$1", min_size=1, max_size=3), max_size=40),
)
def test_letters_keep_their_meaning(content: bytes, names: list[str]) -> None:
    before = parse_keywords(content)
    after = dict(before)
    letters, changed = assign(after, names)
    assert before.items() <= after.items()
    assert changed == (after != before)
    assert letters == "".join(sorted(set(letters)))
    meanings = {after[ord(letter) - ord("a")].lower() for letter in letters}
    wanted = {name.encode().lower() for name in names}
    assert meanings <= wanted
    assert meanings == wanted or len(after) == 26
