"""Every state that a crash may leave of a delivery, from the system calls of a real one."""

import re
import sys
from pathlib import Path

import pytest

from mailstore import Sync
from tests.faults.crash_model import Delivery
from tests.faults.tracing import calls_of, run_traced

_TRACED = "trace=%file,%desc"
_SMALL, _LARGE = 1000, 400_000


def _traced(
    folder: Path, sync: Sync, size: int, messages: list[str], *, links: bool = False
) -> Delivery:
    root = folder / "root"
    root.mkdir()
    trace = folder / "trace"
    options = ["--links"] if links else []
    command = [sys.executable, "-m", "tests.faults.deliverer", *options, str(root), sync, str(size)]
    said = run_traced(trace, ["-s", "60", "-e", _TRACED], [*command, *messages])
    assert set(re.findall(r"answered (\d+)", said)) == {"250"}
    calls = calls_of(trace.read_text())
    # The Maildirs in the order of their last replies.
    replies = [
        (match[1], call)
        for call in calls
        if (match := re.match(r'write\(1<[^>]*>, "answered 250 ([^\\]+)\\n"', call.text))
    ]
    assert len(replies) == len(",".join(messages).split(","))
    return Delivery(str(root), calls, replies)


@pytest.mark.parametrize("size", [_SMALL, _LARGE])
@pytest.mark.parametrize("sync", [Sync.OPTIMIZED, Sync.SYNCFS])
@pytest.mark.parametrize(
    ("messages", "links"),
    [(["d/u"], False), (["d/u,d/v"], False), (["u", "u"], False), (["u,v,w"], True)],
    ids=["one", "two", "again", "linked"],
)
def test_no_crash_loses_or_tears(
    tmp_path: Path, sync: Sync, size: int, messages: list[str], links: bool
) -> None:
    delivery = _traced(tmp_path, sync, size, messages, links=links)
    assert delivery.violations() == []
    assert delivery.violations(without=delivery.syncs)


@pytest.mark.parametrize("size", [_SMALL, _LARGE])
def test_each_fsync_is_needed(tmp_path: Path, size: int) -> None:
    delivery = _traced(tmp_path, Sync.OPTIMIZED, size, ["d/u,d/v"])
    # A directory is synced for each entry that it gets, so one sync of it may cover another.
    paths = {sync.path for sync in delivery.syncs}
    assert len(paths) == 8
    for path in paths:
        without = [sync for sync in delivery.syncs if sync.path == path]
        assert delivery.violations(without=without), path


@pytest.mark.parametrize("size", [_SMALL, _LARGE])
def test_each_fsync_is_needed_for_links(tmp_path: Path, size: int) -> None:
    delivery = _traced(tmp_path, Sync.OPTIMIZED, size, ["u,v,w"], links=True)
    (content,) = {sync.path for sync in delivery.syncs if "/root/u/tmp/" in (sync.path or "")}
    for path in {sync.path for sync in delivery.syncs}:
        without = [sync for sync in delivery.syncs if sync.path == path]
        wrong = delivery.violations(without=without)
        lost = {line.partition(":")[0] for line in wrong}
        # One file, and one directory in which the Maildirs were made.
        assert len(lost) == (3 if path in {content, str(tmp_path / "root")} else 1)


def test_the_spool_that_becomes_the_copy_is_synced(tmp_path: Path) -> None:
    delivery = _traced(tmp_path, Sync.OPTIMIZED, _LARGE, ["u", "u"])
    (spool,) = [sync for sync in delivery.syncs if "/root/u/tmp/#" in (sync.path or "")]
    (wrong,) = delivery.violations(without=[spool])
    assert wrong.endswith("in new/ and not whole")


def test_each_syncfs_is_needed(tmp_path: Path) -> None:
    delivery = _traced(tmp_path, Sync.SYNCFS, _SMALL, ["u"])
    whole = [sync for sync in delivery.syncs if sync.path is None]
    assert len(whole) == 2
    for sync, what in zip(whole, ("not whole", "not there"), strict=True):
        (wrong,) = delivery.violations(without=[sync])
        assert wrong.endswith(what)


def test_without_sync_a_crash_loses_and_tears(tmp_path: Path) -> None:
    wrong = "".join(_traced(tmp_path, Sync.NEVER, _SMALL, ["u"]).violations())
    assert "in new/ and not whole" in wrong
    assert "acknowledged and not there" in wrong
