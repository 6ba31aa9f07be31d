"""`Pool` on every runtime: what is used again, what is replaced, and how many there are."""

import math
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

import pytest
import trustme

from lmtp_proto import (
    Address,
    Answer,
    LocalProtocolError,
    Message,
    Recipient,
    Reply,
    Result,
)
from lmtp_transport import Listener, Open, PoolBook, PoolSettings, Retire, Reuse, ServerTls, Wait
from tests.adapters.clients import MakePool, Outcome, at_once, on_loop
from tests.adapters.harness import (
    SAVED,
    Mailbox,
    PendingDeliveries,
    serving,
    wait_for,
)
from tests.adapters.in_turn import HANG_UP, SILENCE, InTurn, Script

_HELLO: Final = [b"hello\r\n"]
_NEVER: Final = math.inf


def _recipient(local_part: str = "a") -> Recipient:
    return Recipient(address=Address(local_part, "example.org"))


def _codes(results: list[Result]) -> list[int]:
    return [result.reply.code for result in results]


def _settings(**settings: Any) -> PoolSettings:
    """Without probes, unless they are asked for."""
    return PoolSettings(**{"probe_after": _NEVER, **settings})


def _verbs(lines: list[str]) -> list[str]:
    return [line[:4] for line in lines]


_MESSAGE: Final = ["MAIL", "RCPT", "DATA"]


def test_a_connection_is_used_again(pool_of: MakePool) -> None:
    mailbox = Mailbox()
    with serving("asyncio", mailbox) as server:
        with pool_of(server.address) as pool:
            for name in ("a", "b", "c"):
                assert _codes(pool.submit(None, [_recipient(name)], _HELLO)) == [250]
        wait_for(mailbox.disconnected)
    assert mailbox.delivered == [(name, b"hello\r\n") for name in ("a", "b", "c")]
    assert len(mailbox.connected) == 1


def test_an_idle_connection_is_probed(pool_of: MakePool) -> None:
    with InTurn({}) as server, pool_of(server.address, PoolSettings(probe_after=0)) as pool:
        for _ in range(3):
            assert _codes(pool.submit(None, [_recipient()], _HELLO)) == [250]
    message = ["RSET", *_MESSAGE]
    assert _verbs(server.lines[0]) == ["LHLO", *_MESSAGE, *message, *message, "QUIT"]


@pytest.mark.parametrize(
    "answer", [HANG_UP, b"421 4.3.2 bye\r\n", b"451 4.3.0 no\r\n", SILENCE, b"nonsense\r\n"]
)
def test_what_fails_the_probe_is_replaced(pool_of: MakePool, answer: bytes) -> None:
    settings = PoolSettings(probe_after=0, probe_timeout=0.2)
    with (
        InTurn({"RSET": answer}, {}) as server,
        pool_of(server.address, settings) as pool,
    ):
        for _ in range(2):
            assert _codes(pool.submit(None, [_recipient()], _HELLO)) == [250]
    first, second = server.lines
    assert _verbs(first)[:5] == ["LHLO", *_MESSAGE, "RSET"]
    assert _verbs(second) == ["LHLO", *_MESSAGE, "QUIT"]


_AGAIN: Final[list[Script]] = [
    {"MAIL": [b"250 ok\r\n", HANG_UP]},
    {"RCPT": [b"250 ok\r\n", HANG_UP]},
    {"MAIL": [b"250 ok\r\n", b"421 4.3.2 bye\r\n"]},
    {"RCPT": [b"250 ok\r\n", b"421 4.3.2 bye\r\n"]},
    {"MAIL": [b"250 ok\r\n", b"nonsense\r\n"]},
    # Said when nobody had asked.
    {".": b"250 ok\r\n421 4.4.2 idle for too long\r\n"},
]


@pytest.mark.parametrize("script", _AGAIN)
def test_a_message_that_a_lost_connection_did_not_take(pool_of: MakePool, script: Script) -> None:
    with (
        InTurn(script, {}) as server,
        pool_of(server.address, _settings(size=1)) as pool,
    ):
        for _ in range(2):
            # A content that can be read but once.
            assert _codes(pool.submit(None, [_recipient()], iter(_HELLO))) == [250]
    assert server.contents == [b"hello\r\n"] * 2
    assert _verbs(server.lines[1]) == ["LHLO", *_MESSAGE, "QUIT"]


