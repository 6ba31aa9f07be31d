"""The server's conversation: what is written when, what handlers may do, how sessions end."""

import asyncio
import errno
import gc
import sys
import tracemalloc
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

import pytest

from lmtp_proto import (
    STANDARD_EXTENSIONS,
    Extension,
    Handler,
    Interrupt,
    Limits,
    Message,
    Recipient,
    Reply,
    Session,
    Settings,
    Severity,
    StopFlag,
    Transaction,
)
from tests.protocol.driver import Driver

_LHLO: Final = b"LHLO client.example.org\r\n"
_MAIL: Final = b"MAIL FROM:<sender@example.net>\r\n"
_RCPT: Final = b"RCPT TO:<alice@example.org>\r\n"
_ENVELOPE: Final = _LHLO + _MAIL + _RCPT + b"RCPT TO:<bob@example.org>\r\n"
_CONTENT: Final = b"hello\r\n.\r\n"
_LHLO_CODES: Final = [220, 250]


class Recorder(Handler):
    """Accepts everything; each hook can be told to answer otherwise, or to raise.

    What a hook is told may be an exception, a function of no arguments (called for the answer) or
    the answer.
    """

    def __init__(self, **answers: object) -> None:
        self.answers = answers
        self.calls: list[str] = []
        self.written: list[bytes] = []
        self.delivered: list[str] = []
        self.sinks: list[RecorderSink] = []

    def answer(self, hook: str, default: object = None) -> Any:
        self.calls.append(hook)
        answer = self.answers.get(hook, default)
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, Told):
            return answer.tell()
        return answer

    def connect(self, session: Session, /) -> Any:
        return self.answer("connect")

    def lhlo(self, session: Session, domain: str, /) -> Any:
        return self.answer("lhlo")

    def mail(self, session: Session, mail: object, /) -> Any:
        return self.answer("mail")

    def rcpt(self, transaction: Transaction, recipient: Recipient, /) -> Any:
        return self.answer("rcpt")

    def vrfy(self, session: Session, text: str, /) -> Any:
        return self.answer("vrfy")

    def open(self, transaction: Transaction, /) -> Any:
        sink = RecorderSink(self)
        answer = self.answer("open", sink)
        if answer is sink:
            self.sinks.append(sink)
        return answer

    def disconnect(self, session: Session, /) -> None:
        self.answer("disconnect")


class Told:
    """An answer that is made when it is asked for."""

    def __init__(self, tell: Callable[[], object]) -> None:
        self.tell = tell


class RecorderSink:
    def __init__(self, handler: Recorder) -> None:
        self._handler = handler
        self.closed = 0

    def write(self, data: bytes, /) -> Any:
        assert not self.closed
        self._handler.written.append(data)
        return self._handler.answer("write")

    def deliver(self, recipient: Recipient, /) -> Any:
        assert not self.closed
        self._handler.delivered.append(str(recipient))
        return self._handler.answer("deliver", Reply(250, f"for {recipient}"))

    def close(self) -> None:
        self.closed += 1
        self._handler.answer("close")


def _settled(handler: Recorder) -> bool:
    """Whether each sink was closed once, and the handler heard of the end once."""
    closed = all(sink.closed == 1 for sink in handler.sinks)
    return closed and handler.calls.count("disconnect") == 1


class Futures:
    """Hands out a future for each question and keeps them."""

    def __init__(self) -> None:
        self.made: list[Future[Any]] = []

    def __call__(self) -> "Future[Any]":
        future: Future[Any] = Future()
        self.made.append(future)
        return future


class TestWrites:
    def test_one_a_turn_for_a_pipelined_envelope(self) -> None:
        driver = Driver(Recorder())
        driver.receive(_LHLO)
        driver.receive(_MAIL + _RCPT * 3 + b"DATA\r\n")
        driver.receive(_CONTENT + b"QUIT\r\n")
        assert driver.closed
        assert [write.count(b"\r\n") for write in driver.writes] == [1, 6, 5, 4]
        assert driver.codes == [220, 250, 250, 250, 250, 250, 354, 250, 250, 250, 221]

    def test_the_whole_session_in_one_read_is_one_write(self) -> None:
        driver = Driver(Recorder())
        driver.receive(_ENVELOPE + b"DATA\r\n" + _CONTENT + b"QUIT\r\n")
        assert len(driver.writes) == 2

    def test_nothing_is_written_when_nothing_is_said(self) -> None:
        driver = Driver(Recorder())
        driver.receive(_ENVELOPE + b"DATA\r\n")
        before = len(driver.writes)
        driver.receive(b"more\r\n" * 10)
        driver.receive(b"NO")
        assert len(driver.writes) == before

    def test_what_is_known_is_written_before_a_wait(self) -> None:
        futures = Futures()
        driver = Driver(Recorder(rcpt=Told(futures)))
        driver.receive(_LHLO + _MAIL + _RCPT)
        assert driver.waiting
        assert driver.codes == [220, 250, 250]
        futures.made[0].set_result(None)
        driver.resume()
        assert driver.codes == [220, 250, 250, 250]

    def test_a_write_has_its_deadline(self) -> None:
        driver = Driver(Recorder(), Settings(limits=Limits(write_timeout=7.0)))
        assert driver.write_deadlines == [1007.0]

    def test_the_greeting_and_the_lhlo_reply_name_the_host(self) -> None:
        driver = Driver(Recorder(), Settings(hostname="mx.example.org", greeting="hi"))
        driver.receive(_LHLO)
        lines = driver.output.split(b"\r\n")
        # RFC 2034 4: neither carries an enhanced status code.
        assert lines[0] == b"220 mx.example.org hi"
        assert lines[1] == b"250-mx.example.org"


