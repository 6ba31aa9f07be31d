"""Identical copies as one file, and the copies of their own where that cannot be."""

import errno
import os
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Any

import pytest

from lmtp_proto import Reply
from mailstore import (
    DeliveredTo,
    Destination,
    FolderOptions,
    MaildirQuotas,
    MaildirStore,
    QuotaPolicy,
    Sync,
    TraceOptions,
)
from tests.mailstore.support import (
    answers,
    codes,
    deliver,
    envelope,
    files_below,
    fill,
    mail_in,
    opened,
    without_trace,
)

_SMALL = b"Subject: small\r\n\r\nbody\r\n"
_LARGE = b"Subject: large\r\n\r\n" + b"0123456789\r\n" * 30_000
_CONTENTS = [pytest.param(_SMALL, id="small"), pytest.param(_LARGE, id="large")]
_SAME = TraceOptions(delivered_to=DeliveredTo.NONE)
_USERS = ("a", "b", "c", "d")
_MAKE = FolderOptions(autocreate=True)


@pytest.fixture(name="store", params=[Sync.OPTIMIZED, Sync.SYNCFS, Sync.NEVER])
def _store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MaildirStore]:
    before = len(os.listdir("/proc/self/fd"))
    with opened(tmp_path, sync=request.param, trace=_SAME, hard_links=True, folders=_MAKE) as store:
        yield store
    assert len(os.listdir("/proc/self/fd")) == before


def _messages(root: Path) -> dict[str, os.stat_result]:
    """The status of the one message of each Maildir, wherever in it that is; all are whole."""
    found: dict[str, os.stat_result] = {}
    for path in root.glob("**/*,S=*"):
        maildir = str(path.parent.parent.relative_to(root))
        assert maildir not in found
        assert path.parent.name in {"new", "cur"}
        found[maildir] = path.stat()
        assert f",S={found[maildir].st_size}," in path.name
    return found


def _links(root: Path) -> list[set[str]]:
    """The Maildirs whose messages are one file, sorted."""
    files: dict[int, set[str]] = {}
    for maildir, status in _messages(root).items():
        files.setdefault(status.st_ino, set()).add(maildir)
    for status in _messages(root).values():
        assert status.st_nlink == len(files[status.st_ino])
    return sorted(files.values(), key=sorted)


def _is_whole(message: bytes, content: bytes) -> bool:
    return without_trace(message) == content.replace(b"\r\n", b"\n")


@pytest.mark.parametrize("content", _CONTENTS)
def test_identical_copies_are_one_file(tmp_path: Path, store: MaildirStore, content: bytes) -> None:
    places: list[str | PurePath | Destination] = [
        *_USERS,
        Destination(PurePath("e"), "Lists"),
        Destination(PurePath("f"), "Lists", flags="S"),
    ]
    assert codes(deliver(store, content, places)) == [250] * 6
    assert _links(tmp_path) == [{*_USERS, "e/.Lists", "f/.Lists"}]
    assert len({path.name for path in tmp_path.glob("**/*,S=*")}) == 6
    assert all(_is_whole(path.read_bytes(), content) for path in tmp_path.glob("**/*,S=*"))
    assert list(tmp_path.glob("**/tmp/*")) == []


@pytest.mark.parametrize("content", _CONTENTS)
def test_not_without_the_option(tmp_path: Path, content: bytes) -> None:
    with opened(tmp_path, trace=_SAME) as store:
        assert codes(deliver(store, content, _USERS)) == [250] * 4
    assert _links(tmp_path) == [{user} for user in _USERS]


@pytest.mark.parametrize("content", _CONTENTS)
def test_not_where_the_headers_differ(tmp_path: Path, content: bytes) -> None:
    with opened(tmp_path, hard_links=True) as store:
        assert codes(deliver(store, content, _USERS)) == [250] * 4
    assert _links(tmp_path) == [{user} for user in _USERS]
    for number, user in enumerate(_USERS):
        (message,) = mail_in(tmp_path / user)
        assert message.split(b"\n")[1] == b"Delivered-To: r%d@example.org" % number


@pytest.mark.parametrize("content", _CONTENTS)
def test_not_two_messages(tmp_path: Path, store: MaildirStore, content: bytes) -> None:
    for number in range(2):
        deliver(store, content, [f"{number}{user}" for user in "ab"])
    assert _links(tmp_path) == [{"0a", "0b"}, {"1a", "1b"}]