def test_a_message_that_may_have_arrived_is_not_sent_again(pool_of: MakePool) -> None:
    with (
        InTurn({".": [b"250 ok\r\n", HANG_UP]}, {}) as server,
        pool_of(server.address, _settings()) as pool,
    ):
        codes = [_codes(pool.submit(None, [_recipient()], [b"%d\r\n" % n])) for n in range(3)]
    assert codes == [[250], [451], [250]]
    assert server.contents == [b"0\r\n", b"1\r\n", b"2\r\n"]


def test_a_message_of_which_the_server_has_spoken_is_not_sent_again(pool_of: MakePool) -> None:
    script = {"RCPT": [b"250 ok\r\n", b"550 no\r\n", HANG_UP]}
    with InTurn(script, {}) as server, pool_of(server.address, _settings()) as pool:
        assert _codes(pool.submit(None, [_recipient()], _HELLO)) == [250]
        assert _codes(pool.submit(None, [_recipient("b"), _recipient("c")], _HELLO)) == [550, 451]
        assert _codes(pool.submit(None, [_recipient()], _HELLO)) == [250]


@pytest.mark.parametrize("answer", [HANG_UP, b"421 4.3.2 bye\r\n"])
@pytest.mark.parametrize("verb", ["", "LHLO", "MAIL"])
def test_a_new_connection_is_not_tried_twice(pool_of: MakePool, verb: str, answer: bytes) -> None:
    with InTurn({verb: answer}, {}) as server, pool_of(server.address, _settings()) as pool:
        (result,) = pool.submit(None, [_recipient()], _HELLO)
        assert result.reply.code == (451 if answer == HANG_UP else 421)
        # The next one waits until connecting is tried again.
        assert _codes(pool.submit(None, [_recipient()], _HELLO)) == [250]


