"""How a thread reads: in place while its peer is quick, by waiting first where it is not."""

import math
import socket
from collections.abc import Iterator

import pytest

from lmtp_blocking._stream import BlockingStream


class _Waiting:
    """Waits by having the peer say something, and counts."""

    def __init__(self) -> None:
        self.count = 0
        here, self.peer = socket.socketpair()
        self.stream = BlockingStream(here, self._wait)

    def _wait(self, writing: bool, deadline: float) -> bool:
        assert not writing
        self.count += 1
        self.peer.send(b"late")
        return True


@pytest.fixture
def waiting() -> Iterator[_Waiting]:
    waiting = _Waiting()
    yield waiting
    waiting.stream.cut()
    waiting.stream.close()
    waiting.peer.close()


def test_only_peers_that_are_slow_are_waited_for(waiting: _Waiting) -> None:
    assert waiting.stream.receive(math.inf) == b"late"
    assert waiting.count == 1
    for _ in range(3):
        waiting.peer.send(b"soon")
        assert waiting.stream.receive(math.inf) == b"soon"
    assert waiting.count == 1
    assert waiting.stream.receive(math.inf) == b"late"
    assert waiting.count == 2


def test_a_deadline_that_is_near_is_left_to_the_wait(waiting: _Waiting) -> None:
    assert waiting.stream.receive(math.inf) == b"late"
    assert waiting.stream.receive(-math.inf) == b"late"
    assert waiting.count == 2


def test_reads_are_large_amid_much(waiting: _Waiting) -> None:
    assert waiting.stream.receive(math.inf) == b"late"
    waiting.peer.send(bytes(80_000))
    sizes = [len(waiting.stream.receive(math.inf) or b"") for _ in range(3)]
    assert sizes == [4096, 65_536, 80_000 - 4096 - 65_536]
    assert waiting.count == 1


def test_the_end_is_read_in_place(waiting: _Waiting) -> None:
    assert waiting.stream.receive(math.inf) == b"late"
    waiting.stream.stop()
    assert waiting.stream.receive(math.inf) == b""
    assert waiting.count == 1
