"""A file system on which copies share their blocks."""

import os
from pathlib import Path

from mailstore import DeliveredTo, TraceOptions
from tests.faults.mounts import xfs
from tests.mailstore.support import codes, deliver, mail_in, opened, without_trace

_CONTENT = b"Subject: large\r\n\r\n" + b"0123456789\r\n" * 700_000
_USERS = ("a", "b", "c", "d", "e", "f")


def _used(root: Path) -> int:
    os.sync()
    status = os.statvfs(root)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def test_copies_share_their_blocks(tmp_path: Path) -> None:
    stored = _CONTENT.replace(b"\r\n", b"\n")
    with xfs(tmp_path, 400) as root:
        before = _used(root)
        # Also in Maildirs whose files may not be links to the one of another.
        (root / "b").mkdir()
        (root / "b").chmod(0o770)
        with opened(root, trace=TraceOptions(delivered_to=DeliveredTo.NONE)) as store:
            assert codes(deliver(store, _CONTENT, _USERS)) == [250] * 6
        assert _used(root) - before < 3 * len(stored)
        for user in _USERS:
            (message,) = mail_in(root / user)
            assert without_trace(message) == stored
