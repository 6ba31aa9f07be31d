"""Modes and groups of what is made, and old files in tmp/."""

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path, PurePath

import pytest

from mailstore import Destination, FolderOptions
from tests.mailstore.support import codes, deliver, files_below, mail_in, opened

_SMALL = b"Subject: x\r\n\r\nbody\r\n"
_LARGE = b"Subject: large\r\n\r\n" + b"0123456789 \r\n" * 30_000
_MAKE = FolderOptions(autocreate=True, autosubscribe=True)

_GROUP = os.getegid() + 4711


@pytest.fixture(params=[0o022, 0o077, 0], ids="umask {:03o}".format)
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def _modes(root: Path) -> dict[str, int]:
    """Modes by path; messages are called `message`."""
    found = {}
    for path in root.rglob("*"):
        name = path.name if ",S=" not in path.name else "message"
        status = path.lstat()
        found[str(path.relative_to(root).with_name(name))] = stat.S_IMODE(status.st_mode)
    return found


def _to(mailbox: str, keywords: tuple[str, ...] = ()) -> Destination:
    return Destination(PurePath("user"), mailbox, "", keywords)


# What Dovecot 2.3 makes in such Maildirs.
@pytest.mark.usefixtures("_umask")
@pytest.mark.parametrize(
    ("mode", "directory", "file"),
    [
        (0o700, 0o700, 0o600),
        (0o770, 0o770, 0o660),
        (0o755, 0o755, 0o644),
        (0o750, 0o750, 0o640),
        (0o711, 0o711, 0o600),
        (0o2770, 0o2770, 0o660),
        (0o2700, 0o2700, 0o600),
        (0o777, 0o777, 0o666),
    ],
)
@pytest.mark.parametrize("content", [_SMALL, _LARGE])
def test_modes_are_those_of_the_maildir(
    tmp_path: Path, mode: int, directory: int, file: int, content: bytes
) -> None:
    maildir = tmp_path / "user"
    maildir.mkdir()
    maildir.chmod(mode)
    with opened(tmp_path, folders=_MAKE) as store:
        # One by one: who finds a folder while another makes it takes it as it is at that moment.
        for place in (_to("INBOX"), _to("a.b"), _to("a.b", ("Junk",))):
            assert codes(deliver(store, content, [place])) == [250]
    modes = _modes(maildir)
    for name in ("cur", "new", "tmp", ".a.b", ".a.b/cur", ".a.b/new", ".a.b/tmp"):
        assert modes.pop(name) == directory, name
    assert set(modes) == {
        *("new/message", "subscriptions", ".a.b/new/message", ".a.b/cur/message"),
        *(".a.b/maildirfolder", ".a.b/dovecot-keywords"),
    }
    assert set(modes.values()) == {file}


