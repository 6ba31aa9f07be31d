"""The spool against straight octets."""

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailstore import LineEnding, Spool


def _stored(
    directory: Path, pieces: Iterable[bytes], *, threshold: int, line_ending: LineEnding
) -> tuple[bytes, int, int]:
    """The octets that `copy_to` gives, `size` and `virtual_size`."""
    spool = Spool(str(directory), threshold=threshold, line_ending=line_ending)
    target = os.memfd_create("target")
    try:
        for piece in pieces:
            job = spool.write(piece)
            if job is not None:
                job()
        spool.finish()
        spool.copy_to(target)
        return os.pread(target, 1 << 24, 0), spool.size, spool.virtual_size
    finally:
        os.close(target)
        spool.close()


_PIECES = st.lists(
    st.one_of(
        st.sampled_from([b"", b"\r", b"\n", b"\r\n", b"\r\r", b"a", b"a: b\r\n"]),
        st.binary(max_size=5),
    ),
    max_size=20,
)


@given(pieces=_PIECES, threshold=st.integers(0, 30))
@example(pieces=[b"a\r", b"\nb"], threshold=0)
@example(pieces=[b"a\r\r", b"\n"], threshold=0)
@example(pieces=[b"\r"], threshold=0)
def test_lf(tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], threshold: int) -> None:
    expected = b"".join(pieces).replace(b"\r\n", b"\n")
    # As a reader of the file counts them.
    virtual_size = len(re.sub(rb"\r?\n", b"\r\n", expected))
    assert _stored(
        tmp_path_factory.getbasetemp(), pieces, threshold=threshold, line_ending=LineEnding.LF
    ) == (expected, len(expected), virtual_size)


@given(pieces=_PIECES, threshold=st.integers(0, 30))
@example(pieces=[b"a\r", b"\nb"], threshold=0)
def test_crlf(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], threshold: int
) -> None:
    expected = b"".join(pieces)
    virtual_size = len(re.sub(rb"\r?\n", b"\r\n", expected))
    assert _stored(
        tmp_path_factory.getbasetemp(), pieces, threshold=threshold, line_ending=LineEnding.CRLF
    ) == (expected, len(expected), virtual_size)


@pytest.mark.parametrize(
    "content", [b"x\r\nx\r\n\n\rx", b"x\r\nx\r\n\rx\n", b"\r\n\r\n\n\r", b"x\n\rx\n\r"]
)
def test_as_many_cr_as_lf_are_no_crlf(tmp_path: Path, content: bytes) -> None:
    expected = content.replace(b"\r\n", b"\n")
    virtual_size = len(re.sub(rb"\r?\n", b"\r\n", expected))
    assert _stored(tmp_path, [content], threshold=0, line_ending=LineEnding.LF) == (
        expected,
        len(expected),
        virtual_size,
    )


@given(
    length=st.integers(0, 4),
    count=st.integers(0, 12),
    changes=st.dictionaries(
        st.integers(0, 60), st.sampled_from([b"", b"\r", b"\n", b"\r\n", b"a"]), max_size=3
    ),
    line_ending=st.sampled_from(LineEnding),
)
def test_even_lines_and_what_is_between_them(
    tmp_path_factory: pytest.TempPathFactory,
    length: int,
    count: int,
    changes: dict[int, bytes],
    line_ending: LineEnding,
) -> None:
    octets = [bytes([octet]) for octet in (b"x" * length + b"\r\n") * count]
    for place, change in changes.items():
        octets[place : place + 1] = [change]
    content = b"".join(octets)
    expected = content
    if line_ending is LineEnding.LF:
        expected = content.replace(b"\r\n", b"\n")
    virtual_size = len(re.sub(rb"\r?\n", b"\r\n", expected))
    assert _stored(
        tmp_path_factory.getbasetemp(), [content], threshold=0, line_ending=line_ending
    ) == (expected, len(expected), virtual_size)


@given(
    data=st.data(),
    lines=st.lists(
        st.sampled_from(
            [
                b"Return-Path: <x>",
                b"return-path:",
                b"\ty",
                b"A: 1",
                b"",
                b"b\nReturn-Path: z",
                b"\r",
            ]
        ),
        max_size=12,
    ),
    threshold=st.integers(0, 80),
    line_ending=st.sampled_from(LineEnding),
)
def test_every_split_is_stored_alike(
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
    lines: list[bytes],
    threshold: int,
    line_ending: LineEnding,
) -> None:
    directory = tmp_path_factory.getbasetemp()
    content = b"\r\n".join(lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=8)))
    pieces = [
        content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True)
    ]
    assert _stored(directory, pieces, threshold=threshold, line_ending=line_ending) == _stored(
        directory, [content], threshold=threshold, line_ending=line_ending
    )


