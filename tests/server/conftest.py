"""Fixtures: a folder to run in, each runtime in turn, and daemons that are ended with the test."""

import importlib.util
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
