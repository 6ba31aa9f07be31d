"""Traces of system calls as strace writes them, and strace itself on a process or a command."""

import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

_RESUMED = re.compile(r"<\.\.\. \w+ resumed>")
# With its error name, the octets that were read or written, or the new descriptor and its path.
_RESULT = re.compile(r"\)\s+= (-?\d+)(?:<[^>]*>)?( E[A-Z0-9]+)?[^=]*$")
# The thread is there if several are traced, the time with -ttt.
_LINE = re.compile(r"(?:(\d+) +)?(?:(\d+\.\d+) )?(.*)$")
_NO_RIGHT = ("PTRACE_TRACEME", "PTRACE_SEIZE", "ptrace_do_init")


@dataclass(frozen=True)
class Call:
    """One system call: its text, and the numbers of the lines where it began and was over.

    `when` is the time at which it began, 0 where the trace has none.
    """

    thread: int
    name: str
    text: str
    begin: int
    end: int
    when: float = 0

    @property
    def result(self) -> int:
        """What it gave, -1 for an error and for a call that did not come to its end."""
        match = _RESULT.search(self.text)
        return -1 if match is None else int(match[1])

    @property
    def injected(self) -> bool:
        """Whether strace made the result up."""
        return self.text.endswith("(INJECTED)")


def calls_of(trace: str) -> list[Call]:
    """The calls of a trace, in the order in which they began."""
    calls = []
    begun: dict[int, tuple[str, int, float]] = {}
    lines = trace.splitlines()
    for number, line in enumerate(lines):
        match = _LINE.match(line)
        assert match is not None
        thread, when, text = int(match[1] or 0), float(match[2] or 0), match[3]
        begin = number
        if text.startswith(("+++", "---")):
            continue
        if text.endswith("<unfinished ...>"):
            begun[thread] = (text.removesuffix("<unfinished ...>"), number, when)
            continue
        resumed = _RESUMED.match(text)
        if resumed:
            first, begin, when = begun.pop(thread)
            text = first + text[resumed.end() :]
        calls.append(Call(thread, text.partition("(")[0], text, begin, number, when))
    for thread, (text, begin, when) in begun.items():
        calls.append(Call(thread, text.partition("(")[0], text, begin, len(lines), when))
    return sorted(calls, key=lambda call: call.begin)


def strace() -> str:
    """The path of strace; without one the test is skipped."""
    path = shutil.which("strace")
    if path is None:
        pytest.skip("strace is not installed")
    return path


def run_traced(trace: Path, options: Iterable[str], command: Iterable[str]) -> str:
    """Run a command to its end under strace, and give what it wrote to standard output."""
    ran = subprocess.run(
        [strace(), "-f", "-y", "-o", str(trace), *options, *command],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    _skip_without_right(ran.stderr)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def attach(trace: Path, options: Iterable[str], threads: Iterable[int]) -> subprocess.Popen[str]:
    """Trace threads that run; when this returns, their next calls are traced.

    strace ends when they do.
    """
    threads = list(threads)
    targets = [option for thread in threads for option in ("-p", str(thread))]
    process = subprocess.Popen(
        [strace(), "-y", "-o", str(trace), *options, *targets], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    said: list[str] = []
    while sum("attached" in line for line in said) < len(threads):
        line = process.stderr.readline()
        said.append(line)
        if not line:
            process.wait()
            process.stderr.close()
            _skip_without_right("".join(said))
            raise AssertionError("".join(said))
    return process


def _skip_without_right(stderr: str) -> None:
    if any(call in stderr for call in _NO_RIGHT):
        pytest.skip("strace may not trace here")
