"""What logrotate says of its snippet."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.packaging._project import ROOT

pytestmark = pytest.mark.interop


def test_the_snippet_is_right(tmp_path: Path) -> None:
    program = shutil.which("logrotate", path="/usr/sbin:/usr/bin")
    if program is None:
        pytest.skip("logrotate is not installed")
    # It takes none that others may write to.
    snippet = tmp_path / "lmtp-server"
    shutil.copyfile(ROOT / "packaging" / "lmtp-server.logrotate", snippet)
    snippet.chmod(0o644)
    command = [program, "--debug", "--state", str(tmp_path / "state"), str(snippet)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert result.returncode == 0, result.stderr
    assert "error" not in result.stderr
    assert "rotating pattern: /var/log/lmtp-server/*.log  weekly (8 rotations)" in result.stderr
