"""The input buffer: any split gives the same lines and faults, in linear work."""

import itertools
from typing import SupportsIndex, overload

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmtp_proto import _buffer
from lmtp_proto._buffer import InputBuffer, LineFault

_LIMIT = 12


def _lines(pieces: list[bytes], limit: int = _LIMIT) -> list[bytes | LineFault]:
    buffer = InputBuffer()
    lines = []
    for piece in pieces:
        buffer.feed(piece)
        while (line := buffer.next_line(limit)) is not None:
            lines.append(line)
    return lines


def _reference(octets: bytes, limit: int = _LIMIT) -> list[bytes | LineFault]:
    """The lines of octets that end with CRLF."""
    lines: list[bytes | LineFault] = []
    # The last part has no end.
    for line in octets.split(b"\r\n")[:-1]:
        bare = line.find(b"\n")
        if bare >= 0 and bare < limit:
            lines.append(LineFault.BARE_LF)
        elif bare >= 0 or len(line) + 2 > limit:
            lines.append(LineFault.TOO_LONG)
        else:
            lines.append(line)
    return lines


@pytest.mark.parametrize(
    ("octets", "lines"),
    [
        (b"", []),
        (b"a", []),
        (b"a\r", []),
        (b"a\r\n", [b"a"]),
        (b"\r\n\r\n", [b"", b""]),
        (b"a\r\nb\r\nc", [b"a", b"b"]),
        (b"a\nb\r\nc\r\n", [LineFault.BARE_LF, b"c"]),
        (b"\n\n\n\r\nc\r\n", [LineFault.BARE_LF, b"c"]),
        (b"\r\r\nc\r\n", [b"\r", b"c"]),
        (b"a\rb\r\n", [b"a\rb"]),
        (b"1234567890\r\nc\r\n", [b"1234567890", b"c"]),
        (b"12345678901\r\nc\r\n", [LineFault.TOO_LONG, b"c"]),
        (b"1" * 100 + b"\r\nc\r\n", [LineFault.TOO_LONG, b"c"]),
        (b"1" * 100 + b"\n1\r1\r\r\nc\r\n", [LineFault.TOO_LONG, b"c"]),
    ],
)
def test_lines(octets: bytes, lines: list[bytes | LineFault]) -> None:
    assert _lines([octets]) == lines
    assert _lines([octets[n : n + 1] for n in range(len(octets))]) == lines


_SOUP = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b"ab", b"x" * 9, b"x" * 20]), max_size=15
).map(b"".join)


@given(_SOUP, st.lists(st.integers(0, 200), max_size=8))
def test_any_split_gives_the_same_lines(octets: bytes, cuts: list[int]) -> None:
    octets += b"\r\n"
    places = sorted({0, len(octets), *(cut for cut in cuts if cut < len(octets))})
    pieces = [octets[a:b] for a, b in itertools.pairwise(places)]
    assert _lines(pieces) == _reference(octets)
    # Fed at once, read later.
    buffer = InputBuffer()
    for piece in pieces:
        buffer.feed(piece)
    assert list(iter(lambda: buffer.next_line(_LIMIT), None)) == _reference(octets)


@given(st.lists(st.binary(min_size=1, max_size=9), max_size=8), st.lists(st.integers(1, 12)))
def test_taken_octets_are_those_fed(pieces: list[bytes], sizes: list[int]) -> None:
    buffer = InputBuffer()
    for piece in pieces:
        buffer.feed(piece)
    taken = b""
    for size in sizes:
        part = buffer.take(size)
        assert len(part) <= size
        taken += part
    while part := buffer.take():
        taken += part
    assert taken == b"".join(pieces)
    assert buffer.take() == b""


def test_what_is_put_back_comes_again() -> None:
    buffer = InputBuffer()
    buffer.feed(b"content.NOOP\r\nQU")
    taken = buffer.take()
    buffer.put_back(taken, 8)
    buffer.feed(b"IT\r\n")
    assert [buffer.next_line(100), buffer.next_line(100), buffer.next_line(100)] == [
        b"NOOP",
        b"QUIT",
        None,
    ]


def test_dropping() -> None:
    buffer = InputBuffer()
    assert not buffer.drop()
    buffer.feed(b"a")
    buffer.feed(b"b")
    assert buffer.drop()
    assert not buffer.drop()
    buffer.feed(b"c\r\n")
    assert buffer.next_line(10) == b"c"


_interpreted = pytest.mark.skipif(
    not _buffer.__file__.endswith(".py"), reason="compiled code does not ask a subclass of bytes"
)


class Counted(bytes):
    """Octets that count how many of them are searched or copied."""

    work = 0

    def find(
        self,
        sub: object,
        start: SupportsIndex | None = None,
        end: SupportsIndex | None = None,
        /,
    ) -> int:
        assert isinstance(sub, bytes)
        begin = int(start or 0)
        found = super().find(sub, begin, end)
        Counted.work += (found if found >= 0 else len(self)) - begin
        return found

    @overload
    def __getitem__(self, key: SupportsIndex, /) -> int: ...
    @overload
    def __getitem__(self, key: slice, /) -> bytes: ...
    def __getitem__(self, key: SupportsIndex | slice, /) -> int | bytes:
        found = super().__getitem__(key)
        if isinstance(found, bytes):
            Counted.work += len(found)
        return found


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"NOOP\r\n" * 80_000, id="short lines"),
        pytest.param(b"\r\n" * 80_000, id="empty lines"),
        pytest.param(b"\n" * 80_000 + b"\r\n", id="bare LF"),
        pytest.param(b"\r" * 80_000 + b"\r\n", id="bare CR"),
        pytest.param(b"a\n\r\n" * 40_000, id="faults"),
        pytest.param(b"x" * 1_000_000 + b"\r\n", id="a long line"),
        pytest.param((b"x" * 5000 + b"\r\n") * 50, id="long lines"),
        pytest.param((b"x" * 4000 + b"\r\n") * 50, id="lines of the limit"),
    ],
)
def test_work_is_linear(data: bytes) -> None:
    Counted.work = 0
    buffer = InputBuffer()
    buffer.feed(Counted(data))
    while buffer.next_line(4096) is not None:
        pass
    assert 0 < Counted.work <= 4 * len(data)


@_interpreted
def test_taking_small_parts_is_linear() -> None:
    Counted.work = 0
    data = Counted(b"x" * 100_000)
    buffer = InputBuffer()
    buffer.feed(data)
    while buffer.take(1):
        pass
    assert 0 < Counted.work <= 2 * len(data)
