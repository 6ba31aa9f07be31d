"""What blocks an event loop or a hub is found: all other tests here rely on that."""

import threading
import time

import pytest

from lmtp_proto import Answer, Message, Recipient, Reply
from tests.adapters.blocking import Detector
from tests.adapters.harness import SAVED, Connect, Mailbox, Start

_LOCK = threading.Lock()


class _Sleeping(Mailbox):
    def deliver(self, message: Message, recipient: Recipient, /) -> Answer[Reply]:
        time.sleep(0)
        return SAVED


class _Locking(Mailbox):
    def deliver(self, message: Message, recipient: Recipient, /) -> Answer[Reply]:
        if not _LOCK.acquire(timeout=0.001):
            return SAVED
        _LOCK.release()
        return SAVED


class _Jobs(Mailbox):
    """Blocks where it may."""

    def deliver(self, message: Message, recipient: Recipient, /) -> Answer[Reply]:
        return self._job

    def _job(self) -> Reply:
        time.sleep(0)
        return SAVED


@pytest.mark.parametrize(
    ("handler", "call"), [(_Sleeping(), "time.sleep"), (_Locking(), "lock.acquire")]
)
def test_a_handler_that_blocks(
    runtime: str,
    start: Start,
    connect: Connect,
    detector: Detector,
    handler: Mailbox,
    call: str,
) -> None:
    with _LOCK:
        client = connect(start(handler).address).greeted()
        client.deliver("b")
        reply = client.reply()
    found = detector.take()
    if runtime == "blocking":
        # Its session has a thread of its own.
        assert reply.startswith(b"250 ")
        assert found == []
    else:
        assert reply.startswith(b"451 4.3.0")
        assert [text.splitlines()[0] for text in found] == [call]


def test_a_job_may(start: Start, connect: Connect, detector: Detector) -> None:
    client = connect(start(_Jobs()).address).greeted()
    client.deliver("b")
    client.expect(b"250 ")
    assert detector.take() == []
