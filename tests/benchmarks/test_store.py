"""The benchmark of the store runs to its end, measures the disk, and writes its page."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks._disk import Disk
from benchmarks._load import Load
from benchmarks._servers import Dovecot

_ROOT = Path(__file__).parents[2]


def _run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "benchmarks", "store", "--quick", *arguments]
    return subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def out(folder: Path) -> Path:
    """A folder that Dovecot, who delivers as somebody else, can reach."""
    return folder / "results"


@pytest.mark.interop
@pytest.mark.timeout(120)
def test_the_store_is_measured_beside_dovecot_and_the_disk(out: Path, tmp_path: Path) -> None:
    if reason := Dovecot().missing() or Disk(1).missing():
        pytest.skip(reason)
    page = tmp_path / "page.md"
    shutil.copy(_ROOT / "docs" / "benchmarks.md", page)
    done = _run("--cells=durable/*/c1-100m-*", f"--out={out}", f"--page={page}", "--keep")
    assert done.returncode == 0, done.stderr
    results = json.loads((out / "store.json").read_text())
    measured = {cell["server"]: cell for cell in results["measurements"]}
    assert set(measured) == {"ours-optimized", "dovecot", "nothing-threads", "disk-t1"}
    for cell in measured.values():
        assert cell["problem"] is None
        assert cell["messages"] == 2
        assert cell["megabytes_per_second"] == pytest.approx(2 * cell["messages_per_second"])
    report = (out / "store.md").read_text()
    assert "| 100 MB: growth of RSS, MiB | ours-optimized | < 4 | " in report
    assert "| 100 MB: MB/s ÷ disk-t1 | ours-optimized | ≥ 0.8 | " in report
    assert report.strip() in page.read_text()
    # Warm-up and window: nothing was taken away.
    for server in ("ours-optimized", "dovecot"):
        kept = out.glob(f"mail-*/0-durable-{server}-c1-100m-r1/u0/new/*")
        assert len(list(kept)) == 5 + 2


def test_the_disk_stores_as_many_and_as_large_messages_as_asked_for(tmp_path: Path) -> None:
    if reason := Disk(3).missing():
        pytest.skip(reason)
    measured = Disk(3).measure(Load(size=1_500_000, messages=8), tmp_path / "mail")
    stored = list((tmp_path / "mail").glob("u?/new/*"))
    assert measured.messages == len(stored) == 8
    assert {file.stat().st_size for file in stored} == {1_500_000}
    assert not list((tmp_path / "mail").glob("u?/tmp/*"))


def test_the_store_has_no_such_cell(tmp_path: Path) -> None:
    done = _run("--cells=durable/nobody/*", f"--out={tmp_path}")
    assert done.returncode == 2
    assert "durable/nobody/*: no such cell" in done.stderr
    assert list(tmp_path.iterdir()) == []
