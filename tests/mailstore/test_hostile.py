"""Maildirs whose owner means harm: nothing outside is touched, and the client is told 451."""

import os
from collections.abc import Callable
from pathlib import Path, PurePath

import pytest

from mailstore import Destination, FolderOptions
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


def _directory(path: Path, outside: Path) -> None:
    path.mkdir()


def _link_to_file(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "file")


def _link_to_link(path: Path, outside: Path) -> None:
    path.symlink_to(path.name)


_OPTIONS = FolderOptions(autocreate=True, autosubscribe=True, lock_timeout=0)


@pytest.mark.parametrize("content", [_SMALL, _LARGE])
@pytest.mark.parametrize("make", [_link, _dangling_link, _fifo, _file, _link_to_link])
@pytest.mark.parametrize("part", [".a", ".a/cur", ".a/new", ".a/tmp"])
@pytest.mark.parametrize("flags", ["", "S"])
def test_something_else_in_place_of_a_folder(
    tmp_path: Path, content: bytes, make: Callable[[Path, Path], None], part: str, flags: str
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for name in ("cur", "new", "tmp"):
        (outside / name).mkdir(parents=True)
    place = root / "user" / part
    place.parent.mkdir(parents=True)
    make(place, outside)
    folder = Destination(PurePath("user"), "a", flags)
    with opened(root, folders=_OPTIONS) as store:
        assert codes(deliver(store, content, [folder, "user"])) == [451, 250]
        place.unlink()
        assert codes(deliver(store, content, [folder])) == [250]
    assert files_below(outside) == []
    assert len(mail_in(root / "user")) == 1


@pytest.mark.parametrize(
    "make", [_link, _link_to_file, _dangling_link, _link_to_link, _fifo, _directory]
)
@pytest.mark.parametrize(
    ("name", "delivered"),
    [
        ("subscriptions", True),
        ("subscriptions.lock", True),
        (".a/maildirfolder", True),
        ("dovecot-shared", True),
        (".a/dovecot-keywords", True),
        (".a/dovecot-keywords.lock", True),
        # Somebody else holds the lock, as far as can be seen.
        (".a/dovecot-uidlist.lock", False),
    ],
)
def test_something_else_in_place_of_a_control_file(
    tmp_path: Path, make: Callable[[Path, Path], None], name: str, delivered: bool
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"theirs\n")
    place = root / "user" / name
    place.parent.mkdir(parents=True)
    make(place, outside)
    if name == ".a/dovecot-keywords.lock" and make is _directory:
        # What cannot be removed by who owns the lock stops the keywords of its owner.
        delivered = False
    before = os.lstat(place)
    keywords = Destination(PurePath("user"), "a", "", ("Junk",))
    with opened(root, folders=_OPTIONS) as store:
        answered = codes(deliver(store, _SMALL, [keywords, Destination(PurePath("user"), "b")]))
        assert answered == [250 if delivered else 451, 250]
    assert (outside / "file").read_bytes() == b"theirs\n"
    assert os.listdir(outside) == ["file"]
    assert len(mail_in(root / "user" / ".b")) == 1
    if not name.endswith(".lock"):
        # What is no such file is left alone, and nothing is read from it.
        assert os.path.samestat(os.lstat(place), before)


@pytest.mark.parametrize("name", ["subscriptions", "dovecot-keywords"])
def test_a_huge_control_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "user").mkdir()
    with (tmp_path / "user" / name).open("wb") as file:
        file.truncate(1 << 40)
    with opened(tmp_path, folders=_OPTIONS) as store:
        places = [
            Destination(PurePath("user"), "INBOX", "S", ("Junk",)),
            Destination(PurePath("user"), "a"),
        ]
        assert codes(deliver(store, _SMALL, places)) == [250, 250]
    assert (tmp_path / "user" / name).stat().st_size == 1 << 40
    (message,) = (tmp_path / "user" / "cur").iterdir()
    assert message.name.endswith(":2,Sa" if name == "subscriptions" else ":2,S")