class TestStatuses:
    def test_in_rcpt_order_each_as_soon_as_its_turn_comes(self) -> None:
        futures = Futures()
        handler = Recorder(deliver=Told(futures))
        driver = Driver(handler)
        driver.receive(_LHLO + _MAIL + _RCPT * 4 + b"DATA\r\n")
        driver.writes.clear()
        driver.receive(_CONTENT + b"NOOP\r\n")
        first, second, third, fourth = futures.made
        assert len(handler.delivered) == 4
        third.set_result(Reply(250, "third"))
        first.set_result(Reply(250, "first"))
        driver.resume()
        assert driver.output == b"250 2.0.0 first\r\n"
        second.set_result(Reply(452, "second"))
        driver.resume()
        assert driver.output == b"250 2.0.0 first\r\n452 4.0.0 second\r\n250 2.0.0 third\r\n"
        assert handler.sinks[0].closed == 0
        fourth.set_exception(OSError(errno.ENOSPC, "full"))
        driver.resume()
        assert driver.codes == [250, 452, 250, 452, 250]
        assert handler.sinks[0].closed == 1

    def test_ready_ones_are_written_before_a_wait(self) -> None:
        futures = Futures()
        answers = [Told(lambda: Reply(250, "at once")), Told(futures)]
        handler = Recorder(deliver=Told(lambda: answers.pop(0).tell()))
        driver = Driver(handler)
        driver.receive(_ENVELOPE + b"DATA\r\n")
        driver.writes.clear()
        driver.receive(_CONTENT)
        assert driver.waiting
        assert driver.output == b"250 2.0.0 at once\r\n"

    def test_one_failure_is_its_recipients_own(self) -> None:
        futures = Futures()
        driver = Driver(Recorder(deliver=Told(futures)))
        driver.receive(_LHLO + _MAIL + _RCPT * 3 + b"DATA\r\n" + _CONTENT)
        driver.writes.clear()
        futures.made[0].set_exception(RuntimeError("crash"))
        futures.made[1].cancel()
        futures.made[2].set_result(Reply(250, "ok"))
        driver.resume()
        assert driver.codes == [451, 451, 250]

    def test_a_cancelled_task_is_its_recipients_own(self) -> None:
        # asyncio.CancelledError is no Exception.
        futures = Futures()
        driver = Driver(Recorder(deliver=Told(futures)))
        driver.receive(_LHLO + _MAIL + _RCPT * 2 + b"DATA\r\n" + _CONTENT)
        driver.writes.clear()
        futures.made[0].set_exception(asyncio.CancelledError())
        futures.made[1].set_result(Reply(250, "ok"))
        driver.resume()
        assert driver.codes == [451, 250]

    def test_a_delivery_is_finished_although_the_client_has_gone(self) -> None:
        futures = Futures()
        handler = Recorder(deliver=Told(futures))
        driver = Driver(handler)
        driver.receive(_ENVELOPE + b"DATA\r\n" + _CONTENT)
        assert handler.delivered == ["alice@example.org", "bob@example.org"]
        futures.made[1].set_result(Reply(250, "ok"))
        assert handler.sinks[0].closed == 0
        futures.made[0].set_result(Reply(250, "ok"))
        driver.resume()
        driver.eof()
        assert driver.closed
        assert _settled(handler)

    def test_the_handler_does_not_rule_the_count(self) -> None:
        class Meddler(Recorder):
            def open(self, transaction: Transaction, /) -> Any:
                transaction.recipients.pop()
                return super().open(transaction)

        driver = Driver(Meddler())
        driver.receive(_ENVELOPE + b"DATA\r\n")
        driver.writes.clear()
        driver.receive(_CONTENT + b"NOOP\r\n")
        assert driver.codes == [250, 250, 250]


class TestDefaultHandler:
    def test_nothing_is_delivered(self) -> None:
        driver = Driver(Handler())
        driver.receive(_ENVELOPE + b"DATA\r\n" + _CONTENT + b"VRFY alice\r\n")
        assert driver.codes == [220, 250, 250, 250, 250, 354, 550, 550, 252]

    def test_messages_in_memory(self) -> None:
        messages: list[tuple[bytes, str]] = []

        class Keep(Handler):
            def deliver(self, message: Message, recipient: Recipient, /) -> Reply:
                messages.append((message.content, str(recipient)))
                assert message.transaction.reverse_path is not None
                assert str(message.transaction.reverse_path) == "sender@example.net"
                return Reply(250, "kept")

        driver = Driver(Keep())
        driver.receive(_ENVELOPE + b"DATA\r\na\r\n")
        driver.receive(b"..b\r\n.\r\n")
        driver.receive(_MAIL + _RCPT + b"BDAT 1 LAST\r\nx")
        assert messages == [
            (b"a\r\n.b\r\n", "alice@example.org"),
            (b"a\r\n.b\r\n", "bob@example.org"),
            (b"x", "alice@example.org"),
        ]

    def test_each_session_has_a_name_of_its_own(self) -> None:
        names = {Session(peer="unix").id for _ in range(100)}
        assert len(names) == 100
        # It stands in replies and log lines as one word.
        assert all("!" <= character <= "~" for name in names for character in name)

    def test_what_a_transaction_knows(self) -> None:
        seen: list[Transaction] = []

        class Look(Recorder):
            def open(self, transaction: Transaction, /) -> Any:
                seen.append(transaction)
                return super().open(transaction)

        driver = Driver(Look())
        driver.receive(_ENVELOPE + b"DATA\r\n" + _CONTENT)
        driver.receive(b"MAIL FROM:<>\r\n" + _RCPT + b"DATA\r\n" + _CONTENT)
        first, second = seen
        assert first.session is second.session is driver.session
        assert driver.session.lhlo_domain == "client.example.org"
        assert (first.id, second.id) == ("session", "session:T2")
        assert [str(recipient) for recipient in first.recipients] == [
            "alice@example.org",
            "bob@example.org",
        ]
        assert second.reverse_path is None
        assert len(second.recipients) == 1


class TestLhlo:
    @pytest.mark.parametrize("later", [False, True])
    def test_the_handlers_words_stand_behind_the_host_name(self, later: bool) -> None:
        words = Reply(250, "at your", "service", enhanced="2.0.0")
        handler = Recorder(lhlo=Told(lambda: (lambda: words) if later else words))
        driver = Driver(handler, Settings(hostname="mail.example.org"))
        driver.receive(_LHLO)
        assert driver.output.split(b"\r\n")[1] == b"250-mail.example.org at your service"
        assert driver.session.lhlo_domain == "client.example.org"

    def test_the_handler_is_told_the_domain_before_it_counts(self) -> None:
        told: list[tuple[str, str | None]] = []

        class Look(Recorder):
            def lhlo(self, session: Session, domain: str, /) -> Any:
                told.append((domain, session.lhlo_domain))
                return Reply(550, "not you") if domain == "bad.example.org" else None

        driver = Driver(Look())
        driver.receive(b"LHLO bad.example.org\r\n")
        assert driver.session.lhlo_domain is None
        driver.receive(_LHLO + b"LHLO bad.example.org\r\n")
        assert told == [
            ("bad.example.org", None),
            ("client.example.org", None),
            ("bad.example.org", "client.example.org"),
        ]
        assert driver.codes == [220, 550, 250, 550]
        assert driver.session.lhlo_domain == "client.example.org"

    @pytest.mark.parametrize("later", [False, True])
    def test_amid_a_transaction(self, later: bool) -> None:
        handler = Recorder()
        driver = Driver(handler)
        driver.receive(_ENVELOPE + b"BDAT 3\r\nabc")
        refusal = Reply(550, "not now")
        handler.answers["lhlo"] = Told(lambda: (lambda: refusal) if later else refusal)
        driver.receive(_LHLO + b"BDAT 3\r\ndef")
        # RFC 5321 4.1.4: a refused LHLO changes nothing.
        assert driver.codes[-2:] == [550, 250]
        assert handler.sinks[0].closed == 0
        accepted = Reply(250, "welcome")
        handler.answers["lhlo"] = Told(lambda: (lambda: accepted) if later else accepted)
        handler.answers["close"] = error = RuntimeError("crash")
        driver.receive(_LHLO + b"BDAT 3 LAST\r\nghi")
        assert driver.codes[-2:] == [250, 503]
        assert handler.sinks[0].closed == 1
        assert handler.delivered == []
        assert error in [log.error for log in driver.logs]


