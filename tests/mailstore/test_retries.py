"""Messages that come again because their 250 was lost: stored once, and never not at all."""

import dataclasses
import fcntl
import logging
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path, PurePath

import pytest

from lmtp_proto import Mail, MailParameters, OriginalRecipient, RcptParameters, Transaction
from mailstore import (
    Destination,
    FolderOptions,
    LineEnding,
    MaildirQuotas,
    MaildirStore,
    QuotaPolicy,
    RetryOptions,
    StoreHandler,
    Sync,
)
from mailstore._retry_record import SIZE, Record, State
from tests.adapters.harness import Client, serving
from tests.mailstore.support import (
    address,
    answers,
    client,
    codes,
    deliver,
    envelope,
    files_below,
    fill,
    opened,
)

_SMALL = b"Subject: x\r\n\r\nbody\r\n"
_LARGE = b"Subject: x\r\n\r\n" + b"0123456789\r\n" * 30_000
_OPTIONS = RetryOptions()
_HOUR = 3600 * 1_000_000_000


def _mail(maildir: Path) -> int:
    """How many messages there are in new/ and cur/ of all folders."""
    return sum(len(list(maildir.glob(f"**/{part}/*"))) for part in ("new", "cur"))


def _texts(store: MaildirStore, content: bytes = _SMALL, **more: object) -> list[str]:
    """The last words of the replies to a message, all of which are 250."""
    replies = deliver(store, content, **more)  # type: ignore[arg-type]  # passed on
    assert codes(replies) == [250] * len(replies)
    assert {reply.enhanced for reply in replies} == {"2.0.0"}
    return [reply.text.partition("ID1 ")[2] for reply in replies]


_STORED, _AGAIN = ["Saved"], ["Saved before"]


