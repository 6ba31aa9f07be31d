"""Folders, and Maildirs of large messages, stay open between deliveries."""

import errno
import os
import threading
from pathlib import Path, PurePath

import pytest

from mailstore import Destination, FolderOptions
from tests.mailstore.support import codes, deliver, files_below, mail_in, opened

_SMALL = b"Subject: x\r\n\r\nbody\r\n"
_LARGE = b"Subject: large\r\n\r\n" + b"0123456789 \r\n" * 30_000
_MAKE = FolderOptions(autocreate=True)
_LISTS = Destination(PurePath("user"), "Lists")
_FLAGGED = Destination(PurePath("user"), "Lists", flags="F")
_CONTENTS = [pytest.param(_SMALL, id="small"), pytest.param(_LARGE, id="large")]


@pytest.mark.parametrize("content", _CONTENTS)
@pytest.mark.parametrize("place", [_LISTS, _FLAGGED], ids=["new", "cur"])
def test_a_known_folder_is_not_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, place: Destination
) -> None:
    opens: list[str] = []
    real = os.open

    def watched(path: str, flags: int, *args: int, **options: int) -> int:
        if flags & os.O_DIRECTORY and not flags & os.O_TMPFILE & ~os.O_DIRECTORY:
            opens.append(path)
        return real(path, flags, *args, **options)

    # Two recipients: a spool of their own directory would be one more.
    other = Destination(PurePath("other"), "Lists")
    with opened(tmp_path, folders=_MAKE) as store:
        assert codes(deliver(store, content, [place, other])) == [250, 250]
        monkeypatch.setattr(os, "open", watched)
        assert codes(deliver(store, content, [place, other])) == [250, 250]
    assert opens == []


@pytest.mark.parametrize("content", _CONTENTS)
@pytest.mark.parametrize("place", [_LISTS, _FLAGGED], ids=["new", "cur"])
def test_a_folder_that_is_gone_is_made_anew(
    tmp_path: Path, content: bytes, place: Destination
) -> None:
    folder = tmp_path / "user" / ".Lists"
    with opened(tmp_path, folders=_MAKE) as store:
        assert codes(deliver(store, content, [place])) == [250]
        folder.rename(tmp_path / "moved")
        assert codes(deliver(store, content, [place])) == [250]
    for where in (folder, tmp_path / "moved"):
        assert len([path for path in files_below(where) if ",S=" in path]) == 1
    assert (folder / "maildirfolder").exists()


@pytest.mark.parametrize("content", _CONTENTS)
@pytest.mark.parametrize("name", ["", "tmp", "new"])
def test_a_link_in_the_place_of_a_known_folder(tmp_path: Path, content: bytes, name: str) -> None:
    outside = tmp_path / "outside"
    with opened(tmp_path, folders=_MAKE) as store:
        assert codes(deliver(store, content, [_LISTS])) == [250]
        target = tmp_path / "user" / ".Lists" / name
        target.rename(outside)
        target.symlink_to(outside)
        before = len(files_below(outside))
        # A way to the very directories that are open is as good as any.
        expected = 451 if name else 250
        assert codes(deliver(store, content, [_LISTS])) == [expected]
        assert len(files_below(outside)) == before + (expected == 250)


@pytest.mark.parametrize("content", _CONTENTS)
def test_without_the_folder_the_inbox_gets_the_mail(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "user" / ".Lists").mkdir(parents=True)
    with opened(tmp_path) as store:
        assert codes(deliver(store, content, [_LISTS])) == [250]
        (tmp_path / "user" / ".Lists").rename(tmp_path / "moved")
        for _ in range(2):
            assert codes(deliver(store, content, [_LISTS])) == [250]
    assert len(mail_in(tmp_path / "moved")) == 1
    assert len(mail_in(tmp_path / "user")) == 2


def test_what_failed_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[int, int]] = []
    real = os.fsync

    def fail_once(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if path.endswith("/.Lists/new"):
            synced.append((descriptor, os.lseek(descriptor, 0, os.SEEK_CUR)))
            os.lseek(descriptor, len(synced), os.SEEK_SET)
            if len(synced) == 1:
                raise OSError(errno.EIO, "I/O error")
        real(descriptor)

    (tmp_path / "user" / ".Lists").mkdir(parents=True)
    with opened(tmp_path) as store:
        monkeypatch.setattr(os, "fsync", fail_once)
        assert codes(deliver(store, _SMALL, [_LISTS])) == [451]
        assert codes(deliver(store, _SMALL, [_LISTS])) == [250]
    # The position tells one opening of the directory from the other.
    assert [position for _, position in synced] == [0, 0]


def test_many_folders_and_threads(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    failures: list[int] = []
    with opened(tmp_path, folders=_MAKE) as store:

        def run() -> None:
            for number in range(90):
                place = Destination(PurePath("user"), f"f{number}")
                failures.extend(
                    code for code in codes(deliver(store, _SMALL, [place])) if code != 250
                )

        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # Two for each that is kept open, and those of the store.
        assert len(os.listdir("/proc/self/fd")) - before < 2 * 64 + 10
    assert failures == []
    assert len(list((tmp_path / "user").glob(".f*/new/*"))) == 180
    assert len(os.listdir("/proc/self/fd")) == before
