"""An observer on each runtime: what it is told, and how many octets were on the wire."""

import threading

import pytest

from lmtp_proto import Observer, Recipient, Reply, Session, Settings, Transaction
from tests.adapters.harness import Connect, Mailbox, Start, wait_for


class _Watch(Observer):
    """Keeps what it is told of one session."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.octets = (0, 0)
        self.over = threading.Semaphore(0)

    def connected(self, session: Session, /) -> None:
        self.events.append("connected")

    def commanded(self, session: Session, verb: str, reply: Reply, seconds: float, /) -> None:
        assert 0 <= seconds < 60
        self.events.append(f"{verb} {reply.code}")

    def recipient_answered(
        self, transaction: Transaction, recipient: Recipient, reply: Reply, seconds: float, /
    ) -> None:
        assert 0 <= seconds < 60
        number = transaction.recipient_id(recipient).removeprefix(f"{transaction.session.id}.")
        self.events.append(f"{number} {reply.code}")

    def transaction_ended(self, transaction: Transaction, octets: int, seconds: float, /) -> None:
        assert 0 <= seconds < 60
        self.events.append(f"{octets} octets")

    def disconnected(
        self, session: Session, octets_in: int, octets_out: int, seconds: float, /
    ) -> None:
        assert 0 <= seconds < 60
        self.octets = octets_in, octets_out
        self.over.release()


def test_a_session(start: Start, connect: Connect) -> None:
    watch = _Watch()
    client = connect(start(Mailbox(), settings=Settings(observer=watch)).address)
    sent = (
        b"LHLO client.example\r\nMAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\n"
        b"RCPT TO:<b@example.org>\r\nDATA\r\n..\r\n.\r\nQUIT\r\n"
    )
    client.send(sent)
    received = client.rest()
    wait_for(watch.over)
    assert watch.events == [
        "connected",
        "CONNECT 220",
        "LHLO 250",
        "MAIL 250",
        "RCPT 250",
        "RCPT 250",
        "DATA 354",
        "1 250",
        "2 250",
        "3 octets",
        "QUIT 221",
    ]
    assert watch.octets == (len(sent), len(received))


@pytest.mark.parametrize("how", ["closes", "vanishes"])
def test_a_client_that_goes(start: Start, connect: Connect, how: str) -> None:
    watch = _Watch()
    client = connect(start(Mailbox(), settings=Settings(observer=watch)).address).greeted()
    client.send(b"LHLO client.example\r\nMAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\n")
    client.expect(b"250 ", b"250 ", b"250 ")
    if how == "closes":
        client.close()
    else:
        client.reset()
    wait_for(watch.over)
    assert watch.events[-1] == "0 octets"
