"""The yardstick for the disk: a C program, compiled here, that stores messages and serves nobody.

It is measured where servers are, so it has the methods of one and cannot be run as one.
"""

import shutil
import subprocess
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import _measure
from benchmarks._cell import Measurement
from benchmarks._load import Load
from benchmarks._servers import Handler, Running, ServerError

_SOURCE = Path(__file__).parent / "peers" / "disk.c"
_MANY = 1 << 40


@dataclass(frozen=True)
class Disk:
    """Write, fsync, rename, fsync of the directory, in so many `threads`."""

    threads: int

    @property
    def name(self) -> str:
        return f"disk-t{self.threads}"

    def missing(self) -> str | None:
        return None if shutil.which("cc") else "not installed: cc"

    def running(self, handler: Handler, mail: Path) -> AbstractContextManager[Running]:
        raise ServerError("it serves nobody")

    def measure(self, load: Load, folder: Path) -> Measurement:
        """Store messages as large, as many and as long as `load` has them, in Maildirs below the
        new folder `folder`. Raises ServerError when that fails."""
        program = _compiled(folder.parent / "disk")
        folder.mkdir()
        messages = _MANY if load.messages is None else load.messages
        arguments = (self.threads, load.size, messages, min(load.duration, 3600.0))
        before = _measure.machine()
        said = _said([str(program), str(folder), *map(str, arguments)])
        count, seconds, cpu, p50, p99, peak = map(float, said.split())
        return Measurement(
            messages_per_second=count / seconds,
            megabytes_per_second=count * load.size / seconds / 1e6,
            cpu_seconds_per_thousand=1000 * cpu / count,
            p50_ms=p50,
            p99_ms=p99,
            peak_rss_mib=peak / 1024,
            # It holds one block from the beginning.
            rss_growth_mib=0.0,
            messages=int(count),
            seconds=seconds,
            generator_cpu_seconds=0.0,
            steal_seconds=_measure.machine().steal_seconds - before.steal_seconds,
            load_average=before.load,
            problem=None,
        )


def _compiled(program: Path) -> Path:
    if not program.exists():
        _said(["cc", "-O2", "-Wall", "-Wextra", "-pthread", "-o", str(program), str(_SOURCE)])
    return program


def _said(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServerError(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout
