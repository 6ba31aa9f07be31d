"""Fixtures for tests as root: users with ids of their own, and programs that are ended."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.privileges.processes import of_session

ROOT = Path(__file__).parents[2]
FIRST_UID = 21_000
NETWORK_UID = 22_500
SECONDS = 20.0
"""How long anything here is waited for before it is taken for a failure."""


@pytest.fixture(scope="session", autouse=True)
def root() -> None:
    """Skip what needs root where there is none."""
    if os.geteuid() != 0:
        pytest.skip("changing users needs root")


class Site:
    """Users with homes, numbered from 0, and the settings that name them."""

    def __init__(self, path: Path, count: int) -> None:
        self.path = path
        (path / "spool").mkdir(mode=0o700)
        os.chown(path / "spool", NETWORK_UID, NETWORK_UID)
        self.settings: dict[str, Any] = {
            "users": {},
            "network_uid": NETWORK_UID,
            "spool": str(path / "spool"),
            "workers": 2,
        }
        for number in range(count):
            self.add(f"u{number}", FIRST_UID + number)

    def add(self, name: str, uid: int, **more: object) -> Path:
        """One more user; the Maildir."""
        home = self.path / name
        home.mkdir(mode=0o700)
        os.chown(home, uid, uid)
        user = {"uid": uid, "gid": uid, "home": str(home), "mail": str(home / "Maildir"), **more}
        self.settings["users"][name] = user
        self.save()
        return home / "Maildir"

    def save(self) -> None:
        """Write the settings."""
        (self.path / "settings.json").write_text(json.dumps(self.settings))

    def maildir(self, name: str) -> Path:
        return Path(self.settings["users"][name]["mail"])

    def mail(self, name: str) -> list[Path]:
        """The messages in the INBOX of a user."""
        new = self.maildir(name) / "new"
        return sorted(new.iterdir()) if new.exists() else []


@pytest.fixture
def site() -> Iterator[Site]:
    """Three users, in a directory that all may pass through."""
    path = Path(tempfile.mkdtemp(prefix="lmtp-"))
    path.chmod(0o755)
    yield Site(path, 3)
    shutil.rmtree(path)


class Started:
    """A program of this folder with the settings of a site, and the line it began with."""

    def __init__(self, module: str, site: Site) -> None:
        site.save()
        self._log = site.path / "log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"tests.privileges.{module}", site.path / "settings.json"],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'adapters'}"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self.said = self.read()

    @property
    def log(self) -> str:
        """What it has written to standard error so far."""
        return self._log.read_text()

    def read(self) -> dict[str, Any]:
        """The next line that it prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log
        said: dict[str, Any] = json.loads(line)
        return said

    def say(self, **order: object) -> dict[str, Any]:
        """Send a line; the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return self.read()

    def pids(self) -> list[int]:
        """All of its processes."""
        return of_session(self.process.pid)

    def stop(self) -> int:
        """SIGTERM, to it alone; the exit code."""
        self.process.terminate()
        return self.process.wait(SECONDS)

    def close(self) -> None:
        """Kill what is left of it."""
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(SECONDS)
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


@pytest.fixture
def start(site: Site) -> Iterator[Callable[[str], Started]]:
    """Start a program of this folder."""
    programs: list[Started] = []

    def start(module: str) -> Started:
        programs.append(Started(module, site))
        return programs[-1]

    yield start
    for program in programs:
        program.close()
