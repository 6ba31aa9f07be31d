"""Fixtures of the conformance suite: each test that takes `start` runs on every runtime."""

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from lmtp_proto import Handler, Settings
from tests.adapters.blocking import Detector
from tests.adapters.clients import MakeClient, MakePool, client_maker, pool_maker
from tests.adapters.harness import (
    PATIENCE,
    RUNTIMES,
    Client,
    Connect,
    Place,
    RunningServer,
    Start,
    serving,
)


@pytest.fixture(scope="module", autouse=True)
def detector() -> Iterator[Detector]:
    """Find calls that block an event loop, in all tests of this folder."""
    detector = Detector()
    with detector.active():
        yield detector


@pytest.fixture(autouse=True)
def _nothing_blocks(detector: Detector) -> Iterator[None]:
    yield
    assert detector.take() == []


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    """Name the runtime."""
    return str(request.param)


@pytest.fixture
def start(runtime: str) -> Iterator[Start]:
    """Start servers, which are stopped after the test."""
    with ExitStack() as stack:

        def start_one(
            handler: Handler,
            *listeners: Place,
            settings: Settings | None = None,
            **options: Any,
        ) -> RunningServer:
            return stack.enter_context(
                serving(
                    runtime,
                    handler,
                    *listeners,
                    settings=settings,
                    **options,
                )
            )

        yield start_one


@pytest.fixture
def connect(start: Start) -> Iterator[Connect]:
    """Open connections, which are closed after the test, before its servers stop."""
    with ExitStack() as stack:

        def connect_one(address: str) -> Client:
            return stack.enter_context(Client(address))

        yield connect_one


@pytest.fixture
def client_of(runtime: str) -> MakeClient:
    """Connect as an embedder does."""
    return client_maker(runtime)


@pytest.fixture
def pool_of(runtime: str) -> MakePool:
    """Make a pool as an embedder does."""
    return pool_maker(runtime)


class LogLines(logging.Handler):
    """Collects what is logged, in any thread."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        """Each begins with its severity."""
        self._added = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._added:
            self.lines.append(f"{record.levelname} {record.getMessage()}")
            self._added.notify_all()

    def wait_for(self, *texts: str) -> str:
        """Wait for a line that holds all `texts`."""

        def find() -> str | None:
            return next((line for line in self.lines if all(map(line.__contains__, texts))), None)

        with self._added:
            found = self._added.wait_for(find, PATIENCE)
            assert found is not None, f"{texts} are not in {self.lines}"
            return found


@pytest.fixture
def logs() -> Iterator[LogLines]:
    """Read the log."""
    handler = LogLines()
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler
    root.setLevel(level)
    root.removeHandler(handler)