def test_a_server_that_comes_back(pool_of: MakePool, tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/s"
    mailbox = Mailbox()
    with pool_of(address, _settings(back_off_limit=0.1)) as pool:
        with serving("blocking", mailbox, address):
            assert _codes(pool.submit(None, [_recipient("first")], _HELLO)) == [250]
        for _ in range(5):
            with pytest.raises(FileNotFoundError, match="cannot connect to unix:"):
                pool.submit(None, [_recipient("lost")], _HELLO)
        with serving("blocking", mailbox, address):
            assert _codes(pool.submit(None, [_recipient("second")], _HELLO)) == [250]
            assert _codes(pool.submit(None, [_recipient("third")], _HELLO)) == [250]
    assert [name for name, _ in mailbox.delivered] == ["first", "second", "third"]
    assert len(mailbox.connected) == 2


def test_a_server_that_is_there_too_late(pool_of: MakePool, tmp_path: Path) -> None:
    with pool_of(f"unix:{tmp_path}/s", _settings(timeout=0)) as pool:
        with pytest.raises(FileNotFoundError):
            pool.submit(None, [_recipient()], _HELLO)
        with pytest.raises(TimeoutError) as caught:
            pool.submit(None, [_recipient()], _HELLO)
        assert isinstance(caught.value.__cause__, FileNotFoundError)


class _InFours(PendingDeliveries):
    """Completes deliveries when four have begun."""

    def __init__(self) -> None:
        super().__init__()
        self._held: list[Future[Reply]] = []
        self._lock = threading.Lock()

    def deliver(self, message: Message, recipient: Recipient, /) -> Answer[Reply]:
        future = super().deliver(message, recipient)
        assert isinstance(future, Future)
        with self._lock:
            self._held.append(future)
            if len(self._held) == 4:
                for held in self._held:
                    held.set_result(SAVED)
                self._held = []
        return future


def test_no_more_connections_than_the_size(pool_of: MakePool, runtime: str) -> None:
    handler = _InFours()
    with serving("asyncio", handler) as server, pool_of(server.address, _settings(size=4)) as pool:
        messages = [(_recipient(f"r{number}"), _HELLO) for number in range(60)]
        outcomes = at_once(runtime, pool, messages)
    assert all(isinstance(each, list) and _codes(each) == [250] for each in outcomes), outcomes
    assert sorted(name for name, _ in handler.delivered) == sorted(f"r{n}" for n in range(60))
    assert len(handler.connected) == 4


def test_waiting_for_a_connection_has_an_end(pool_of: MakePool, runtime: str) -> None:
    handler = PendingDeliveries()

    def done(outcome: Outcome) -> None:
        if isinstance(outcome, TimeoutError):
            (name,) = (name for name, _ in handler.delivered)
            handler.begun(name).set_result(SAVED)

    with serving("asyncio", handler) as server:
        settings = _settings(size=1, timeout=0.2)
        with pool_of(server.address, settings) as pool:
            messages = [(_recipient("a"), _HELLO), (_recipient("b"), _HELLO)]
            outcomes = at_once(runtime, pool, messages, done)
            # Who has given up takes nobody's turn.
            assert len(handler.delivered) == 1
    first, second = sorted(outcomes, key=lambda each: isinstance(each, Exception))
    assert isinstance(first, list)
    assert _codes(first) == [250]
    assert isinstance(second, TimeoutError)


def test_the_pool_is_closed_amid_a_message(pool_of: MakePool, runtime: str) -> None:
    mailbox = Mailbox()
    with serving("asyncio", mailbox) as server:
        pool = pool_of(server.address, _settings(size=1))

        def content() -> Iterator[bytes]:
            pool.close()
            yield b"hello\r\n"

        async def content_on_loop() -> AsyncIterator[bytes]:
            await on_loop(pool).close()
            yield b"hello\r\n"

        closing: Any = content() if runtime in ("blocking", "gevent") else content_on_loop()
        with pool:
            # One of them gets the connection, and takes it away from those who wait.
            outcomes = at_once(runtime, pool, [(_recipient(), closing), (_recipient(), closing)])
        wait_for(mailbox.disconnected)
    first, second = sorted(outcomes, key=lambda each: isinstance(each, Exception))
    assert isinstance(first, list)
    assert _codes(first) == [250]
    assert isinstance(second, RuntimeError)
    assert mailbox.delivered == [("a", b"hello\r\n")]


@pytest.mark.parametrize("settings", [_settings(idle_limit=0), _settings(age_limit=0)])
def test_no_connection_is_kept_for_too_long(pool_of: MakePool, settings: PoolSettings) -> None:
    with InTurn({}, {}) as server, pool_of(server.address, settings) as pool:
        for _ in range(2):
            assert _codes(pool.submit(None, [_recipient()], _HELLO)) == [250]
    assert [_verbs(lines) for lines in server.lines] == [["LHLO", *_MESSAGE, "QUIT"]] * 2


def test_a_server_that_takes_one_message_a_connection(pool_of: MakePool) -> None:
    script = {"LHLO": b"250-host\r\n250 LIMITS MAILMAX=1\r\n"}
    with InTurn(script, script) as server, pool_of(server.address, _settings(size=1)) as pool:
        for _ in range(2):
            assert _codes(pool.submit(None, [_recipient()], _HELLO)) == [250]
    assert [_verbs(lines) for lines in server.lines] == [["LHLO", *_MESSAGE, "QUIT"]] * 2


def test_a_server_that_never_takes_leave(pool_of: MakePool) -> None:
    with InTurn({"QUIT": SILENCE}) as server, pool_of(server.address, _settings()) as pool:
        assert _codes(pool.submit(None, [_recipient()], _HELLO)) == [250]
    assert server.lines[0][-1] == "QUIT"


def test_a_content_that_raises_costs_its_connection_alone(pool_of: MakePool) -> None:
    def content() -> Iterator[bytes]:
        yield b"Subject: x\r\n"
        raise OSError("no such disk")

    mailbox = Mailbox()
    with serving("asyncio", mailbox) as server, pool_of(server.address, _settings(size=1)) as pool:
        for _ in range(2):
            with pytest.raises(OSError, match="no such disk"):
                pool.submit(None, [_recipient("lost")], content())
            assert _codes(pool.submit(None, [_recipient()], _HELLO)) == [250]
    assert [name for name, _ in mailbox.delivered] == ["a", "a"]


def test_a_message_that_cannot_be_said_costs_no_connection(pool_of: MakePool) -> None:
    with InTurn({}) as server, pool_of(server.address, _settings(size=1)) as pool:
        with pytest.raises(LocalProtocolError, match="SMTPUTF8"):
            pool.submit(None, [_recipient("ü")], _HELLO)
        assert _codes(pool.submit(None, [_recipient()], _HELLO)) == [250]
    assert _verbs(server.lines[0]) == ["LHLO", *_MESSAGE, "QUIT"]


def _preparing(runtime: str, context: ssl.SSLContext) -> Callable[[Any], Any]:
    def prepare(client: Any) -> None:
        assert client.start_tls(context, server_hostname="localhost").code == 250

    async def prepare_on_loop(client: Any) -> None:
        assert (await client.start_tls(context, server_hostname="localhost")).code == 250

    return prepare if runtime in ("blocking", "gevent") else prepare_on_loop


def test_connections_are_prepared(pool_of: MakePool, runtime: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "pem")
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    mailbox = Mailbox()
    with serving(
        "asyncio", mailbox, Listener("127.0.0.1:0", ServerTls(tmp_path / "pem"))
    ) as server:
        with pool_of(server.address, prepare=_preparing(runtime, trusting)) as pool:
            for _ in range(2):
                assert _codes(pool.submit(None, [_recipient()], _HELLO)) == [250]
        (session,) = mailbox.connected
        assert session.tls is not None
        distrusting = ssl.create_default_context()
        with pool_of(server.address, prepare=_preparing(runtime, distrusting)) as pool:
            for _ in range(3):
                with pytest.raises(ssl.SSLCertVerificationError):
                    pool.submit(None, [_recipient("lost")], _HELLO)
    assert [name for name, _ in mailbox.delivered] == ["a", "a"]


def test_what_is_no_address(pool_of: MakePool) -> None:
    with pytest.raises(ValueError, match="no port"):
        pool_of("localhost")


class TestTheBook:
    """What is to be done when, told by a clock that the test moves."""

    def _book(self, **settings: Any) -> PoolBook[str]:
        self.now = 0.0
        return PoolBook(_settings(**settings), lambda: self.now)

    def _turn(self, book: PoolBook[str]) -> threading.Event:
        turn = threading.Event()
        book.enqueue(turn)
        return turn

    def _opened(self, book: PoolBook[str], client: str) -> None:
        assert book.next_step(self._turn(book)) == Open()
        book.opened(client, None)

    def test_first_come_first_served(self) -> None:
        book = self._book(size=1)
        self._opened(book, "client")
        first, second = self._turn(book), self._turn(book)
        assert book.next_step(second) == Wait(None)
        assert book.next_step(first) == Wait(None)
        book.release("client")
        assert (first.is_set(), second.is_set()) == (True, False)
        assert book.next_step(second) == Wait(None)
        assert book.next_step(first) == Reuse("client", probe=False)
        # Who leaves the queue lets the next one go on.
        book.release("client")
        assert second.is_set()
        third = self._turn(book)
        book.dequeue(second)
        assert third.is_set()
        assert book.next_step(third) == Reuse("client", probe=False)

    def test_who_got_a_dead_connection_keeps_the_place(self) -> None:
        book = self._book(size=1, probe_after=0)
        self._opened(book, "client")
        book.release("client")
        first, second = self._turn(book), self._turn(book)
        assert book.next_step(first) == Reuse("client", probe=True)
        book.enqueue(first, again=True)
        book.drop("client")
        assert book.next_step(second) == Wait(None)
        assert book.next_step(first) == Open()

    def test_pauses_grow_and_end_with_the_first_success(self) -> None:
        book = self._book(size=9, back_off_limit=1.0)
        pauses: list[float] = []
        for _ in range(100):
            assert book.next_step(self._turn(book)) == Open()
            # While one tries the others do not.
            other = self._turn(book)
            if pauses:
                assert book.next_step(other) == Wait(None)
            book.failed(OSError("refused"))
            step = book.next_step(other)
            assert isinstance(step, Wait)
            assert step.until is not None
            book.dequeue(other)
            pauses.append(step.until - self.now)
            self.now = step.until
        assert pauses[:5] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0])
        assert pauses[5:] == pytest.approx([1.0] * 95)
        self._opened(book, "one")
        for client in "two", "three":
            self._opened(book, client)
        assert book.error is None

    def test_the_one_used_last_is_used_first(self) -> None:
        book = self._book(size=3, probe_after=5, idle_limit=10, age_limit=100)
        for client in "one", "two":
            self._opened(book, client)
        book.release("one")
        self.now = 6.0
        book.release("two")
        assert book.next_step(self._turn(book)) == Reuse("two", probe=False)
        assert book.next_step(self._turn(book)) == Reuse("one", probe=True)
        book.release("one")
        self.now = 16.0
        turn = self._turn(book)
        assert book.next_step(turn) == Retire("one")
        book.drop("one")
        assert book.next_step(turn) == Open()
        self.now = 100.0
        assert not book.release("two")

    def test_there_is_one_at_least(self) -> None:
        with pytest.raises(ValueError, match="size is 0"):
            PoolSettings(size=0)
