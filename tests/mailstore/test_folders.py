"""Folders, flags and keywords, read back from disk."""

import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path, PurePath

import pytest

from lmtp_proto import Reply
from mailstore import Destination, FolderOptions, LineEnding, NameEncoding, Sync
from tests.mailstore.support import (
    codes,
    deliver,
    files_below,
    mail_in,
    opened,
    without_trace,
)

_SMALL = b"Subject: x\r\n\r\nbody\r\n"
_LARGE = b"Subject: large\r\n\r\n" + b"0123456789 \r\n" * 30_000
_MAKE = FolderOptions(autocreate=True)
_SUBSCRIBE = FolderOptions(autocreate=True, autosubscribe=True)


def _to(mailbox: str = "INBOX", flags: str = "", keywords: Iterable[str] = ()) -> Destination:
    return Destination(PurePath("user"), mailbox, flags, tuple(keywords))


def _names(directory: Path) -> list[str]:
    """What follows the sizes in the names of the messages."""
    names = [path.name for path in directory.iterdir()]
    assert all(",W=" in name for name in names)
    return sorted(name.partition(":")[2] for name in names)


@pytest.mark.parametrize("sync", Sync)
@pytest.mark.parametrize("content", [_SMALL, _LARGE])
def test_a_folder_is_made(tmp_path: Path, sync: Sync, content: bytes) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with opened(tmp_path, sync=sync, folders=_MAKE) as store:
        for _ in range(2):
            (reply,) = deliver(store, content, [_to("Entw\xfcrfe.2030")])
            assert reply == Reply(250, "<r0@example.org> ID1 Saved", enhanced="2.0.0")
        folder = tmp_path / "user" / ".Entw&APw-rfe.2030"
        assert [without_trace(message) for message in mail_in(folder)] == [
            content.replace(b"\r\n", b"\n")
        ] * 2
        assert (folder / "maildirfolder").read_bytes() == b""
        assert sorted(os.listdir(folder)) == ["cur", "maildirfolder", "new", "tmp"]
        # The Maildir around it is whole, and nobody asked for a subscription.
        assert sorted(os.listdir(tmp_path / "user")) == [folder.name, "cur", "new", "tmp"]
        assert os.listdir(folder / "tmp") == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_names_in_utf_8_and_another_separator(tmp_path: Path) -> None:
    options = FolderOptions(autocreate=True, separator="/", encoding=NameEncoding.UTF_8)
    with opened(tmp_path, folders=options) as store:
        assert codes(deliver(store, _SMALL, [_to("Entw\xfcrfe/a&b")])) == [250]
    assert len(mail_in(tmp_path / "user" / ".Entw\xfcrfe.a&b")) == 1


@pytest.mark.parametrize("separator", ["", "ab", "\n", "\xe9"])
def test_a_separator_that_is_none(separator: str) -> None:
    with pytest.raises(ValueError, match="separator"):
        FolderOptions(separator=separator)


@pytest.mark.parametrize("content", [_SMALL, _LARGE])
@pytest.mark.parametrize(
    ("mailbox", "autocreate"),
    [
        ("missing", False),
        *((name, True) for name in ("..", "../other", "a/b", ".x", "~root", "a..b", "x" * 300)),
        ("con\ttrol", True),
    ],
)
def test_the_inbox_gets_what_no_mailbox_can(
    tmp_path: Path, mailbox: str, autocreate: bool, content: bytes
) -> None:
    with opened(tmp_path, folders=FolderOptions(autocreate=autocreate)) as store:
        assert codes(deliver(store, content, [_to(mailbox)])) == [250]
    assert len(mail_in(tmp_path / "user")) == 1
    assert os.listdir(tmp_path) == ["user"]
    assert sorted(os.listdir(tmp_path / "user")) == ["cur", "new", "tmp"]


@pytest.mark.parametrize("content", [_SMALL, _LARGE])
@pytest.mark.parametrize("mailbox", ["missing", "../other"])
def test_it_can_be_refused_instead(tmp_path: Path, mailbox: str, content: bytes) -> None:
    options = FolderOptions(refuse_missing=True)
    with opened(tmp_path, folders=options) as store:
        refused, saved = deliver(store, content, [_to(mailbox), _to()])
    assert (refused.code, refused.enhanced) == (550, "5.1.1")
    assert refused.text.startswith(f"<r0@example.org> there is no mailbox '{mailbox}'")
    assert saved.code == 250
    assert len(mail_in(tmp_path / "user")) == 1


