"""What logs and recordings have of a session: ids in refusals, no secrets, all octets."""

from collections.abc import Generator

import pytest

from lmtp_proto import (
    Effect,
    Handler,
    MemorySink,
    Message,
    Receive,
    Recipient,
    Reply,
    Send,
    Session,
    Settings,
    Sink,
    Transaction,
)
from tests.protocol.driver import Driver


class _Refusing(Handler):
    """Answers each recipient with the reply that it was made with."""

    def __init__(self, reply: Reply, at_rcpt: bool = True) -> None:
        self._reply = reply
        self._at_rcpt = at_rcpt

    def rcpt(self, transaction: Transaction, recipient: Recipient, /) -> Reply | None:
        return self._reply if self._at_rcpt else None

    def open(self, transaction: Transaction, /) -> Sink:
        return MemorySink(self.deliver, transaction)

    def deliver(self, message: Message, recipient: Recipient, /) -> Reply:
        return self._reply


_BEGIN = b"LHLO x\r\nMAIL FROM:<>\r\n"


@pytest.mark.parametrize(
    ("reply", "named"),
    [
        (Reply(550, "<a@b.c> no user"), b"550 5.0.0 <a@b.c> session no user"),
        (Reply(550, "no user > all"), b"550 5.0.0 session no user > all"),
        (Reply(550, "<no user"), b"550 5.0.0 session <no user"),
        (Reply(450, "one", "two"), b"450-4.0.0 session one\r\n450 4.0.0 two"),
        (Reply(450, "session has it"), b"450 4.0.0 session has it"),
        (Reply(250, "welcome"), b"250 2.0.0 welcome"),
    ],
)
def test_refusals_have_the_id_that_the_log_has(reply: Reply, named: bytes) -> None:
    driver = Driver(_Refusing(reply), Settings(names_refusals=True))
    driver.receive(_BEGIN + b"RCPT TO:<a@b.c>\r\n")
    assert driver.output.endswith(b"\r\n" + named + b"\r\n")
    driver = Driver(_Refusing(reply, at_rcpt=False), Settings(names_refusals=True))
    driver.receive(_BEGIN + b"RCPT TO:<a@b.c>\r\nRCPT TO:<a@b.c>\r\nDATA\r\n")
    driver.receive(b".\r\n")
    assert driver.output.endswith(b"\r\n" + named + b"\r\n" + named + b"\r\n")


def test_without_being_asked_refusals_stay_what_they_are() -> None:
    driver = Driver(_Refusing(Reply(550, "no user")))
    driver.receive(_BEGIN + b"RCPT TO:<a@b.c>\r\n")
    assert driver.output.endswith(b"\r\n550 5.0.0 no user\r\n")


def test_faults_and_trust_have_it_too_where_there_is_a_transaction() -> None:
    driver = Driver(Handler(), Settings(names_refusals=True))
    driver.receive(b"LHLO x\r\nRCPT TO:<a@b.c>\r\n")
    assert b"session" not in driver.output
    driver.receive(b"MAIL FROM:<>\r\nRCPT TO:<a@b.c> X=1\r\n")
    assert b"\r\n555 5.5.4 session X is not supported\r\n" in driver.output


@pytest.mark.parametrize("logs", [True, False])
def test_refusals_are_logged_unless_somebody_else_does(logs: bool) -> None:
    driver = Driver(_Refusing(Reply(550, "no user")), Settings(logs_refusals=logs))
    driver.receive(_BEGIN + b"RCPT TO:<a@b.c>\r\n")
    assert [log.text.endswith(": refused <a@b.c>: 550 5.0.0 no user") for log in driver.logs] == [
        True
    ] * logs


def test_what_auth_says_is_not_logged() -> None:
    driver = Driver(Handler())
    driver.receive(b"LHLO x\r\nauth PLAIN AHNlY3JldABzZWNyZXQ=\r\n")
    (log,) = driver.logs
    assert log.text.endswith(" to: auth PLAIN")


def test_a_conversation_can_be_passed_through() -> None:
    seen: list[bytes] = []

    def around(
        session: Session, conversation: Generator[Effect, None, None]
    ) -> Generator[Effect, None, None]:
        assert session.id == "session"
        for effect in conversation:
            if isinstance(effect, Send):
                seen.append(effect.data)
            yield effect
            if isinstance(effect, Receive):
                assert isinstance(effect.outcome, bytes)
                seen.append(effect.outcome)

    driver = Driver(Handler(), Settings(around=around))
    driver.receive(b"QUIT\r\n")
    assert [seen[0][:4], *seen[1:]] == [b"220 ", b"QUIT\r\n", b"221 2.0.0 bye\r\n"]


class _Full:
    """A sink that takes nothing."""

    def write(self, data: bytes, /) -> Reply:
        return Reply(452, "no space")

    def deliver(self, recipient: Recipient, /) -> Reply:
        raise AssertionError("the content was refused")

    def close(self) -> None:
        """Nothing is to be let go."""


class _Open(Handler):
    """Opens that sink."""

    def open(self, transaction: Transaction, /) -> Sink:
        return _Full()


@pytest.mark.parametrize("logs", [True, False])
def test_a_refused_content_has_the_id_and_one_line_at_most(logs: bool) -> None:
    driver = Driver(_Open(), Settings(names_refusals=True, logs_refusals=logs))
    driver.receive(_BEGIN + b"RCPT TO:<a@b.c>\r\nRCPT TO:<b@b.c>\r\nDATA\r\n")
    driver.receive(b"x\r\n.\r\n")
    assert driver.output.endswith(b"\r\n" + b"452 4.0.0 session no space\r\n" * 2)
    lines = [log.text.partition(": ")[2] for log in driver.logs]
    assert lines == ["content refused: 452 4.0.0 session no space"] * logs
