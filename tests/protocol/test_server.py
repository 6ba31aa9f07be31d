"""The server role beyond the table: statuses, refused content, limits, TLS, what it keeps."""

import contextlib
import tracemalloc
from collections.abc import Sequence
from typing import cast

import pytest

from lmtp_proto import (
    NEED_DATA,
    PAUSED,
    STANDARD_EXTENSIONS,
    Bdat,
    ConnectionClosed,
    Content,
    EndOfContent,
    Extension,
    Fault,
    Limits,
    LocalProtocolError,
    Recipient,
    RecipientReply,
    RemainingReply,
    Reply,
    ServerConnection,
    State,
)

_OK = Reply(250, "ok")


def _served(
    data: bytes, *, limits: Limits | None = None, extensions: frozenset[Extension] | None = None
) -> ServerConnection:
    """A connection that has taken all commands of `data`, up to content or a status."""
    connection = ServerConnection(limits=limits, extensions=extensions or STANDARD_EXTENSIONS)
    connection.send(Reply(220, "hello"))
    connection.receive_data(data)
    while True:
        event = connection.next_event()
        if event is NEED_DATA or event is PAUSED or isinstance(event, Content | EndOfContent):
            return connection
        if type(event).__name__ == "Data":
            connection.send(Reply(354, "go"))
        elif type(event).__name__ == "StartTls":
            connection.send(Reply(220, "go"))
            return connection
        elif type(event).__name__ != "Bdat":
            connection.send(_OK)


def _envelope(recipients: int = 3) -> bytes:
    rcpt = b"RCPT TO:<alice@example.org>\r\n" * recipients
    return b"LHLO x\r\nMAIL FROM:<>\r\n" + rcpt


def _in_status(recipients: int = 3) -> tuple[ServerConnection, Sequence[Recipient]]:
    connection = _served(_envelope(recipients) + b"BDAT 0 LAST\r\n")
    assert connection.state is State.STATUS
    return connection, connection.unanswered


def _status(recipient: Recipient, text: str) -> RecipientReply:
    return RecipientReply(recipient=recipient, reply=Reply(250, text))