_HOOKS: Final = ["connect", "lhlo", "mail", "rcpt", "vrfy", "open", "write", "deliver"]
_TRANSACTION: Final = _ENVELOPE + b"DATA\r\n" + _CONTENT
# What the client reads when one hook fails, with VRFY and NOOP behind the transaction. Content
# behind a refused DATA is read as commands.
_ON_FAILURE: Final = {
    "connect": [421],
    "lhlo": [220, 451, 503, 503, 503, 503],
    "mail": [220, 250, 451, 503, 503, 503],
    "rcpt": [220, 250, 250, 451, 451, 503],
    "vrfy": [220, 250, 250, 250, 250, 354, 250, 250, 451, 250],
    "open": [220, 250, 250, 250, 250, 451],
    "write": [220, 250, 250, 250, 250, 354, 451, 451, 252, 250],
    "deliver": [220, 250, 250, 250, 250, 354, 451, 451, 252, 250],
}


def _play(handler: Recorder) -> Driver:
    driver = Driver(handler)
    if driver.closed:
        return driver
    driver.receive(_ENVELOPE + b"DATA\r\n")
    if driver.codes[-1] == 354:
        driver.receive(_CONTENT + b"VRFY alice\r\nNOOP\r\n")
    driver.eof()
    return driver


class TestFailingHandlers:
    @pytest.mark.parametrize("hook", _HOOKS)
    def test_an_exception_is_451(self, hook: str) -> None:
        error = RuntimeError("secret\r\nof the handler")
        handler = Recorder(**{hook: error})
        driver = _play(handler)
        assert driver.codes == _ON_FAILURE[hook]
        assert b"secret" not in driver.output
        assert any(log.severity is Severity.ERROR and log.error is error for log in driver.logs)
        assert _settled(handler)

    @pytest.mark.parametrize("hook", _HOOKS)
    def test_a_job_that_raises_is_451(self, hook: str) -> None:
        def job() -> None:
            raise RuntimeError("crash")

        handler = Recorder(**{hook: Told(lambda: job)})
        driver = _play(handler)
        assert driver.codes == _ON_FAILURE[hook]
        assert _settled(handler)

    # What open() gives is not checked: its methods fail when they are called.
    @pytest.mark.parametrize("hook", [hook for hook in _HOOKS if hook != "open"])
    @pytest.mark.parametrize("wrong", [42, "250 OK", b"", object(), (250, "ok")])
    def test_an_answer_of_another_type_is_451(self, hook: str, wrong: object) -> None:
        handler = Recorder(**{hook: wrong})
        driver = _play(handler)
        assert driver.codes == _ON_FAILURE[hook]
        assert any(log.severity is Severity.ERROR for log in driver.logs)

    @pytest.mark.parametrize("wrong", [None, Reply(250, "ok"), Reply(354, "go")])
    def test_open_must_give_a_sink_or_a_refusal(self, wrong: object) -> None:
        handler = Recorder(open=Told(lambda: wrong))
        assert _play(handler).codes == _ON_FAILURE["open"]

    @pytest.mark.parametrize("wrong", [42, "sink", object()])
    def test_what_is_no_sink_is_451_for_each_recipient(self, wrong: object) -> None:
        driver = Driver(Recorder(open=Told(lambda: wrong)))
        driver.receive(_ENVELOPE + b"DATA\r\n")
        if driver.codes[-1] == 354:
            driver.receive(_CONTENT)
            assert driver.codes[-2:] == [451, 451]
        driver.receive(b"NOOP\r\n")
        assert driver.codes[-1] == 250

    @pytest.mark.parametrize(
        ("hook", "reply"),
        [
            ("connect", Reply(250, "x")),
            ("connect", Reply(354, "x")),
            ("connect", Reply(550, "x")),
            ("lhlo", Reply(220, "x")),
            ("lhlo", Reply(251, "x")),
            ("mail", Reply(354, "x")),
            ("mail", Reply(220, "x")),
            ("rcpt", Reply(221, "x")),
            ("rcpt", Reply(399, "x")),
            ("vrfy", Reply(354, "x")),
            ("write", Reply(250, "x")),
            ("deliver", Reply(354, "x")),
            ("deliver", Reply(200, "x")),
            ("deliver", None),
        ],
    )
    def test_a_code_that_means_something_else_is_ours(self, hook: str, reply: object) -> None:
        driver = _play(Recorder(**{hook: Told(lambda: reply)}))
        assert driver.codes == _ON_FAILURE[hook]

    @pytest.mark.parametrize(
        "answer",
        [
            RuntimeError("crash"),
            Told(lambda: None),
            Told(lambda: lambda: Reply(354, "x")),
            Told(lambda: Reply(354, "x")),
        ],
    )
    def test_a_recipient_alone(self, answer: object) -> None:
        handler = Recorder(deliver=answer)
        driver = Driver(handler)
        driver.receive(_LHLO + _MAIL + _RCPT + b"DATA\r\n" + _CONTENT + b"NOOP\r\n")
        assert driver.codes == [*_LHLO_CODES, 250, 250, 354, 451, 250]
        assert any(log.severity is Severity.ERROR for log in driver.logs)

    @pytest.mark.parametrize("last", [False, True])
    @pytest.mark.parametrize(
        ("answer", "code"), [(RuntimeError("crash"), 451), (Reply(452, "full"), 452)]
    )
    def test_a_chunk_that_finds_no_sink(self, answer: object, code: int, last: bool) -> None:
        handler = Recorder(open=answer)
        driver = Driver(handler)
        chunk = b"BDAT 4%s\r\nQUIT" % (b" LAST" if last else b"")
        driver.receive(_ENVELOPE + chunk + b"RSET\r\nNOOP\r\n")
        # RFC 3030 2: its octets are taken all the same.
        assert driver.codes[-2 - (2 if last else 1) :] == [*[code] * (2 if last else 1), 250, 250]
        assert handler.written == []

    @pytest.mark.parametrize("code", [250, 251, 252, 259, 299])
    def test_any_code_of_acceptance_is_passed_on(self, code: int) -> None:
        driver = Driver(Recorder(rcpt=Reply(code, "x"), deliver=Reply(code, "x")))
        driver.receive(_LHLO + _MAIL + _RCPT + b"DATA\r\n" + _CONTENT)
        assert driver.codes == [220, 250, 250, code, 354, code]

    @pytest.mark.parametrize("hook", ["lhlo", "mail", "rcpt", "vrfy", "open"])
    def test_421_ends_the_session(self, hook: str) -> None:
        handler = Recorder(**{hook: Told(lambda: Reply(421, "go away"))})
        driver = Driver(handler)
        driver.receive(_LHLO + b"VRFY x\r\n" + _MAIL + _RCPT + b"DATA\r\nNOOP\r\n")
        assert driver.closed
        assert driver.codes[-1] == 421
        assert driver.codes.count(421) == 1
        assert _settled(handler)

    def test_421_to_a_recipient_ends_the_session_behind_the_last_status(self) -> None:
        handler = Recorder(deliver=Reply(421, "go away"))
        driver = Driver(handler)
        driver.receive(_ENVELOPE + b"DATA\r\n" + _CONTENT + b"NOOP\r\n")
        assert driver.codes[-2:] == [421, 421]
        assert driver.closed

    @pytest.mark.parametrize(
        ("number", "code"),
        [(errno.ENOSPC, 452), (errno.EDQUOT, 452), (errno.EIO, 451), (errno.EMFILE, 451)],
    )
    @pytest.mark.parametrize("hook", ["open", "write", "deliver"])
    def test_no_space_is_452(self, hook: str, number: int, code: int) -> None:
        error = OSError(number, "x")
        driver = _play(Recorder(**{hook: error}))
        assert {451, 452} & set(driver.codes) == {code}
        # A full disk is no fault of the program's: it is said in one line.
        logs = [log for log in driver.logs if log.severity is Severity.ERROR]
        assert {log.error for log in logs} == {None if code == 452 else error}
        assert code != 452 or all(str(error) in log.text for log in logs)

    def test_a_sink_that_cannot_be_closed(self) -> None:
        handler = Recorder(close=RuntimeError("crash"))
        driver = Driver(handler)
        driver.receive(_ENVELOPE + b"DATA\r\n" + _CONTENT + b"NOOP\r\n")
        assert driver.codes[-3:] == [250, 250, 250]
        assert any(log.severity is Severity.ERROR for log in driver.logs)
        assert handler.sinks[0].closed == 1

    def test_a_sink_that_cannot_be_closed_at_the_end(self) -> None:
        handler = Recorder(close=RuntimeError("crash"))
        driver = Driver(handler)
        driver.receive(_ENVELOPE + b"BDAT 1\r\nx")
        with pytest.raises(RuntimeError, match="crash"):
            driver.receive(b"QUIT\r\n")
        assert _settled(handler)

    def test_a_disconnect_that_raises(self) -> None:
        handler = Recorder(disconnect=RuntimeError("crash"))
        driver = Driver(handler)
        with pytest.raises(RuntimeError, match="crash"):
            driver.receive(b"QUIT\r\n")
        assert driver.codes == [220, 221]

    def test_a_refused_client_is_told_and_left(self) -> None:
        driver = Driver(Recorder(connect=Reply(421, "not you", enhanced="4.7.0")))
        assert driver.closed
        assert driver.output == b"421 4.7.0 not you\r\n"

    def test_554_at_connect_waits_for_quit(self) -> None:
        # RFC 5321 3.1: a server that greets with 554 must still wait for QUIT.
        driver = Driver(Recorder(connect=Reply(554, "no mail here", enhanced="5.3.2")))
        driver.receive(_LHLO + b"QUIT\r\n")
        assert driver.codes == [554, 503, 221]
        assert driver.closed


