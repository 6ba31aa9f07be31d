"""Every system call of a delivery, made to fail in every way, one at a time.

The calls are those of a trace of the same delivery, so that a new one is struck without being
named here. strace gives the errors in place of the kernel: a call that fails so was not made.

A kill comes before a call by SIGKILL, which keeps it from being made, and behind it by SIGTERM,
which ends the process on the way back from the kernel (nobody handles it).
"""

import multiprocessing
import re
import shutil
import signal
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from mailstore import Sync
from tests.faults.call_driver import Scenario, drive
from tests.faults.tracing import Call, attach, calls_of
from tests.mailstore.support import codes, deliver, files_below, opened, without_trace

ERRORS = ("EIO", "ENOSPC", "EDQUOT", "EMFILE", "EROFS", "EINTR", "ESTALE", "EXDEV")
KILLS = ("kill before", "kill after")
# What strace says was written, none of which was.
SHORT_WRITES = ("short 0", "short 5")
_SMALL, _LARGE = 1_000, 400_000
SCENARIOS = [
    *(
        Scenario(sync, size, known)
        # ALWAYS is OPTIMIZED for what has no quota.
        for sync in (Sync.OPTIMIZED, Sync.SYNCFS, Sync.NEVER)
        for size in (_SMALL, _LARGE)
        for known in (False, True)
    ),
    *(
        Scenario(sync, size, known=True, linked=True)
        for sync in (Sync.OPTIMIZED, Sync.SYNCFS)
        for size in (_SMALL, _LARGE)
    ),
    # Where the file system wants a name from the beginning.
    *(Scenario(sync, _SMALL, known=True, unnamed=False) for sync in (Sync.OPTIMIZED, Sync.SYNCFS)),
    # The spool becomes the copy.
    *(Scenario(sync, _LARGE, known=True, recipients=1) for sync in (Sync.OPTIMIZED, Sync.SYNCFS)),
    Scenario(Sync.OPTIMIZED, _SMALL, known=False, once=True),
    Scenario(Sync.OPTIMIZED, _SMALL, known=True, linked=True, once=True),
    Scenario(Sync.OPTIMIZED, _LARGE, known=True, recipients=1, once=True),
    Scenario(Sync.SYNCFS, _SMALL, known=True, once=True),
]

_MADE_UP = re.compile(r"^short (\d)$")
_WRITES = {"write", "writev", "pwrite64", "pwritev", "pwritev2", "copy_file_range", "sendfile"}
_SYNCS = {"fsync", "fdatasync", "syncfs"}
_OF_MESSAGE = re.compile(r"/u\d/tmp/[^>]")
_OPENS = {"open", "openat", "openat2", "dup", "fcntl"}
_UNLINKS = {"unlink", "unlinkat"}
_CHANGES = re.compile(
    r"(mkdir|link|unlink|rename|symlink|ftruncate|fallocate)|openat?\(.*O_(CREAT|TMPFILE)"
)
# Memory, and the pipe to the test.
_NO_FILE = re.compile(r"mmap\(|\w+\(\d+<(?:socket|pipe|UNIX)")
_NUMBERS = re.compile(r"\d+(?:\.M\d\S*)?")
_SECONDS = 20.0
# The file that tells retries.
_RECORDS = "lmtp-retries"

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["__main__", "pytest", "tests.faults.call_driver"])


@dataclass(frozen=True)
class Point:
    """The `number`th call named `name` that the `thread`th thread makes from the release on."""

    thread: int
    name: str
    number: int
    text: str

    @property
    def changes(self) -> bool:
        """Whether a kill here may leave a state on disk that no other kill leaves."""
        return self.name in _WRITES | _SYNCS or _CHANGES.match(self.text) is not None

    def faults(self) -> list[str]:
        """What can be done to the call."""
        writes = SHORT_WRITES if self.name in _WRITES else ()
        return [*ERRORS, *writes, *KILLS]

    def __str__(self) -> str:
        return f"{self.name} {self.number} of thread {self.thread} ({self.text})"


@dataclass
class _Run:
    """What became of one delivery."""

    trace: str = ""
    others: str = ""
    threads: list[int] = field(default_factory=list)
    replies: list[int] | None = None
    following: list[int] | None = None
    leaked: list[str] = field(default_factory=list)
    status: int | None = None


def points_of(folder: Path, scenario: Scenario) -> list[Point]:
    """Every call with which the delivery touches files, in order."""
    root = _root(folder, scenario)
    run = _run(folder, root, scenario, None, ["-e", "trace=%file,%desc"])
    assert run.replies == [250] * scenario.recipients, run
    points = []
    numbers: Counter[tuple[int, str]] = Counter()
    begun = False
    for call in calls_of(run.trace):
        assert call.thread in run.threads, f"a thread that no fault reaches: {call.text}"
        thread = run.threads.index(call.thread)
        numbers[thread, call.name] += 1
        if _NO_FILE.match(call.text):
            if begun and call.name == "write":
                break
            continue
        begun = True
        points.append(Point(thread, call.name, numbers[thread, call.name], call.text))
    shutil.rmtree(root)
    return points