class TestStatuses:
    def test_any_order_in_rcpt_order_out(self) -> None:
        connection, (first, second, third) = _in_status()
        assert connection.send(_status(third, "third")) == b""
        assert connection.send(_status(first, "first")) == b"250 2.0.0 first\r\n"
        assert list(connection.unanswered) == [second]
        assert connection.next_event() is PAUSED
        assert connection.send(_status(second, "second")) == (
            b"250 2.0.0 second\r\n250 2.0.0 third\r\n"
        )
        assert connection.state is State.READY
        assert list(connection.unanswered) == []

    def test_each_recipient_has_one(self) -> None:
        connection, (first, second, _) = _in_status()
        connection.send(_status(second, "x"))
        with pytest.raises(LocalProtocolError) as caught:
            connection.send(_status(second, "y"))
        assert str(caught.value) == "alice@example.org has its reply already"
        assert connection.send(_status(first, "1")) == b"250 2.0.0 1\r\n250 2.0.0 x\r\n"
        with pytest.raises(LocalProtocolError):
            connection.send(_status(first, "2"))

    def test_of_another_transaction_is_misuse(self) -> None:
        connection, (old,) = _in_status(1)
        connection.send(_status(old, "x"))
        connection.receive_data(_envelope(1) + b"BDAT 0 LAST\r\n")
        while not isinstance(event := connection.next_event(), EndOfContent):
            if type(event).__name__ != "Bdat":
                connection.send(_OK)
        with pytest.raises(LocalProtocolError):
            connection.send(_status(old, "again"))

    def test_remaining_answers_all_that_have_none(self) -> None:
        connection, (_, second, _) = _in_status()
        connection.send(_status(second, "second"))
        assert connection.send(RemainingReply(reply=Reply(451, "no"))) == (
            b"451 4.0.0 no\r\n250 2.0.0 second\r\n451 4.0.0 no\r\n"
        )
        assert connection.state is State.READY

    @pytest.mark.parametrize("code", [250, 299, 400, 499, 599])
    def test_any_code_of_2xx_4xx_and_5xx_is_final(self, code: int) -> None:
        connection, _ = _in_status(1)
        reply = Reply(code, "x")
        assert connection.send(RemainingReply(reply=reply)) == reply.wire
        assert connection.state is State.READY

    @pytest.mark.parametrize("code", [400, 599])
    def test_a_refused_content_is_not_delivered(self, code: int) -> None:
        connection = _served(_envelope(1) + b"DATA\r\none\r\n.\r\n")
        connection.refuse_content(Reply(554, "no"))
        connection.next_event()
        with pytest.raises(LocalProtocolError) as caught:
            connection.send(RemainingReply(reply=Reply(299, "ok")))
        assert str(caught.value) == "299 2.0.0 ok for content that is refused: 554 5.0.0 no"
        reply = Reply(code, "no")
        assert connection.send(RemainingReply(reply=reply)) == reply.wire

    def test_equal_paths_are_distinct_recipients(self) -> None:
        _, recipients = _in_status(3)
        assert len({id(recipient) for recipient in recipients}) == 3
        assert len(set(recipients)) == 3

    def test_shutting_down_answers_each_recipient(self) -> None:
        # RFC 2033 4.2: one reply each; what is known to be delivered is said.
        connection, (_, second, _) = _in_status()
        connection.send(_status(second, "second"))
        assert connection.shut_down(Reply(421, "stop")) == (
            b"421 4.0.0 stop\r\n250 2.0.0 second\r\n421 4.0.0 stop\r\n"
        )
        assert connection.state is State.CLOSED

    @pytest.mark.parametrize(("code", "state"), [(421, State.CLOSED), (422, State.READY)])
    def test_421_to_a_recipient_ends_the_session_with_the_last_status(
        self, code: int, state: State
    ) -> None:
        connection, (first, second) = _in_status(2)
        connection.send(RecipientReply(recipient=first, reply=Reply(code, "later")))
        assert connection.state is State.STATUS
        connection.send(_status(second, "second"))
        assert connection.state is state

    def test_shutting_down_takes_the_place_of_the_next_reply(self) -> None:
        connection = _served(b"")
        connection.receive_data(b"LHLO x\r\nNOOP\r\n")
        connection.next_event()
        stop = Reply(421, "stop")
        assert connection.shut_down(stop) == stop.wire
        assert isinstance(connection.next_event(), ConnectionClosed)
        with pytest.raises(LocalProtocolError):
            connection.send(_OK)

    def test_shutting_down_amid_a_chunk(self) -> None:
        connection = _served(_envelope(1) + b"BDAT 9\r\nabc")
        stop = Reply(421, "stop")
        assert connection.shut_down(stop) == stop.wire
        assert not connection.content_flows
        assert connection.next_event() == ConnectionClosed(mid_transaction=True)

    def test_shutting_down_amid_content(self) -> None:
        connection = _served(_envelope(1) + b"DATA\r\nabc")
        connection.shut_down(Reply(421, "stop"))
        assert not connection.content_flows
        assert connection.next_event() == ConnectionClosed(mid_transaction=True)

    def test_what_is_closed_says_nothing_more(self) -> None:
        connection = _served(b"")
        connection.shut_down(Reply(421, "stop"))
        assert connection.shut_down(Reply(421, "stop")) == b""

    def test_the_callers_list_does_not_rule_the_count(self) -> None:
        connection = _served(_envelope(2))
        # What it has is no list, or one of its own.
        with contextlib.suppress(AttributeError):
            cast(list[Recipient], connection.recipients).clear()
        connection.receive_data(b"BDAT 0 LAST\r\n")
        connection.next_event()
        connection.next_event()
        assert connection.send(RemainingReply(reply=_OK)) == b"250 2.0.0 ok\r\n" * 2


