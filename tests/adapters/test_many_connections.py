"""Thousands of connections that do nothing, to a server in a process of its own."""

import resource
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.adapters.harness import Client
from tests.adapters.process import Program

_NUMBER = 5000


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Open as many as the system lets a process have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < _NUMBER + 100:
        pytest.skip(f"a process may have {hard} descriptors here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("descriptors")
@pytest.mark.timeout(120)
def test_idle_ones_cost_nobody_else_anything(runtime: str) -> None:
    with Program(runtime, max_connections=_NUMBER) as program, ExitStack() as stack:
        clients = [stack.enter_context(Client(program.address)) for _ in range(_NUMBER)]
        for client in clients:
            client.greeted()
        for client in (clients[0], clients[-1]):
            client.deliver("b")
            client.expect(b"250 ")
        with Client(program.address) as one_too_many:
            one_too_many.expect(b"421 4.3.2 too many connections")
        program.signal(signal.SIGTERM)
        for client in clients:
            client.expect(b"421 4.3.2")
            client.expect_end()
            client.close()
        assert program.wait() == 0
