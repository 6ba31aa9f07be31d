"""Maildirs whose owner means harm: nothing outside is touched, and the client is told 451."""

import os
from collections.abc import Callable
from pathlib import Path, PurePath

import pytest

from tests.mailstore.support import codes, deliver, files_below, mail_in, opened

_SMALL = b"Subject: x\r\n\r\nbody\r\n"
_LARGE = b"Subject: x\r\n\r\n" + b"x" * 300_000


def _link(path: Path, outside: Path) -> None:
    path.symlink_to(outside, target_is_directory=True)


def _dangling_link(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "missing")


def _fifo(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def _file(path: Path, outside: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("content", [_SMALL, _LARGE])
@pytest.mark.parametrize("make", [_link, _dangling_link, _fifo, _file])
# cur/ is only looked for when a Maildir is opened.
@pytest.mark.parametrize(
    ("part", "known"),
    [
        *((part, False) for part in ("d", "d/user", "d/user/new", "d/user/tmp", "d/user/cur")),
        *((part, True) for part in ("d", "d/user", "d/user/new", "d/user/tmp")),
    ],
)
def test_something_else_in_its_place(
    tmp_path: Path,
    content: bytes,
    make: Callable[[Path, Path], None],
    part: str,
    known: bool,
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for name in ("cur", "new", "tmp", "user/cur", "user/new", "user/tmp"):
        (outside / name).mkdir(parents=True)
    root.mkdir()
    with opened(root) as store:
        if known:
            assert codes(deliver(store, content, ["d/user"])) == [250]
            (root / part).rename(tmp_path / "old")
        else:
            (root / part).parent.mkdir(parents=True, exist_ok=True)
        make(root / part, outside)
        # The fault of one is nobody else's.
        assert codes(deliver(store, content, ["d/user", "other"])) == [451, 250]
        assert codes(deliver(store, content, ["d/user", "other"])) == [451, 250]
        assert len(mail_in(root / "other")) == 2

        assert files_below(outside) == []
        messages = [path for path in files_below(tmp_path) if ",S=" in path]
        assert len(messages) == 2 + known
        assert [path for path in messages if PurePath(path).parent.name == "tmp"] == []

        (root / part).unlink()
        assert codes(deliver(store, content, ["d/user"])) == [250]


@pytest.mark.parametrize("content", [_SMALL, _LARGE])
def test_a_link_in_place_of_the_file_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    root, secret = tmp_path / "root", tmp_path / "secret"
    root.mkdir()
    secret.write_bytes(b"not the owner's")
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        for path in (root / "user" / "tmp").glob("*,S=*"):
            path.unlink()
            path.symlink_to(secret)

    with opened(root) as store:
        monkeypatch.setattr(os, "fsync", fsync)
        deliver(store, content)
    assert secret.stat().st_nlink == 1