class TestContent:
    def test_refusing_drops_the_rest(self) -> None:
        connection = _served(_envelope(2) + b"DATA\r\none\r\n")
        connection.refuse_content(Reply(554, "no"))
        connection.refuse_content(Reply(451, "too late: the first word counts"))
        connection.receive_data(b"two\r\n.\r\nNOOP\r\n")
        event = connection.next_event()
        assert isinstance(event, EndOfContent)
        assert event.refusal == Reply(554, "no")
        assert event.size == 10
        assert len(event.recipients) == 2

    def test_refusing_at_the_last_octets(self) -> None:
        connection = _served(_envelope(1) + b"DATA\r\none\r\n.\r\n")
        connection.refuse_content(Reply(554, "no"))
        event = connection.next_event()
        assert isinstance(event, EndOfContent)
        assert event.refusal == Reply(554, "no")

    def test_refusal_is_forgotten_with_the_transaction(self) -> None:
        connection = _served(_envelope(1) + b"DATA\r\none\r\n.\r\n")
        connection.refuse_content(Reply(554, "no"))
        connection.next_event()
        connection.send(RemainingReply(reply=Reply(554, "no")))
        assert connection.refusal is None
        connection.receive_data(_envelope(1) + b"DATA\r\n")
        for reply in (_OK, _OK, _OK, Reply(354, "go")):
            connection.next_event()
            connection.send(reply)
        connection.receive_data(b"two\r\n.\r\n")
        assert connection.next_event() == Content(data=b"two\r\n")
        assert connection.refusal is None
        connection.refuse_content(Reply(451, "later"))
        event = connection.next_event()
        assert isinstance(event, EndOfContent)
        assert event.refusal == Reply(451, "later")

    @pytest.mark.parametrize("size", [99, 100, 101])
    def test_the_limit_is_exact(self, size: int) -> None:
        connection = _served(
            _envelope(1) + b"DATA\r\n" + b"x" * (size - 2) + b"\r\n.\r\n",
            limits=Limits(message_size=100),
        )
        event: object = None
        while not isinstance(event, EndOfContent):
            if connection.state is State.STATUS:
                break
            event = connection.next_event()
        refusal = connection.refusal
        assert refusal is None if size <= 100 else refusal is not None and refusal.code == 552

    def test_each_message_is_counted_from_its_beginning(self) -> None:
        connection = _served(_envelope(1), limits=Limits(message_size=3))
        for _ in range(2):
            connection.receive_data(_envelope(1) + b"BDAT 3 LAST\r\nabc")
            while not isinstance(event := connection.next_event(), EndOfContent):
                if not isinstance(event, Bdat | Content):
                    connection.send(_OK)
            assert (event.size, event.refusal) == (3, None)
            connection.send(RemainingReply(reply=_OK))

    @pytest.mark.parametrize("ending", [b"", b"\r\n.\r\n", b"\r\n.\r\nNOOP\r\n"])
    @pytest.mark.parametrize("piece", [1, 7, 100, 10_000])
    def test_too_much_refused_content_ends_the_session(self, ending: bytes, piece: int) -> None:
        connection = _served(
            _envelope(1) + b"DATA\r\n", limits=Limits(message_size=100, discard=100)
        )
        data = b"x" * 1000 + ending
        faults = []
        for start in range(0, len(data), piece):
            connection.receive_data(data[start : start + piece])
            while (event := connection.next_event()) is not NEED_DATA and event is not PAUSED:
                if isinstance(event, Fault):
                    faults.append(event)
                    connection.send(event.reply)
        assert [fault.reply.code for fault in faults] == [421]
        assert connection.state is State.CLOSED

    @pytest.mark.parametrize("size", [150, 201, 250, 301])
    def test_the_end_of_patience_does_not_depend_on_the_pieces(self, size: int) -> None:
        ends = set()
        for piece in (1, 10, 1000):
            connection = _served(
                _envelope(1) + b"DATA\r\n", limits=Limits(message_size=100, discard=100)
            )
            data = b"x" * (size - 2) + b"\r\n.\r\n"
            kept = b""
            end = ""
            for start in range(0, len(data), piece):
                connection.receive_data(data[start : start + piece])
                event = connection.next_event()
                while isinstance(event, Content):
                    kept += event.data
                    event = connection.next_event()
                end = type(event).__name__
                if isinstance(event, EndOfContent | Fault):
                    break
            ends.add((kept, end))
        assert len(ends) == 1


