"""The benchmark of the adapters runs to its end, counts what it says, and writes its page."""

import json
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from benchmarks import _system_calls
from benchmarks._cell import drive
from benchmarks._load import Load
from benchmarks._servers import Ours, ServerError

_ROOT = Path(__file__).parents[2]
_PAGE = _ROOT / "docs" / "benchmarks.md"
_BEGIN = "<!-- adapters: written by `python -m benchmarks adapters` from here -->\n"
_END = "<!-- adapters: to here -->\n"

# Makes 200 calls and says so, for each line that it is given.
_ASKED = """
import os, sys
nowhere = os.open(os.devnull, os.O_WRONLY)
for _ in sys.stdin:
    for _ in range(100):
        os.getppid()
        os.write(nowhere, b"x")
    os.write(1, b"done\\n")
"""


@pytest.fixture(scope="module")
def strace() -> None:
    """Skip where system calls cannot be counted."""
    reason = _system_calls.missing()
    if reason is not None:
        pytest.skip(reason)


def _run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "benchmarks", "adapters", "--quick", *arguments]
    return subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)


@pytest.mark.timeout(120)
def test_an_adapter_is_measured_and_the_page_has_what_the_results_have(tmp_path: Path) -> None:
    page, out = tmp_path / "page.md", tmp_path / "results"
    shutil.copy(_PAGE, page)
    done = _run(
        "--cells=discard/uvloop-w1/c2-1k-pipelined", f"--out={out}", f"--page={page}", "--idle=30"
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in out.iterdir()} == {"adapters.json", "adapters.md"}
    results = json.loads((out / "adapters.json").read_text())
    # Those that a ratio needs come along.
    servers = ["uvloop-w1", "aiosmtpd-asyncio", "nothing-uvloop"]
    assert sorted(cell["server"] for cell in results["measurements"]) == sorted(servers)
    for cell in results["measurements"]:
        assert cell["problem"] is None
        assert cell["messages"] == 20
    assert [held["server"] for held in results["idle"]] == servers
    assert [held["open"] for held in results["idle"]] == [30] * 3
    report = (out / "adapters.md").read_text()
    assert done.stdout == report + "\n"
    for text in ("### What is asked of", "### discard, 1 KB, 2 connections", "### Idle conn"):
        assert text in report
    for server in servers:
        assert f"| {server} | " in report
    before, rest = page.read_text().split(_BEGIN)
    section, after = rest.split(_END)
    assert section.strip() == report.strip()
    original = _PAGE.read_text()
    assert before == original.split(_BEGIN)[0]
    assert after == original.split(_END)[1]


@pytest.mark.faults
@pytest.mark.usefixtures("strace")
@pytest.mark.timeout(120)
def test_system_calls_per_message_are_counted(tmp_path: Path) -> None:
    done = _run("--cells=discard/nothing-asyncio/c2-1k-pipelined", f"--out={tmp_path}", "--idle=1")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "adapters.json").read_text())["system_calls"]
    calls = {counted["server"]: counted for counted in found}
    assert set(calls) == {"aiosmtpd-asyncio", "nothing-uvloop", "nothing-asyncio"}
    # The envelope and its content: two flights, each answered at once.
    assert calls["nothing-asyncio"]["messages"] == 50
    assert calls["nothing-asyncio"]["reads"] == calls["nothing-asyncio"]["writes"] == 2
    # One for each reply.
    assert calls["aiosmtpd-asyncio"]["writes"] >= 4
    assert f"| nothing-asyncio | 2.00 | 2.00 | {calls['nothing-asyncio']['others']:.2f} | " in (
        done.stdout
    )


@pytest.mark.faults
@pytest.mark.usefixtures("strace")
def test_only_calls_inside_are_counted() -> None:
    counts: dict[str, int] = {}
    with subprocess.Popen(
        [sys.executable, "-c", _ASKED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as process:
        for watched in (nullcontext(), _system_calls.counted(process.pid, counts), nullcontext()):
            with watched:
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write("\n")
                assert process.stdout.readline() == "done\n"
    assert counts["getppid"] == 100
    # What says that they are done, here and before, may be on its way out of the kernel.
    assert 100 <= _system_calls.total(counts, _system_calls.WRITES) <= 102


@pytest.mark.faults
@pytest.mark.usefixtures("strace")
def test_a_read_on_asyncio_maps_no_memory(tmp_path: Path) -> None:
    counts: dict[str, int] = {}
    load = Load(connections=2, size=1000, messages=50)
    with Ours("asyncio").running("discard", tmp_path) as running:
        window = drive(running, load, lambda: _system_calls.counted(running.pid, counts))
    assert window.result.messages == 50
    assert _system_calls.total(counts, _system_calls.READS) == 2 * 50
    assert counts.get("mmap", 0) < 10


@pytest.mark.faults
@pytest.mark.usefixtures("strace")
def test_a_process_that_is_gone_cannot_be_traced() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    with pytest.raises(ServerError, match="strace: "), _system_calls.counted(process.pid, {}):
        raise AssertionError("there is nothing to trace")


def test_no_such_cell(tmp_path: Path) -> None:
    done = _run("--cells=discard/nobody/*", f"--out={tmp_path}")
    assert done.returncode == 2
    assert "discard/nobody/*: no such cell" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_page_without_a_place_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{_END}{_BEGIN}")
    done = _run(f"--out={tmp_path}", f"--page={page}")
    assert done.returncode == 2
    assert f"{page}: no line " in done.stderr
    assert list(tmp_path.iterdir()) == [page]
