"""System calls that fail: the right reply for that recipient, and nothing left behind.

Each test lets calls of the os module fail that a delivery needs; what the store does with real
failing disks and full file systems is in tests/faults.
"""

import ctypes
import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mailstore import Sync
from tests.mailstore.support import (
    codes,
    deliver,
    files_below,
    mail_in,
    opened,
    refuse_unnamed,
    without_trace,
)

_SMALL = b"Subject: small\r\n\r\nbody\r\n"
_STORED = _SMALL.replace(b"\r\n", b"\n")
_LARGE = b"Subject: large\r\n\r\n" + b"0123456789\r\n" * 30_000

_CODES = {
    errno.EIO: 451,
    errno.ENOSPC: 452,
    errno.EDQUOT: 452,
    errno.EMFILE: 451,
    errno.EROFS: 451,
    errno.ESTALE: 451,
    errno.EXDEV: 451,
    errno.ELOOP: 451,
}


# A file that cannot be given its name so is written again, with one.
_NO_NAME = {errno.EXDEV, errno.ELOOP}


def _fail(
    monkeypatch: pytest.MonkeyPatch, name: str, number: int, when: Callable[..., bool]
) -> list[tuple[object, ...]]:
    """Let calls of `os.name` fail for which `when` holds; gives the arguments of those that did."""
    real = getattr(os, name)
    failed: list[tuple[object, ...]] = []

    def call(*args: object, **options: object) -> object:
        if not when(*args, **options):
            return real(*args, **options)
        failed.append(args)
        if name == "close":
            # The descriptor is gone all the same.
            real(*args)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, name, call)
    return failed


def _path_of(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")


def _opens_tmp(name: str, _flags: int, *_mode: int, dir_fd: int | None = None) -> bool:
    return name == "tmp" and dir_fd is not None and _path_of(dir_fd).endswith("/bad")


def _creates(_name: str, flags: int, *_mode: int, dir_fd: int | None = None) -> bool:
    is_new = flags & os.O_CREAT or flags & os.O_TMPFILE == os.O_TMPFILE
    return bool(is_new) and dir_fd is not None and "/bad" in _path_of(dir_fd)


def _is_of_message(descriptor: int, *_blocks: object) -> bool:
    return "/bad/tmp/" in _path_of(descriptor)


def _links(_source: str, _target: str, *, dst_dir_fd: int, **_options: object) -> bool:
    return "/bad" in _path_of(dst_dir_fd)


def _is_new(descriptor: int) -> bool:
    return _path_of(descriptor).endswith("/bad/new")


_STEPS: dict[str, tuple[str, Callable[..., bool]]] = {
    "open tmp/": ("open", _opens_tmp),
    "create": ("open", _creates),
    "write": ("writev", _is_of_message),
    "sync": ("fsync", _is_of_message),
    "close": ("close", _is_of_message),
    "link": ("link", _links),
    "sync new/": ("fsync", _is_new),
}


@pytest.mark.parametrize("number", _CODES, ids=errno.errorcode.get)
@pytest.mark.parametrize("step", _STEPS)
@pytest.mark.parametrize("unnamed", [True, False], ids=["unnamed", "named"])
def test_one_step_fails(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    unnamed: bool,
    step: str,
    number: int,
) -> None:
    if not unnamed:
        refuse_unnamed(monkeypatch)
    name, when = _STEPS[step]
    before = len(os.listdir("/proc/self/fd"))
    with opened(tmp_path) as store:
        # A Maildir that is known is not opened again for a small message.
        if step != "open tmp/":
            assert codes(deliver(store, _SMALL, ["bad", "good"])) == [250, 250]
        for content in (_SMALL, _LARGE):
            if unnamed and content is _SMALL and step == "link" and number in _NO_NAME:
                continue
            there = files_below(tmp_path)
            with monkeypatch.context() as patch:
                failed = _fail(patch, name, number, when)
                caplog.clear()
                replies = deliver(store, content, ["bad", "good"])
            assert codes(replies) == [_CODES[number], 250]
            assert len(failed) == 1
            # What can be read of it: what, where, for whom.
            (record,) = caplog.records
            assert record.levelno == logging.ERROR
            for part in (errno.errorcode[number], "'bad'", "<r0@example.org>", str(replies[0])):
                assert part in record.getMessage()
            new = [path for path in files_below(tmp_path) if path not in there]
            assert len(new) == 1
            assert new[0].startswith("good/new/")
            # The next one is fine again.
            assert codes(deliver(store, content, ["bad"])) == [250]
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_failed_descriptor_is_not_synced_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Numbers of descriptors that failed and were not opened anew since.
    broken: set[int] = set()
    failures = 0
    real_open, real_fsync = os.open, os.fsync

    def watched_open(path: str, flags: int, *args: int, **options: int) -> int:
        descriptor = real_open(path, flags, *args, **options)
        broken.discard(descriptor)
        return descriptor

    def fsync(descriptor: int) -> None:
        nonlocal failures
        assert descriptor not in broken
        if not failures and _path_of(descriptor).endswith("/bad/new"):
            failures += 1
            broken.add(descriptor)
            raise OSError(errno.EIO, "I/O error")
        real_fsync(descriptor)

    with opened(tmp_path) as store:
        deliver(store, _SMALL, ["bad"])
        monkeypatch.setattr(os, "open", watched_open)
        monkeypatch.setattr(os, "fsync", fsync)
        assert codes(deliver(store, _SMALL, ["bad"])) == [451]
        assert codes(deliver(store, _SMALL, ["bad"])) == [250]
    assert failures == 1
    assert len(mail_in(tmp_path / "bad")) == 2


@pytest.mark.parametrize("phase", [0, 1])
def test_syncfs_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: int) -> None:
    calls = []

    def syncfs(descriptor: int) -> int:
        visible = len(mail_in(tmp_path / "bad"))
        calls.append(visible)
        if len(calls) != phase + 1:
            return 0
        ctypes.set_errno(errno.EIO)
        return -1

    with opened(tmp_path, sync=Sync.SYNCFS) as store:
        deliver(store, _SMALL, ["bad"])
        (tmp_path / "bad").joinpath("new", os.listdir(tmp_path / "bad" / "new")[0]).unlink()
        monkeypatch.setattr("mailstore._sync._libc.syncfs", syncfs)
        assert codes(deliver(store, _SMALL, ["bad"])) == [451]
        assert files_below(tmp_path) == []
        assert codes(deliver(store, _SMALL, ["bad"])) == [250]
    # Nothing is visible before the first of the two syncs is through.
    assert calls == ([0] if phase == 0 else [0, 1]) + [0, 1]


