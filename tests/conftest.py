"""What all tests share: markers, a folder for every user, skips that must not pass for success.

With LMTP_REQUIRE_INTEROP set, a skip of a test marked ``interop``, ``faults`` or ``privileges`` is
a failure: a machine that is meant to have the other mail software cannot lose those tests unseen.
"""

import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

_TESTS = Path(__file__).parent
_REQUIRED_MARKERS = ("interop", "faults", "privileges")
_REQUIRED = bool(os.environ.get("LMTP_REQUIRE_INTEROP"))

# A deadline would be a timing assertion.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A temporary folder that every user may enter, with a path short enough for a UNIX socket."""
    # Not pytest's own: the next run of pytest on the machine closes those to all others.
    path = Path(tempfile.mkdtemp(prefix="lmtp-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def _folder(path: Path) -> str:
    """Name of the folder of tests/ that holds a path, "" when none does."""
    return path.relative_to(_TESTS).parts[0] if _TESTS in path.parents else ""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Give the tests of these folders the marker of their folder."""
    folder = _folder(item.path)
    if folder in _REQUIRED_MARKERS:
        item.add_marker(folder)


def _fail_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn the report of a skip into one of a failure that gives the reason of the skip."""
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"LMTP_REQUIRE_INTEROP is set and this was skipped: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail the skip of a required test; an expected failure is no skip."""
    report = yield
    required = any(item.get_closest_marker(name) for name in _REQUIRED_MARKERS)
    if _REQUIRED and required and report.skipped and not hasattr(report, "wasxfail"):
        _fail_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fail the skip of a whole module of required tests."""
    report = yield
    if _REQUIRED and report.skipped and _folder(collector.path) in _REQUIRED_MARKERS:
        _fail_skip(report)
    return report
