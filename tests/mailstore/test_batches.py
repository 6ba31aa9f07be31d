"""Deliveries that come in while others are synced are synced at the same time, each with its own
outcome."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from mailstore import MaildirStore
from tests.mailstore.support import codes, deliver, envelope, fill, mail_in, opened

_CONTENT = b"Subject: small\r\n\r\nbody\r\n"
_MANY = [f"user{number:02}" for number in range(16)]
_SECONDS = 20.0


class _Meeting:
    """Begins when so many are there; whoever comes later need not wait."""

    def __init__(self, count: int) -> None:
        self._missing = count
        self._changed = threading.Condition()

    def attend(self) -> bool:
        with self._changed:
            self._missing -= 1
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._missing <= 0, _SECONDS)


def _deliver_in_one_batch(
    store: MaildirStore, monkeypatch: pytest.MonkeyPatch, fsync: Callable[[int, str], None]
) -> list[int]:
    """The codes for one message to each of `_MANY`, whose syncs are `fsync(descriptor, path)`."""
    # The Maildirs are there, and nothing else is synced than messages.
    deliver(store, _CONTENT, ["first", *_MANY])
    real_fsync = os.fsync
    is_syncing, may_go_on = threading.Event(), threading.Event()

    def call(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if "/first/tmp/" in path:
            is_syncing.set()
            assert may_go_on.wait(_SECONDS)
        if "/user" in path:
            fsync(descriptor, path)
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", call)
    first = threading.Thread(target=deliver, args=(store, _CONTENT, ["first"]))
    first.start()
    assert is_syncing.wait(_SECONDS)
    # All of these come while the first is being synced.
    transaction = envelope(*(f"{user}@example.org" for user in _MANY))
    sink = store.open(transaction, dict(zip(transaction.recipients, map(Path, _MANY), strict=True)))
    fill(sink, [_CONTENT])
    replies = [sink.deliver(recipient) for recipient in transaction.recipients]
    may_go_on.set()
    # A small message for an INBOX needs no job.
    found = codes(reply.result() for reply in replies if not callable(reply))
    first.join(_SECONDS)
    sink.close()
    return found


def test_files_and_directories_are_synced_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody passes before four are there.
    files, directories = _Meeting(4), _Meeting(4)

    def fsync(_descriptor: int, path: str) -> None:
        assert (directories if path.endswith("/new") else files).attend()

    with opened(tmp_path) as store:
        assert _deliver_in_one_batch(store, monkeypatch, fsync) == [250] * len(_MANY)
    for user in _MANY:
        assert len(mail_in(tmp_path / user)) == 2


def test_one_that_cannot_be_synced_leaves_the_others_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def fsync(_descriptor: int, path: str) -> None:
        calls.append(path)
        if "/user03/tmp/" in path or path.endswith("/user08/new"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with opened(tmp_path) as store:
        found = _deliver_in_one_batch(store, monkeypatch, fsync)
    failed = [user for user, code in zip(_MANY, found, strict=True) if code != 250]
    assert failed == ["user03", "user08"]
    for user in _MANY:
        assert len(mail_in(tmp_path / user)) == (1 if user in failed else 2)
        assert not list((tmp_path / user / "tmp").iterdir())
    # Nothing is synced a second time, and no directory for a message that is not there.
    assert len(calls) == len(set(calls)) == 2 * len(_MANY) - 1
