"""Deliveries, read back from disk."""

import mailbox
import os
import re
import resource
import stat
import threading
import time
from pathlib import Path, PurePath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmtp_proto import Reply
from mailstore import LineEnding, MaildirStore, Sync
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

_CONTENT = b"Subject: x\r\n\r\n" + b"body\r\n" * 100
_LARGE = b"Subject: large\r\n\r\n" + b"0123456789 \r\n" * 50_000


@pytest.mark.parametrize("sync", Sync)
@pytest.mark.parametrize("content", [b"", b"x", _CONTENT, _LARGE, bytes(range(256))])
def test_read_back_by_the_standard_library(tmp_path: Path, sync: Sync, content: bytes) -> None:
    content = b"X: 1\r\n\r\n" + content
    with opened(tmp_path, sync=sync) as store:
        (reply,) = deliver(store, content, ["example.org/user"])
    assert reply == Reply(250, "<r0@example.org> ID1 Saved", enhanced="2.0.0")
    box = mailbox.Maildir(str(tmp_path / "example.org" / "user"), create=False)
    (key,) = box.keys()
    assert without_trace(box.get_bytes(key)) == content.replace(b"\r\n", b"\n")
    assert os.listdir(tmp_path / "example.org" / "user" / "tmp") == []


def test_crlf_is_kept_octet_for_octet(tmp_path: Path) -> None:
    content = b"A: 1\r\nB: \r2\n3\r\r\n\r\n\0\xff" + bytes(range(256)) * 2000
    for threshold in (1 << 20, 1000):
        root = tmp_path / str(threshold)
        root.mkdir()
        with opened(root, line_ending=LineEnding.CRLF, spool_threshold=threshold) as store:
            assert codes(deliver(store, content)) == [250]
        (message,) = mail_in(root / "user")
        assert without_trace(message, b"\r\n") == content


@pytest.mark.parametrize("line_ending", LineEnding)
@pytest.mark.parametrize("content", [_CONTENT, _LARGE, b"a\rb\nc\r\r\nd\r\n" * 20_000])
def test_names_tell_the_sizes(tmp_path: Path, line_ending: LineEnding, content: bytes) -> None:
    with opened(tmp_path, line_ending=line_ending) as store:
        deliver(store, content)
    (path,) = (tmp_path / "user" / "new").iterdir()
    match = re.fullmatch(
        r"\d+\.M\d{1,6}P\d+Q\d+R[0-9a-f]{16}\.mx\.example\.org,S=(\d+),W=(\d+)", path.name
    )
    assert match is not None
    stored = path.read_bytes()
    assert int(match[1]) == len(stored)
    assert int(match[2]) == len(re.sub(rb"\r?\n", b"\r\n", stored))


@settings(max_examples=50)
@given(hostname=st.text(max_size=300))
def test_any_hostname_makes_a_file_name(
    tmp_path_factory: pytest.TempPathFactory, hostname: str
) -> None:
    root = tmp_path_factory.mktemp("root")
    with opened(root, hostname=hostname, sync=Sync.NEVER) as store:
        assert codes(deliver(store, _CONTENT)) == [250]
    (path,) = (root / "user" / "new").iterdir()
    assert re.fullmatch(r"[A-Za-z0-9._\\,=-]+", path.name)
    assert len(path.name) < 255


def test_hostname_is_escaped_as_maildir_says(tmp_path: Path) -> None:
    with opened(tmp_path, hostname="a/b:c") as store:
        deliver(store, _CONTENT)
    (path,) = (tmp_path / "user" / "new").iterdir()
    assert r".a\057b\072c,S=" in path.name


def test_names_do_not_rest_on_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000_000_000_000)
    monkeypatch.setattr(os, "getpid", lambda: 4711)
    # Two stores of one process id, as on two hosts that share the disk.
    with opened(tmp_path) as one, opened(tmp_path) as other:
        for _ in range(50):
            assert codes(deliver(one, _CONTENT) + deliver(other, _CONTENT)) == [250, 250]
    assert len(mail_in(tmp_path / "user")) == 100