class TestLimits:
    def test_too_many_recipients(self) -> None:
        connection = _served(_envelope(3), limits=Limits(recipients=3))
        assert connection.limits == Limits(recipients=3)
        connection.receive_data(b"RCPT TO:<late@example.org>\r\n")
        event = connection.next_event()
        assert isinstance(event, Fault)
        assert (event.reply.code, event.reply.enhanced) == (452, "4.5.3")
        connection.send(event.reply)
        assert len(connection.recipients) == 3

    def test_each_accepted_mail_is_one_transaction(self) -> None:
        # RFC 9422 4: what was refused does not count.
        connection = _served(b"LHLO x\r\n", limits=Limits(transactions=3))
        codes = []
        for reply in (_OK, Reply(550, "no"), _OK, _OK, _OK):
            connection.receive_data(b"MAIL FROM:<>\r\n")
            event = connection.next_event()
            if isinstance(event, Fault):
                codes.append(event.reply.code)
                break
            connection.send(reply)
            codes.append(reply.code)
            connection.receive_data(b"RSET\r\n")
            connection.next_event()
            connection.send(_OK)
        assert codes == [250, 550, 250, 250, 421]

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("command_line", 511),
            ("reply", 0),
            ("recipients", 0),
            ("message_size", 0),
            ("discard", -1),
            ("faults", 0),
            ("parameters", 1),
            ("commands", 0),
            ("transactions", 0),
            ("session_time", 0.0),
            ("command_timeout", 0.0),
            ("content_timeout", -1.0),
            ("write_timeout", float("nan")),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, name: str, value: float) -> None:
        with pytest.raises(ValueError, match=name):
            Limits(**{name: value})  # type: ignore[arg-type]  # the fields have different types

    @pytest.mark.parametrize("name", ["command_line", "recipients", "faults"])
    def test_frozen(self, name: str) -> None:
        with pytest.raises(AttributeError):
            setattr(Limits(), name, 5000)

    def test_a_hundred_recipients_by_default(self) -> None:
        # RFC 5321 4.5.3.1.8.
        assert Limits().recipients >= 100
        # RFC 5321 4.5.3.2.
        assert Limits().command_timeout >= 300
        assert Limits().content_timeout >= 180


class TestKeywords:
    def test_standard(self) -> None:
        assert ServerConnection(limits=Limits(message_size=77)).keywords() == [
            "PIPELINING",
            "ENHANCEDSTATUSCODES",
            "8BITMIME",
            "SIZE 77",
            "CHUNKING",
        ]

    @pytest.mark.parametrize(
        ("extension", "needed"),
        [
            (Extension.BINARYMIME, Extension.CHUNKING),
            (Extension.SMTPUTF8, Extension.EIGHTBITMIME),
        ],
    )
    def test_what_means_nothing_alone(self, extension: Extension, needed: Extension) -> None:
        # RFC 3030 3, RFC 6531 3.1.
        assert ServerConnection(extensions=frozenset({extension})).keywords() == []
        both = ServerConnection(extensions=frozenset({extension, needed}))
        assert set(both.keywords()) == {extension.value, needed.value}

    def test_only_what_is_enabled(self) -> None:
        connection = _served(b"LHLO x\r\nSTARTTLS\r\n", extensions=frozenset({Extension.STARTTLS}))
        assert connection.keywords() == ["STARTTLS"]
        connection.tls_established()
        # RFC 3207 4.2.
        assert connection.keywords() == []

    @pytest.mark.parametrize(
        ("line", "code"),
        [
            (b"BDAT 3\r\n", 502),
            (b"STARTTLS\r\n", 502),
            (b"MAIL FROM:<> SIZE=1\r\n", 555),
            (b"MAIL FROM:<> BODY=7BIT\r\n", 555),
        ],
    )
    def test_what_is_off_is_refused(self, line: bytes, code: int) -> None:
        connection = _served(b"LHLO x\r\n", extensions=frozenset({Extension.PIPELINING}))
        connection.receive_data(line)
        event = connection.next_event()
        assert isinstance(event, Fault)
        assert event.reply.code == code