@pytest.mark.parametrize("content", _CONTENTS)
def test_only_among_the_same_modes(tmp_path: Path, store: MaildirStore, content: bytes) -> None:
    for user, mode in {"b": 0o750, "c": 0o770, "d": 0o770, "e": 0o750}.items():
        (tmp_path / user).mkdir()
        (tmp_path / user).chmod(mode)
    assert codes(deliver(store, content, [*_USERS, "e", "f"])) == [250] * 6
    # Whoever may write to a file would change all of them.
    assert _links(tmp_path) == [{"a", "f"}, {"b"}, {"c"}, {"d"}, {"e"}]
    modes = {user: stat.S_IMODE(each.st_mode) for user, each in _messages(tmp_path).items()}
    assert modes == {"a": 0o600, "b": 0o640, "c": 0o660, "d": 0o660, "e": 0o640, "f": 0o600}


@pytest.mark.parametrize("content", _CONTENTS)
def test_only_among_the_same_groups(tmp_path: Path, store: MaildirStore, content: bytes) -> None:
    deliver(store, b"first", _USERS)
    for path in tmp_path.glob("*/new/*"):
        path.unlink()
    try:
        for path in (tmp_path / "b" / "tmp", tmp_path / "d" / "tmp"):
            os.chown(path, -1, os.getegid() + 4711)
            path.chmod(0o2700)
    except PermissionError:
        pytest.skip("only root may give directories to any group")
    assert codes(deliver(store, content, _USERS)) == [250] * 4
    groups = {user: each.st_gid for user, each in _messages(tmp_path).items()}
    own, other = os.getegid(), os.getegid() + 4711
    assert groups == {"a": own, "b": other, "c": own, "d": other}
    assert _links(tmp_path) == [{"a", "c"}, {"b"}, {"d"}]


@pytest.mark.parametrize("content", _CONTENTS)
def test_one_after_the_other(tmp_path: Path, store: MaildirStore, content: bytes) -> None:
    """Recipients with quotas are delivered to by jobs: here, none is begun before one is over."""
    quotas = MaildirQuotas(tmp_path)
    policy = QuotaPolicy.parse("*:messages=1")
    places = dict(zip(_USERS, map(PurePath, _USERS), strict=True))
    transaction = envelope(*(f"{user}@example.org" for user in _USERS))
    by_recipient = dict(zip(transaction.recipients, places.values(), strict=True))
    bounded = {recipient: quotas.of(place, policy) for recipient, place in by_recipient.items()}
    deliver(store, b"full", ["b"])
    full = _messages(tmp_path)["b"]
    sink = store.open(transaction, by_recipient, bounded)
    fill(sink, [content])
    replies = answers(sink, transaction)
    sink.close()
    quotas.close()
    assert codes(replies) == [250, 552, 250, 250]
    assert _links(tmp_path) == [{"a", "c", "d"}, {"b"}]
    assert _messages(tmp_path)["b"].st_ino == full.st_ino


Fail = Callable[..., bool]


def _failing(monkeypatch: pytest.MonkeyPatch, name: str, number: int, when: Fail) -> list[object]:
    real = getattr(os, name)
    failed: list[object] = []

    def call(*args: Any, **options: Any) -> object:
        if not when(*args, **options):
            return real(*args, **options)
        failed.append(args)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, name, call)
    return failed


