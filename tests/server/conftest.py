"""Fixtures: a folder to run in, each runtime in turn, and daemons that are ended with the test."""

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.server._program import Program

RUNTIMES = ("asyncio", "uvloop", "gevent", "blocking")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A temporary folder with a path short enough for a UNIX socket."""
    path = Path(tempfile.mkdtemp(prefix="lmtp-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    """Each runtime of the daemon in turn."""
    name = str(request.param)
    if name in ("uvloop", "gevent") and importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    return name


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., Program]]:
    """Start daemons in the folder; what is left of them at the end of the test is killed."""
    started: list[Program] = []

    def start(*arguments: str, stderr: int | None = None) -> Program:
        program = Program(*arguments, cwd=folder, stderr=stderr)
        started.append(program)
        return program

    yield start
    for program in started:
        program.kill()


@pytest.fixture
def fake_module(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put a program in the place of a module: its name and text."""
    monkeypatch.setenv("PYTHONPATH", str(folder / "lib"), prepend=os.pathsep)

    def write(name: str, program: str) -> None:
        (folder / "lib").mkdir()
        (folder / f"lib/{name}.py").write_text(program)

    return write


@pytest.fixture
def fake_uvloop(fake_module: Callable[[str, str], None]) -> Callable[[str], None]:
    """Put a program in the place of uvloop."""
    return lambda program: fake_module("uvloop", program)


@pytest.fixture
def config(folder: Path) -> Callable[..., str]:
    """Write the settings; where they are."""

    def write(*lines: str) -> str:
        path = folder / "settings.toml"
        path.write_text("\n".join(lines) + "\n")
        return str(path)

    return write