def test_the_threshold_is_the_largest_message_in_memory(tmp_path: Path) -> None:
    for size, in_memory in ((1000, True), (1001, False)):
        spool = Spool(str(tmp_path), threshold=1000)
        job = spool.write(b"x" * size)
        assert (job is None) is in_memory
        if job is not None:
            job()
        spool.finish()
        assert spool.in_memory is in_memory
        assert spool.size == size
        spool.close()


def test_large_message_in_small_writes(tmp_path: Path) -> None:
    line = b"0123456789" * 7 + b"\r\n"
    stored, size, virtual_size = _stored(
        tmp_path, [line] * 20_000, threshold=128 * 1024, line_ending=LineEnding.LF
    )
    assert stored == line.replace(b"\r\n", b"\n") * 20_000
    assert (size, virtual_size) == (71 * 20_000, 72 * 20_000)


@pytest.mark.parametrize("named", [False, True])
def test_the_file_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool) -> None:
    if named:
        real = os.open

        def without_tmpfile(path: str, flags: int, *args: int, **options: int) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(95, "not supported")
            return real(path, flags, *args, **options)

        monkeypatch.setattr(os, "open", without_tmpfile)
    spool = Spool(str(tmp_path), threshold=10)
    job = spool.write(b"x" * 20)
    assert job is not None
    job()
    assert list(tmp_path.iterdir()) == []
    spool.finish()
    target = os.memfd_create("target")
    spool.copy_to(target)
    assert os.pread(target, 100, 0) == b"x" * 20
    os.close(target)
    spool.close()


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_closed_before_and_after_its_job(tmp_path: Path) -> None:
    before = _descriptors()
    spool = Spool(str(tmp_path), threshold=10)
    first = spool.write(b"x" * 20)
    assert first is not None
    first()
    second = spool.write(b"x" * 300_000)
    assert second is not None
    spool.close()
    assert _descriptors() == before
    with pytest.raises(OSError, match="given up"):
        second()
    assert _descriptors() == before


def test_closed_while_it_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(str(tmp_path), threshold=10)
    job = spool.write(b"x" * 20)
    assert job is not None
    job()
    spool.write(b"rest")
    spool.finish()
    before = _descriptors()
    target = os.memfd_create("target")
    real = os.copy_file_range

    def close_first(*args: int, **options: int) -> int:
        spool.close()
        return real(*args, **options)

    monkeypatch.setattr(os, "copy_file_range", close_first)
    spool.copy_to(target)
    assert os.pread(target, 100, 0) == b"x" * 20 + b"rest"
    os.close(target)
    assert _descriptors() == before - 1


def _copy_nothing(*args: int, **options: int) -> int:
    return 0


def _copy_across(*args: int, **options: int) -> int:
    raise OSError(18, "another file system")


def _write_some(descriptor: int, data: bytes) -> int:
    return _write(descriptor, bytes(data[:700]))


def _writev_some(descriptor: int, blocks: tuple[bytes, ...]) -> int:
    return _write(descriptor, b"".join(blocks)[:700])


_write = os.write


@pytest.mark.parametrize("copy", [_copy_nothing, _copy_across])
def test_where_the_kernel_does_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copy: object
) -> None:
    monkeypatch.setattr(os, "copy_file_range", copy)
    monkeypatch.setattr(os, "write", _write_some)
    monkeypatch.setattr(os, "writev", _writev_some)
    content = bytes(range(256)) * 4096
    pieces = [content[start : start + 50_000] for start in range(0, len(content), 50_000)]
    stored, size, _ = _stored(tmp_path, pieces, threshold=1000, line_ending=LineEnding.CRLF)
    assert stored == content
    assert size == len(content)


_LARGE = """
    import sys
    from pathlib import Path, PurePath
    from mailstore import MaildirStore
    from tests.mailstore.support import answers, codes, envelope, fill

    def peak():
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024

    def deliver(size):
        transaction = envelope("a@example.org", "b@example.org")
        places = dict(zip(transaction.recipients, map(PurePath, "ab")))
        sink = store.open(transaction, places)
        fill(sink, (piece for _ in range(size // len(piece))))
        assert codes(answers(sink, transaction)) == [250, 250]
        sink.close()

    store = MaildirStore(sys.argv[1], hostname="mx.example.org")
    piece = (b"x" * 76 + b"\\r\\n") * 840
    deliver(1 << 20)
    before = peak()
    deliver(256 << 20)
    print(peak() - before)
    store.close()
"""


@pytest.mark.timeout(120)
def test_memory_does_not_grow_with_the_message(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_LARGE), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) < 16 << 20
    for maildir in "ab":
        sizes = sorted(path.stat().st_size for path in (tmp_path / maildir / "new").iterdir())
        assert sizes[1] > 250 << 20
    for path in tmp_path.glob("*/new/*"):
        path.unlink()