class TestContent:
    def test_refused_content_is_not_written(self) -> None:
        handler = Recorder(write=Reply(554, "no", enhanced="5.6.0"))
        driver = Driver(handler)
        driver.receive(_ENVELOPE + b"DATA\r\n")
        driver.receive(b"one\r\n")
        driver.receive(b"two\r\n")
        driver.receive(b".\r\nNOOP\r\n")
        assert driver.codes[-3:] == [554, 554, 250]
        assert len(handler.written) == 1
        assert handler.delivered == []
        assert handler.sinks[0].closed == 1

    def test_what_is_too_big_is_not_written(self) -> None:
        handler = Recorder()
        driver = Driver(handler, Settings(limits=Limits(message_size=100)))
        driver.receive(_ENVELOPE + b"DATA\r\n")
        for _ in range(50):
            driver.receive(b"12345678\r\n")
        driver.receive(b".\r\n")
        assert driver.codes[-2:] == [552, 552]
        assert sum(map(len, handler.written)) <= 100
        assert handler.delivered == []

    def test_nothing_is_read_while_a_write_is_under_way(self) -> None:
        futures = Futures()
        handler = Recorder(write=Told(futures))
        driver = Driver(handler)
        driver.receive(_ENVELOPE + b"DATA\r\n")
        driver.receive(b"one\r\n")
        assert driver.waiting
        futures.made[0].set_result(None)
        driver.resume()
        driver.receive(b"two\r\n.\r\n")
        assert driver.waiting
        assert handler.delivered == []
        futures.made[1].set_result(None)
        driver.resume()
        assert driver.codes[-2:] == [250, 250]
        assert b"".join(handler.written) == b"one\r\ntwo\r\n"

    def test_a_write_job_may_refuse(self) -> None:
        futures = Futures()
        driver = Driver(Recorder(write=Told(futures)))
        driver.receive(_ENVELOPE + b"BDAT 5\r\nhello")
        futures.made[0].set_result(Reply(452, "full", enhanced="4.3.1"))
        driver.resume()
        driver.receive(b"BDAT 0 LAST\r\n")
        assert driver.codes[-2:] == [452, 503]

    def test_a_sink_may_be_opened_by_a_job(self) -> None:
        futures = Futures()
        handler = Recorder(open=Told(futures))
        driver = Driver(handler)
        driver.receive(_ENVELOPE + b"DATA\r\n")
        assert driver.waiting
        sink = RecorderSink(handler)
        futures.made[0].set_result(sink)
        driver.resume()
        driver.receive(_CONTENT)
        assert driver.codes[-3:] == [354, 250, 250]
        assert sink.closed == 1

    def test_chunks_go_to_one_sink(self) -> None:
        handler = Recorder()
        driver = Driver(handler)
        driver.receive(_ENVELOPE + b"BDAT 2\r\nabBDAT 0\r\nBDAT 2 LAST\r\ncd")
        assert len(handler.sinks) == 1
        assert b"".join(handler.written) == b"abcd"


