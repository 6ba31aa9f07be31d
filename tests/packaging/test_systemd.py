"""What systemd says of the units and snippets."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging._project import ROOT

pytestmark = pytest.mark.interop

_UNITS = ROOT / "packaging" / "systemd"
_SETTINGS = ROOT / "packaging" / "lmtp-server.toml"


def _run(*command: str | Path) -> str:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=25, check=False)
    except FileNotFoundError:
        pytest.skip(f"{command[0]} is not installed")
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


@pytest.fixture(params=["vmail", "own-uids"])
def units(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The units as installed, for a program that is there."""
    for name in ("lmtp-server.service", "lmtp-server.socket"):
        text = (_UNITS / name).read_text()
        (tmp_path / name).write_text(text.replace("/usr/bin/lmtp-server", "/bin/true"))
    if request.param != "vmail":
        drop_ins = tmp_path / "lmtp-server.service.d"
        drop_ins.mkdir()
        (drop_ins / "own-uids.conf").write_text((_UNITS / "own-uids.conf").read_text())
    return tmp_path


def test_the_units_are_right(units: Path) -> None:
    said = _run("systemd-analyze", "verify", "--man=no", units / "lmtp-server.service")
    assert "lmtp-server" not in said


def test_the_service_is_confined(units: Path) -> None:
    own_uids = (units / "lmtp-server.service.d").exists()
    # In tenths: what systemd calls OK ends at 50, and root with capabilities costs something.
    most = "45" if own_uids else "20"
    options = ["security", "--offline=yes", "--no-pager", f"--threshold={most}"]
    _run("systemd-analyze", *options, units / "lmtp-server.service")


def test_users_are_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    _run("systemd-sysusers", f"--root={tmp_path}", _UNITS / "lmtp-server.sysusers")
    users = [line.split(":") for line in (tmp_path / "etc" / "passwd").read_text().splitlines()]
    assert [(name, home) for name, _, _, _, _, home, _ in users] == [
        ("vmail", "/var/vmail"),
        ("lmtp", "/nonexistent"),
    ]
    assert all(shell.endswith("/nologin") for *_, shell in users)


@pytest.mark.privileges
def test_the_directory_of_the_mail_is_made(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give directories away")
    (tmp_path / "etc").mkdir()
    root = f"--root={tmp_path}"
    _run("systemd-sysusers", root, _UNITS / "lmtp-server.sysusers")
    # The second time it is there already.
    for _ in range(2):
        _run("systemd-tmpfiles", root, "--create", _UNITS / "lmtp-server.tmpfiles")
    (vmail,) = (
        line.split(":")
        for line in (tmp_path / "etc" / "passwd").read_text().splitlines()
        if line.startswith("vmail:")
    )
    made = (tmp_path / "var" / "vmail").stat()
    assert (made.st_uid, made.st_gid) == (int(vmail[2]), int(vmail[3]))
    assert stat.filemode(made.st_mode) == "drwx------"


def test_the_settings_are_right(tmp_path: Path) -> None:
    _run(sys.executable, "-m", "lmtp_server", "config", "check", "--config", _SETTINGS)
