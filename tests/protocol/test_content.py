"""Content on the wire: dots in and out, against a reference that cannot be wrong.

The reference knows the whole of the octets; the decoder gets them in every possible split.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmtp_proto._content import DotDecoder, DotEncoder
from tests.protocol.splits import restored, state, strings_in_all_splits

_ALPHABET = (b"\r", b"\n", b".", b"a")
_LENGTH = 8


def _reference(octets: bytes) -> tuple[bytes, int] | None:
    """Content and the number of octets up to its end, None while there is no end.

    RFC 5321 4.5.2, line by line: a line ends with CRLF and nothing else.
    """
    content = b""
    rest = octets
    while True:
        line, crlf, behind = rest.partition(b"\r\n")
        if not crlf:
            return None
        if line == b".":
            return content, len(octets) - len(behind)
        content += (line[1:] if line.startswith(b".") else line) + crlf
        rest = behind


def _decode(pieces: Iterator[bytes]) -> tuple[bytes, int] | None:
    decoder = DotDecoder()
    content = b""
    read = 0
    for piece in pieces:
        decoded, used = decoder.decode(piece)
        content += decoded
        if used >= 0:
            return content, read + used
        read += len(piece)
    return None


class _Outcome(NamedTuple):
    """Where a decoder stands, and what it has said."""

    decoder: tuple[object, ...]
    """None of it counts once the end was found."""
    content: bytes
    read: int
    ended: bool


_BEGINNING = _Outcome(state(DotDecoder()), b"", 0, ended=False)


def _step(before: _Outcome, piece: bytes) -> _Outcome:
    if before.ended:
        return before
    decoder = restored(DotDecoder(), before.decoder)
    decoded, used = decoder.decode(piece)
    content = before.content + decoded
    if used >= 0:
        return _Outcome((), content, before.read + used, ended=True)
    return _Outcome(state(decoder), content, before.read + len(piece), ended=False)


@pytest.mark.exhaustive
@pytest.mark.timeout(180)
def test_every_string_in_every_split() -> None:
    strings = splits = 0
    for octets, outcomes in strings_in_all_splits(_ALPHABET, _LENGTH, _BEGINNING, _step):
        # What has no end by itself is given one, so that all of its content comes out.
        expected = _reference(octets)
        ending = b"" if expected else b"\r\n.\r\n"
        expected = expected or _reference(octets + ending)
        assert expected is not None
        found = {_step(outcome, ending) if ending else outcome for outcome in outcomes}
        assert {(end.content, end.read, end.ended) for end in found} == {(*expected, True)}, octets
        strings += 1
        splits += outcomes.total()
    assert strings == sum(4**length for length in range(1, _LENGTH + 1))
    assert splits == sum(4**length * 2 ** (length - 1) for length in range(1, _LENGTH + 1))


@pytest.mark.parametrize("length", range(1, 5))
def test_every_short_string_in_every_split_from_its_beginning(length: int) -> None:
    for pieces in itertools.product(_ALPHABET, repeat=length):
        octets = b"".join(pieces)
        for cuts in itertools.product((False, True), repeat=length - 1):
            places = [0, *(place for place, cut in enumerate(cuts, 1) if cut), length]
            split = (octets[begin:end] for begin, end in itertools.pairwise(places))
            assert _decode(itertools.chain(split, [b"\r\n.\r\n"])) == (
                _reference(octets) or _reference(octets + b"\r\n.\r\n")
            )


_SOUP = st.lists(
    st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"\r\n.\r", b"\n.\r\n", b"a", b"\x00"]),
    max_size=20,
).map(b"".join)


@st.composite
def _pieces(draw: st.DrawFn, octets: bytes) -> list[bytes]:
    cuts = sorted(draw(st.lists(st.integers(0, len(octets)), max_size=6)))
    return [octets[a:b] for a, b in itertools.pairwise([0, *cuts, len(octets)]) if a < b]


@given(st.data(), _SOUP, _SOUP)
def test_any_octets_in_any_split(data: st.DataObject, octets: bytes, behind: bytes) -> None:
    wire = octets + b"\r\n.\r\n" + behind
    assert _decode(iter(data.draw(_pieces(wire)))) == _reference(wire)


@pytest.mark.parametrize("cut", [1, 100, 40_000, 60_000, -8, -7, -6, -5, -4, -3, -2, -1])
@pytest.mark.parametrize(
    "content",
    [
        b"..\r\n" + (b"x" * 9_000 + b"\r\n") * 8,
        (b"x" * 9_000 + b"\r\n..y\r\n") * 8,
        b"a. " * 30_000 + b"\r\n",
        b"a. " * 20 + b"x" * 70_000 + b"\r\n",
        (b"a. b.\r\n" * 1_000 + b"..\r\n") * 10,
    ],
)
def test_large_pieces_with_few_dots_and_many(content: bytes, cut: int) -> None:
    wire = content + b".\r\nNOOP\r\n"
    pieces = [wire[:cut], wire[cut:]]
    assert _decode(iter(pieces)) == _reference(wire)


# Dots that stand everywhere, apart from each other so far that a large piece has few or many.
_LINES = st.lists(
    st.tuples(
        st.sampled_from([b".", b"..", b"a.", b"\r.", b"\n.", b"\n.\r\n", b"\r\n\r\n.", b"\r\n."]),
        st.sampled_from([0, 1, 20, 9_000, 40_000]),
    ),
    min_size=1,
    max_size=12,
).map(lambda lines: b"".join(dots + b"x" * gap + b"\r\n" for dots, gap in lines))


@given(st.data(), _LINES)
def test_large_pieces(data: st.DataObject, content: bytes) -> None:
    wire = content + b".\r\nNOOP\r\n"
    assert _decode(iter(data.draw(_pieces(wire)))) == _reference(wire)


@given(st.data(), _SOUP)
def test_encoded_content_is_decoded(data: st.DataObject, content: bytes) -> None:
    encoder = DotEncoder()
    wire = b"".join(map(encoder.encode, data.draw(_pieces(content)))) + encoder.finish()
    # A last line without its CRLF gets one.
    whole = content if content.endswith(b"\r\n") or not content else content + b"\r\n"
    assert _decode(iter(data.draw(_pieces(wire)))) == (whole, len(wire))


@given(st.data(), _SOUP)
def test_encoding_does_not_depend_on_the_pieces(data: st.DataObject, content: bytes) -> None:
    at_once, in_pieces = DotEncoder(), DotEncoder()
    expected = at_once.encode(content) + at_once.finish()
    pieces = data.draw(_pieces(content))
    assert b"".join(map(in_pieces.encode, pieces)) + in_pieces.finish() == expected


@pytest.mark.parametrize(
    ("content", "wire"),
    [
        (b"", b".\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b"a\r\n", b"a\r\n.\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b".\r\n", b"..\r\n.\r\n"),
        (b"a\r\n.b\r\n", b"a\r\n..b\r\n.\r\n"),
        (b"a\n.\n", b"a\n.\n\r\n.\r\n"),
        (b"a\r", b"a\r\r\n.\r\n"),
    ],
)
def test_encoded(content: bytes, wire: bytes) -> None:
    encoder = DotEncoder()
    assert encoder.encode(content) + encoder.finish() == wire


def test_an_empty_piece_is_nothing() -> None:
    encoder = DotEncoder()
    assert encoder.encode(b"a\r\n") + encoder.encode(b"") + encoder.encode(b".") == b"a\r\n.."


@pytest.mark.parametrize("octets", [b"abc", b"a.", b"a\r\nb", b"a\r\n..", b"a\r\n.\rb"])
def test_what_cannot_begin_the_end_is_not_held_back(octets: bytes) -> None:
    expected = octets.replace(b"\r\n.", b"\r\n")
    assert DotDecoder().decode(octets) == (expected, -1)


@pytest.mark.parametrize("held", [b"\r", b"\r\n", b"\r\n.", b"\r\n.\r"])
def test_what_may_begin_the_end_is_held_back(held: bytes) -> None:
    assert DotDecoder().decode(b"abc" + held) == (b"abc", -1)