# Each with what has been sent, and whether a sink is open then.
_PLACES: Final = {
    "greeted": (b"", False),
    "within a line": (b"NOO", False),
    "ready": (_LHLO, False),
    "mail": (_LHLO + _MAIL, False),
    "rcpt": (_ENVELOPE, False),
    "data": (_ENVELOPE + b"DATA\r\n", True),
    "content": (_ENVELOPE + b"DATA\r\nhel", True),
    "refused content": (_ENVELOPE + b"DATA\r\n" + b"x" * 2000, True),
    "chunk": (_ENVELOPE + b"BDAT 9\r\nhel", True),
    "between chunks": (_ENVELOPE + b"BDAT 3\r\nhel", True),
    "refused chunk": (_LHLO + b"BDAT 9\r\nhel", False),
    "within an endless line": (b"x" * 5000, False),
    "second transaction": (_ENVELOPE + b"DATA\r\n" + _CONTENT + _MAIL + _RCPT, False),
}
_SMALL: Final = Settings(limits=Limits(message_size=1000, discard=2000))


@pytest.mark.parametrize("place", _PLACES)
class TestEnds:
    @staticmethod
    def at(place: str) -> tuple[Driver, Recorder]:
        handler = Recorder()
        driver = Driver(handler, _SMALL)
        sent, opened = _PLACES[place]
        if sent:
            driver.receive(sent)
        assert not driver.closed
        assert any(not sink.closed for sink in handler.sinks) == opened
        driver.writes.clear()
        return driver, handler

    def test_the_client_goes(self, place: str) -> None:
        driver, handler = self.at(place)
        delivered = list(handler.delivered)
        driver.eof()
        assert driver.closed
        assert driver.output == b""
        assert handler.delivered == delivered
        assert _settled(handler)

    def test_the_time_is_over(self, place: str) -> None:
        driver, handler = self.at(place)
        driver.interrupt(Interrupt.TIMEOUT)
        assert driver.closed
        assert driver.output.startswith(b"421 4.4.2 ")
        assert driver.codes == [421]
        assert _settled(handler)
        assert not any("CLOSED" in log.text for log in driver.logs), "the state is that before"

    def test_the_server_stops(self, place: str) -> None:
        driver, handler = self.at(place)
        driver.stop.requested = True
        driver.interrupt(Interrupt.STOP)
        assert driver.closed
        assert driver.output.startswith(b"421 4.3.2 ")
        assert driver.codes == [421]
        assert _settled(handler)

    def test_the_session_is_cut(self, place: str) -> None:
        driver, handler = self.at(place)
        driver.cut()
        assert driver.output == b""
        assert _settled(handler)


class TestStop:
    def test_at_connect(self) -> None:
        stop = StopFlag()
        stop.requested = True
        driver = Driver(Recorder(), stop=stop)
        assert driver.codes == [421]
        assert driver.closed

    def test_a_command_that_was_read_is_answered_first(self) -> None:
        driver = Driver(Recorder())
        driver.receive(_LHLO)
        driver.stop.requested = True
        driver.receive(_MAIL + _RCPT + b"DATA\r\n")
        assert driver.codes == [*_LHLO_CODES, 250, 421]
        assert driver.closed

    def test_a_running_delivery_is_finished_and_answered(self) -> None:
        futures = Futures()
        handler = Recorder(deliver=Told(futures))
        driver = Driver(handler)
        driver.receive(_ENVELOPE + b"DATA\r\n" + _CONTENT + _MAIL)
        driver.writes.clear()
        driver.stop.requested = True
        for future in futures.made:
            future.set_result(Reply(250, "ok"))
        driver.resume()
        assert driver.codes == [250, 250, 421]
        assert _settled(handler)

    def test_content_that_comes_all_the_same_is_delivered(self) -> None:
        handler = Recorder()
        driver = Driver(handler)
        driver.receive(_ENVELOPE + b"DATA\r\nhel")
        driver.writes.clear()
        driver.stop.requested = True
        driver.receive(b"lo\r\n.\r\n")
        assert driver.codes == [250, 250, 421]
        assert len(handler.delivered) == 2

    def test_content_that_stops_is_not_waited_for(self) -> None:
        handler = Recorder()
        driver = Driver(handler)
        driver.receive(_ENVELOPE + b"DATA\r\nhel")
        driver.writes.clear()
        driver.stop.requested = True
        driver.receive(b"lo\r\n")
        assert driver.codes == [421]
        assert driver.closed
        assert handler.delivered == []
        assert _settled(handler)

    def test_a_client_that_takes_its_leave_is_not_told(self) -> None:
        driver = Driver(Recorder())
        driver.stop.requested = True
        driver.receive(b"QUIT\r\n")
        assert driver.codes == [220, 221]
        assert driver.closed

    def test_the_session_is_cut_amid_a_delivery(self) -> None:
        handler = Recorder(deliver=Told(Futures()))
        driver = Driver(handler)
        driver.receive(_ENVELOPE + b"DATA\r\n" + _CONTENT)
        driver.cut()
        assert _settled(handler)

    def test_a_sink_that_is_opened_too_late_is_closed(self) -> None:
        futures = Futures()
        handler = Recorder(open=Told(futures))
        driver = Driver(handler)
        driver.receive(_ENVELOPE + b"DATA\r\n")
        driver.cut()
        sink = RecorderSink(handler)
        futures.made[0].set_result(sink)
        assert sink.closed == 1

    def test_a_sink_that_is_opened_in_vain_is_closed(self) -> None:
        futures = Futures()
        handler = Recorder(open=Told(futures))
        driver = Driver(handler)
        driver.receive(_ENVELOPE + b"DATA\r\n")
        sink = RecorderSink(handler)
        futures.made[0].set_result(sink)
        # It is there, but the session is cut before it goes on.
        driver.cut()
        assert sink.closed == 1
        assert _settled(handler)

    def test_a_refusal_that_comes_too_late(self) -> None:
        futures = Futures()
        handler = Recorder(open=Told(futures))
        driver = Driver(handler)
        driver.receive(_ENVELOPE + b"DATA\r\n")
        driver.cut()
        futures.made[0].set_result(Reply(452, "full"))
        assert _settled(handler)


