"""The system calls of a delivery as the kernel sees them: their order."""

import itertools
import re
import sys
from pathlib import Path

import pytest

from mailstore import Sync
from tests.faults.tracing import Call, calls_of, run_traced

_SMALL, _LARGE = 1000, 400_000
_TRACED = "trace=mkdirat,writev,fsync,syncfs,linkat,write,fadvise64"


def _delivered(
    folder: Path, *, root: Path, sync: Sync, size: int, maildirs: list[str]
) -> tuple[list[str], list[Call]]:
    """What the deliveries answered, and the calls that succeeded."""
    trace = folder / "trace"
    command = [sys.executable, "-m", "tests.faults.deliverer", str(root), sync, str(size)]
    said = run_traced(trace, ["-s", "40", "-e", _TRACED], [*command, *maildirs])
    calls = [call for call in calls_of(trace.read_text()) if call.result >= 0]
    return re.findall(r"^answered (\d+)", said, re.MULTILINE), calls


def _in_order(calls: list[Call], *patterns: str) -> list[Call]:
    """For each pattern the one call that matches; each is over before the next begins."""
    found = []
    for pattern in patterns:
        matching = [call for call in calls if re.match(pattern, call.text)]
        assert len(matching) == 1, (pattern, [call.text for call in matching])
        found += matching
    for earlier, later in itertools.pairwise(found):
        assert earlier.end < later.begin, (earlier.text, later.text)
    return found


@pytest.mark.parametrize("size", [_SMALL, _LARGE])
def test_synced_before_visible_and_durable_before_answered(tmp_path: Path, size: int) -> None:
    root = tmp_path / "root"
    root.mkdir()
    answered, calls = _delivered(
        tmp_path, root=root, sync=Sync.OPTIMIZED, size=size, maildirs=["d/u"]
    )
    assert answered == ["250"]
    _in_order(
        calls,
        rf"writev\(\d+<{root}/d/u/tmp/[^>]*>(?:\(deleted\))?, \[.*Return-Path",
        rf"fsync\(\d+<{root}/d/u/tmp/[^>]*>",
        rf"linkat\(.* \d+<{root}/d/u/new>, ",
        rf"fsync\(\d+<{root}/d/u/new>",
        r'write\(1<[^>]*>, "answered 250',
    )
    # A directory is durable before there is mail in it.
    published = next(call for call in calls if call.text.startswith("linkat"))
    for parent, name in ((root, "d"), (root / "d", "u"), (root / "d/u", "new")):
        made = next(
            call for call in calls if call.text.startswith("mkdirat") and f'"{name}"' in call.text
        )
        assert any(
            re.match(rf"fsync\(\d+<{parent}>", call.text)
            and made.end < call.begin
            and call.end < published.begin
            for call in calls
        ), parent


def test_syncfs_before_visible_and_before_answered(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    answered, calls = _delivered(tmp_path, root=root, sync=Sync.SYNCFS, size=_SMALL, maildirs=["u"])
    assert answered == ["250"]
    written, linked, said = _in_order(
        calls,
        rf"writev\(\d+<{root}/u/tmp/[^>]*>",
        rf"linkat\(.* \d+<{root}/u/new>, ",
        r'write\(1<[^>]*>, "answered 250',
    )
    contents, entries = (call for call in calls if call.text.startswith("syncfs("))
    assert written.end < contents.begin
    assert contents.end < linked.begin
    assert linked.end < entries.begin
    assert entries.end < said.begin
