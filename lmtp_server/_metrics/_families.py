"""The values of all metrics at one moment.

The invariant: what it takes to read them is a look at shared memory and at /proc; no process is
asked, and none can hold it up.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from . import _definitions as d
from ._area import LEAVING, SERVING, STARTING, Area

# Labels that few of many values of ever count are told once they do.
_MANY: Final = 8
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Sample:
    """One value with its labels."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Family:
    """A metric with its samples; a histogram has `buckets` instead, upper limit and how many were
    not above it, the last of them all, and the sum of what was observed."""

    metric: d.Metric
    samples: Sequence[Sample] = ()
    buckets: Sequence[tuple[float, int]] = ()
    sum: float = 0.0


def read_families(area: Area, build: Mapping[str, str]) -> list[Family]:
    """All metrics, in the order of their definitions."""
    sums = area.sums()
    families = [_of_workers(metric, sums[d.CELLS[metric.name]]) for metric in d.OF_WORKERS]
    workers = list(area.workers())
    states = {"starting": STARTING, "serving": SERVING, "leaving": LEAVING}
    counts = [
        Sample({"state": name}, sum(each.state == state for each in workers))
        for name, state in states.items()
    ]
    memory = [Sample({"worker": str(each.place)}, _resident(each.pid)) for each in workers]
    return [
        *families,
        Family(d.WORKERS, counts),
        Family(d.WANTED, [Sample({}, area.wanted)]),
        Family(d.STARTS, [Sample({}, area.starts)]),
        Family(d.FAILURES, [Sample({}, area.failures)]),
        Family(d.MEMORY, memory),
        Family(d.START, [Sample({}, area.begun)]),
        Family(d.BUILD, [Sample(build, 1)]),
    ]


def _of_workers(metric: d.Metric, cells: Sequence[int]) -> Family:
    if metric.kind == "histogram":
        *counts, total = cells
        limits = (*metric.limits, float("inf"))
        buckets = list(zip(limits, accumulate(counts), strict=True))
        return Family(
            metric, buckets=buckets, sum=total / d.MICRO if metric.unit == "seconds" else total
        )
    samples = [
        Sample(labels, value)
        for labels, value in zip(metric.label_sets(), cells, strict=True)
        if value or len(cells) <= _MANY
    ]
    return Family(metric, samples)


def _resident(pid: int) -> int:
    """Octets in memory; 0 for a process that has ended."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0