@pytest.mark.usefixtures("_umask")
def test_what_is_above_a_maildir_is_its_owners(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with opened(tmp_path) as store:
        assert codes(deliver(store, _SMALL, ["d/u"])) == [250]
    assert {mode for path, mode in _modes(tmp_path).items() if "message" not in path} == {0o700}
    assert _modes(tmp_path)["d/u/new/message"] == 0o600


def test_modes_are_those_of_the_nearest_mailbox_above(tmp_path: Path) -> None:
    maildir = tmp_path / "user"
    (maildir / ".a").mkdir(parents=True)
    maildir.chmod(0o700)
    (maildir / ".a").chmod(0o750)
    # No mailbox, and nothing to take a mode from.
    (maildir / ".a.b").symlink_to("/")
    with opened(tmp_path, folders=_MAKE) as store:
        assert codes(deliver(store, _SMALL, [_to("a.b.c"), _to("b.c")])) == [250, 250]
    modes = _modes(maildir)
    assert (modes[".a.b.c"], modes[".a.b.c/new/message"]) == (0o750, 0o640)
    assert (modes[".b.c"], modes[".b.c/new/message"]) == (0o700, 0o600)
    assert modes["subscriptions"] == 0o600


def test_a_shared_maildir_has_shared_folders(tmp_path: Path) -> None:
    maildir = tmp_path / "user"
    maildir.mkdir()
    maildir.chmod(0o770)
    # Its own mode does not count.
    (maildir / "dovecot-shared").touch(mode=0o600)
    with opened(tmp_path, folders=_MAKE) as store:
        assert codes(deliver(store, _SMALL, [_to("a")])) == [250]
    assert _modes(maildir)[".a/dovecot-shared"] == 0o660


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to any group")
@pytest.mark.parametrize(
    ("mode", "given"),
    [(0o770, True), (0o750, True), (0o2770, True), (0o755, False), (0o700, False)],
)
@pytest.mark.parametrize("content", [_SMALL, _LARGE])
def test_the_group_of_the_maildir(tmp_path: Path, mode: int, given: bool, content: bytes) -> None:
    maildir = tmp_path / "user"
    maildir.mkdir()
    os.chown(maildir, -1, _GROUP)
    maildir.chmod(mode)
    with opened(tmp_path, folders=_MAKE) as store:
        places = [_to("INBOX"), _to("a"), _to("a", ("Junk",))]
        assert codes(deliver(store, content, places)) == [250] * 3
    groups = {path.lstat().st_gid for path in maildir.rglob("*")}
    assert groups == {_GROUP if given else os.getegid()}
    assert _modes(maildir)["new/message"] == mode & 0o666 | 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give directories to any group")
@pytest.mark.parametrize(
    ("mode", "directory", "file"), [(0o770, 0o700, 0o600), (0o775, 0o755, 0o644)]
)
@pytest.mark.parametrize("content", [_SMALL, _LARGE])
def test_a_group_that_cannot_be_given_has_no_rights(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: int,
    directory: int,
    file: int,
    content: bytes,
) -> None:
    def refuse(*_arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    maildir = tmp_path / "user"
    maildir.mkdir()
    os.chown(maildir, -1, _GROUP)
    maildir.chmod(mode)
    monkeypatch.setattr(os, "fchown", refuse)
    with opened(tmp_path, folders=_MAKE) as store:
        assert codes(deliver(store, content, [_to("INBOX"), _to("a")])) == [250, 250]
    modes = _modes(maildir)
    assert {modes[name] for name in ("new", ".a", ".a/new")} == {directory}
    assert {modes[name] for name in ("new/message", ".a/new/message", "subscriptions")} == {file}


def test_a_mode_that_cannot_be_set_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError(5, "I/O error")

    maildir = tmp_path / "user"
    for name in ("cur", "new", "tmp"):
        (maildir / name).mkdir(parents=True)
    maildir.chmod(0o777)
    before = len(os.listdir("/proc/self/fd"))
    with opened(tmp_path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fchmod", fail)
            for content in (_SMALL, _LARGE):
                assert codes(deliver(store, content)) == [451]
        assert files_below(tmp_path) == []
        assert codes(deliver(store, _SMALL)) == [250]
    assert len(os.listdir("/proc/self/fd")) == before


_HOUR = 3600.0


@pytest.mark.parametrize("mailbox", ["INBOX", "a"])
def test_old_files_in_tmp_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mailbox: str
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"stays")
    tmp = tmp_path / "user" / ("tmp" if mailbox == "INBOX" else ".a/tmp")
    with opened(tmp_path, folders=_MAKE) as store:
        deliver(store, _SMALL, [_to(mailbox)])
        (tmp / "directory").mkdir()
        (tmp / "link").symlink_to(outside)
        os.mkfifo(tmp / "fifo")
        for name in ("old", ".hidden", "read", "written"):
            (tmp / name).write_bytes(b"x")
        now = time.time()
        later = now + 8 * 24 * _HOUR
        # What happened to a file is not only its own times: who keeps dates sets these at once.
        os.utime(tmp / "old", (0, 0))
        os.utime(tmp / "read", (later - _HOUR, 0))
        os.utime(tmp / "written", (0, later - _HOUR))
        there = set(os.listdir(tmp))

        # It is not yet time.
        assert codes(deliver(store, _SMALL, [_to(mailbox)])) == [250]
        assert set(os.listdir(tmp)) == there

        monkeypatch.setattr(time, "time", lambda: later)
        assert codes(deliver(store, _SMALL, [_to(mailbox)])) == [250]
        assert set(os.listdir(tmp)) == {"directory", "read", "written"}
        assert outside.read_bytes() == b"stays"
        # For the next week nobody looks.
        assert int(tmp.stat().st_atime) == int(later)


def test_what_is_only_dated_back_stays(tmp_path: Path) -> None:
    tmp = tmp_path / "user" / "tmp"
    with opened(tmp_path) as store:
        deliver(store, _SMALL)
        (tmp / "in-work").write_bytes(b"x")
        # As who keeps the date of a message does it before the message is complete.
        os.utime(tmp / "in-work", (0, 0))
        long_ago = time.time() - 8 * 24 * _HOUR
        os.utime(tmp, (long_ago, long_ago))
        assert codes(deliver(store, _SMALL)) == [250]
        assert tmp.stat().st_atime > long_ago + _HOUR
    assert os.listdir(tmp) == ["in-work"]


def test_one_delivery_removes_not_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp = tmp_path / "user" / "tmp"
    with opened(tmp_path) as store:
        deliver(store, _SMALL)
        for number in range(600):
            (tmp / str(number)).touch()
        later = time.time() + 8 * 24 * _HOUR
        monkeypatch.setattr(time, "time", lambda: later)
        left: list[int] = []
        while not left or left[-1]:
            assert codes(deliver(store, _SMALL)) == [250]
            left.append(len(os.listdir(tmp)))
            assert len(left) <= 5
    assert left[0] > 300
    assert len(mail_in(tmp_path / "user")) == 1 + len(left)


def test_a_sweep_that_fails_fails_no_delivery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError(5, "I/O error")

    with opened(tmp_path) as store:
        deliver(store, _SMALL)
        later = time.time() + 8 * 24 * _HOUR
        monkeypatch.setattr(time, "time", lambda: later)
        monkeypatch.setattr(os, "scandir", fail)
        for _ in range(3):
            assert codes(deliver(store, _SMALL)) == [250]
    (record,) = caplog.records
    assert "cannot be swept" in record.getMessage()
