"""Health checks, and what the page's server does with clients that are none."""

import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from lmtp_server._metrics import SERVING, STARTING, Area, Seen, find_fault
from tests.server._metrics import get, settings
from tests.server._peer import connect, deliver
from tests.server._program import Program

Start = Callable[..., Program]
Config = Callable[..., str]


@pytest.fixture
def page(start: Start, folder: Path, config: Config) -> str:
    """A daemon's."""
    start("--config", config(*settings(folder, workers=1))).addresses()
    return f"unix:{folder}/metrics"


def test_a_service_that_works_is_well(page: str) -> None:
    status, _, body = get(page, "/healthz")
    assert (status, body) == (200, "ok\n")


def test_what_is_wrong_is_said(start: Start, folder: Path, config: Config) -> None:
    lines = settings(folder, "[worker]", "heartbeat = 60", workers=1)
    lines[1] = f'listen = ["unix:{folder}/lmtp"]'
    program = start("--config", config(*lines))
    program.addresses()
    page = f"unix:{folder}/metrics"
    assert get(page, "/healthz")[0] == 200
    shutil.move(folder / "lmtp", folder / "elsewhere")
    status, _, body = get(page, "/healthz")
    assert (status, body) == (503, f"the socket {folder}/lmtp is gone\n")
    shutil.move(folder / "elsewhere", folder / "lmtp")
    assert get(page, "/healthz")[0] == 200


def test_silence_is_no_health() -> None:
    area = Area()
    assert find_fault(area, []) == "the supervisor does not look after the workers"
    area.look(wanted=2, stopping=False)
    assert find_fault(area, []) == "no worker serves"
    now = time.monotonic()
    area.see(Seen(0, 11, SERVING, now))
    area.see(Seen(1, 12, STARTING, now))
    assert find_fault(area, []) is None
    area.see(Seen(1, 12, SERVING, now - 60))
    assert find_fault(area, []) == "no sign of life of worker 12"
    area.bury(1, failed=True)
    assert find_fault(area, []) is None
    area.look(wanted=2, stopping=True)
    assert find_fault(area, []) == "the service stops"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/metrics/../etc/passwd", 404),
        ("POST", "/metrics", 405),
        ("GET", "/metrics?name=x", 200),
        ("GET", "/metrics HTTP/1.1 x", 400),
        ("GET", "/metrics HTTP/9", 400),
    ],
)
def test_other_requests_are_refused(page: str, method: str, path: str, status: int) -> None:
    assert get(page, path, method=method)[0] == status


def test_head_has_no_body(page: str) -> None:
    status, _, body = get(page, "/healthz", method="HEAD")
    assert (status, body) == (200, "")


def test_a_head_without_end_is_refused(page: str) -> None:
    with connect(page) as sock, sock.makefile("rb") as octets:
        sock.sendall(b"GET /metrics HTTP/1.1\r\n" + b"X: " + b"x" * 20_000)
        assert octets.readline().startswith(b"HTTP/1.1 431 ")


def test_clients_that_say_nothing_keep_nobody_out(
    start: Start, folder: Path, config: Config
) -> None:
    program = start("--config", config(*settings(folder, workers=1)))
    (address,) = program.addresses()
    page = f"unix:{folder}/metrics"
    with ExitStack() as stack:
        silent = [stack.enter_context(connect(page)) for _ in range(80)]
        for each in silent[::2]:
            each.sendall(b"GET /metrics HTT")
        assert get(page, "/metrics")[0] == 200
        # The oldest have made room.
        assert silent[0].recv(1) == b""
        assert deliver(address, "a@example.test")[0].startswith("250 ")
    assert program.stop() == 0
