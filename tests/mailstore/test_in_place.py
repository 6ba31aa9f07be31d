"""A spool that lies where its message is to go, and becomes the copy."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

import pytest

from mailstore import DeliveredTo, Destination, FolderOptions, MaildirStore, Sync, TraceOptions
from tests.mailstore.support import (
    answers,
    codes,
    deliver,
    envelope,
    files_below,
    fill,
    mail_in,
    opened,
    refuse_unnamed,
    without_trace,
)

_LARGE = b"Subject: large\r\n\r\n" + b"0123456789\r\n" * 30_000
_STORED = _LARGE.replace(b"\r\n", b"\n")
# A known Maildir: what is missing is made when there is a message for it.
_FIRST = b"Subject: first\r\n\r\n"


@pytest.fixture(name="copied")
def _copied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many octets were copied from a spool, each time."""
    copied: list[int] = []
    real = os.copy_file_range

    def copy(source: int, target: int, count: int, **options: int) -> int:
        copied.append(count)
        return real(source, target, count, **options)

    monkeypatch.setattr(os, "copy_file_range", copy)
    return copied


@pytest.fixture(name="store", params=[Sync.OPTIMIZED, Sync.SYNCFS, Sync.NEVER])
def _store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MaildirStore]:
    before = len(os.listdir("/proc/self/fd"))
    options = FolderOptions(autocreate=True)
    with opened(tmp_path, sync=request.param, folders=options) as store:
        deliver(store, _FIRST, ["a", "b"])
        for path in tmp_path.glob("*/new/*"):
            path.unlink()
        yield store
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_single_recipient_needs_no_copy(
    tmp_path: Path, store: MaildirStore, copied: list[int]
) -> None:
    for _ in range(2):
        assert codes(deliver(store, _LARGE, ["a"])) == [250]
    assert copied == []
    assert [without_trace(message) for message in mail_in(tmp_path / "a")] == [_STORED] * 2
    for path in (tmp_path / "a" / "new").iterdir():
        assert f",S={path.stat().st_size}," in path.name
        assert path.stat().st_nlink == 1
    assert list(tmp_path.glob("*/tmp/*")) == []


def test_in_a_folder_with_flags(tmp_path: Path, store: MaildirStore, copied: list[int]) -> None:
    place = Destination(PurePath("a"), "Lists", flags="FS")
    for _ in range(2):
        assert codes(deliver(store, _LARGE, [place])) == [250]
    # The first one finds no folder while it comes in.
    assert sum(copied) < 2 * len(_STORED)
    paths = list((tmp_path / "a" / ".Lists" / "cur").iterdir())
    assert [without_trace(path.read_bytes()) for path in paths] == [_STORED] * 2
    assert all(path.name.endswith(":2,FS") for path in paths)


def test_several_recipients_and_a_spool_elsewhere(
    tmp_path: Path, store: MaildirStore, copied: list[int]
) -> None:
    assert codes(deliver(store, _LARGE, ["a", "b"])) == [250, 250]
    assert sum(copied) > len(_LARGE)
    del copied[:]
    spools = tmp_path / "spools"
    spools.mkdir()
    with opened(tmp_path, spool_directory=spools) as other:
        assert codes(deliver(other, _LARGE, ["a"])) == [250]
    assert sum(copied) > len(_LARGE) // 2
    assert len(mail_in(tmp_path / "a")) == 2


@pytest.mark.parametrize(
    ("mode", "expected"), [(0o750, 0o640), (0o2770, 0o660), (0o755, 0o644), (0o711, 0o600)]
)
def test_modes_and_groups_are_those_of_the_maildir(
    tmp_path: Path, store: MaildirStore, copied: list[int], mode: int, expected: int
) -> None:
    for name in ("a", "a/tmp", "a/new", "a/cur"):
        (tmp_path / name).chmod(mode)
    if mode & stat.S_ISGID:
        try:
            os.chown(tmp_path / "a" / "tmp", -1, os.getegid() + 4711)
        except PermissionError:
            pytest.skip("only root may give directories to any group")
        (tmp_path / "a" / "tmp").chmod(mode)
    # Another store, to which the Maildir is as new as to another process.
    with opened(tmp_path) as other:
        assert codes(deliver(other, _LARGE, ["a"])) == [250]
    assert copied == []
    (path,) = (tmp_path / "a" / "new").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == expected
    assert path.stat().st_gid == (tmp_path / "a" / "tmp").stat().st_gid


@pytest.mark.parametrize("delivered_to", DeliveredTo)
def test_the_header_may_depend_on_the_message(
    tmp_path: Path, copied: list[int], delivered_to: DeliveredTo
) -> None:
    content = b"Return-Path: <forged@x>\r\nX-Original-To: named@example.org\r\n" + _LARGE
    trace = TraceOptions(
        delivered_to=delivered_to, original_recipient_header="X-Original-To", received=False
    )
    with opened(tmp_path, trace=trace) as store:
        deliver(store, _FIRST, ["a"])
        (tmp_path / "a" / "new").joinpath(os.listdir(tmp_path / "a" / "new")[0]).unlink()
        assert codes(deliver(store, content, ["a"])) == [250]
    assert copied == []
    field = {
        DeliveredTo.FINAL: b"Delivered-To: r0@example.org\n",
        DeliveredTo.ORIGINAL: b"Delivered-To: named@example.org\n",
        DeliveredTo.NONE: b"",
    }[delivered_to]
    header = b"Return-Path: <from@example.net>\n" + field
    assert mail_in(tmp_path / "a") == [header + b"X-Original-To: named@example.org\n" + _STORED]