def strike(folder: Path, scenario: Scenario, point: Point, fault: str) -> None:
    """Deliver with this fault at this call. Raises AssertionError that says all about it."""
    root = _root(folder, scenario)
    effect = {
        "kill before": "signal=SIGKILL",
        "kill after": "signal=SIGTERM",
    }.get(fault, f"error={fault}")
    made_up = _MADE_UP.match(fault)
    if made_up:
        effect = f"retval={made_up[1]}"
    watched = ",".join({point.name, *_OPENS, *_SYNCS})
    options = ["-e", f"trace={watched}", "-e", f"inject={point.name}:{effect}:when={point.number}"]
    run = _run(folder, root, scenario, point.thread, options)
    try:
        if fault in KILLS:
            _check_kill(root, scenario, run, fault)
        else:
            _check_error(root, scenario, run, point, fault)
    except AssertionError as error:
        raise AssertionError(f"{scenario}: {fault} at {point}: {error}\n{run}") from error
    shutil.rmtree(root)


def sweep(folder: Path, scenario: Scenario) -> Iterator[tuple[Point, str]]:
    """Every point of a delivery with every fault that can strike it."""
    for point in points_of(folder, scenario):
        for fault in point.faults():
            yield point, fault


def sample(folder: Path, scenario: Scenario) -> Iterator[tuple[Point, str]]:
    """Every kind of call of a delivery, each with a fault and a kill, and no fault left out.

    Calls are of one kind that differ in the recipient and in numbers alone.
    """
    kinds = {_NUMBERS.sub("", point.text): point for point in points_of(folder, scenario)}
    chance = SCENARIOS.index(scenario)
    for point in kinds.values():
        faults = point.faults()[: -len(KILLS)]
        yield point, faults[chance % len(faults)]
        if point.changes:
            yield point, KILLS[chance % len(KILLS)]
        # Has no divisor in common with the number of faults.
        chance += 7


def _root(folder: Path, scenario: Scenario) -> Path:
    root = folder / f"root-{scenario}"
    root.mkdir()
    return root


def _run(
    folder: Path, root: Path, scenario: Scenario, thread: int | None, options: list[str]
) -> _Run:
    """Deliver in a process of its own, one of its threads traced, or all.

    What the other threads of a process open is in `others`.
    """
    trace, others = folder / f"trace-{scenario}", folder / f"others-{scenario}"
    ours, theirs = _context.Pipe()
    process = _context.Process(target=drive, args=(theirs, root, scenario))
    process.start()
    theirs.close()
    run = _Run()
    tracers = []
    try:
        run.threads = _received(ours)
        if thread is None:
            # strace reaches the other threads by the first.
            tracers.append(attach(trace, ["-f", *options], [process.pid or 0]))
        else:
            tracers.append(attach(trace, ["-ttt", *options], [run.threads[thread]]))
            rest = [other for other in run.threads if other != run.threads[thread]]
            if rest and any(f"inject={name}:" in options[-1] for name in _SYNCS):
                opens = ["-ttt", "-e", f"trace={','.join(_OPENS)}"]
                tracers.append(attach(others, opens, rest))
        try:
            run.replies = _told(ours)
            run.following = _told(ours)
            run.leaked = _received(ours)
        except (EOFError, ConnectionResetError, BrokenPipeError):
            # It was killed.
            pass
        process.join(_SECONDS)
        run.status = process.exitcode
        assert run.status is not None, "the process does not end"
        for tracer in tracers:
            tracer.wait(_SECONDS)
        run.trace = trace.read_text()
        if len(tracers) > 1:
            run.others = others.read_text()
    finally:
        process.kill()
        process.join()
        ours.close()
        for tracer in tracers:
            assert tracer.stderr is not None
            tracer.stderr.close()
    return run


def _told(connection: Connection) -> list[int]:
    connection.send(None)
    return _received(connection)


def _received(connection: Connection) -> list[Any]:
    assert connection.poll(_SECONDS), "the process hangs"
    received: list[Any] = connection.recv()
    return received


