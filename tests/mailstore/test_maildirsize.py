"""`maildirsize` on disk: its format, what is believed, and owners who mean harm."""

import contextlib
import fcntl
import os
import re
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailstore import MaildirQuota, MaildirQuotas, QuotaExceeded, QuotaPolicy, Sync, Usage

_POLICY = QuotaPolicy.parse("*:bytes=10000:messages=100", grace="0")
_HEAD = b"10000S,100C\n"


def _maildir(root: Path, name: str = "user") -> Path:
    for part in ("cur", "new", "tmp"):
        (root / name / part).mkdir(parents=True)
    return root / name


def _mail(folder: Path, size: int, *, name: str | None = None, part: str = "new") -> None:
    (folder / part).mkdir(parents=True, exist_ok=True)
    count = len(os.listdir(folder / part))
    (folder / part / (name or f"{count}.x,S={size}")).write_bytes(b"x" * size)


@contextlib.contextmanager
def _quota(root: Path, policy: QuotaPolicy = _POLICY) -> Iterator[MaildirQuota]:
    quotas = MaildirQuotas(root)
    try:
        yield quotas.of(PurePath("user"), policy)
    finally:
        quotas.close()


def _usage(root: Path, policy: QuotaPolicy = _POLICY) -> Usage:
    with _quota(root, policy) as quota:
        return quota.usage()


@pytest.fixture
def maildir(tmp_path: Path) -> Path:
    """A Maildir with two messages, 300 octets in all."""
    path = _maildir(tmp_path)
    _mail(path, 100)
    _mail(path, 200, part="cur", name="1.x,S=200:2,S")
    return path


_COUNTED = Usage(300, 2)


@pytest.mark.parametrize(
    ("content", "usage"),
    [
        (_HEAD + b"5 1\n", Usage(5, 1)),
        (_HEAD + b"5 1\n7 1\n-2 -1\n", Usage(10, 1)),
        (_HEAD + b"5 1\n+7 +1\n", Usage(12, 2)),
        # As maildrop pads them.
        (_HEAD + b"            54            3\n", Usage(54, 3)),
        (b"100C,10000S\n5 1\n", Usage(5, 1)),
        (_HEAD + b"0 0\n" * 1277, Usage(0, 0)),
        # Counted anew: of other limits, cut off, not as it should be, too large.
        (b"20000S,100C\n5 1\n", _COUNTED),
        (b"10000S\n5 1\n", _COUNTED),
        (b"10000S,100C,7X\n5 1\n", _COUNTED),
        (b"junk\n5 1\n", _COUNTED),
        (b"", _COUNTED),
        (b"\n", _COUNTED),
        (_HEAD, _COUNTED),
        (_HEAD + b"5 1", _COUNTED),
        (_HEAD + b"5 1\n7", _COUNTED),
        (_HEAD + b"5 1\n\n", _COUNTED),
        (_HEAD + b"5 1\n7\n", _COUNTED),
        (_HEAD + b"5 1 1\n", _COUNTED),
        (_HEAD + b"5 x\n", _COUNTED),
        (_HEAD + b"5 1\0\n", _COUNTED),
        (_HEAD + b"0x5 1\n", _COUNTED),
        (_HEAD + b"5 1\r\n", _COUNTED),
        (_HEAD + "\u0665 1\n".encode(), _COUNTED),
        (_HEAD + b"-5 1\n", _COUNTED),
        (_HEAD + b"5 -1\n", _COUNTED),
        (_HEAD + b"9999999999999999999 1\n", _COUNTED),
        (_HEAD + b"99999999999999999999 1\n", _COUNTED),
        (_HEAD + b"9223372036854775807 1\n9223372036854775807 1\n", _COUNTED),
        (_HEAD + b"0 0\n" * 1278, _COUNTED),
        (b"x" * 1_000_000, _COUNTED),
        # Full, by more than one line.
        (_HEAD + b"10000 1\n1 1\n", _COUNTED),
        (_HEAD + b"5 99\n5 2\n", _COUNTED),
        # Full, and just counted.
        (_HEAD + b"10001 1\n", Usage(10001, 1)),
        (_HEAD + b"5 101\n", Usage(5, 101)),
    ],
)
def test_what_is_believed(tmp_path: Path, maildir: Path, content: bytes, usage: Usage) -> None:
    path = maildir / "maildirsize"
    path.write_bytes(content)
    assert _usage(tmp_path) == usage
    if usage == _COUNTED:
        assert path.read_bytes() == _HEAD + b"300 2\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert os.listdir(maildir / "tmp") == []
    else:
        assert path.read_bytes() == content


