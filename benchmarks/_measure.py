"""What a server's process tree costs, read from /proc: CPU seconds, resident memory; and how busy
the machine is.

The tree is the process itself and all that descend from it at the moment of reading. CPU time
includes children that have ended and were reaped inside the tree; memory does not. Kernel threads
(journal, write-back) are in neither.
"""

import os
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
# Columns of /proc/PID/stat behind the parenthesised name, counted from 0 (proc(5)).
_PARENT = 1
_TIMES = slice(11, 15)
# Writing this to /proc/PID/clear_refs sets the peak (VmHWM) back to what is resident now.
_RESET_PEAK = "5"


def _stat(pid: int) -> list[str] | None:
    """Return the columns of /proc/`pid`/stat behind the name, or None when the process is gone."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name may hold blanks and parentheses: the last closing one ends it.
    return text.rpartition(")")[2].split()


def tree(pid: int) -> list[int]:
    """Return `pid` and its descendants that live now, parents before children; empty if `pid` is
    gone.
    """
    children: dict[int, list[int]] = {}
    present = False
    for entry in os.listdir(_PROC):
        if not entry.isdigit():
            continue
        stat = _stat(int(entry))
        if stat is None:
            continue
        present = present or int(entry) == pid
        children.setdefault(int(stat[_PARENT]), []).append(int(entry))
    found = [pid] if present else []
    for parent in found:
        found += children.get(parent, [])
    return found


def cpu_seconds(pid: int) -> float:
    """Return user and system seconds of the tree so far, with reaped children, in steps of one
    tick (10 ms).
    """
    ticks = 0
    for member in tree(pid):
        stat = _stat(member)
        if stat is not None:
            ticks += sum(int(value) for value in stat[_TIMES])
    return ticks / _TICKS


def _status_kib(pid: int, file: str, name: str) -> int:
    """Return the value in KiB of line `name` in /proc/`pid`/`file`; 0 when the process is gone."""
    try:
        text = (_PROC / str(pid) / file).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    for line in text.splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    return 0


def rss(pid: int) -> int:
    """Return the octets resident in the tree now; shared pages count once for each process."""
    return sum(_status_kib(member, "status", "VmRSS") for member in tree(pid)) * 1024


def pss(pid: int) -> int:
    """Return the octets resident in the tree now, shared pages counted once in all."""
    return sum(_status_kib(member, "smaps_rollup", "Pss") for member in tree(pid)) * 1024


def peak_rss(pid: int) -> int:
    """Return the sum of the peaks (octets) of the processes that live now, each since its start or
    last reset.
    """
    return sum(_status_kib(member, "status", "VmHWM") for member in tree(pid)) * 1024


def reset_peak_rss(pid: int) -> None:
    """Start the peaks of all processes of the tree again from what is resident now."""
    for member in tree(pid):
        try:
            (_PROC / str(member) / "clear_refs").write_text(_RESET_PEAK)
        except (FileNotFoundError, ProcessLookupError):
            continue


@dataclass(frozen=True)
class Machine:
    """Load average of the last minute, and the seconds that the hypervisor has withheld since
    boot.
    """

    load: float
    steal_seconds: float


def machine() -> Machine:
    """Return how busy the machine is."""
    first = (_PROC / "stat").read_text().split("\n", 1)[0].split()
    # cpu user nice system idle iowait irq softirq steal ... (proc(5))
    return Machine(os.getloadavg()[0], int(first[8]) / _TICKS)
