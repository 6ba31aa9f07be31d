"""The system calls that a running server makes, counted by strace."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from benchmarks._servers import ServerError

READS = frozenset({"read", "readv", "pread64", "recvfrom", "recvmsg", "recvmmsg"})
WRITES = frozenset({"write", "writev", "pwrite64", "sendto", "sendmsg", "sendmmsg", "sendfile"})

# % time, seconds, usecs/call, calls, errors (or blank), name (strace(1), -c).
_LINE = re.compile(r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?([a-z]\w*)$", re.MULTILINE)


def missing() -> str | None:
    """Return why calls cannot be counted here; None when they can."""
    if shutil.which("strace") is None:
        return "not installed: strace"
    # Whether one process may trace another is up to the kernel's settings (ptrace(2)).
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        try:
            with counted(process.pid, {}):
                return None
        except ServerError as error:
            return str(error)


@contextmanager
def counted(pid: int, counts: dict[str, int]) -> Iterator[None]:
    """Put into `counts` how often all threads of `pid` have made each call inside.

    Raises ServerError when they cannot be traced.
    """
    with subprocess.Popen(
        ["strace", "-f", "-c", "-p", str(pid)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
    ) as tracer:
        assert tracer.stderr is not None
        # It says so once it holds all threads.
        said = tracer.stderr.readline()
        if "attached" not in said:
            tracer.kill()
            raise ServerError(said.strip() or "strace ended at once")
        try:
            yield
        finally:
            tracer.send_signal(signal.SIGINT)
            summary = tracer.stderr.read()
    counts.update({name: int(calls) for calls, name in _LINE.findall(summary) if name != "total"})


def total(counts: Mapping[str, int], names: frozenset[str]) -> int:
    """Return how often calls of `names` were made."""
    return sum(calls for name, calls in counts.items() if name in names)