@pytest.mark.parametrize("age", [16 * 60, -16 * 60])
def test_an_old_file_is_believed_unless_it_is_full(tmp_path: Path, maildir: Path, age: int) -> None:
    path = maildir / "maildirsize"
    for content, usage in ((b"5 1\n", Usage(5, 1)), (b"10001 1\n", _COUNTED)):
        path.write_bytes(_HEAD + content)
        os.utime(path, (time.time() - age,) * 2)
        assert _usage(tmp_path) == usage


@pytest.mark.parametrize(
    ("rules", "first"),
    [
        (["*:bytes=5"], b"5S\n"),
        (["*:messages=5"], b"5C\n"),
        (["*:bytes=6:messages=5"], b"6S,5C\n"),
        ([], b"0S\n"),
    ],
)
def test_the_first_line_says_the_limits(
    tmp_path: Path, maildir: Path, rules: list[str], first: bytes
) -> None:
    policy = QuotaPolicy.parse(*rules)
    assert _usage(tmp_path, policy) == _COUNTED
    assert (maildir / "maildirsize").read_bytes() == first + b"300 2\n"
    # And is believed the next time.
    (maildir / "maildirsize").write_bytes(first + b"1 1\n")
    assert _usage(tmp_path, policy) == Usage(1, 1)


_GRAMMAR = re.compile(
    rb"[0-9]{1,19}[SC](,[0-9]{1,19}[SC])*\n( *[+-]?[0-9]{1,19} +[+-]?[0-9]{1,19} *\n)+"
)
_lines = st.lists(
    st.tuples(st.integers(-(10**20), 10**20), st.integers(-200, 10**20)).map(
        lambda pair: b"%d %d\n" % pair
    )
    | st.binary(max_size=8)
    | st.sampled_from([b"1 1\n", b"-1 -1\n", b" 7   1 \n", b"\n"]),
    max_size=6,
).map(b"".join)


