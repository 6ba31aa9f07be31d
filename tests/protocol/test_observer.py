"""What an observer is told of a session, and that it can neither change nor harm one."""

from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest

from lmtp_proto import (
    STANDARD_EXTENSIONS,
    Extension,
    Handler,
    Interrupt,
    Limits,
    MemorySink,
    Message,
    Observer,
    Recipient,
    Reply,
    Session,
    Settings,
    Severity,
    Transaction,
)
from tests.dialogs.handler import SETTINGS, DialogHandler
from tests.dialogs.transcript import Dialog, dialogs
from tests.protocol.driver import Driver

_LHLO: Final = b"LHLO client.example.org\r\n"
_MAIL: Final = b"MAIL FROM:<sender@example.net>\r\n"
_ENVELOPE: Final = _MAIL + b"RCPT TO:<alice@example.org>\r\nRCPT TO:<bob@example.org>\r\n"


class Notes(Observer):
    """Writes everything down, in words."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def connected(self, session: Session, /) -> None:
        self.lines.append(f"{session.id} connected")

    def commanded(self, session: Session, verb: str, reply: Reply, seconds: float, /) -> None:
        self.lines.append(f"{session.id} {verb or '?'} {reply.code} {seconds:g}s")

    def transaction_begun(self, transaction: Transaction, /) -> None:
        self.lines.append(f"{transaction.id} begun")

    def recipient_refused(
        self, transaction: Transaction, recipient: Recipient, reply: Reply, /
    ) -> None:
        self.lines.append(f"{transaction.id} refused {recipient} {reply.code}")

    def recipient_answered(
        self, transaction: Transaction, recipient: Recipient, reply: Reply, seconds: float, /
    ) -> None:
        name = transaction.recipient_id(recipient)
        self.lines.append(f"{name} {recipient} {reply.code} {seconds:g}s")

    def transaction_ended(self, transaction: Transaction, octets: int, seconds: float, /) -> None:
        self.lines.append(f"{transaction.id} ended {octets} octets {seconds:g}s")

    def shut_down(self, session: Session, reply: Reply, /) -> None:
        self.lines.append(f"{session.id} shut down {reply.code} {reply.enhanced}")

    def disconnected(
        self, session: Session, octets_in: int, octets_out: int, seconds: float, /
    ) -> None:
        self.lines.append(f"{session.id} disconnected {octets_in} {octets_out} {seconds:g}s")


class Answers(Handler):
    """Refuses carol, and delivers when the test says so."""

    def __init__(self) -> None:
        self.deliveries: list[Future[Reply]] = []

    def rcpt(self, transaction: Transaction, recipient: Recipient, /) -> Reply | None:
        return Reply(550, "no") if recipient.address.local_part == "carol" else None

    def deliver(self, message: Message, recipient: Recipient, /) -> "Future[Reply]":
        future: Future[Reply] = Future()
        self.deliveries.append(future)
        return future


class Accepts(Handler):
    """Delivers everything at once."""

    def deliver(self, message: Message, recipient: Recipient, /) -> Reply:
        return Reply(250, "ok")


def _observed(handler: Handler, **changes: Any) -> tuple[Driver, list[str]]:
    notes = Notes()
    return Driver(handler, Settings(observer=notes, **changes)), notes.lines


def _take(lines: list[str]) -> list[str]:
    taken = lines.copy()
    lines.clear()
    return taken


def test_a_session() -> None:
    handler = Answers()
    driver, lines = _observed(handler)
    assert _take(lines) == ["session connected", "session CONNECT 220 0s"]
    driver.now += 1
    sent = [_LHLO, _ENVELOPE + b"RCPT TO:<carol@example.org>\r\n", b"DATA\r\n"]
    driver.receive(sent[0])
    driver.receive(sent[1])
    assert _take(lines) == [
        "session LHLO 250 0s",
        "session MAIL 250 0s",
        "session begun",
        "session RCPT 250 0s",
        "session RCPT 250 0s",
        "session RCPT 550 0s",
        "session refused carol@example.org 550",
    ]
    driver.now += 2
    driver.receive(sent[2])
    driver.now += 4
    sent.append(b"hello\r\n..\r\n.\r\nRSET\r\n")
    driver.receive(sent[3])
    driver.now += 8
    handler.deliveries[1].set_result(Reply(452, "full"))
    handler.deliveries[0].set_result(Reply(250, "ok"))
    driver.resume()
    assert _take(lines) == [
        "session DATA 354 0s",
        "session.1 alice@example.org 250 8s",
        "session.2 bob@example.org 452 8s",
        "session ended 10 octets 14s",
        "session RSET 250 0s",
    ]
    sent.append(_MAIL + b"RSET\r\nEXPN x\r\nVERY\xff odd\r\nDATA\r\nQUIT\r\n")
    driver.receive(sent[4])
    octets = sum(map(len, sent))
    assert _take(lines) == [
        "session MAIL 250 0s",
        "session:T2 begun",
        "session RSET 250 0s",
        "session:T2 ended 0 octets 0s",
        "session ? 502 0s",
        "session ? 500 0s",
        "session DATA 503 0s",
        "session QUIT 221 0s",
        f"session disconnected {octets} {len(driver.output)} 15s",
    ]


def test_a_command_takes_as_long_as_its_job() -> None:
    futures: list[Future[Reply | None]] = []

    class Slow(Handler):
        def mail(self, session: Session, mail: object, /) -> Any:
            futures.append(Future())
            return futures[-1]

    driver, lines = _observed(Slow())
    driver.receive(_LHLO + _MAIL)
    driver.now += 3
    futures[0].set_result(None)
    driver.resume()
    assert lines[-2:] == ["session MAIL 250 3s", "session begun"]


def test_chunks() -> None:
    driver, lines = _observed(Accepts())
    driver.receive(_LHLO + _ENVELOPE + b"BDAT 5\r\nhe")
    _take(lines)
    driver.now += 1
    driver.receive(b"lloBDAT 0\r\nNOOP\r\nBDAT 1 LAST\r\n!")
    assert _take(lines) == [
        "session BDAT 250 1s",
        "session BDAT 250 0s",
        "session NOOP 250 0s",
        "session.1 alice@example.org 250 0s",
        "session.2 bob@example.org 250 0s",
        "session ended 6 octets 1s",
    ]


def test_a_content_for_nobody() -> None:
    driver, lines = _observed(Accepts())
    driver.receive(_LHLO + _MAIL)
    _take(lines)
    driver.receive(b"BDAT 1 LAST\r\nx")
    assert lines == ["session ended 0 octets 0s"]


def test_a_content_that_is_refused() -> None:
    driver, lines = _observed(Accepts(), limits=Limits(message_size=5))
    driver.receive(_LHLO + _ENVELOPE + b"DATA\r\n")
    _take(lines)
    driver.receive(b"too long\r\n.\r\n")
    assert [line for line in lines if "552" in line] == [
        "session.1 alice@example.org 552 0s",
        "session.2 bob@example.org 552 0s",
    ]
    assert lines[-1].startswith("session ended ")


def test_an_exchange_and_tls() -> None:
    extensions = STANDARD_EXTENSIONS | {Extension.AUTH, Extension.STARTTLS}
    notes = Notes()
    driver = Driver(Accepts(), Settings(observer=notes, extensions=extensions), tls="TLSv1.3")
    driver.receive(_LHLO + b"STARTTLS\r\n")
    driver.receive(_LHLO + b"AUTH LOGIN\r\nYQ==\r\n*\r\n")
    assert notes.lines[2:] == [
        "session LHLO 250 0s",
        "session STARTTLS 220 0s",
        "session LHLO 250 0s",
        "session AUTH 334 0s",
        "session AUTH 334 0s",
        "session AUTH 501 0s",
    ]


@pytest.mark.parametrize("how", ["timeout", "stop", "quit", "faults", "eof", "cut"])
def test_ends(how: str) -> None:
    driver, lines = _observed(Accepts(), limits=Limits(faults=1))
    driver.receive(_LHLO + _ENVELOPE)
    _take(lines)
    driver.now += 5
    expected: list[str] = []
    if how == "timeout":
        driver.interrupt(Interrupt.TIMEOUT)
        expected = ["session shut down 421 4.4.2"]
    elif how == "stop":
        driver.stop.requested = True
        driver.interrupt(Interrupt.STOP)
        expected = ["session shut down 421 4.3.2"]
    elif how == "quit":
        # The last word is 221 then.
        driver.stop.requested = True
        driver.receive(b"QUIT\r\n")
        expected = ["session QUIT 221 0s"]
    elif how == "faults":
        driver.receive(b"A\r\nB\r\n")
        expected = ["session ? 500 0s", "session shut down 421 4.7.0"]
    elif how == "eof":
        driver.eof()
    else:
        driver.cut()
    octets = len(_LHLO + _ENVELOPE) + (6 if how in ("faults", "quit") else 0)
    assert driver.closed
    assert lines == [
        *expected,
        "session ended 0 octets 5s",
        f"session disconnected {octets} {len(driver.output)} 5s",
    ]


def test_421_of_a_handler() -> None:
    class Away(Handler):
        def rcpt(self, transaction: Transaction, recipient: Recipient, /) -> Reply:
            return Reply(421, "go away")

    driver, lines = _observed(Away())
    driver.receive(_LHLO + _ENVELOPE)
    assert driver.closed
    assert lines[-4:-1] == [
        "session RCPT 421 0s",
        "session refused alice@example.org 421",
        "session ended 0 octets 0s",
    ]


def test_a_handler_that_fails_at_the_end() -> None:
    class Fails(Accepts):
        def disconnect(self, session: Session, /) -> None:
            raise RuntimeError("crash")

    driver, lines = _observed(Fails())
    with pytest.raises(RuntimeError, match="crash"):
        driver.receive(b"QUIT\r\n")
    assert lines[-1].startswith("session disconnected 6 ")


_METHODS: Final = [name for name in vars(Observer) if not name.startswith("_")]


def _say_everything(observer: Observer) -> Driver:
    limits = Limits(faults=1)
    handler = Answers()
    driver = Driver(handler, Settings(observer=observer, limits=limits))
    driver.receive(_LHLO + _ENVELOPE + b"RCPT TO:<carol@example.org>\r\nDATA\r\n")
    driver.receive(b"hello\r\n.\r\n")
    for future in handler.deliveries:
        future.set_result(Reply(250, "ok"))
    driver.resume()
    driver.receive(b"A\r\nB\r\n")
    assert driver.closed
    return driver


def test_an_observer_that_looks_away() -> None:
    assert _say_everything(Observer()).logs


@pytest.mark.parametrize("method", _METHODS)
@pytest.mark.parametrize("is_async", [False, True])
def test_an_observer_that_fails(method: str, is_async: bool) -> None:
    error = RuntimeError("crash\r\n")

    def fail(self: Observer, *_: object) -> None:
        raise error

    async def later(self: Observer, *_: object) -> None:
        """Never begun."""

    failing = later if is_async else fail
    failing.__name__ = method
    observer: Observer = type("Failing", (Notes,), {method: failing})()
    undisturbed = _say_everything(Notes())
    for expected in (1, 0, 0):
        driver = _say_everything(observer)
        assert driver.writes == undisturbed.writes
        errors = [log for log in driver.logs if log.severity is Severity.ERROR]
        assert len(errors) == expected
        for log in errors:
            assert log.text == f"session 192.0.2.1:4711: {method}() of the observer failed"
            assert is_async or log.error is error


def test_a_failure_that_could_not_be_logged_is_logged_the_next_time() -> None:
    class Failing(Observer):
        def disconnected(self, *_: object) -> None:
            raise RuntimeError("crash")

    settings = Settings(observer=Failing())
    driver = Driver(Accepts(), settings)
    driver.cut()
    assert driver.logs == []
    driver = Driver(Accepts(), settings)
    driver.eof()
    assert [log.text for log in driver.logs] == [
        "session 192.0.2.1:4711: disconnected() of the observer failed"
    ]


def test_a_frozen_observer() -> None:
    @dataclass(frozen=True)
    class Frozen(Observer):
        number: list[int]

        def connected(self, session: Session, /) -> None:
            self.number.append(1)
            raise RuntimeError("crash")

    frozen = Frozen(number=[])
    drivers = [Driver(Accepts(), Settings(observer=frozen)) for _ in range(3)]
    assert len(frozen.number) == 3
    assert sum(len(driver.logs) for driver in drivers) == 1


def test_ids_of_recipients() -> None:
    ids: list[str] = []

    class Names(Handler):
        def open(self, transaction: Transaction, /) -> MemorySink:
            ids.extend(map(transaction.recipient_id, transaction.recipients))
            with pytest.raises(ValueError, match="not in list"):
                transaction.recipient_id(Recipient(address=transaction.recipients[0].address))
            return MemorySink(lambda message, recipient: Reply(250, "ok"), transaction)

    driver = Driver(Names())
    for _ in range(2):
        driver.receive(_LHLO + _ENVELOPE + b"RCPT TO:<alice@example.org>\r\nDATA\r\n")
        driver.receive(b".\r\n")
    assert ids == [
        *("session.1", "session.2", "session.3"),
        *("session:T2.1", "session:T2.2", "session:T2.3"),
    ]


class _Tally(Observer):
    """Counts replies and keeps what is open."""

    def __init__(self) -> None:
        self.replies = 0
        self.open: list[object] = []
        self.octets = (0, 0)

    def connected(self, session: Session, /) -> None:
        self.open.append(session)

    def commanded(self, session: Session, verb: str, reply: Reply, seconds: float, /) -> None:
        assert self.open[0] is session
        self.replies += 1

    def transaction_begun(self, transaction: Transaction, /) -> None:
        assert self.open == [transaction.session]
        self.open.append(transaction)

    def recipient_answered(
        self, transaction: Transaction, recipient: Recipient, reply: Reply, seconds: float, /
    ) -> None:
        assert self.open[1] is transaction
        self.replies += 1

    def transaction_ended(self, transaction: Transaction, octets: int, seconds: float, /) -> None:
        assert self.open.pop() is transaction

    def shut_down(self, session: Session, reply: Reply, /) -> None:
        self.replies += 1

    def disconnected(
        self, session: Session, octets_in: int, octets_out: int, seconds: float, /
    ) -> None:
        assert self.open.pop() is session
        self.octets = octets_in, octets_out


@pytest.mark.parametrize("dialog", list(dialogs()), ids=lambda dialog: dialog.name)
def test_every_reply_of_every_dialogue(dialog: Dialog) -> None:
    tally = _Tally()
    driver = Driver(DialogHandler(), replace(SETTINGS, observer=tally))
    undisturbed = Driver(DialogHandler(), SETTINGS)
    received = 0
    for turn in dialog.turns:
        if turn.sent and not driver.closed:
            received += len(turn.sent)
            driver.receive(turn.sent)
            undisturbed.receive(turn.sent)
    if not driver.closed:
        driver.eof()
        undisturbed.eof()
    assert driver.writes == undisturbed.writes
    assert tally.open == []
    assert tally.replies == len(driver.codes)
    assert tally.octets == (received, len(driver.output))