class TestDeadlines:
    LIMITS = Limits(command_timeout=10.0, content_timeout=20.0, content_rate=0, message_size=1000)

    def start(self, data: bytes) -> Driver:
        driver = Driver(Recorder(), Settings(limits=self.LIMITS))
        if data:
            driver.receive(data)
        return driver

    def test_a_command_has_one_however_slowly_it_comes(self) -> None:
        driver = self.start(b"")
        assert driver.deadline == 1010.0
        for octet in (b"N", b"O", b"O"):
            driver.now += 3.0
            driver.receive(octet)
            assert driver.deadline == 1010.0
        driver.receive(b"P\r\n")
        assert driver.deadline == 1019.0

    def test_content_that_trickles_runs_out_of_time(self) -> None:
        driver = Driver(Recorder(), Settings(limits=Limits(content_timeout=20.0, content_rate=10)))
        driver.receive(_ENVELOPE + b"DATA\r\n")
        # A fast beginning is worth no more than what the timeout gives.
        driver.receive(b"x" * 100)
        assert driver.deadline == 1020.0
        deadlines = []
        for _ in range(4):
            driver.now += 9.0
            driver.receive(b"x")
            deadlines.append(driver.deadline - driver.now)
        # 100 octets are 10 seconds, each of the others a tenth.
        assert deadlines == pytest.approx([20.0, 12.2, 3.3, -5.6])

    def test_a_trickle_is_taken_where_it_may(self) -> None:
        driver = Driver(Recorder(), Settings(limits=Limits(content_timeout=20.0, content_rate=0)))
        driver.receive(_ENVELOPE + b"DATA\r\n")
        for _ in range(50):
            driver.now += 19.0
            driver.receive(b"x")
            assert driver.deadline == driver.now + 20.0

    def test_time_that_the_store_takes_is_not_the_peers(self) -> None:
        written: Future[None] = Future()
        driver = Driver(
            Recorder(write=written), Settings(limits=Limits(content_timeout=20.0, content_rate=10))
        )
        driver.receive(_ENVELOPE + b"DATA\r\n")
        driver.receive(b"x\r\n")
        driver.now += 1000.0
        written.set_result(None)
        driver.resume()
        assert driver.deadline == driver.now + 20.0

    def test_an_endless_line_has_one(self) -> None:
        driver = self.start(b"x" * 5000)
        deadline = driver.deadline
        driver.now += 3.0
        driver.receive(b"x" * 5000)
        assert driver.deadline == deadline

    @pytest.mark.parametrize(
        "before", [_ENVELOPE + b"DATA\r\n", _ENVELOPE + b"BDAT 900\r\n", _LHLO + b"BDAT 900\r\n"]
    )
    def test_content_has_a_new_one_with_each_piece(self, before: bytes) -> None:
        driver = self.start(before)
        assert driver.deadline == 1020.0
        driver.now += 15.0
        driver.receive(b"more")
        assert driver.deadline == 1035.0

    def test_the_next_command_has_its_own_behind_content(self) -> None:
        driver = self.start(_ENVELOPE + b"DATA\r\n")
        driver.now += 5.0
        driver.receive(_CONTENT)
        assert driver.deadline == 1015.0


class TestSessionTime:
    LIMITS = Limits(session_time=100.0, command_timeout=60.0, content_timeout=90.0)

    def start(self, data: bytes = b"") -> Driver:
        driver = Driver(Recorder(), Settings(limits=self.LIMITS))
        if data:
            driver.receive(data)
        driver.writes.clear()
        return driver

    def test_a_wait_ends_with_the_session(self) -> None:
        driver = self.start()
        assert driver.deadline == 1060.0
        driver.now = 1050.0
        driver.receive(b"NOOP\r\n")
        assert driver.deadline == 1100.0
        driver.now = 1100.0
        driver.interrupt(Interrupt.TIMEOUT)
        assert driver.output == b"250 2.0.0 OK\r\n421 4.4.2 the session has lasted too long\r\n"
        assert driver.closed

    def test_silence_is_told_from_it(self) -> None:
        driver = self.start(_ENVELOPE)
        driver.now = 1060.0
        driver.interrupt(Interrupt.TIMEOUT)
        assert driver.output == b"421 4.4.2 timed out\r\n"

    @pytest.mark.parametrize("before", [b"", _LHLO, _ENVELOPE])
    @pytest.mark.parametrize("late", [b"NOOP\r\n", b"DATA\r\n", b"BOGUS\r\n", b"QUIT\r\n"])
    def test_a_command_that_comes_later(self, before: bytes, late: bytes) -> None:
        driver = self.start(before)
        driver.now = 1100.0
        driver.receive(late * 3)
        assert driver.output == b"421 4.4.2 the session has lasted too long\r\n"
        assert driver.closed

    def test_a_peer_that_always_has_something_to_say(self) -> None:
        driver = self.start(_LHLO)
        said = 0
        while not driver.closed:
            driver.now += 1.0
            driver.receive(b"NOOP\r\nNOO")
            if not driver.closed:
                driver.receive(b"P\r\n")
            said += 1
        assert said == 100

    @pytest.mark.parametrize("how", ["DATA", "BDAT", "chunks", "skipped"])
    def test_a_content_that_has_begun_is_finished(self, how: str) -> None:
        start, end, codes = {
            "DATA": (b"DATA\r\n", _CONTENT, [250, 250]),
            "BDAT": (b"BDAT 4 LAST\r\nab", b"cd", [250, 250]),
            "chunks": (b"BDAT 2\r\nab", b"NOOP\r\nBDAT 1\r\ncBDAT 0 LAST\r\n", [250] * 4),
            "skipped": (b"RSET\r\nBDAT 3\r\na", b"bc", []),
        }[how]
        driver = self.start(_ENVELOPE + start)
        driver.writes.clear()
        assert driver.deadline < 1100.0
        driver.now = 1300.0
        driver.receive(end + _LHLO)
        assert driver.codes == [*codes, 421]
        assert driver.closed

    def test_the_time_is_over_amid_a_content(self) -> None:
        driver = self.start(_ENVELOPE + b"BDAT 2\r\nab")
        driver.now = 1200.0
        driver.receive(b"NOOP\r\n")
        assert driver.deadline == 1260.0
        driver.receive(b"BDAT 5\r\nab")
        assert driver.deadline == 1290.0
        driver.now = 1290.0
        driver.interrupt(Interrupt.TIMEOUT)
        assert driver.output.endswith(b"421 4.4.2 timed out\r\n")

    def test_the_client_goes(self) -> None:
        driver = self.start(_LHLO)
        driver.now = 1200.0
        driver.eof()
        assert (driver.closed, driver.output) == (True, b"")

    def test_any_time_by_default(self) -> None:
        driver = Driver(Recorder())
        driver.now += 1e9
        driver.receive(_LHLO)
        assert driver.codes == [220, 250]


class TestCommands:
    @pytest.mark.parametrize(
        ("octets", "codes"),
        [
            (b"NOOP\r\n" * 5, [250, 250, 250, 250, 421]),
            # What is wrong counts too.
            (b"BOGUS\r\n" * 5, [500, 500, 500, 500, 421]),
            # Contents, their ends and the end of the session do not.
            (_LHLO + _MAIL + _RCPT + b"DATA\r\n", [250, 250, 250, 354, 250]),
            (_LHLO + _MAIL + _RCPT + b"BDAT 1 LAST\r\nx", [250] * 4),
            # Lines of an exchange do.
            (_LHLO + b"AUTH LOGIN\r\nYQ==\r\n*\r\nQUIT\r\n", [250, 334, 334, 501, 421]),
        ],
    )
    def test_one_too_many(self, octets: bytes, codes: list[int]) -> None:
        settings = Settings(
            limits=Limits(commands=4), extensions=STANDARD_EXTENSIONS | {Extension.AUTH}
        )
        handler = Recorder()
        driver = Driver(handler, settings)
        driver.session.client_ip = None
        driver.writes.clear()
        driver.receive(octets)
        if octets.endswith(b"DATA\r\n"):
            driver.receive(b"a\r\n")
            driver.receive(b"b\r\n.\r\n")
        assert driver.codes == codes
        if not driver.closed:
            driver.eof()
        assert _settled(handler)
        assert (b"421 4.7.0 too many commands" in driver.output) == (codes[-1] == 421)

    def test_amid_a_transaction_the_sink_is_closed(self) -> None:
        handler = Recorder()
        driver = Driver(handler, Settings(limits=Limits(commands=4)))
        driver.receive(_LHLO + _MAIL + _RCPT + b"BDAT 1\r\nxBDAT 1 LAST\r\ny")
        assert driver.codes[-2:] == [250, 421]
        assert handler.delivered == []
        assert _settled(handler)