@pytest.mark.parametrize("content", [_CONTENT, _LARGE])
def test_each_recipient_has_a_copy(tmp_path: Path, content: bytes) -> None:
    with opened(tmp_path) as store:
        assert codes(deliver(store, content, ["a", "b", "c"])) == [250, 250, 250]
    for number, maildir in enumerate("abc"):
        (message,) = mail_in(tmp_path / maildir)
        assert b"\nDelivered-To: r%d@example.org\n" % number in message
        assert without_trace(message) == content.replace(b"\r\n", b"\n")


@pytest.mark.parametrize("content", [_CONTENT, _LARGE])
def test_one_maildir_has_one_copy(tmp_path: Path, content: bytes) -> None:
    with opened(tmp_path) as store:
        replies = deliver(store, content, ["a", "b", "a", tmp_path / "a"])
    assert [reply.text for reply in replies] == [
        f"<r{number}@example.org> ID1 Saved" for number in range(4)
    ]
    assert len(mail_in(tmp_path / "a")) == 1
    assert len(mail_in(tmp_path / "b")) == 1


@pytest.mark.parametrize("content", [_CONTENT, _LARGE])
def test_one_maildir_has_one_outcome(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_text("no directory")
    with opened(tmp_path) as store:
        replies = deliver(store, content, ["a", "b", "a"])
        assert codes(replies) == [451, 250, 451]
    assert files_below(tmp_path)[0] == "a"


def test_a_late_recipient_learns_what_is_known(tmp_path: Path) -> None:
    transaction = envelope("a@example.org", "b@example.org")
    first, second = transaction.recipients
    with opened(tmp_path) as store:
        sink = store.open(transaction, dict.fromkeys(transaction.recipients, PurePath("user")))
        fill(sink, [_CONTENT])
        for recipient in (first, second):
            answer = sink.deliver(recipient)
            assert not callable(answer)
            assert answer.result().code == 250
        sink.close()
    assert len(mail_in(tmp_path / "user")) == 1


def test_modes(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        deliver(store, _CONTENT, ["d/u"])
    for name in ("d", "d/u", "d/u/cur", "d/u/new", "d/u/tmp"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o700
    (path,) = (tmp_path / "d/u/new").iterdir()
    status = path.stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_nlink == 1


def test_the_root_itself_can_be_the_maildir(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        assert codes(deliver(store, _CONTENT, [""])) == [250]
        assert codes(deliver(store, _CONTENT, [tmp_path])) == [250]
    assert len(mail_in(tmp_path)) == 2


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc", "/", "a\0b"])
def test_a_place_outside_the_root_is_a_mistake(tmp_path: Path, path: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with opened(root) as store, pytest.raises(ValueError, match="path"):
        deliver(store, _CONTENT, [path])
    assert list(root.iterdir()) == []
    assert list(tmp_path.iterdir()) == [root]


def test_a_name_that_only_begins_like_the_root_is_outside(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with opened(root) as store, pytest.raises(ValueError, match="not below the mail root"):
        deliver(store, _CONTENT, [tmp_path / "root2"])


def test_a_missing_root(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        MaildirStore(tmp_path / "missing", hostname="mx")


def test_a_maildir_that_was_moved_is_not_written_to(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        deliver(store, _CONTENT)
        (tmp_path / "user").rename(tmp_path / "moved")
        deliver(store, _CONTENT)
        assert len(mail_in(tmp_path / "moved")) == 1
        assert len(mail_in(tmp_path / "user")) == 1


@pytest.mark.parametrize("part", ["new", "tmp"])
def test_a_part_that_was_replaced(tmp_path: Path, part: str) -> None:
    with opened(tmp_path) as store:
        deliver(store, _CONTENT)
        (tmp_path / "user" / part).rename(tmp_path / "old")
        assert codes(deliver(store, _CONTENT)) == [250]
        assert len(mail_in(tmp_path / "user")) == (1 if part == "new" else 2)
        assert len(os.listdir(tmp_path / "old")) == (1 if part == "new" else 0)


@pytest.mark.parametrize("sync", Sync)
def test_deliveries_from_many_threads(tmp_path: Path, sync: Sync) -> None:
    failures: list[Reply] = []

    def run(number: int) -> None:
        for count in range(20):
            content = b"S: %d.%d\r\n\r\nbody\r\n" % (number, count)
            if count % 5 == 0:
                content += _LARGE
            replies = deliver(store, content, [f"u{number % 3}", "all"])
            failures.extend(reply for reply in replies if reply.code != 250)

    with opened(tmp_path, sync=sync) as store:
        threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    subjects = {
        without_trace(message).partition(b"\n")[0]
        for name in ("u0", "u1", "u2")
        for message in mail_in(tmp_path / name)
    }
    assert subjects == {b"S: %d.%d" % (n, count) for n in range(8) for count in range(20)}
    assert len(mail_in(tmp_path / "all")) == 160


def test_deliveries_that_were_begun_are_finished_by_close(tmp_path: Path) -> None:
    store = MaildirStore(tmp_path, hostname="mx")
    transaction = envelope(*(f"r{number}@example.org" for number in range(300)))
    sink = store.open(
        transaction,
        {r: PurePath(str(n % 7)) for n, r in enumerate(transaction.recipients)},
    )
    fill(sink, [_CONTENT])
    begun = [sink.deliver(recipient) for recipient in transaction.recipients]
    sink.close()
    told: list[object] = []
    store.close()
    for answer in begun:
        assert not callable(answer)
        # Known by now: it is told at once.
        answer.add_done_callback(told.append)
        assert answer.result().code == 250
    assert told == begun


@pytest.mark.parametrize("content", [_CONTENT, _LARGE])
def test_after_close_nothing_is_taken(tmp_path: Path, content: bytes) -> None:
    transaction = envelope("a@example.org")
    store = MaildirStore(tmp_path, hostname="mx")
    sink = store.open(transaction, {transaction.recipients[0]: PurePath("user")})
    fill(sink, [content])
    store.close()
    assert codes(answers(sink, transaction)) == [451]
    sink.close()
    assert files_below(tmp_path) == []


def test_a_forked_child_delivers_by_itself(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        assert codes(deliver(store, _CONTENT, ["parent"])) == [250]
        child = os.fork()
        if child == 0:
            status = 1
            try:
                if codes(deliver(store, _CONTENT, ["parent", "child"])) == [250, 250]:
                    store.close()
                    status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert codes(deliver(store, _CONTENT, ["parent"])) == [250]
    assert len(mail_in(tmp_path / "parent")) == 3
    assert len(mail_in(tmp_path / "child")) == 1


def test_a_message_given_up_leaves_nothing(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    transaction = envelope("a@example.org")
    with opened(tmp_path) as store:
        for content in (_CONTENT, _LARGE):
            sink = store.open(transaction, {transaction.recipients[0]: PurePath("user")})
            fill(sink, [content])
            sink.close()
    assert files_below(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_more_maildirs_than_stay_open(tmp_path: Path) -> None:
    # As many are kept open as the limit of descriptors allows.
    before = len(os.listdir("/proc/self/fd"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = before + 400
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    try:
        with opened(tmp_path, sync=Sync.NEVER) as store:
            names = [f"u{number}" for number in range(400)]
            for _ in range(2):
                for first in range(0, 400, 50):
                    assert set(codes(deliver(store, _CONTENT, names[first : first + 50]))) == {250}
            # Old ones are closed before the next delivery begins.
            deliver(store, _CONTENT, ["u0"])
            kept = len(os.listdir("/proc/self/fd")) - before
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    # A quarter of what is allowed is for Maildirs; a few are open for other reasons.
    assert allowed // 8 * 2 <= kept <= allowed // 4 + 14
    assert [len(mail_in(tmp_path / name)) for name in names] == [3] + [2] * 399
    assert len(os.listdir("/proc/self/fd")) == before