def test_a_name_too_long_for_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.stat

    def stat(path: str, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> object:
        # As encrypting file systems have it.
        return real(
            path if len(path) < 140 else "x" * 300, dir_fd=dir_fd, follow_symlinks=follow_symlinks
        )

    with opened(tmp_path, folders=_MAKE) as store:
        monkeypatch.setattr(os, "stat", stat)
        assert codes(deliver(store, _SMALL, [_to("x" * 150)])) == [250]
    assert len(mail_in(tmp_path / "user")) == 1


def test_a_folder_that_is_there_needs_no_option(tmp_path: Path) -> None:
    # Its directories may be missing, as Dovecot has it; a name that is not made may be used.
    (tmp_path / "user" / ".con&AAk-trol").mkdir(parents=True)
    with opened(tmp_path) as store:
        assert codes(deliver(store, _SMALL, [_to("con\ttrol")])) == [250]
    assert len(mail_in(tmp_path / "user" / ".con&AAk-trol")) == 1


def test_a_folder_that_was_deleted_is_made_again(tmp_path: Path) -> None:
    with opened(tmp_path, folders=_MAKE) as store:
        deliver(store, _SMALL, [_to("a")])
        (tmp_path / "user" / ".a").rename(tmp_path / "gone")
        assert codes(deliver(store, _SMALL, [_to("a")])) == [250]
    assert len(mail_in(tmp_path / "user" / ".a")) == 1


def test_one_destination_has_one_copy(tmp_path: Path) -> None:
    places: list[PurePath | Destination] = [
        _to("a"),
        _to("A"),
        _to("a"),
        _to("a", "S"),
        _to("inbox"),
        PurePath("user"),
    ]
    with opened(tmp_path, folders=_MAKE) as store:
        assert codes(deliver(store, _SMALL, places)) == [250] * 6
    maildir = tmp_path / "user"
    assert len(mail_in(maildir)) == 1
    assert len(mail_in(maildir / ".a")) == 1
    assert len(mail_in(maildir / ".A")) == 1
    assert _names(maildir / ".a" / "cur") == ["2,S"]


@pytest.mark.parametrize("sync", Sync)
@pytest.mark.parametrize("content", [_SMALL, _LARGE])
@pytest.mark.parametrize("line_ending", LineEnding)
def test_flags(tmp_path: Path, sync: Sync, content: bytes, line_ending: LineEnding) -> None:
    with opened(tmp_path, sync=sync, line_ending=line_ending, folders=_MAKE) as store:
        for mailbox in ("INBOX", "a"):
            assert codes(deliver(store, content, [_to(mailbox, "SFR")])) == [250]
    for folder in (tmp_path / "user", tmp_path / "user" / ".a"):
        assert mail_in(folder) == []
        (path,) = (folder / "cur").iterdir()
        assert path.name.endswith(":2,FRS")
        assert f",S={path.stat().st_size},W=" in path.name
        assert os.listdir(folder / "tmp") == []


@pytest.mark.parametrize(
    ("flags", "keywords"), [("X", ()), ("s", ()), ("", ("a b",)), ("", ("",)), ("", ("x" * 51,))]
)
def test_what_is_no_flag(flags: str, keywords: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"no flags|no keyword"):
        Destination(PurePath("user"), flags=flags, keywords=keywords)


def test_keywords(tmp_path: Path) -> None:
    maildir = tmp_path / "user"
    with opened(tmp_path, folders=_MAKE) as store:
        assert codes(deliver(store, _SMALL, [_to("a", "", ["Junk", "$Label1"])])) == [250]
        # Dovecot reads the file again only when the second of its modification is a later one.
        later = int(time.time()) + 60
        os.utime(maildir / ".a" / "dovecot-keywords", (later, later))
        assert codes(deliver(store, _LARGE, [_to("a", "S", ["new", "JUNK"])])) == [250]
        assert codes(deliver(store, _SMALL, [_to("a", "", ["$label1"])])) == [250]
        assert codes(deliver(store, _SMALL, [_to("INBOX", "", ["new"])])) == [250]
    folder = maildir / ".a"
    assert (folder / "dovecot-keywords").read_bytes() == b"0 Junk\n1 $Label1\n2 new\n"
    assert int((folder / "dovecot-keywords").stat().st_mtime) == later + 1
    assert _names(folder / "cur") == ["2,Sac", "2,ab", "2,b"]
    assert (maildir / "dovecot-keywords").read_bytes() == b"0 new\n"
    assert sorted(os.listdir(folder)) == ["cur", "dovecot-keywords", "maildirfolder", "new", "tmp"]


def test_when_no_letter_is_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "user").mkdir()
    known = b"".join(b"%d k%d\n" % (number, number) for number in range(26))
    (tmp_path / "user" / "dovecot-keywords").write_bytes(known)
    with opened(tmp_path) as store:
        assert codes(deliver(store, _SMALL, [_to("INBOX", "", ["new", "k3"])])) == [250]
        assert codes(deliver(store, _SMALL, [_to("INBOX", "", ["new"])])) == [250]
    assert "'new'" in caplog.text
    assert _names(tmp_path / "user" / "cur") == ["2,d"]
    assert len(mail_in(tmp_path / "user")) == 1
    assert (tmp_path / "user" / "dovecot-keywords").read_bytes() == known