class TestFaults:
    def test_the_count_is_of_those_in_a_row(self) -> None:
        driver = Driver(Recorder(), Settings(limits=Limits(faults=2)))
        driver.receive(b"A\r\nB\r\nNOOP\r\nC\r\nD\r\nE\r\nNOOP\r\n")
        assert driver.codes == [220, 500, 500, 250, 500, 500, 421]
        assert driver.closed

    def test_what_the_limits_refuse_is_not_counted(self) -> None:
        limits = Limits(faults=2, recipients=1)
        driver = Driver(Recorder(), Settings(limits=limits))
        driver.receive(_LHLO + _MAIL + _RCPT * 20 + b"NOOP\r\n")
        assert driver.codes == [220, 250, 250, 250, *[452] * 19, 250]

    def test_amid_a_transaction_the_sink_is_closed(self) -> None:
        handler = Recorder()
        driver = Driver(handler, Settings(limits=Limits(faults=1)))
        driver.receive(_ENVELOPE + b"BDAT 1\r\nxDATA\r\nDATA\r\n")
        assert driver.codes[-2:] == [503, 421]
        assert _settled(handler)


class TestTls:
    SETTINGS = Settings(extensions=STANDARD_EXTENSIONS | {Extension.STARTTLS})

    def test_a_handshake(self) -> None:
        driver = Driver(Recorder(), self.SETTINGS, tls="TLSv1.3")
        driver.receive(_LHLO + b"STARTTLS\r\n" + _MAIL)
        assert driver.codes == [220, 250, 220]
        assert driver.session.tls == "TLSv1.3"
        assert driver.session.lhlo_domain is None
        driver.writes.clear()
        driver.receive(_MAIL + _LHLO + b"STARTTLS\r\n")
        assert driver.codes == [503, 250, 503]
        assert b"STARTTLS" not in driver.output

    def test_a_handshake_that_fails(self) -> None:
        handler = Recorder()
        driver = Driver(handler, self.SETTINGS, tls=None)
        driver.receive(b"STARTTLS\r\nNOOP\r\n")
        assert driver.codes == [220, 220]
        assert driver.closed
        assert _settled(handler)


class TestLogs:
    """One event is one line of printable ASCII, of bounded length."""

    @staticmethod
    def check(driver: Driver) -> None:
        assert driver.logs
        for log in driver.logs:
            assert log.text.isascii()
            assert log.text.isprintable()
            assert len(log.text) <= 2000
            assert log.text.startswith("session 192.0.2.1:4711: ")

    @pytest.mark.parametrize(
        "line",
        [b"\xff\x00\x1b[31m\x07", b"x" * 4000, "bücher \u202e\u2028".encode(), b"a\rb", b"\x85"],
    )
    def test_what_the_client_sent(self, line: bytes) -> None:
        driver = Driver(Recorder())
        driver.receive(line + b"\r\n")
        self.check(driver)

    @pytest.mark.parametrize("hook", ["rcpt", "write", "open", "mail", "lhlo", "deliver"])
    @pytest.mark.parametrize(
        "reply",
        [
            Reply(550, "one", "two"),
            Reply(550, "a\r\nb\x1b"),
            Reply(550, "ü"),
            Reply(550, "x" * 5000),
        ],
    )
    def test_what_the_handler_said(self, hook: str, reply: Reply) -> None:
        driver = Driver(Recorder(**{hook: Told(lambda: reply)}))
        driver.receive(b"BOGUS\r\n" + _ENVELOPE + b"BDAT 3 LAST\r\nabc")
        self.check(driver)

    @pytest.mark.parametrize("hook", ["lhlo", "mail", "rcpt", "write", "deliver"])
    def test_what_the_handler_gave_by_mistake(self, hook: str) -> None:
        class Unspeakable:
            def __repr__(self) -> str:
                raise RuntimeError("no words")

        for wrong in (b"x" * 1_000_000, Unspeakable()):
            driver = Driver(Recorder(**{hook: wrong}))
            driver.receive(_ENVELOPE + b"BDAT 3 LAST\r\nabc")
            self.check(driver)
            assert 451 in driver.codes


def _calls(action: Callable[[], object]) -> int:
    """How many functions are called, in Python or in C, while `action` runs."""
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    # What the garbage of other tests still does at its end is not counted.
    gc.disable()
    sys.setprofile(count)
    try:
        action()
    finally:
        sys.setprofile(None)
        gc.enable()
    return calls


