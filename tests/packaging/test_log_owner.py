"""The log of a server that root starts with few capabilities, as own-uids.conf does."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging._project import ROOT
from tests.server._program import Program

pytestmark = pytest.mark.privileges


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that everybody may enter."""
    if os.geteuid() != 0:
        pytest.skip("only root has capabilities to give up")
    with tempfile.TemporaryDirectory(prefix="lmtp-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_the_log_of_the_last_time_is_written_to(folder: Path) -> None:
    drop_in = (ROOT / "packaging" / "systemd" / "own-uids.conf").read_text()
    (allowed,) = (
        line.partition("=")[2].replace("CAP_", "+").lower().replace(" ", ",")
        for line in drop_in.splitlines()
        if line.startswith("CapabilityBoundingSet=")
    )
    setpriv = shutil.which("setpriv")
    assert setpriv is not None
    settings = folder / "settings.toml"
    log = folder / "lmtp.log"
    settings.write_text(
        f'listen = ["unix:{folder}/lmtp"]\nmail = "~/Maildir"\nworkers = 1\n'
        f'network_user = "nobody"\n[[userdb]]\ndriver = "system"\n[log]\npath = "{log}"\n'
    )
    for _ in range(2):
        program = Program(
            *("--config", str(settings)),
            cwd=folder,
            prefix=[setpriv, f"--bounding-set=-all,{allowed}"],
        )
        try:
            program.addresses()
            assert log.stat().st_uid == 65534
            assert program.stop() == 0
        finally:
            program.kill()
