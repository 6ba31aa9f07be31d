"""What a crash may leave of a delivery whose retry is recognised, from the system calls of one."""

import itertools
import re
import sys
from pathlib import Path

import pytest

from mailstore import Sync
from tests.faults.crash_model import Delivery
from tests.faults.tracing import Call, calls_of, run_traced

_SMALL, _LARGE = 1000, 400_000


def _traced(folder: Path, sync: Sync, size: int) -> tuple[str, list[Call]]:
    """The root and the calls of a message that comes three times."""
    root = folder / "root"
    root.mkdir()
    trace = folder / "trace"
    command = [sys.executable, "-m", "tests.faults.retrier", str(root), sync, str(size), "u", "3"]
    said = run_traced(trace, ["-s", "60", "-e", "trace=%file,%desc"], command)
    assert re.findall(r"answered 250 .* Saved(.*)\n", said) == ["", " before", " before"]
    return str(root), calls_of(trace.read_text())


@pytest.mark.parametrize("size", [_SMALL, _LARGE])
@pytest.mark.parametrize("sync", [Sync.OPTIMIZED, Sync.SYNCFS])
def test_no_crash_makes_a_retry_of_what_is_lost(tmp_path: Path, sync: Sync, size: int) -> None:
    root, calls = _traced(tmp_path, sync, size)
    records = [call for call in calls if re.match(r"pwrite64\(.*lmtp-retries>", call.text)]
    answers = [call for call in calls if re.match(r'write\(1<[^>]*>, "answered', call.text)]
    (visible,) = (call for call in calls if re.match(rf"linkat\(.*<{root}/u/new>", call.text))
    begun, stored = records
    first, *again = answers
    # Any of it may be all that is left: the record that the message is stored, or a reply.
    for promise in (stored, first, *again):
        delivery = Delivery(root, calls, [("u", promise)])
        assert delivery.violations() == []
        assert delivery.violations(without=delivery.syncs)
    # What may be left of the message has a record.
    synced = [
        call
        for call in calls
        if re.match(r"fdatasync\(.*lmtp-retries>|syncfs\(", call.text)
        and begun.end < call.begin
        and call.end < visible.begin
    ]
    assert len(synced) == 1
    for earlier, later in itertools.pairwise((begun, synced[0], visible, stored, first)):
        assert earlier.end < later.begin, (earlier.text, later.text)


def test_a_retry_costs_no_sync_and_a_delivery_one(tmp_path: Path) -> None:
    _, calls = _traced(tmp_path, Sync.OPTIMIZED, _SMALL)
    answers = [call for call in calls if re.match(r'write\(1<[^>]*>, "answered', call.text)]
    synced = [call for call in calls if re.match(r"f(data)?sync\(", call.text)]
    assert not [call for call in synced if call.begin > answers[0].begin]
    # The file itself, when it is made, and one record.
    of_records = [call.text.partition("(")[0] for call in synced if "lmtp-retries" in call.text]
    assert of_records == ["fsync", "fdatasync"]
