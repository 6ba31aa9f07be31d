"""CPU and memory of a process tree are those of all its processes."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import _measure

_MIB = 2**20

_BURN = """
import os, time
def burn():
    while time.process_time() < 0.3:
        pass
"""
# One child ends and is reaped, another lives on.
_FAMILY = (
    _BURN
    + """
child = os.fork()
if child == 0:
    burn()
    os._exit(0)
os.waitpid(child, 0)
ready, written = os.pipe()
if os.fork() == 0:
    burn()
    os.write(written, b"1")
    os.read(0, 1)
    os._exit(0)
os.read(ready, 1)
print("burnt", flush=True)
os.read(0, 1)
"""
)
_PEAK = """
import os
block = b"x" * (64 << 20)
del block
print("freed", flush=True)
os.read(0, 1)
"""


@contextmanager
def _program(text: str) -> Iterator[int]:
    """Run `text` up to its first line of output; gives its process id."""
    with subprocess.Popen(
        [sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield process.pid


def test_cpu_counts_living_and_reaped_children() -> None:
    with _program(_FAMILY) as pid:
        assert len(_measure.tree(pid)) == 2
        # 0.3 s each, less the ticks that were cut.
        assert _measure.cpu_seconds(pid) > 0.5


def test_the_peak_is_remembered_until_reset() -> None:
    with _program(_PEAK) as pid:
        assert _measure.peak_rss(pid) > 64 * _MIB
        assert _measure.rss(pid) < 64 * _MIB
        _measure.reset_peak_rss(pid)
        assert _measure.peak_rss(pid) < 64 * _MIB


def test_shared_pages_count_once_in_pss() -> None:
    with _program(_FAMILY) as pid:
        assert 0 < _measure.pss(pid) < _measure.rss(pid)


def test_a_process_that_is_gone_costs_nothing() -> None:
    with _program(_PEAK) as pid:
        pass
    assert _measure.tree(pid) == []
    assert _measure.cpu_seconds(pid) == _measure.rss(pid) == _measure.peak_rss(pid) == 0
