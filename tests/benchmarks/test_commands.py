"""The commands run to their end and leave their results, and no mail that was not asked for."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


def _run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)


def test_throughput_measures_a_peer_and_reports(tmp_path: Path) -> None:
    done = _run("throughput", "--quick", "--cells", "discard/aiosmtpd-*/*", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "throughput.json").read_text())
    measured = {cell["server"]: cell for cell in results["measurements"]}
    assert set(measured) == {"aiosmtpd-asyncio", "aiosmtpd-uvloop"}
    for cell in measured.values():
        assert cell["problem"] is None
        assert cell["messages"] == 20
        assert cell["peak_rss_mib"] > 1
    assert results["facts"]["cores"] > 0
    table = (tmp_path / "throughput.md").read_text()
    assert "| aiosmtpd-uvloop | " in table
    assert done.stdout == table + "\n"
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"throughput.json", "throughput.md", "throughput.svg", "throughput.png"}


def test_durable_mail_is_kept_on_request(folder: Path) -> None:
    # Dovecot, the reference of durable cells, delivers as somebody who has to reach the folder.
    done = _run(
        "throughput",
        "--quick",
        "--keep",
        "--cells",
        "durable/aiosmtpd-asyncio/*",
        "--out",
        str(folder),
    )
    assert done.returncode == 0, done.stderr
    delivered = list(folder.glob("mail-*/0-durable-aiosmtpd-asyncio-*/u*/new/*"))
    assert len(delivered) == 20 * 3


def test_no_such_cell(tmp_path: Path) -> None:
    done = _run("throughput", "--quick", "--cells", "discard/nobody/*", "--out", str(tmp_path))
    assert done.returncode == 2
    assert "discard/nobody/*: no such cell" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_memory_measures_a_peer(tmp_path: Path) -> None:
    done = _run(
        "memory",
        "--servers=aiosmtpd-asyncio",
        "--size=4000000",
        "--idle=30",
        "--out",
        str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    [figures] = json.loads((tmp_path / "memory.json").read_text())["measurements"]
    # It holds the message as lines and as a whole.
    assert figures["message_growth_mib"] > 4
    assert figures["idle_open"] == 30
    assert figures["idle_rss_mib"] > figures["rss_before_mib"] / 2
    assert {path.name for path in tmp_path.iterdir()} == {"memory.json", "memory.md"}


@pytest.mark.parametrize("command", [[], ["throughput"], ["adapters"], ["memory"]])
def test_help_needs_nothing_optional(command: list[str]) -> None:
    forbidden = "import sys; sys.modules.update(matplotlib=None, aiosmtpd=None, uvloop=None)\n"
    arguments = [*command, "--help"]
    program = f"{forbidden}sys.argv[1:] = {arguments}\nfrom benchmarks.__main__ import main\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=_ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "usage: python -m benchmarks" in done.stdout