def _begin(store: MaildirStore, maildir: str) -> tuple[Any, Any]:
    """A message of which most is on disk."""
    transaction = envelope("r0@example.org")
    sink = store.open(transaction, {transaction.recipients[0]: PurePath(maildir)})
    fill(sink, [_LARGE[:300_000]])
    return sink, transaction


def test_an_aborted_message_leaves_nothing(tmp_path: Path, store: MaildirStore) -> None:
    before = len(os.listdir("/proc/self/fd"))
    sink, _ = _begin(store, "a")
    assert files_below(tmp_path) == []
    sink.close()
    assert files_below(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_nothing_is_made_before_the_message_is_complete(
    tmp_path: Path, store: MaildirStore
) -> None:
    sink, _ = _begin(store, "unknown")
    sink.close()
    assert not (tmp_path / "unknown").exists()


def test_a_maildir_that_is_replaced_meanwhile(
    tmp_path: Path, store: MaildirStore, copied: list[int]
) -> None:
    sink, transaction = _begin(store, "a")
    (tmp_path / "a").rename(tmp_path / "moved")
    fill(sink, [_LARGE[300_000:]])
    assert codes(answers(sink, transaction)) == [250]
    sink.close()
    assert copied
    (message,) = mail_in(tmp_path / "a")
    assert without_trace(message) == _STORED
    assert files_below(tmp_path / "moved") == []


@pytest.mark.parametrize("name", ["a", "a/tmp", "a/new"])
def test_a_link_in_the_way_is_told_at_the_end(
    tmp_path: Path, store: MaildirStore, name: str
) -> None:
    outside = tmp_path / "outside"
    (tmp_path / name).rename(outside)
    (tmp_path / name).symlink_to(outside)
    assert codes(deliver(store, _LARGE, ["a"])) == [451]
    assert [path for path in files_below(outside) if "tmp" not in path] == []
    assert list(outside.iterdir()) == [] or name == "a"


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EACCES, errno.EMFILE])
def test_where_there_are_no_files_without_names(
    tmp_path: Path,
    store: MaildirStore,
    monkeypatch: pytest.MonkeyPatch,
    copied: list[int],
    number: int,
) -> None:
    refuse_unnamed(monkeypatch, number)
    assert codes(deliver(store, _LARGE, ["a"])) == [250]
    assert copied
    (message,) = mail_in(tmp_path / "a")
    assert without_trace(message) == _STORED


@pytest.mark.parametrize("number", [errno.EXDEV, errno.ENOENT, errno.EPERM])
def test_a_copy_where_the_spool_cannot_get_a_name(
    tmp_path: Path,
    store: MaildirStore,
    monkeypatch: pytest.MonkeyPatch,
    copied: list[int],
    number: int,
) -> None:
    real = os.link

    def refuse(source: str, target: str, **options: Any) -> None:
        if source.startswith("/proc/"):
            raise OSError(number, os.strerror(number))
        real(source, target, **options)

    monkeypatch.setattr(os, "link", refuse)
    assert codes(deliver(store, _LARGE, ["a"])) == [250]
    assert copied
    (message,) = mail_in(tmp_path / "a")
    assert without_trace(message) == _STORED


def test_a_spool_whose_sync_failed_is_no_mail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as store:
        deliver(store, _FIRST, ["a"])
        failed = []

        def fail(descriptor: int) -> None:
            failed.append(os.readlink(f"/proc/self/fd/{descriptor}"))
            raise OSError(errno.EIO, "I/O error")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            assert codes(deliver(store, _LARGE, ["a"])) == [451]
        assert len(failed) == 1
        assert "/a/tmp/" in failed[0]
        assert len(files_below(tmp_path)) == 1
        assert codes(deliver(store, _LARGE, ["a"])) == [250]


@pytest.mark.parametrize("sync", [Sync.OPTIMIZED, Sync.NEVER])
def test_the_disk_works_while_the_message_comes_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: Sync
) -> None:
    begun: list[tuple[int, int]] = []
    real = os.posix_fadvise

    def advise(descriptor: int, offset: int, length: int, advice: int) -> None:
        begun.append((offset, length))
        real(descriptor, offset, length, advice)

    with opened(tmp_path, sync=sync) as store:
        deliver(store, _FIRST, ["a"])
        monkeypatch.setattr(os, "posix_fadvise", advise)
        transaction = envelope("r0@example.org")
        sink = store.open(transaction, {transaction.recipients[0]: PurePath("a")})
        fill(sink, (_LARGE for _ in range(40)))
        monkeypatch.undo()
        assert codes(answers(sink, transaction)) == [250]
        sink.close()
    end = 0
    for offset, length in begun:
        assert offset == end
        assert length >= 4 << 20
        end = offset + length
    assert (end > 8 << 20) if sync is Sync.OPTIMIZED else not begun


def test_a_large_message_costs_syncfs_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def syncfs(descriptor: int) -> int:
        calls.append(descriptor)
        return 0

    monkeypatch.setattr("mailstore._sync._libc.syncfs", syncfs)
    with opened(tmp_path, sync=Sync.SYNCFS) as store:
        assert codes(deliver(store, _LARGE, ["a"])) == [250]
    assert len(calls) == 1