def _path_of(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")


def _links_open_file(source: str, _target: str, *, dst_dir_fd: int, **_options: object) -> bool:
    return source.startswith("/proc/") and "/b/" in _path_of(dst_dir_fd)


@pytest.mark.parametrize("content", _CONTENTS)
@pytest.mark.parametrize("number", [errno.EXDEV, errno.EMLINK, errno.EPERM, errno.ENOENT])
def test_a_copy_where_there_can_be_no_link(
    tmp_path: Path,
    store: MaildirStore,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    number: int,
) -> None:
    failed = _failing(monkeypatch, "link", number, _links_open_file)
    assert codes(deliver(store, content, _USERS)) == [250] * 4
    assert len(failed) == 1
    assert _links(tmp_path) == [{"a", "c", "d"}, {"b"}]
    (message,) = mail_in(tmp_path / "b")
    assert _is_whole(message, content)
    assert list(tmp_path.glob("**/tmp/*")) == []


@pytest.mark.parametrize("content", _CONTENTS)
def test_a_link_that_fails_is_the_fault_of_one(
    tmp_path: Path, store: MaildirStore, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    _failing(monkeypatch, "link", errno.ENOSPC, _links_open_file)
    assert codes(deliver(store, content, _USERS)) == [250, 452, 250, 250]
    assert _links(tmp_path) == [{"a", "c", "d"}]
    assert all("/new/" in path for path in files_below(tmp_path))


def _is_first(descriptor: int) -> bool:
    return "/a/tmp/" in _path_of(descriptor)


def _is_new_of_first(descriptor: int) -> bool:
    return _path_of(descriptor).endswith("/a/new")


def _creates_first(_name: str, flags: int, *_mode: int, dir_fd: int | None = None) -> bool:
    is_new = flags & os.O_CREAT or flags & os.O_TMPFILE == os.O_TMPFILE
    return bool(is_new) and dir_fd is not None and "/a/tmp" in _path_of(dir_fd)


def _publishes_first(_source: str, _target: str, *, dst_dir_fd: int, **_options: object) -> bool:
    return _path_of(dst_dir_fd).endswith("/a/new")


@pytest.mark.parametrize("content", _CONTENTS)
@pytest.mark.parametrize(
    ("name", "when"),
    [
        ("open", _creates_first),
        ("fsync", _is_first),
        ("link", _publishes_first),
        ("fsync", _is_new_of_first),
    ],
    ids=["create", "sync", "publish", "sync new/"],
)
def test_the_first_copy_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, name: str, when: Fail
) -> None:
    with opened(tmp_path, trace=_SAME, hard_links=True) as store:
        with monkeypatch.context() as patch:
            failed = _failing(patch, name, errno.EIO, when)
            assert codes(deliver(store, content, _USERS)) == [451, 250, 250, 250]
        assert len(failed) == 1
        assert all("/new/" in path for path in files_below(tmp_path))
        assert {name for names in _links(tmp_path) for name in names} == {"b", "c", "d"}
        for user in ("b", "c", "d"):
            (message,) = mail_in(tmp_path / user)
            assert _is_whole(message, content)
        assert codes(deliver(store, content, ["a"])) == [250]


@pytest.mark.parametrize("content", _CONTENTS)
def test_the_first_copy_is_gone_before_the_others_are_there(
    tmp_path: Path, store: MaildirStore, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    real = os.link

    def link_and_lose(source: str, target: str, **options: Any) -> None:
        real(source, target, **options)
        for path in (tmp_path / "a" / "new").iterdir():
            path.unlink()
            # Nothing of what its owner puts there instead gets into other people's mail.
            path.with_name("forged").write_text("forged")

    monkeypatch.setattr(os, "link", link_and_lose)
    assert codes(deliver(store, content, _USERS)) == [250] * 4
    for user in ("b", "c", "d"):
        (message,) = mail_in(tmp_path / user)
        assert _is_whole(message, content)


def test_none_that_cannot_be_told_apart_by_their_owners(
    tmp_path: Path, store: MaildirStore
) -> None:
    """An access list for new files is part of who may do what."""
    (tmp_path / "b" / "tmp").mkdir(parents=True)
    # POSIX ACL, version 2: user, user 4711, group, mask and others.
    entries = [(1, 6, -1), (2, 4, 4711), (4, 0, -1), (16, 4, -1), (32, 0, -1)]
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(tmp_path / "b" / "tmp", "system.posix_acl_default", packed)
    except OSError as error:
        pytest.skip(f"no access lists here: {error}")
    assert codes(deliver(store, _SMALL, _USERS)) == [250] * 4
    assert _links(tmp_path) == [{"a", "c", "d"}, {"b"}]


def test_recipients_of_one_place_share_one_copy(tmp_path: Path, store: MaildirStore) -> None:
    replies: list[Reply] = deliver(store, _SMALL, ["a", "b", "a"])
    assert codes(replies) == [250] * 3
    assert _links(tmp_path) == [{"a", "b"}]
