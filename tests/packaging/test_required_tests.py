"""With LMTP_REQUIRE_INTEROP set no interop or fault test can be skipped unseen."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging._project import ROOT

SKIPPED_TEST = "import pytest\n\ndef test_it():\n    pytest.skip('no peer')\n"
SKIPPED_MODULE = "import pytest\npytest.skip('no peer', allow_module_level=True)\n"
MARKED_TEST = (
    "import pytest\n\n@pytest.mark.faults\n@pytest.mark.skip('no peer')\ndef test_it(): ...\n"
)
EXPECTED_FAILURE = "import pytest\n\n@pytest.mark.xfail\ndef test_it():\n    assert False\n"


def _run(
    folder: Path, name: str, source: str, *, required: bool
) -> subprocess.CompletedProcess[str]:
    """Run pytest on one test file beside a copy of this suite's conftest and settings."""
    tests = folder / "tests"
    file = tests / name
    file.parent.mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "conftest.py", tests)
    shutil.copy(ROOT / "pyproject.toml", folder)
    file.write_text(source)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LMTP_")}
    if required:
        environment["LMTP_REQUIRE_INTEROP"] = "1"
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("interop/test_x.py", SKIPPED_TEST),
        ("faults/test_x.py", SKIPPED_TEST),
        ("interop/test_x.py", SKIPPED_MODULE),
        ("server/test_x.py", MARKED_TEST),
    ],
)
def test_skip_of_a_required_test_fails(tmp_path: Path, name: str, source: str) -> None:
    result = _run(tmp_path, name, source, required=True)
    assert result.returncode != 0
    assert "LMTP_REQUIRE_INTEROP is set and this was skipped: " in result.stdout
    assert "no peer" in result.stdout


@pytest.mark.parametrize(
    ("name", "source", "required"),
    [
        ("interop/test_x.py", SKIPPED_TEST, False),
        ("protocol/test_x.py", SKIPPED_TEST, True),
        ("interop/test_x.py", EXPECTED_FAILURE, True),
    ],
)
def test_other_skips_pass(tmp_path: Path, name: str, source: str, required: bool) -> None:
    result = _run(tmp_path, name, source, required=required)
    assert result.returncode == 0, result.stdout