def _check_error(root: Path, scenario: Scenario, run: _Run, point: Point, fault: str) -> None:
    assert run.status == 0
    calls = calls_of(run.trace)
    (struck,) = (call for call in calls if call.injected)
    assert run.replies is not None
    failed = [code for code in run.replies if code != 250]
    assert set(failed) <= {452 if fault in {"ENOSPC", "EDQUOT"} else 451}
    if fault == "EINTR" or fault in SHORT_WRITES:
        # A spool that has fewer octets than were written to it is noticed.
        assert not failed or fault == "EINTR" or _is_shared(scenario, struck)
    elif _is_of_records(calls, struck):
        # A message is stored without them.
        assert not failed
    elif point.name in _SYNCS or (
        point.name == "close" and _OF_MESSAGE.search(point.text) and "(deleted)" not in point.text
    ):
        # Neither a file nor an entry that may be lost is acknowledged.
        assert failed, "acknowledged all the same"
    if len(failed) > 1:
        assert _is_shared(scenario, struck), "the fault is not of that recipient alone"
    assert run.following == [250] * scenario.recipients
    if fault != "EINTR" and point.name in _SYNCS:
        _check_not_synced_again([*calls, *calls_of(run.others)], struck)
    # A close that strace keeps from the kernel leaves the descriptor open.
    assert len(run.leaked) <= (point.name == "close"), "descriptors are left"

    missing = int(fault[-1]) if fault in SHORT_WRITES else 0
    for maildir, code in zip(scenario.maildirs, run.replies, strict=True):
        expected = Counter(["next", *["before"] * scenario.known, *["first"] * (code == 250)])
        assert _mail_in(root / maildir, scenario, missing) == expected
    left = [
        path
        for path in files_below(root)
        if "/new/" not in path and not path.endswith(f"/{_RECORDS}")
    ]
    assert len(left) <= (point.name in _UNLINKS), left
    if scenario.once:
        _retry(root, scenario)
        for maildir in scenario.maildirs:
            # Twice where there is no record: what becomes of that fault is not known to the store.
            assert _mail_in(root / maildir, scenario, missing)["first"] in {1, 2}


def _retry(root: Path, scenario: Scenario) -> None:
    """The client comes again."""
    with opened(root, sync=scenario.sync, trace=scenario.trace, retries=scenario.retries) as store:
        retried = codes(deliver(store, scenario.content("first"), scenario.maildirs))
    assert retried == [250] * scenario.recipients


def _is_of_records(calls: Iterable[Call], struck: Call) -> bool:
    """Whether no message depends on the call: it is about the file that tells retries."""
    if _RECORDS in struck.text:
        return True
    maildir = re.match(r"fsync\(\d+<([^>]*/u\d)>", struck.text)
    # The directory is synced for what was made in it, and the file is made last.
    return maildir is not None and any(
        call.begin < struck.begin and f"<{maildir[1]}/tmp>" in call.text and _RECORDS in call.text
        for call in calls
    )


def _is_shared(scenario: Scenario, struck: Call) -> bool:
    """Whether all recipients depend on the call: it is of the spool or of a whole file system."""
    is_spool = not scenario.in_memory and ("O_TMPFILE" in struck.text or "(deleted)" in struck.text)
    return struck.name == "syncfs" or is_spool


def _check_not_synced_again(calls: Iterable[Call], struck: Call) -> None:
    """A descriptor whose sync failed once reports success the next time, and has lost data."""
    number = _descriptor(struck)
    for call in sorted(calls, key=lambda call: call.when):
        if call.when > struck.when and call.name in _OPENS and call.result == number:
            return
        if call.when > struck.when and call.name in _SYNCS:
            assert _descriptor(call) != number, f"synced again: {call.text}"


def _descriptor(call: Call) -> int:
    match = re.match(r"\w+\((\d+)", call.text)
    assert match is not None
    return int(match[1])


def _check_kill(root: Path, scenario: Scenario, run: _Run, fault: str) -> None:
    assert run.status == -(signal.SIGKILL if fault == "kill before" else signal.SIGTERM)
    replies = run.replies or [451] * scenario.recipients
    there = []
    for maildir, code in zip(scenario.maildirs, replies, strict=True):
        mail = _mail_in(root / maildir, scenario)
        assert mail.pop("before", 0) == scenario.known
        assert mail["first"] in ({1} if code == 250 else {0, 1})
        there.append(mail)
    # With all that it got no reply for.
    _retry(root, scenario)
    for maildir, mail in zip(scenario.maildirs, there, strict=True):
        after = _mail_in(root / maildir, scenario)
        assert after["first"] == (1 if scenario.once else mail["first"] + 1)


def _mail_in(maildir: Path, scenario: Scenario, missing: int = 0) -> Counter[str]:
    """The names of the messages in new/, each of which is whole.

    One of "first" lacks `missing` octets, those that strace said were written.
    """
    names: Counter[str] = Counter()
    paths = list((maildir / "new").iterdir()) if (maildir / "new").exists() else []
    for path in paths:
        data = path.read_bytes()
        size = re.search(r",S=(\d+),", path.name)
        assert size is not None
        if missing and len(data) == int(size[1]) - missing:
            data = _repaired(data, scenario.content("first").replace(b"\r\n", b"\n"), missing)
            missing = 0
        assert len(data) == int(size[1]), f"{path} is torn"
        content = without_trace(data)
        name = content[len("Subject: ") : content.index(b"\n")].decode()
        assert content == scenario.content(name).replace(b"\r\n", b"\n"), f"{path} is torn"
        names[name] += 1
    return names


def _repaired(data: bytes, content: bytes, missing: int) -> bytes:
    """`data` with the octets that were not written, which it lacks in one place."""
    start = b"Return-Path: "
    if not data.startswith(start):
        return start[:missing] + data
    body = without_trace(data)
    header = data[: len(data) - len(body)]
    place = next(n for n in range(len(content)) if body[n : n + 1] != content[n : n + 1])
    return header + body[:place] + content[place : place + missing] + body[place:]