class TestTls:
    EXTENSIONS = STANDARD_EXTENSIONS | {Extension.STARTTLS}

    def test_plaintext_behind_starttls_is_not_executed(self) -> None:
        # CVE-2011-0411: octets that came in the clear before the handshake.
        connection = _served(
            b"LHLO x\r\nSTARTTLS\r\nMAIL FROM:<>\r\nRCP", extensions=self.EXTENSIONS
        )
        assert connection.state is State.TLS
        connection.tls_established()
        assert connection.next_event() is NEED_DATA
        connection.receive_data(b"NOOP\r\n")
        assert type(connection.next_event()).__name__ == "Noop"

    def test_plaintext_that_came_later_is_not_executed(self) -> None:
        connection = _served(b"LHLO x\r\nSTARTTLS\r\n", extensions=self.EXTENSIONS)
        try:
            connection.receive_data(b"NOOP\r\n")
        except LocalProtocolError:
            return
        connection.tls_established()
        assert connection.next_event() is NEED_DATA

    def test_lhlo_is_needed_anew(self) -> None:
        connection = _served(b"LHLO x\r\nSTARTTLS\r\n", extensions=self.EXTENSIONS)
        connection.tls_established()
        connection.receive_data(b"STARTTLS\r\nMAIL FROM:<>\r\nLHLO x\r\nMAIL FROM:<>\r\n")
        codes = []
        while (event := connection.next_event()) is not NEED_DATA:
            reply = event.reply if isinstance(event, Fault) else _OK
            codes.append(reply.code)
            connection.send(reply)
        assert codes == [503, 503, 250, 250]

    @pytest.mark.parametrize("before", [b"MAIL FROM:<>\r\n", b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\n"])
    def test_not_in_a_transaction(self, before: bytes) -> None:
        connection = _served(b"LHLO x\r\n" + before, extensions=self.EXTENSIONS)
        connection.receive_data(b"STARTTLS\r\n")
        event = connection.next_event()
        assert isinstance(event, Fault)
        assert event.reply.code == 503


class TestMemory:
    """What a connection keeps is bounded, whatever has passed through it."""

    LIMITS = Limits(message_size=1 << 40, discard=0)

    @staticmethod
    def _kept(connection: ServerConnection, block: bytes, times: int) -> int:
        """Octets that are held on to after `block` has come `times` over."""
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(times):
            # A copy, as a socket gives one each time.
            connection.receive_data(bytes(bytearray(block)))
            while (event := connection.next_event()) is not NEED_DATA:
                if event is PAUSED:
                    break
                if isinstance(event, Fault):
                    connection.send(event.reply)
            del event
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return after - before

    def test_a_line_of_50_megabytes(self) -> None:
        connection = _served(b"")
        assert self._kept(connection, b"x" * 50_000, 1000) < 60_000

    def test_content(self) -> None:
        connection = _served(_envelope(1) + b"DATA\r\n", limits=self.LIMITS)
        assert self._kept(connection, b"x" * 50_000, 1000) < 60_000

    def test_a_chunk(self) -> None:
        connection = _served(_envelope(1) + b"BDAT 50000000\r\n", limits=self.LIMITS)
        assert self._kept(connection, b"x" * 50_000, 999) < 60_000

    def test_a_refused_chunk(self) -> None:
        connection = _served(b"LHLO x\r\n", limits=self.LIMITS)
        connection.receive_data(b"BDAT 50000000\r\n")
        assert self._kept(connection, b"x" * 50_000, 999) < 60_000

    @pytest.mark.parametrize(
        "data",
        [
            pytest.param(b"x" * 1_000_000 + b"\r\n.\r\n", id="dot"),
            pytest.param(b"x" * 1_000_000 + b"\r\n.\r\nNOOP", id="half a line"),
        ],
    )
    def test_an_idle_connection_keeps_no_content(self, data: bytes) -> None:
        connection = _served(_envelope(1) + b"DATA\r\n", limits=self.LIMITS)
        tracemalloc.start()
        connection.receive_data(bytes(bytearray(data)))
        while not isinstance(connection.next_event(), EndOfContent):
            pass
        connection.send(RemainingReply(reply=_OK))
        assert connection.next_event() is NEED_DATA
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert kept < 10_000


def test_content_that_is_refused_is_not_accepted() -> None:
    connection = ServerConnection()
    connection.send(Reply(220, "hello"))
    connection.receive_data(b"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n")
    for code in (250, 250, 250, 354):
        connection.next_event()
        connection.send(Reply(code, "ok"))
    connection.refuse_content(Reply(452, "no room"))
    connection.receive_data(b"hello\r\n.\r\n")
    event = connection.next_event()
    assert isinstance(event, EndOfContent)
    for answer in (
        RemainingReply(reply=Reply(250, "saved")),
        RecipientReply(recipient=event.recipients[0], reply=Reply(250, "saved")),
    ):
        with pytest.raises(LocalProtocolError, match="refused: 452"):
            connection.send(answer)
    assert connection.send(RemainingReply(reply=Reply(452, "no room"))) == b"452 4.0.0 no room\r\n"