class TestHostile:
    def test_a_million_recipients(self) -> None:
        # Once there are as many as may be, each RCPT leaves all as it has found it: however many
        # have come, the next hundred cost the same, and nothing is kept.
        driver = Driver(Recorder())
        driver.receive(_LHLO + _MAIL + _RCPT * Limits().recipients)
        costs = set()
        kept = []
        tracemalloc.start()
        for _ in range(3):
            costs.add(_calls(lambda: driver.receive(_RCPT * 100)))
            assert driver.codes[-100:] == [452] * 100
            driver.writes.clear()
            driver.logs.clear()
            kept.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        assert len(costs) == 1
        assert kept[2] - kept[1] < 1000
        driver.receive(b"BDAT 0 LAST\r\n")
        assert driver.codes == [250] * Limits().recipients

    def test_as_many_recipients_as_a_server_allows(self) -> None:
        driver = Driver(Recorder(), Settings(limits=Limits(recipients=1_000_000)))
        driver.receive(_LHLO + _MAIL + _RCPT)
        first = _calls(lambda: driver.receive(_RCPT * 100))
        driver.receive(_RCPT * 4_789)
        assert _calls(lambda: driver.receive(_RCPT * 100)) == first
        # Nor is what is known of them copied for the next one: it would be 40,000 octets.
        tracemalloc.start()
        driver.receive(_RCPT * 10)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 20_000
        driver.writes.clear()
        cost = _calls(lambda: driver.receive(b"BDAT 0 LAST\r\n"))
        assert driver.codes == [250] * 5000
        assert cost < 5000 * 100

    def test_a_line_of_a_gigabyte(self) -> None:
        driver = Driver(Recorder())
        driver.writes.clear()
        block = b"x" * (1 << 18)
        for _ in range(1 << 12):
            driver.receive(block)
        assert driver.codes == [500]
        driver.receive(b"\r\nNOOP\r\n")
        assert driver.codes == [500, 250]

    @pytest.mark.parametrize(
        ("before", "codes"), [(b"", [421]), (_ENVELOPE, [250, 250, 250, 250, 421])]
    )
    def test_a_chunk_that_nobody_can_send(self, before: bytes, codes: list[int]) -> None:
        handler = Recorder()
        driver = Driver(handler)
        driver.writes.clear()
        driver.receive(before + b"BDAT 99999999999999999999\r\nNOOP\r\n")
        assert driver.codes == codes
        assert driver.closed
        assert _settled(handler)

    def test_a_browser(self) -> None:
        driver = Driver(Recorder())
        driver.receive(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n" + _ENVELOPE)
        assert driver.codes == [220, 500]
        assert driver.closed

    @pytest.mark.parametrize("piece", [1, 3, 1000])
    @pytest.mark.parametrize("version", [b"\x03\x00", b"\x03\x01", b"\x03\x03"])
    @pytest.mark.parametrize("body", [b"", b"\n", b"\r\n", b"\xff\r\n\x00"])
    def test_a_tls_client(self, piece: int, version: bytes, body: bytes) -> None:
        # A ClientHello seldom holds a line end; its sender waits for an answer.
        hello = b"\x16" + version + b"\x01\x2c\x01\x00\x01\x28\x03\x03" + body + bytes(200)
        driver = Driver(Recorder())
        for start in range(0, len(hello), piece):
            if not driver.closed:
                driver.receive(hello[start : start + piece])
        assert driver.closed
        assert driver.codes == [220, 500]

    def test_what_one_write_owes_is_bounded(self) -> None:
        # Nothing is read until it is written: more than this is never owed.
        driver = Driver(Recorder(), Settings(limits=Limits(recipients=5)))
        transaction = _MAIL + _RCPT * 9 + b"BDAT 1 LAST\r\nx"
        driver.receive(_LHLO + (b"NOOP\r\n" * 93 + transaction) * 50)
        owed = [write.count(b"\r\n") for write in driver.writes]
        assert 100 < max(owed) <= 100 + 5

    def test_answers_to_a_block_are_bounded_by_it(self) -> None:
        driver = Driver(Recorder())
        driver.writes.clear()
        driver.receive(b"HELP\r\n" * 10_000)
        assert len(driver.output) < 50 * 6 * 10_000
        # RFC 2920 3.1: a peer that does not read stops what is done for it, not only what it gets.
        assert max(write.count(b"\r\n") for write in driver.writes) == 2 * 100


class TestMissingChunks:
    """RFC 3030 2: a message whose chunk was refused is never delivered without it."""

    @pytest.mark.parametrize(
        ("line", "code"),
        [
            (b"BDAT  5", 500),
            (b"BDAT\t5", 500),
            (b"BDAT 5\xa0", 501),
            (b"BDAT 5\x00", 501),
            (b"bdat 5\n", 500),
            (b"BDAT " + b"5" * 5000, 500),
            (b"BDAT", 501),
        ],
    )
    def test_a_line_that_cannot_be_read(self, line: bytes, code: int) -> None:
        recorder = Recorder()
        driver = Driver(recorder)
        driver.receive(_ENVELOPE + line + b"\r\nBDAT 4 LAST\r\nrestRSET\r\nNOOP\r\n")
        assert driver.codes == [220, 250, 250, 250, 250, code, 503, 250, 250]
        assert recorder.delivered == []

    def test_another_verb_is_no_chunk(self) -> None:
        driver = Driver(Recorder())
        driver.receive(_ENVELOPE + b"BDATX " + b"5" * 5000 + b"\r\nBDAT 4 LAST\r\nrest")
        assert driver.codes == [220, 250, 250, 250, 250, 500, 250, 250]

    @pytest.mark.parametrize("line", [b"BDAT 5 NOW\r\n", b"RSET\r\nBDAT 5\r\n"])
    def test_the_octets_are_taken_before_the_answer(self, line: bytes) -> None:
        driver = Driver(Recorder())
        driver.receive(_ENVELOPE + line + b"QUIT")
        before = len(driver.codes)
        driver.receive(b"\r")
        assert len(driver.codes) == before + 1
        driver.receive(b"NOOP\r\n")
        assert len(driver.codes) == before + 2


@pytest.mark.parametrize("pieces", [[155], [100, 55], [1] * 155])
def test_which_refusal_counts_depends_on_no_pieces(pieces: list[int]) -> None:
    driver = Driver(
        Recorder(write=Reply(550, "not this")), Settings(limits=Limits(message_size=100))
    )
    driver.receive(_ENVELOPE + b"DATA\r\n")
    for size in pieces:
        driver.receive(b"x" * size)
    driver.receive(b"\r\n.\r\n")
    assert driver.codes[-2:] == [550, 550]


class TestFaultsThatNobodyCouldKnow:
    """What was sent before a refusal could be read does not end the session (RFC 2920 3.1)."""

    @pytest.mark.parametrize(
        "mail",
        [b"MAIL FROM:<spam@b>\r\n", b"MAIL FROM:<a@b> SIZE=9999999999\r\n", b"MAIL FROM:<\r\n"],
    )
    @pytest.mark.parametrize("content", [b"DATA\r\n", b"BDAT 5\r\nhello" * 20])
    def test_behind_a_refused_mail(self, mail: bytes, content: bytes) -> None:
        refuses = Told(lambda: Reply(550, "no") if mail.startswith(b"MAIL FROM:<spam") else None)
        driver = Driver(Recorder(mail=refuses), Settings(limits=Limits(faults=3)))
        for _ in range(3):
            driver.receive(_LHLO + mail + _RCPT * 50 + content)
        assert not driver.closed
        assert 421 not in driver.codes

    def test_behind_a_refused_chunk(self) -> None:
        driver = Driver(Recorder(), Settings(limits=Limits(faults=3, message_size=10)))
        driver.receive(_ENVELOPE + b"BDAT 11\r\n" + b"x" * 11 + b"BDAT 5\r\nhello" * 20)
        assert driver.codes[5:] == [552, *[503] * 20]
        driver.receive(b"RSET\r\n")
        assert driver.codes[-1] == 250

    def test_out_of_the_blue_it_is_a_fault(self) -> None:
        driver = Driver(Recorder(), Settings(limits=Limits(faults=3)))
        driver.receive(_LHLO + _RCPT * 4)
        assert driver.codes == [220, 250, 503, 503, 503, 421]