@pytest.mark.parametrize("content", [_SMALL, _LARGE])
@pytest.mark.parametrize("sync", Sync)
@pytest.mark.parametrize("line_ending", LineEnding)
@pytest.mark.parametrize(
    "place",
    [
        "user",
        Destination(PurePath("user"), "a.b"),
        Destination(PurePath("user"), flags="S", keywords=("Junk",)),
    ],
)
def test_a_retry_is_stored_once(
    tmp_path: Path,
    content: bytes,
    sync: Sync,
    line_ending: LineEnding,
    place: str | Destination,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    folders = FolderOptions(autocreate=True)
    for expected in (_STORED, _AGAIN, _AGAIN):
        # Another process, as far as the store can tell.
        with opened(
            tmp_path, sync=sync, line_ending=line_ending, folders=folders, retries=_OPTIONS
        ) as store:
            assert _texts(store, content, maildirs=[place]) == expected
    assert _mail(tmp_path / "user") == 1
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    where = "'user/.a.b'" if "a.b" in str(place) else "'user'"
    line = f"ID1: a retry is recognised: {where} has the message for <r0@example.org> already"
    assert [text for text in said if "retry" in text] == [line] * 2


def test_off_by_default(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for _ in range(2):
            assert _texts(store) == _STORED
    assert _mail(tmp_path / "user") == 2
    assert {PurePath(path).parent.name for path in files_below(tmp_path)} == {"new"}


@pytest.mark.parametrize("runtime", ["blocking", "uvloop"])
@pytest.mark.parametrize("content", [_SMALL, _LARGE])
def test_the_client_goes_away_behind_the_dot(tmp_path: Path, runtime: str, content: bytes) -> None:
    with (
        opened(tmp_path, retries=_OPTIONS) as store,
        serving(
            runtime,
            StoreHandler(store, lambda recipient: PurePath(recipient.address.local_part)),
        ) as server,
    ):
        for seen in (0, 1, 0):
            with Client(server.address) as gone:
                gone.greeted().deliver("u", "v", content=content)
                gone.expect(*[b"250 2.0.0 "] * seen)
            # When they are there is not when they are stored: who comes again waits for that.
            while _mail(tmp_path) < 2:
                time.sleep(0.01)
        with Client(server.address) as back:
            back.greeted().deliver("v", "u", "w", content=content)
            replies = [back.reply() for _ in range(3)]
    assert [reply.endswith(b" Saved before") for reply in replies] == [True, True, False]
    assert [_mail(tmp_path / user) for user in "uvw"] == [1, 1, 1]


def _sender(transaction: Transaction) -> Transaction:
    return dataclasses.replace(transaction, mail=Mail(reverse_path=address("other@example.net")))


def _null_sender(transaction: Transaction) -> Transaction:
    return dataclasses.replace(transaction, mail=Mail(reverse_path=None))


def _envid(transaction: Transaction) -> Transaction:
    mail = dataclasses.replace(transaction.mail, parameters=MailParameters(envid="other"))
    return dataclasses.replace(transaction, mail=mail)


def _orcpt(transaction: Transaction) -> Transaction:
    parameters = RcptParameters(orcpt=OriginalRecipient("rfc822", "alias@example.org"))
    recipients = [dataclasses.replace(one, parameters=parameters) for one in transaction.recipients]
    return dataclasses.replace(transaction, recipients=recipients)


def _recipient(transaction: Transaction) -> Transaction:
    return dataclasses.replace(transaction, recipients=envelope("u+x@example.org").recipients)


@pytest.mark.parametrize("change", [_sender, _null_sender, _envid, _orcpt, _recipient])
def test_another_envelope_is_another_message(
    tmp_path: Path, change: Callable[[Transaction], Transaction]
) -> None:
    with opened(tmp_path, retries=_OPTIONS) as store:
        first = envelope("u@example.org")
        assert _texts(store, transaction=first) == _STORED
        for expected in (_STORED, _AGAIN):
            assert _texts(store, transaction=change(envelope("u@example.org"))) == expected
        assert _texts(store, transaction=first) == _AGAIN
    assert _mail(tmp_path / "user") == 2


def test_another_content_or_mailbox_is_another_message(tmp_path: Path) -> None:
    with opened(tmp_path, folders=FolderOptions(autocreate=True), retries=_OPTIONS) as store:
        for content in (
            _SMALL,
            _SMALL[:-3] + b"Y\r\n",
            b"X: y\r\n" + _SMALL,
            _LARGE,
            _LARGE + b"x",
        ):
            assert _texts(store, content) == _STORED
        for place in ("other", Destination(PurePath("user"), "a")):
            assert _texts(store, maildirs=[place]) == _STORED
    assert _mail(tmp_path / "user") == 6


def test_what_only_this_attempt_has_makes_no_difference(tmp_path: Path) -> None:
    with opened(tmp_path, retries=_OPTIONS) as store:
        assert _texts(store) == _STORED
        session = client(client_ip="192.0.2.9", lhlo_domain="mx2.example.net", tls="TLSv1.3")
        transaction = envelope("r0@example.org", session=session, transaction_id="ID2")
        (reply,) = deliver(store, _SMALL, transaction=transaction)
        assert (reply.code, reply.text) == (250, "<r0@example.org> ID2 Saved before")
        # Nor does how the content is cut.
        transaction = envelope("r0@example.org")
        sink = store.open(transaction, {transaction.recipients[0]: PurePath("user")})
        fill(sink, [_SMALL[n : n + 1] for n in range(len(_SMALL))])
        assert answers(sink, transaction)[0].text.endswith("Saved before")
        sink.close()
    assert _mail(tmp_path / "user") == 1


def test_each_recipient_of_a_shared_copy_may_come_again(tmp_path: Path) -> None:
    """Two addresses of one user in one transaction; the client has not seen one of the replies."""
    with opened(tmp_path, retries=_OPTIONS) as store:
        both = envelope("a@example.org", "b@example.org")
        assert _texts(store, maildirs=["u", "u"], transaction=both) == _STORED * 2
        for one in ("a@example.org", "b@example.org"):
            assert _texts(store, maildirs=["u"], transaction=envelope(one)) == _AGAIN
        assert _texts(store, maildirs=["u", "u"], transaction=both) == _AGAIN * 2
        assert _mail(tmp_path / "u") == 1
        # With somebody who has not had it, it is stored.
        more = envelope("a@example.org", "c@example.org")
        assert _texts(store, maildirs=["u", "u"], transaction=more) == _STORED * 2
        assert _texts(store, maildirs=["u", "u"], transaction=more) == _AGAIN * 2
    assert _mail(tmp_path / "u") == 2


def test_a_message_that_was_deleted_does_not_come_back(tmp_path: Path) -> None:
    with opened(tmp_path, retries=_OPTIONS) as store:
        assert _texts(store) == _STORED
        (path,) = (tmp_path / "user" / "new").iterdir()
        path.unlink()
        assert _texts(store) == _AGAIN
    assert _mail(tmp_path / "user") == 0


def test_the_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns()
    with opened(tmp_path, retries=RetryOptions(window=3600)) as store:
        for at, expected in (
            (now, _STORED),
            (now + _HOUR - 1, _AGAIN),
            # The window begins with the delivery, not with the last retry.
            (now + _HOUR + 1, _STORED),
            # A clock that was set back.
            (now + _HOUR // 2, _AGAIN),
            (now - _HOUR - 1, _STORED),
        ):
            monkeypatch.setattr(time, "time_ns", lambda at=at: at)
            assert _texts(store) == expected
    assert _mail(tmp_path / "user") == 3


def test_no_more_is_remembered_than_asked_for(tmp_path: Path) -> None:
    contents = [b"Subject: %d\r\n\r\n" % number for number in range(10)]
    with opened(tmp_path, retries=RetryOptions(entries=4)) as store:
        for content in contents:
            assert _texts(store, content) == _STORED
        assert (tmp_path / "user" / "lmtp-retries").stat().st_size == 4 * SIZE
        for content in contents[-4:]:
            assert _texts(store, content) == _AGAIN
        assert _texts(store, contents[0]) == _STORED
        assert _texts(store, contents[-4]) == _STORED
        assert _texts(store, contents[-1]) == _AGAIN
    # Another number begins anew.
    with opened(tmp_path, retries=RetryOptions(entries=5)) as store:
        assert _texts(store, contents[-1]) == _STORED
        assert (tmp_path / "user" / "lmtp-retries").stat().st_size == 5 * SIZE


def test_more_recipients_than_are_remembered(tmp_path: Path) -> None:
    recipients = [f"r{number}@example.org" for number in range(9)]
    with opened(tmp_path, retries=RetryOptions(entries=4)) as store:
        for _ in range(2):
            assert (
                _texts(store, maildirs=["u"] * 9, transaction=envelope(*recipients)) == _STORED * 9
            )


@pytest.mark.parametrize(
    "options", [{"window": 0}, {"window": -1.0}, {"entries": 0}, {"entries": 4097}]
)
def test_options_that_make_no_sense(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="give"):
        RetryOptions(**options)


@pytest.mark.parametrize("stays", [False, True])
def test_a_failed_delivery_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stays: bool
) -> None:
    """Even if its message cannot be taken away again: it may be gone after a crash."""
    fsync, unlink = os.fsync, os.unlink

    def is_new(directory: int) -> bool:
        return os.readlink(f"/proc/self/fd/{directory}").endswith("/new")

    def failing_fsync(descriptor: int) -> None:
        if is_new(descriptor):
            raise OSError(5, "Input/output error")
        fsync(descriptor)

    def failing_unlink(name: str, *, dir_fd: int) -> None:
        if is_new(dir_fd):
            raise OSError(5, "Input/output error")
        unlink(name, dir_fd=dir_fd)

    with opened(tmp_path, retries=_OPTIONS) as store:
        assert _texts(store, b"Subject: before\r\n\r\n") == _STORED
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing_fsync)
            if stays:
                patch.setattr(os, "unlink", failing_unlink)
            assert codes(deliver(store, _SMALL)) == [451]
        assert _mail(tmp_path / "user") == 1 + stays
        assert _texts(store) == _STORED
        assert _texts(store) == _AGAIN
    assert _mail(tmp_path / "user") == 2 + stays


_DIES = """
import os, sys
from pathlib import Path
from mailstore import RetryOptions
from tests.mailstore.support import deliver, opened
fsync = os.fsync
def die(descriptor):
    if os.readlink(f"/proc/self/fd/{descriptor}").endswith("/new") and os.listdir(descriptor):
        os._exit(7)
    fsync(descriptor)
os.fsync = die
with opened(Path(sys.argv[1]), retries=RetryOptions()) as store:
    deliver(store, sys.argv[2].encode())
"""


def _die_before_the_last_sync(root: Path) -> Path:
    """Leave what a delivery leaves that is killed when its message is visible: its path."""
    died = subprocess.run(
        [sys.executable, "-c", _DIES, str(root), _SMALL.decode()],
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert died.returncode == 7
    (path,) = (root / "user" / "new").iterdir()
    return path


@pytest.mark.parametrize("part", ["new", "cur"])
def test_what_a_killed_delivery_has_left_is_synced_before_it_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    path = _die_before_the_last_sync(tmp_path)
    if part == "cur":
        # It was read meanwhile.
        path.rename(path.parents[1] / "cur" / f"{path.name}:2,S")
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    with opened(tmp_path, retries=_OPTIONS) as store:
        monkeypatch.setattr(os, "fsync", fsync)
        assert _texts(store) == _AGAIN
        assert synced == [str(tmp_path / "user" / part)]
        # It is known to be stored now, whatever becomes of it.
        assert _texts(store) == _AGAIN
        assert len(synced) == 1
        next((tmp_path / "user" / part).iterdir()).unlink()
        assert _texts(store) == _AGAIN


def test_what_a_killed_delivery_has_left_is_stored_again_if_it_is_gone(tmp_path: Path) -> None:
    _die_before_the_last_sync(tmp_path).unlink()
    with opened(tmp_path, retries=_OPTIONS) as store:
        # Whether it was ever durable is not known.
        assert _texts(store) == _STORED
        assert _texts(store) == _AGAIN


def test_what_is_no_file_is_no_message(tmp_path: Path) -> None:
    path = _die_before_the_last_sync(tmp_path)
    path.unlink()
    path.symlink_to("/etc/passwd")
    with opened(tmp_path, retries=_OPTIONS) as store:
        assert _texts(store) == _STORED


class _Held:
    """Deliveries whose last sync waits to be let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()
        self.error: OSError | None = None
        real = os.fsync

        def fsync(descriptor: int) -> None:
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            if path.endswith("/new") and os.listdir(descriptor) and not self.begun.is_set():
                self.begun.set()
                assert self.go.wait(20)
                if self.error is not None:
                    raise self.error
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("fails", [False, True])
def test_a_retry_waits_for_the_delivery_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """The message is visible already, but may still be taken away again."""
    held = _Held(monkeypatch)
    if fails:
        held.error = OSError(5, "Input/output error")
    first: list[int] = []
    with (
        opened(tmp_path, retries=_OPTIONS) as one,
        opened(tmp_path, retries=RetryOptions(lock_timeout=0)) as impatient,
        opened(tmp_path, retries=RetryOptions(lock_timeout=20)) as patient,
    ):
        thread = threading.Thread(target=lambda: first.extend(codes(deliver(one, _SMALL))))
        thread.start()
        assert held.begun.wait(20)
        assert _mail(tmp_path / "user") == 1
        assert codes(deliver(impatient, _SMALL)) == [451]
        again: list[str] = []
        waiting = threading.Thread(target=lambda: again.extend(_texts(patient)))
        waiting.start()
        # Other messages do not wait.
        assert _texts(impatient, b"Subject: other\r\n\r\n", maildirs=["other"]) == _STORED
        held.go.set()
        thread.join()
        waiting.join()
    assert first == [451 if fails else 250]
    assert again == (_STORED if fails else _AGAIN)
    assert _mail(tmp_path / "user") == 1


_RACES = """
import sys
from pathlib import Path
from mailstore import RetryOptions
from tests.mailstore.support import deliver, opened
with opened(Path(sys.argv[1]), retries=RetryOptions()) as store:
    for line in sys.stdin:
        user = line.strip()
        (reply,) = deliver(store, f"Subject: {user}\\r\\n\\r\\n".encode(), [user])
        print(reply.code, reply.text, flush=True)
"""
_ROUNDS = 15


def test_processes_that_get_the_same_message_at_once(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _RACES, str(tmp_path)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        for number in range(_ROUNDS):
            # Whoever is first makes the Maildir, its file and all.
            user = f"u{number}"
            said = []
            for process in processes:
                assert process.stdin is not None
                process.stdin.write(f"{user}\n")
                process.stdin.flush()
            for process in processes:
                assert process.stdout is not None
                said.append(process.stdout.readline())
            assert sorted(line.partition("ID1 ")[2].strip() for line in said) == [
                "Saved",
                "Saved before",
            ]
            assert _mail(tmp_path / user) == 1
    finally:
        for process in processes:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.wait(20)
            process.stdout.close()


def test_a_full_mailbox_does_not_refuse_a_retry(tmp_path: Path) -> None:
    quotas = MaildirQuotas(tmp_path)
    quota = quotas.of(PurePath("user"), QuotaPolicy.parse("*:messages=1", grace="0"))

    def attempt(content: bytes) -> tuple[int, str]:
        transaction = envelope("r0@example.org")
        (recipient,) = transaction.recipients
        sink = store.open(transaction, {recipient: PurePath("user")}, {recipient: quota})
        try:
            fill(sink, [content])
            (reply,) = answers(sink, transaction)
            return reply.code, reply.text.rpartition("ID1 ")[2]
        finally:
            sink.close()

    with opened(tmp_path, retries=_OPTIONS) as store:
        assert attempt(_SMALL) == (250, "Saved")
        assert attempt(_LARGE)[0] == 552
        for _ in range(2):
            assert attempt(_SMALL) == (250, "Saved before")
        assert quota.usage().messages == 1
        # What was refused was not stored, so it is no retry.
        (message,) = (tmp_path / "user" / "new").iterdir()
        message.unlink()
        quota.recalculate()
        assert attempt(_LARGE) == (250, "Saved")
    quotas.close()


def _link(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "file")


def _dangling_link(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "missing")


def _second_name(path: Path, outside: Path) -> None:
    path.hardlink_to(outside / "file")


def _fifo(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path, outside: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


def _huge(path: Path, outside: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def _empty(path: Path, outside: Path) -> None:
    path.touch()


def _garbage(path: Path, outside: Path) -> None:
    path.write_bytes(random.Random(4711).randbytes(256 * SIZE))


def _lying_records(path: Path, outside: Path) -> None:
    record = Record(bytes(16), bytes(16), time.time_ns(), State.STORED)
    path.write_bytes(record.pack() * 256)


def _of_another(path: Path, outside: Path) -> None:
    if os.geteuid():
        pytest.skip("only root may give files away")
    path.write_bytes(bytes(256 * SIZE))
    os.chown(path, 12345, 12345)


def _directory(path: Path, outside: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    "make",
    [
        *(_link, _dangling_link, _second_name, _fifo, _socket, _huge, _empty, _garbage),
        *(_lying_records, _of_another, _directory),
    ],
)
def test_something_else_in_place_of_the_file(
    tmp_path: Path, make: Callable[[Path, Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    theirs = bytes(256 * SIZE)
    (outside / "file").write_bytes(theirs)
    (root / "user").mkdir(parents=True)
    make(root / "user" / "lmtp-retries", outside)
    with opened(root, retries=_OPTIONS) as store:
        assert _texts(store) == _STORED
        if make is _directory:
            # That is not taken away, and no message is held up.
            assert _texts(store) == _STORED
            assert "lmtp-retries in 'user' fails, retries may be stored twice" in caplog.text
        else:
            assert _texts(store) == _AGAIN
            assert (root / "user" / "lmtp-retries").stat().st_size == 256 * SIZE
    assert (outside / "file").read_bytes() == theirs
    assert os.listdir(outside) == ["file"]
    assert os.listdir(root / "user" / "tmp") == []


def test_the_file_is_taken_away_or_cut_in_between(tmp_path: Path) -> None:
    file = tmp_path / "user" / "lmtp-retries"
    with opened(tmp_path, retries=_OPTIONS) as store:
        assert _texts(store) == _STORED
        file.unlink()
        assert _texts(store) == _STORED
        os.truncate(file, 100)
        assert _texts(store) == _STORED
        assert _texts(store) == _AGAIN


@pytest.mark.parametrize("whole", [False, True])
def test_the_owner_keeps_the_file_locked(tmp_path: Path, whole: bool) -> None:
    """Mail is not held up for longer than was asked, and not lost."""
    with opened(tmp_path, retries=RetryOptions(lock_timeout=0)) as store:
        assert _texts(store, b"Subject: before\r\n\r\n") == _STORED
        with (tmp_path / "user" / "lmtp-retries").open("r+b") as file:
            start, length = (0, 0) if whole else (256 * SIZE, 1)
            lock = struct.pack("hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, lock)
            for _ in range(2):
                assert _texts(store) == _STORED
        for expected in (_STORED, _AGAIN):
            assert _texts(store) == expected


@pytest.mark.parametrize("kind", [_link, _fifo, _directory])
def test_a_folder_that_is_none_is_not_looked_into(
    tmp_path: Path, kind: Callable[[Path, Path], None]
) -> None:
    """Where a killed delivery may have put its message the owner has put something else."""
    path = _die_before_the_last_sync(tmp_path)
    path.rename(tmp_path / "file")
    (tmp_path / "user" / "new").rmdir()
    (tmp_path / "user" / "cur").rmdir()
    kind(tmp_path / "user" / "cur", tmp_path)
    with opened(tmp_path, retries=_OPTIONS) as store:
        assert codes(deliver(store, _SMALL)) == [250 if kind is _directory else 451]