def test_subscriptions(tmp_path: Path) -> None:
    with opened(tmp_path, folders=_SUBSCRIBE) as store:
        for mailbox in ("a.\xfc", "b", "a.\xfc", "INBOX"):
            assert codes(deliver(store, _SMALL, [_to(mailbox)])) == [250]
    assert (tmp_path / "user" / "subscriptions").read_bytes() == b"V\t2\n\na\t&APw-\nb\n"


def test_a_folder_that_was_there_is_not_subscribed_to(tmp_path: Path) -> None:
    (tmp_path / "user" / ".a").mkdir(parents=True)
    with opened(tmp_path, folders=_SUBSCRIBE) as store:
        assert codes(deliver(store, _SMALL, [_to("a")])) == [250]
    assert not (tmp_path / "user" / "subscriptions").exists()


def test_many_make_the_same_and_other_folders(tmp_path: Path) -> None:
    replies: list[Reply] = []

    def run(number: int) -> None:
        for count in range(10):
            places = [_to(f"f{count}", "", [f"k{number}"]), _to(f"own{number}.{count}")]
            replies.extend(deliver(store, _SMALL, places))

    # Two stores, as two processes have them.
    with (
        opened(tmp_path, sync=Sync.NEVER, folders=_SUBSCRIBE) as store,
        opened(tmp_path, sync=Sync.NEVER, folders=_SUBSCRIBE) as other,
    ):
        threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for count in range(10):
            replies.extend(deliver(other, _SMALL, [_to(f"f{count}", "", ["other"])]))
        for thread in threads:
            thread.join()
    assert set(codes(replies)) == {250}
    subscribed = (tmp_path / "user" / "subscriptions").read_bytes().split(b"\n")[2:-1]
    assert sorted(subscribed) == sorted(
        [b"f%d" % count for count in range(10)]
        + [b"own%d\t%d" % (number, count) for number in range(4) for count in range(10)]
    )
    for count in range(10):
        folder = tmp_path / "user" / f".f{count}"
        lines = (folder / "dovecot-keywords").read_text().splitlines()
        assert [line.split()[0] for line in lines] == list("01234")
        assert sorted(line.split()[1] for line in lines) == ["k0", "k1", "k2", "k3", "other"]
        # Each message has the letter of its own keyword.
        assert _names(folder / "cur") == [f"2,{letter}" for letter in "abcde"]
    assert [path for path in files_below(tmp_path) if path.endswith(".lock")] == []


def test_the_lock_of_a_dead_process_is_taken(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    (tmp_path / "user").mkdir()
    lock = tmp_path / "user" / "dovecot-uidlist.lock"
    lock.write_text(f"{child}:{os.uname().nodename}")
    with opened(tmp_path) as store:
        assert codes(deliver(store, _SMALL, [_to("INBOX", "", ["Junk"])])) == [250]
    assert not lock.exists()
    assert (tmp_path / "user" / "dovecot-keywords").read_bytes() == b"0 Junk\n"


@pytest.mark.parametrize("owner", [f"{os.getppid()}:{os.uname().nodename}", "1:elsewhere", ""])
def test_the_lock_of_a_living_process_is_not(tmp_path: Path, owner: str) -> None:
    options = FolderOptions(autocreate=True, autosubscribe=True, lock_timeout=0)
    (tmp_path / "user").mkdir()
    for name in ("subscriptions", "dovecot-uidlist"):
        (tmp_path / "user" / f"{name}.lock").write_text(owner)
    with opened(tmp_path, folders=options) as store:
        # Without its subscription a folder is of use; keywords that are known need no lock.
        assert codes(deliver(store, _SMALL, [_to("a")])) == [250]
        (tmp_path / "user" / "dovecot-keywords").write_bytes(b"0 known\n")
        replies = deliver(
            store, _SMALL, [_to("INBOX", "", ["known"]), _to("INBOX", "", ["new"]), _to()]
        )
    assert codes(replies) == [250, 451, 250]
    for name in ("subscriptions", "dovecot-uidlist"):
        assert (tmp_path / "user" / f"{name}.lock").read_text() == owner
    assert not (tmp_path / "user" / "subscriptions").exists()


def test_locks_grow_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = FolderOptions(autocreate=True, autosubscribe=True, lock_timeout=0)
    (tmp_path / "user").mkdir()
    for name in ("subscriptions", "dovecot-uidlist", "dovecot-keywords"):
        (tmp_path / "user" / f"{name}.lock").write_text("")
    later = time.time() + 121
    with opened(tmp_path, folders=options) as store:
        monkeypatch.setattr(time, "time", lambda: later)
        assert codes(deliver(store, _SMALL, [_to("a"), _to("INBOX", "", ["Junk"])])) == [250, 250]
    assert (tmp_path / "user" / "subscriptions").read_bytes() == b"V\t2\n\na\n"
    assert (tmp_path / "user" / "dovecot-keywords").read_bytes() == b"0 Junk\n"
    assert [path for path in files_below(tmp_path) if path.endswith(".lock")] == []
