"""What a user's agent says of the batches that it has stored, and may not make up."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from lmtp_proto import Address, Recipient
from lmtp_server._privileges._packets import encode, receive, send
from lmtp_server._privileges._pool import AgentPool, Due, Request
from mailstore import StoreObserver
from tests.server._program import SECONDS

_REPLY = [250, "2.0.0", "saved"]


class _Counted(StoreObserver):
    def __init__(self) -> None:
        self.batches: list[tuple[int, float]] = []

    def batch_committed(self, deliveries: int, seconds: float, /) -> None:
        self.batches.append((deliveries, seconds))


class _Agent:
    """Mail for one user has come, and this is the user's agent."""

    def __init__(self, stack: ExitStack) -> None:
        broker, end = _pair(stack)
        self.channel, channel = _pair(stack)
        self.counted = _Counted()
        pool = AgentPool(end, store=self.counted)
        stack.callback(pool.close)
        self.number = pool.number()
        self.due = Due(Recipient(address=Address("u", "example.org")))
        pool.ask("u", Request([encode({"do": "deliver"})], -1, {self.number: self.due}))
        _, number, _ = broker.recv(100).split(b" ")
        send(broker, b"agent %s" % number, channel.fileno())
        assert receive(self.channel) is not None

    def say(self, **fields: object) -> None:
        send(self.channel, encode(fields))

    def outcome(self) -> int:
        """The code that the client gets."""
        return self.due.reply.result(SECONDS).code


def _pair(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return stack.enter_context(first), stack.enter_context(second)


@pytest.fixture
def agent() -> Iterator[_Agent]:
    with ExitStack() as stack:
        yield _Agent(stack)


def test_a_batch_is_counted(agent: _Agent) -> None:
    agent.say(batch=1, microseconds=2500)
    agent.say(number=agent.number, reply=_REPLY)
    assert agent.outcome() == 250
    assert agent.counted.batches == [(1, 0.0025)]


@pytest.mark.parametrize(
    "fields",
    [
        {"batch": 2, "microseconds": 1},
        {"batch": 1, "microseconds": 10**12},
        {"batch": -1, "microseconds": 1},
        {"batch": 1, "microseconds": -1},
        {"batch": "1", "microseconds": 1},
        {"batch": 1},
    ],
)
def test_what_was_made_up_is_not(agent: _Agent, fields: dict[str, object]) -> None:
    agent.say(**fields)
    # Who says such things is not heard again, and the client tries again.
    assert agent.outcome() == 451
    assert agent.counted.batches == []


def test_nothing_is_counted_twice(agent: _Agent) -> None:
    agent.say(batch=1, microseconds=1)
    agent.say(batch=1, microseconds=1)
    assert agent.outcome() == 451
    assert agent.counted.batches == [(1, 0.000001)]
