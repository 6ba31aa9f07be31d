"""The system calls of a delivery as the kernel sees them: their order, and what comes of errors."""

import itertools
import re
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

from mailstore import Sync
from tests.mailstore.support import files_below

_DELIVER = """
    import os, sys
    from pathlib import Path
    from mailstore import MaildirStore, Sync
    from tests.mailstore.support import deliver

    store = MaildirStore(sys.argv[1], hostname="mx", sync=Sync(sys.argv[2]))
    content = b"Subject: x\\r\\n\\r\\n" + b"x" * int(sys.argv[3])
    for maildir in sys.argv[4:]:
        reply = deliver(store, content, [maildir])[0]
        os.write(1, b"answered %d %s\\n" % (reply.code, maildir.encode()))
    store.close()
"""
_SMALL, _LARGE = 1000, 400_000


def _strace(
    folder: Path, *options: str, root: Path, sync: Sync, size: int, maildirs: list[str]
) -> tuple[list[str], Path]:
    """What the deliveries answered, and the file with the trace."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    trace = folder / "trace"
    ran = subprocess.run(
        [
            *(strace, "-f", "-y", "-s", "40", "-o", str(trace), *options),
            *(sys.executable, "-c", textwrap.dedent(_DELIVER)),
            *(str(root), sync, str(size), *maildirs),
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    if "PTRACE_TRACEME" in ran.stderr:
        pytest.skip("strace may not trace here")
    assert ran.returncode == 0, ran.stderr
    return re.findall(r"^answered (\d+)", ran.stdout, re.MULTILINE), trace


@dataclass(frozen=True)
class _Call:
    text: str
    begin: int
    end: int


def _calls(trace: Path) -> list[_Call]:
    """The calls that succeeded, each with the lines where it began and was over."""
    calls = []
    begun: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(trace.read_text().splitlines()):
        thread, text = line.split(maxsplit=1)
        begin = number
        if text.endswith("<unfinished ...>"):
            begun[thread] = (text.removesuffix("<unfinished ...>"), number)
            continue
        resumed = re.match(r"<\.\.\. \w+ resumed>", text)
        if resumed:
            first, begin = begun.pop(thread)
            text = first + text[resumed.end() :]
        if re.search(r"\) += -1 ", text) is None:
            calls.append(_Call(text, begin, number))
    return calls


def _in_order(calls: list[_Call], *patterns: str) -> list[_Call]:
    """For each pattern the one call that matches; each is over before the next begins."""
    found = []
    for pattern in patterns:
        matching = [call for call in calls if re.match(pattern, call.text)]
        assert len(matching) == 1, (pattern, [call.text for call in matching])
        found += matching
    for earlier, later in itertools.pairwise(found):
        assert earlier.end < later.begin, (earlier.text, later.text)
    return found


_TRACED = "trace=mkdirat,writev,fsync,syncfs,linkat,write,fadvise64"


@pytest.mark.parametrize("size", [_SMALL, _LARGE])
def test_synced_before_visible_and_durable_before_answered(tmp_path: Path, size: int) -> None:
    root = tmp_path / "root"
    root.mkdir()
    answered, trace = _strace(
        *(tmp_path, "-e", _TRACED), root=root, sync=Sync.FSYNC, size=size, maildirs=["d/u"]
    )
    assert answered == ["250"]
    calls = _calls(trace)
    _in_order(
        calls,
        rf"writev\(\d+<{root}/d/u/tmp/[^>]*>, \[.*Return-Path",
        rf"fsync\(\d+<{root}/d/u/tmp/[^>]*>",
        rf"linkat\(\d+<{root}/d/u/tmp>, .* \d+<{root}/d/u/new>, ",
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
    answered, trace = _strace(
        *(tmp_path, "-e", _TRACED), root=root, sync=Sync.SYNCFS, size=_SMALL, maildirs=["u"]
    )
    assert answered == ["250"]
    calls = _calls(trace)
    written, linked, said = _in_order(
        calls,
        rf"writev\(\d+<{root}/u/tmp/[^>]*>",
        rf"linkat\(\d+<{root}/u/tmp>",
        r'write\(1<[^>]*>, "answered 250',
    )
    contents, entries = (call for call in calls if call.text.startswith("syncfs("))
    assert written.end < contents.begin
    assert contents.end < linked.begin
    assert linked.end < entries.begin
    assert entries.end < said.begin


# The first call of a thread: all of small messages are the committer's.
@pytest.mark.parametrize(
    ("call", "error", "code", "size"),
    [
        ("fsync", "EIO", "451", _SMALL),
        ("linkat", "EDQUOT", "452", _SMALL),
        ("linkat", "ENOSPC", "452", _LARGE),
        ("linkat", "EXDEV", "451", _SMALL),
    ],
)
def test_the_first_fails_and_the_second_is_fine(
    tmp_path: Path, call: str, error: str, code: str, size: int
) -> None:
    root = tmp_path / "root"
    for name in ("cur", "new", "tmp"):
        (root / "u" / name).mkdir(parents=True)
    answered, _ = _strace(
        *(tmp_path, "-e", f"trace={call}", "-e", f"inject={call}:error={error}:when=1"),
        root=root,
        sync=Sync.FSYNC,
        size=size,
        maildirs=["u", "u"],
    )
    assert answered == [code, "250"]
    (path,) = files_below(root)
    assert path.startswith("u/new/")
    assert f",S={(root / path).stat().st_size}," in path