@pytest.mark.parametrize("number", [*_NO_NAME, errno.ENOENT, errno.EPERM, errno.EACCES])
@pytest.mark.parametrize("sync", Sync)
def test_a_file_that_cannot_get_a_name_is_written_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    sync: Sync,
    number: int,
) -> None:
    """As where there is no /proc."""

    def is_unnamed(source: str, *_arguments: object, **_options: object) -> bool:
        return source.startswith("/proc/")

    before = len(os.listdir("/proc/self/fd"))
    failed = _fail(monkeypatch, "link", number, is_unnamed)
    with opened(tmp_path, sync=sync) as store:
        for _ in range(3):
            assert codes(deliver(store, _SMALL)) == [250]
        # From then on it has a name at once.
        assert len(failed) == 1
    assert len(os.listdir("/proc/self/fd")) == before
    assert [without_trace(message) for message in mail_in(tmp_path / "user")] == [_STORED] * 3
    assert os.listdir(tmp_path / "user" / "tmp") == []
    assert not caplog.records


@pytest.mark.parametrize("sync", Sync)
def test_nothing_has_a_name_before_it_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: Sync
) -> None:
    """What is cut off leaves nothing."""
    there: list[list[str]] = []
    real = os.link

    def link(source: str, target: str, **options: Any) -> None:
        there.append(files_below(tmp_path))
        real(source, target, **options)

    monkeypatch.setattr(os, "link", link)
    with opened(tmp_path, sync=sync) as store:
        assert codes(deliver(store, _SMALL)) == [250]
    assert there == [[]]


@pytest.mark.parametrize("unnamed", [True, False], ids=["unnamed", "named"])
def test_a_name_that_exists_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unnamed: bool
) -> None:
    if not unnamed:
        refuse_unnamed(monkeypatch)
    with opened(tmp_path) as store:
        monkeypatch.setattr("mailstore._names.UniqueNames.make", lambda *_sizes: "same")
        assert codes(deliver(store, _SMALL)) == [250]
        assert codes(deliver(store, b"other")) == [451]
        assert codes(deliver(store, _LARGE)) == [451]
    (message,) = mail_in(tmp_path / "user")
    assert without_trace(message) == _STORED
    assert os.listdir(tmp_path / "user" / "tmp") == []


def test_the_spool_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    before = len(os.listdir("/proc/self/fd"))
    with opened(tmp_path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(os, "writev", full)
            with pytest.raises(OSError, match="no space"):
                deliver(store, _LARGE)
        assert files_below(tmp_path) == []
        assert codes(deliver(store, _LARGE)) == [250]
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_mistake_in_one_delivery_stays_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = os.link

    def link(source: str, target: str, *, dst_dir_fd: int, **options: Any) -> None:
        if "/bad" in _path_of(dst_dir_fd):
            raise ZeroDivisionError("a mistake")
        real(source, target, dst_dir_fd=dst_dir_fd, **options)

    monkeypatch.setattr(os, "link", link)
    with opened(tmp_path) as store:
        assert codes(deliver(store, _SMALL, ["bad", "good"])) == [451, 250]
    assert "a mistake" in caplog.text
    assert "Traceback" in caplog.text


def test_the_log_is_escaped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a\nb\x1b").write_text("no directory")
    with opened(tmp_path) as store:
        assert codes(deliver(store, _SMALL, ["a\nb\x1b/user"])) == [451]
    (record,) = caplog.records
    assert record.getMessage().isprintable()
    assert "ENOTDIR" in record.getMessage()
