"""A file system that is full: 452, nothing torn, and deliveries go on once there is room."""

import os
from pathlib import Path

import pytest

from lmtp_proto import Reply
from mailstore import MaildirStore
from tests.faults.mounts import small_file_system
from tests.mailstore.support import codes, deliver, files_below, mail_in, opened, without_trace

_SMALL = b"Subject: x\r\n\r\n" + b"0123456789\r\n" * 2_000
_LARGE = b"Subject: x\r\n\r\n" + b"0123456789\r\n" * 20_000


def _until_full(store: MaildirStore, content: bytes) -> tuple[int, Reply]:
    """How many messages were taken, and the reply to the one that was not."""
    for count in range(1000):
        (reply,) = deliver(store, content)
        if reply.code != 250:
            return count, reply
    raise AssertionError("the file system does not fill up")


@pytest.mark.parametrize("content", [_SMALL, _LARGE])
@pytest.mark.parametrize("options", ["size=1500k", "size=64m,nr_inodes=20"])
def test_full_and_freed(tmp_path: Path, content: bytes, options: str) -> None:
    with small_file_system(tmp_path, options) as root:
        before = len(os.listdir("/proc/self/fd"))
        # The spool has room: it is the delivery that fails.
        with opened(root, spool_directory=tmp_path) as store:
            count, reply = _until_full(store, content)
            assert (reply.code, reply.enhanced) == (452, "4.3.1")
            assert count > 1
            for _ in range(3):
                assert codes(deliver(store, content)) == [452]
            stored = content.replace(b"\r\n", b"\n")
            assert [without_trace(mail) for mail in mail_in(root / "user")] == [stored] * count
            assert len(files_below(root)) == count

            (root / files_below(root)[0]).unlink()
            assert codes(deliver(store, content)) == [250]
        assert len(os.listdir("/proc/self/fd")) == before


def test_no_room_for_the_spool(tmp_path: Path) -> None:
    with small_file_system(tmp_path, "size=500k") as root, opened(root) as store:
        with pytest.raises(OSError, match="No space left"):
            deliver(store, _LARGE * 4)
        assert codes(deliver(store, _SMALL)) == [250]
        assert len(files_below(root)) == 1