@example(content=_HEAD + b"5000 50\n")
@given(content=st.binary(max_size=64) | _lines.map(lambda lines: _HEAD + lines))
def test_any_octets_are_believed_only_where_they_are_as_they_should_be(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    root = tmp_path_factory.mktemp("root")
    path = _maildir(root) / "maildirsize"
    path.write_bytes(content)
    # The Maildir is empty: anything else comes from the file.
    usage = _usage(root)
    assert usage.octets >= 0
    assert usage.messages >= 0
    if usage == Usage(0, 0):
        return
    assert path.read_bytes() == content
    assert _GRAMMAR.fullmatch(content)
    pairs = [line.split() for line in content.splitlines()[1:]]
    assert usage == Usage(sum(int(one) for one, _ in pairs), sum(int(two) for _, two in pairs))


def test_all_folders_count(tmp_path: Path, maildir: Path) -> None:
    for number, folder in enumerate((".Trash", ".Lists.2030", ".&ZeVnLIqe-")):
        _mail(maildir / folder, 10 + number, part="cur")
    _mail(maildir / "Maildirs-do-not-nest", 1000)
    _mail(maildir / "..x", 1000)
    (maildir / ".subscriptions").write_text("a file")
    (maildir / ".Empty").mkdir()
    assert _usage(tmp_path) == Usage(333, 5)
    ignoring = QuotaPolicy.parse(
        "*:bytes=10000:messages=101", "Trash:ignore", "Lists.*:ignore", grace="0"
    )
    assert _usage(tmp_path, ignoring) == Usage(312, 3)
    inbox = QuotaPolicy.parse("*:bytes=10000:messages=102", "INBOX:ignore")
    assert _usage(tmp_path, inbox) == Usage(33, 3)


def test_folder_names_are_the_callers(tmp_path: Path, maildir: Path) -> None:
    _mail(maildir / ".Lists.2030", 10)
    quotas = MaildirQuotas(tmp_path, folder_name=lambda name: name.strip(".").replace(".", "/"))
    policy = QuotaPolicy.parse("*:bytes=10000", "Lists/*:ignore")
    assert quotas.of(PurePath("user"), policy).usage() == _COUNTED
    quotas.close()


def test_sizes_are_those_of_the_names_else_of_the_files(tmp_path: Path) -> None:
    maildir = _maildir(tmp_path)
    for name, size in (
        ("1.x,S=1000", 1000),
        ("2.x,S=1000,W=1100:2,S", 1000),
        ("3.x,W=1100,S=1000:2,", 1000),
        ("4.x", 7),
        ("5.x:2,S", 7),
        # No sizes: cut off, larger than any, of other signs.
        ("6.x,S=", 7),
        ("7.x,S=9999999999999999999999", 7),
        ("8.x,S=-5", 7),
        ("9.x,S=5x", 7),
        ("\udcff.x", 7),
    ):
        _mail(maildir, 7, name=name)
        assert _usage(tmp_path).octets == size
        (maildir / "new" / name).unlink()
        (maildir / "maildirsize").unlink()


def test_a_missing_maildir_holds_nothing_and_is_not_made(tmp_path: Path) -> None:
    with _quota(tmp_path) as quota:
        assert quota.usage() == quota.recalculate() == quota.count() == Usage(0, 0)
        quota.check(10000)
        room = quota.reserve(10000)
        with pytest.raises(QuotaExceeded):
            quota.check(1)
        room.commit()
    assert list(tmp_path.iterdir()) == []


def test_what_is_stored_is_added(tmp_path: Path, maildir: Path) -> None:
    with _quota(tmp_path) as quota:
        first, second = quota.reserve(9000), quota.reserve(700)
        with pytest.raises(QuotaExceeded):
            quota.reserve(1)
        second.cancel()
        quota.check(700)
        first.commit()
        assert quota.usage() == Usage(9300, 3)
    assert (maildir / "maildirsize").read_bytes() == _HEAD + b"300 2\n9000 1\n"


def test_recalculate(tmp_path: Path, maildir: Path) -> None:
    path = maildir / "maildirsize"
    path.write_bytes(_HEAD + b"5 1\n")
    with _quota(tmp_path) as quota:
        assert quota.count() == _COUNTED
        assert path.read_bytes() == _HEAD + b"5 1\n"
        assert quota.recalculate() == _COUNTED
    assert path.read_bytes() == _HEAD + b"300 2\n"


@pytest.mark.parametrize("there", [True, False])
def test_what_comes_while_it_is_counted_is_not_lost(
    tmp_path: Path, maildir: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    path = maildir / "maildirsize"
    if there:
        path.write_bytes(_HEAD + b"junk\n")
    real = os.rename
    late = contextlib.ExitStack()

    def rename(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        if path.exists():
            # Others, who have the file open that is replaced now, and write before and after that.
            old = late.enter_context(path.open("ab", buffering=0))
            old.write(b"20 1\n")
            real(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            old.write(b"7 1\n")
        else:
            real(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    def scandir(where: int) -> "os._ScandirIterator[str]":
        if os.readlink(f"/proc/self/fd/{where}").endswith("/cur"):
            # Messages come into new/, which is counted by now.
            with path.open("ab", buffering=0) as file:
                file.write(b"10 1\n")
        return real_scandir(where)

    real_scandir = os.scandir
    monkeypatch.setattr(os, "rename", rename)
    monkeypatch.setattr(os, "scandir", scandir)
    with late:
        assert _usage(tmp_path) == _COUNTED
    assert path.read_bytes() == _HEAD + b"300 2\n10 1\n20 1\n7 1\n"
    assert _usage(tmp_path) == Usage(337, 5)


def test_what_is_added_while_the_file_is_replaced_is_not_lost(
    tmp_path: Path, maildir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = maildir / "maildirsize"
    path.write_bytes(_HEAD + b"5 1\n")
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        written = real(descriptor, data)
        if path.read_bytes().startswith(_HEAD + b"5 1\n"):
            (maildir / "other").write_bytes(_HEAD + b"6 1\n")
            os.replace(maildir / "other", path)
        return written

    with _quota(tmp_path) as quota:
        room = quota.reserve(100)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write)
            room.commit()
    assert path.read_bytes() == _HEAD + b"6 1\n100 1\n"


def test_another_that_counts_is_not_waited_for(tmp_path: Path, maildir: Path) -> None:
    path = maildir / "maildirsize"
    path.write_bytes(b"junk\n")
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert _usage(tmp_path) == _COUNTED
        assert path.read_bytes() == b"junk\n"
    assert _usage(tmp_path) == _COUNTED
    assert path.read_bytes() == _HEAD + b"300 2\n"


_GOOD = _HEAD + b"1 0\n"


def _link(path: Path, outside: Path) -> None:
    (outside / "target").write_bytes(_GOOD)
    path.symlink_to(outside / "target")


def _dangling_link(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "missing")


def _hard_link(path: Path, outside: Path) -> None:
    (outside / "target").write_bytes(_GOOD)
    os.link(outside / "target", path)


def _link_to_itself(path: Path, outside: Path) -> None:
    path.symlink_to(path.name)


def _fifo(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path, outside: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        # The path itself may be too long for an address.
        descriptor = os.open(path.parent, os.O_PATH)
        listener.bind(f"/proc/self/fd/{descriptor}/{path.name}")
        os.close(descriptor)


def _directory(path: Path, outside: Path) -> None:
    path.mkdir()
    (path / "file").write_bytes(_GOOD)


def _device(path: Path, outside: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root makes device files")


def _foreign(path: Path, outside: Path) -> None:
    path.write_bytes(_GOOD)
    path.chmod(0o666)
    try:
        os.chown(path, 12345, -1)
    except PermissionError:
        pytest.skip("only root gives files away")


@pytest.mark.parametrize(
    "make",
    [
        *(_link, _dangling_link, _hard_link, _link_to_itself, _fifo, _socket, _directory),
        *(_device, _foreign),
    ],
)
def test_something_else_in_its_place(tmp_path: Path, make: Callable[[Path, Path], None]) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    maildir = _maildir(root)
    _mail(maildir, 9500)
    path = maildir / "maildirsize"
    make(path, outside)
    before = {file: file.read_bytes() for file in outside.iterdir()}
    with _quota(root) as quota:
        with pytest.raises(QuotaExceeded):
            quota.check(501)
        with pytest.raises(QuotaExceeded):
            quota.reserve(501)
        room = quota.reserve(500)
        # It comes back while a message is on its way.
        if path.is_file() and not path.is_symlink():
            path.unlink()
            make(path, outside)
        _mail(maildir, 500)
        room.commit()
        with pytest.raises(QuotaExceeded):
            quota.check(1)
        assert quota.recalculate() == Usage(10000, 2)
    assert {file: file.read_bytes() for file in outside.iterdir()} == before
    assert os.listdir(maildir / "tmp") == []
    if make is not _directory:
        assert path.read_bytes() == _HEAD + b"10000 2\n"


def test_a_lease_is_not_waited_for(tmp_path: Path, maildir: Path) -> None:
    path = maildir / "maildirsize"
    path.write_bytes(_HEAD + b"5 1\n")
    # The kernel asks the holder to give it up, and lets others wait for that.
    handler = signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        with path.open("rb+") as holder:
            fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            assert _usage(tmp_path) == _COUNTED
    finally:
        signal.signal(signal.SIGIO, handler)


@pytest.mark.parametrize("part", ["new", ".Folder", ".Folder/cur"])
def test_folders_that_are_links_do_not_count(tmp_path: Path, part: str) -> None:
    outside = tmp_path / "outside"
    root = tmp_path / "root"
    root.mkdir()
    for name in ("new", "cur"):
        _mail(outside, 77, part=name)
    maildir = _maildir(root)
    if part == "new":
        (maildir / "new").rmdir()
    (maildir / part).parent.mkdir(exist_ok=True)
    (maildir / part).symlink_to(outside)
    (maildir / "cur" / "1.x").symlink_to(outside / "cur" / "0.x,S=77")
    assert _usage(root).octets < 250
    assert _usage(root).messages == 1


@pytest.mark.parametrize("place", ["d", "d/user", "d/user/tmp"])
def test_links_on_the_way_are_not_followed(tmp_path: Path, place: str) -> None:
    outside = _maildir(tmp_path, "outside/user")
    root = tmp_path / "root"
    _maildir(root, "d/user")
    target = {"d": outside.parent, "d/user": outside, "d/user/tmp": outside / "tmp"}[place]
    (root / place).rename(tmp_path / "old")
    (root / place).symlink_to(target)
    quotas = MaildirQuotas(root)
    quota = quotas.of(PurePath("d/user"), _POLICY)
    if place == "d/user/tmp":
        assert quota.recalculate() == Usage(0, 0)
    else:
        with pytest.raises(NotADirectoryError):
            quota.recalculate()
    quotas.close()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_place_outside_the_root_is_a_mistake(tmp_path: Path) -> None:
    quotas = MaildirQuotas(tmp_path)
    for path in ("../x", "/etc"):
        with pytest.raises(ValueError, match="path"):
            quotas.of(PurePath(path), _POLICY)
    quotas.close()


def test_a_file_that_cannot_be_written_is_no_failure(
    tmp_path: Path, maildir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_args: object) -> int:
        raise OSError(28, "no space")

    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", full)
        with _quota(tmp_path) as quota:
            assert quota.usage() == _COUNTED
            quota.reserve(5).commit()
    assert "maildirsize" in caplog.text
    assert os.listdir(maildir / "tmp") == []
    assert not (maildir / "maildirsize").exists()
    assert len(os.listdir("/proc/self/fd")) == before


def test_no_descriptor_is_left_open(tmp_path: Path, maildir: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with _quota(tmp_path) as quota:
        for _ in range(3):
            quota.recalculate()
            quota.check(1)
            quota.reserve(1).commit()
            (maildir / "maildirsize").write_bytes(b"junk")
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("sync", Sync)
def test_what_is_durable_before_a_message_is_acknowledged(
    tmp_path: Path, maildir: Path, monkeypatch: pytest.MonkeyPatch, sync: Sync
) -> None:
    synced: list[tuple[str, bytes]] = []

    def fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        synced.append((path.name, b"" if path.is_dir() else path.read_bytes()))

    monkeypatch.setattr(os, "fsync", fsync)
    quotas = MaildirQuotas(tmp_path, sync=sync)
    room = quotas.of(PurePath("user"), _POLICY).reserve(70)
    counted = _HEAD + b"300 2\n"
    assert (maildir / "maildirsize").read_bytes() == counted
    if sync is Sync.ALWAYS:
        assert [text for name, text in synced if name.endswith(".maildirsize")][-1] == counted
        assert synced[-1][0] == "user"
    synced.clear()
    room.commit()
    quotas.close()
    added = [("maildirsize", counted + b"70 1\n")]
    assert synced == (added if sync is Sync.ALWAYS else [])


def test_what_arrives_while_mail_is_counted_is_not_missed(
    tmp_path: Path, maildir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quotas = MaildirQuotas(tmp_path)
    quota = quotas.of(PurePath("user"), QuotaPolicy.parse("*:messages=3"))
    room = quota.reserve(100)
    real, counts = os.scandir, []

    def scandir(directory: int) -> Any:
        # new/ was looked through already.
        if os.readlink(f"/proc/self/fd/{directory}").endswith("/cur"):
            counts.append(directory)
            if len(counts) == 1:
                _mail(maildir, 100)
                room.commit()
        return real(directory)

    monkeypatch.setattr(os, "scandir", scandir)
    (maildir / "maildirsize").unlink()
    with pytest.raises(QuotaExceeded):
        quota.reserve(100)
    assert len(counts) == 2
    quotas.close()


class _Aside:
    """Something done in another thread while this one is amid something else.

    It is given a moment, since it may have to wait until this thread goes on.
    """

    def __init__(self, what: Callable[[], object]) -> None:
        self._thread = threading.Thread(target=what)

    def begin(self) -> None:
        self._thread.start()
        self._thread.join(0.2)

    def end(self) -> None:
        self._thread.join()


def _tries(quota: MaildirQuota, size: int) -> bool:
    try:
        quota.reserve(size)
    except QuotaExceeded:
        return False
    return True


def test_a_maildir_that_fills_after_it_was_missing_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    admitted = []

    def deliver() -> None:
        try:
            room = quota.reserve(5)
        except QuotaExceeded:
            return
        _mail(_maildir(tmp_path), 5)
        room.commit()
        admitted.append("deliver")

    aside = _Aside(deliver)
    opens = os.open

    def missing(path: object, *arguments: Any, **options: Any) -> int:
        try:
            return opens(path, *arguments, **options)  # type: ignore[arg-type]
        except FileNotFoundError:
            if threading.current_thread() is threading.main_thread():
                monkeypatch.undo()
                aside.begin()
            raise

    with _quota(tmp_path, QuotaPolicy.parse("*:messages=1")) as quota:
        monkeypatch.setattr(os, "open", missing)
        if _tries(quota, 5):
            admitted.append("here")
        aside.end()
    assert len(admitted) == 1


def test_what_arrives_while_the_file_is_replaced_is_not_missed(
    maildir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (maildir / "maildirsize").write_bytes(b"10000S,4C\n300 2\n")
    os.utime(maildir / "maildirsize", (0, 0))
    admitted = []

    def arrive() -> None:
        _mail(maildir, 5)
        room.commit()

    arrival = _Aside(arrive)
    another = _Aside(lambda: admitted.append(_tries(quota, 5)))
    rename = os.rename

    def replace(*names: Any, **options: Any) -> None:
        monkeypatch.undo()
        arrival.begin()
        rename(*names, **options)
        another.begin()

    with _quota(maildir.parent, QuotaPolicy.parse("*:bytes=10000:messages=4")) as quota:
        room, second = quota.reserve(5), quota.reserve(5)
        monkeypatch.setattr(os, "rename", replace)
        # No room, by an old file: all is counted anew.
        assert not _tries(quota, 5)
        for aside in (arrival, another):
            aside.end()
        second.cancel()
    assert admitted == [False]
