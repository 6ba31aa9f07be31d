"""The client's conversation: against our server, and against servers that do as they like."""

import itertools
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmtp_proto import (
    STANDARD_EXTENSIONS,
    Address,
    Answer,
    Body,
    ClientMechanism,
    ContentPolicy,
    Credentials,
    Dialect,
    Effect,
    Extension,
    ExternalClient,
    Handler,
    Handshake,
    Interrupt,
    Limits,
    LocalProtocolError,
    LoginClient,
    MailParameters,
    Mechanism,
    Noop,
    OfferedLimits,
    PlainClient,
    Receive,
    Recipient,
    RemoteProtocolError,
    Reply,
    Result,
    Run,
    Send,
    Session,
    Settings,
    Submission,
    Treatment,
    Verb,
    Wait,
    parse_mailbox,
)
from tests.dialogs.handler import SETTINGS, DialogHandler
from tests.protocol.driver import Driver, begin

_PIPELINING: Final = b"250-host\r\n250-PIPELINING\r\n250 SIZE 1000\r\n"
_CHUNKING: Final = b"250-host\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 8BITMIME\r\n"
_PLAIN: Final = b"250 host\r\n"
_GREETING: Final = b"220 host\r\n"
_OK: Final = b"250 2.0.0 ok\r\n"
_NO: Final = b"550 5.1.1 no\r\n"
_GO: Final = b"354 go\r\n"
_BYE: Final = b"421 4.3.2 bye\r\n"


class Peer:
    """Our server, as the client's runtime sees it."""

    def __init__(
        self,
        handler: Handler | None = None,
        settings: Settings = SETTINGS,
        *,
        tls: str | None = None,
    ) -> None:
        self.driver = Driver(handler or DialogHandler(), settings, tls=tls)
        self.heard = b""

    def read(self, octets: bytes) -> None:
        self.heard += octets
        if not self.driver.closed:
            self.driver.receive(octets)

    def write(self) -> bytes | Interrupt:
        output = self.driver.output
        self.driver.writes.clear()
        return output

    def look(self) -> bytes | Interrupt:
        return self.write() or Interrupt.TIMEOUT

    def shake_hands(self) -> str | None:
        return self.driver.tls


class Script(Peer):
    """A server that says the next of its lines each time it is waited for, then closes.

    `early` is said at once when the octets before it have been heard. `tls` is what handshakes end
    with; `handshakes` tells what had been heard when each began.
    """

    def __init__(
        self,
        *lines: bytes | Interrupt,
        early: tuple[bytes, bytes] | None = None,
        tls: str | None = None,
    ) -> None:
        self.tls = tls
        self.handshakes: list[bytes] = []
        self.lines = list(lines)
        self.early = early
        self.heard = b""
        self.flights: list[bytes] = []

    def read(self, octets: bytes) -> None:
        self.heard += octets
        self.flights.append(octets)

    def write(self) -> bytes | Interrupt:
        return self.lines.pop(0) if self.lines else b""

    def look(self) -> bytes | Interrupt:
        if self.early is not None and self.early[0] in self.heard:
            words = self.early[1]
            self.early = None
            return words
        return Interrupt.TIMEOUT

    def shake_hands(self) -> str | None:
        self.handshakes.append(self.heard)
        return self.tls


class Endless(Script):
    """A server that never comes to the end of its reply."""

    def write(self) -> bytes | Interrupt:
        return super().write() or b"250-more\r\n" * 100


def _perform(conversation: Generator[Effect, None, object], server: Peer) -> object:
    """Run a client's conversation against a server; what it returns. Time stands still at 0."""
    try:
        while True:
            effect = next(conversation)
            match effect:
                case Send():
                    server.read(effect.data)
                case Receive():
                    effect.outcome = server.write() if effect.deadline > 0.0 else server.look()
                case Run():
                    begin(effect)
                case Wait(run=run):
                    assert run.done
                case Handshake():
                    assert effect.deadline > 0.0
                    effect.outcome = server.shake_hands()
    except StopIteration as end:
        return end.value


def _recipients(*local_parts: str) -> list[Recipient]:
    return [Recipient(address=Address(each, "example.org")) for each in local_parts]


def _reader(content: Iterable[bytes]) -> Callable[[], Answer[bytes]]:
    pieces = itertools.chain(content, itertools.repeat(b""))
    return lambda: next(pieces)


def _open(
    peer: Peer,
    *,
    dialect: Dialect = Dialect.LMTP,
    chunk_size: int = 0,
    limits: Limits | None = None,
) -> Submission:
    submission = Submission(
        "client.example.org",
        clock=lambda: 0.0,
        dialect=dialect,
        chunk_size=chunk_size,
        limits=limits,
    )
    _perform(submission.open(), peer)
    return submission


def _submit(
    submission: Submission,
    peer: Peer,
    *local_parts: str,
    content: Iterable[bytes] = (b"hi\r\n",),
    sender: str = "sender",
) -> list[Result]:
    recipients = _recipients(*local_parts)
    results = _perform(
        submission.submit(Address(sender, "example.net"), recipients, _reader(content)), peer
    )
    assert isinstance(results, list)
    assert [result.recipient for result in results] == recipients
    return results


def _say(conversation: Generator[Effect, None, Reply], server: Peer) -> Reply:
    reply = _perform(conversation, server)
    assert isinstance(reply, Reply)
    return reply


def _codes(results: Sequence[Result]) -> list[int]:
    return [result.reply.code for result in results]


# DATA, one chunk, and chunks of few octets.
_WAYS: Final = pytest.mark.parametrize("chunk_size", [0, 100_000, 3])


class TestOurServer:
    @_WAYS
    @pytest.mark.parametrize("window", [1, 2, 3, 100])
    def test_each_recipient_has_its_own_reply(self, chunk_size: int, window: int) -> None:
        peer = Peer()
        submission = _open(peer, chunk_size=chunk_size, limits=Limits(window=window))
        for _ in range(2):
            results = _submit(
                submission, peer, "alice", "nobody", "alice", "full", "later", "crash"
            )
            assert _codes(results) == [250, 550, 250, 452, 450, 451]
            assert [result.verb for result in results] == [
                Verb.END,
                Verb.RCPT,
                Verb.END,
                Verb.END,
                Verb.RCPT,
                Verb.END,
            ]
        assert _perform(submission.close(), peer) is not None
        assert peer.driver.closed
        assert (b"BDAT" in peer.heard) == (chunk_size > 0)

    @_WAYS
    @pytest.mark.parametrize(
        ("sender", "local_parts", "codes"),
        [
            ("spam", ["alice", "bob"], [550, 550]),
            ("sender", ["nobody", "noone"], [550, 550]),
            ("closed", ["alice", "nobody"], [451, 550]),
            ("virus", ["alice", "nobody"], [554, 550]),
            ("nospace", ["alice", "bob"], [452, 452]),
        ],
    )
    def test_refusals_leave_the_session_fit_for_another(
        self, sender: str, local_parts: list[str], codes: list[int], chunk_size: int
    ) -> None:
        peer = Peer()
        submission = _open(peer, chunk_size=chunk_size)
        assert _codes(_submit(submission, peer, *local_parts, sender=sender)) == codes
        assert _codes(_submit(submission, peer, "alice")) == [250]
        assert submission.failure is None

    @_WAYS
    @pytest.mark.parametrize(
        ("content", "saved"),
        [
            ([], "saved 0: "),
            ([b".\r\n", b".", b".a\r\n", b"b\r\n"], r"saved 11: .\r\n..a\r\nb\r\n"),
            ([b"ab", b"c\r\n"], r"saved 5: abc\r\n"),
            ([b"abcdefgh\r\n"], r"saved 10: abcdefgh\r\n"),
        ],
    )
    def test_the_content_arrives_as_it_is(
        self, content: list[bytes], saved: str, chunk_size: int
    ) -> None:
        peer = Peer()
        submission = _open(peer, chunk_size=chunk_size)
        (result,) = _submit(submission, peer, "alice", content=content)
        assert result.reply.text == saved

    @_WAYS
    def test_no_bare_cr_and_no_bare_lf_is_sent(self, chunk_size: int) -> None:
        # RFC 5321 2.3.8.
        peer = Peer()
        submission = _open(peer, chunk_size=chunk_size)
        pieces = [b"a\nb\r", b"\n", b"c\rd\n.\n", b"e\r"]
        (result,) = _submit(submission, peer, "alice", content=pieces)
        if chunk_size:
            assert result.reply.text == r"saved 16: a\r\nb\r\nc d\r\n.\r\ne "
        else:
            assert result.reply.text == r"saved 18: a\r\nb\r\nc d\r\n.\r\ne \r\n"

    def test_what_the_policy_refuses_is_not_completed(self) -> None:
        peer = Peer()
        submission = Submission(
            "x", clock=lambda: 0.0, content_policy=ContentPolicy(nul=Treatment.REJECT)
        )
        _perform(submission.open(), peer)
        with pytest.raises(LocalProtocolError, match="NUL"):
            _submit(submission, peer, "alice", content=[b"a\0b"])
        assert not submission.usable
        assert b"BDAT" not in peer.heard

    def test_no_chunk_is_larger(self) -> None:
        peer = Peer()
        submission = _open(peer, chunk_size=4)
        _submit(submission, peer, "alice", content=[b"0123456789", b"ab", b"c"])
        sizes = [int(size) for size in re.findall(rb"BDAT (\d+)", peer.heard)]
        assert max(sizes) == 4
        assert sum(sizes) == 13

    def test_a_refused_chunk_is_the_last_one(self) -> None:
        peer = Peer()
        submission = _open(peer, chunk_size=4_000)
        content = [b"x" * 100_000]
        results = _submit(submission, peer, "alice", "nobody", "bob", content=content)
        assert _codes(results) == [552, 550, 552]
        assert [result.verb for result in results] == [Verb.BDAT, Verb.RCPT, Verb.BDAT]
        assert len(peer.heard) < 20_000
        assert _codes(_submit(submission, peer, "alice")) == [250]

    def test_a_content_that_a_job_reads(self) -> None:
        peer = Peer()
        submission = _open(peer)
        pieces = iter([b"hi\r\n", b""])
        results = _perform(
            submission.submit(None, _recipients("alice"), lambda: lambda: next(pieces)), peer
        )
        assert isinstance(results, list)
        assert results[0].reply.text == r"saved 4: hi\r\n"

    def test_nobody_to_send_to(self) -> None:
        peer = Peer()
        submission = _open(peer)
        assert _submit(submission, peer) == []
        assert b"MAIL" not in peer.heard

    def test_a_command_between_two_messages(self) -> None:
        peer = Peer()
        submission = _open(peer)
        reply = _perform(submission.say(Noop()), peer)
        assert str(reply).startswith("250 ")
        with pytest.raises(LocalProtocolError):
            _perform(submission.say(Noop(text="a\r\nQUIT")), peer)
        assert _codes(_submit(submission, peer, "alice")) == [250]


class TestOrder:
    """What is said before a reply is awaited."""

    def test_a_message_is_two_flights_by_data(self) -> None:
        script = Script(_GREETING, _PIPELINING, _OK * 3 + _GO, _OK * 2)
        submission = _open(script)
        assert _codes(_submit(submission, script, "a", "b")) == [250, 250]
        assert [flight.count(b"\r\n") for flight in script.flights] == [1, 4, 2]

    def test_a_message_is_two_flights_by_bdat(self) -> None:
        script = Script(_GREETING, _CHUNKING, _OK * 3, _OK * 2)
        submission = _open(script, chunk_size=100)
        assert _codes(_submit(submission, script, "a", "b")) == [250, 250]
        assert script.flights[1].count(b"RCPT") == 2
        assert script.flights[2:] == [b"BDAT 4 LAST\r\nhi\r\n"]

    def test_the_last_chunk_waits_for_the_others(self) -> None:
        script = Script(_GREETING, _CHUNKING, _OK * 2, _OK * 2, _OK)
        submission = _open(script, chunk_size=2)
        results = _submit(submission, script, "a", content=[b"abcdef"])
        assert _codes(results) == [250]
        assert script.flights[2:] == [b"BDAT 2\r\nab", b"BDAT 2\r\ncd", b"BDAT 2 LAST\r\nef"]

    @pytest.mark.parametrize(
        ("dialect", "data"), [(Dialect.LMTP, b"DATA"), (Dialect.SMTP, b"DATA")]
    )
    def test_one_by_one_where_pipelining_is_not_offered(
        self, dialect: Dialect, data: bytes
    ) -> None:
        script = Script(_GREETING, _PLAIN, _OK, _NO, _OK, _GO, _OK)
        submission = _open(script, dialect=dialect)
        assert _codes(_submit(submission, script, "a", "b")) == [550, 250]
        assert [flight.count(b"\r\n") for flight in script.flights] == [1, 1, 1, 1, 1, 2]
        assert script.flights[-2] == data + b"\r\n"

    @pytest.mark.parametrize("hello", [_PLAIN, _CHUNKING])
    def test_nothing_is_sent_for_nobody(self, hello: bytes) -> None:
        envelope = (_OK + _NO,) if hello is _CHUNKING else (_OK, _NO)
        script = Script(_GREETING, hello, *envelope, _OK)
        submission = _open(script, chunk_size=10)
        assert _codes(_submit(submission, script, "a")) == [550]
        assert script.flights[-1] == b"RSET\r\n"
        assert b"DATA" not in script.heard
        assert b"BDAT" not in script.heard


class TestSmtp:
    def test_one_reply_is_for_all(self) -> None:
        script = Script(
            *(_GREETING, _PIPELINING),
            *(_OK + _OK + _NO + _OK + _GO, b"250 2.0.0 queued\r\n"),
            *(_OK + _OK + _GO, b"554 5.6.0 spam\r\n"),
        )
        submission = _open(script, dialect=Dialect.SMTP)
        assert script.flights == [b"EHLO client.example.org\r\n"]
        results = _submit(submission, script, "a", "b", "c")
        assert [str(result.reply) for result in results] == [
            "250 2.0.0 queued",
            "550 5.1.1 no",
            "250 2.0.0 queued",
        ]
        assert _codes(_submit(submission, script, "a")) == [554]
        assert submission.usable

    def test_by_bdat(self) -> None:
        script = Script(
            *(_GREETING, _CHUNKING),
            *(_OK * 3, _OK, _OK),
            *(_OK * 3, b"552 too big\r\n", _OK),
        )
        submission = _open(script, dialect=Dialect.SMTP, chunk_size=2)
        assert _codes(_submit(submission, script, "a", "b", content=[b"abcd"])) == [250, 250]
        assert _codes(_submit(submission, script, "a", "b", content=[b"abcd"])) == [552, 552]
        assert script.flights[-1] == b"RSET\r\n"
        assert submission.usable

    @pytest.mark.parametrize(
        ("refusal", "helo"), [(b"502 no\r\n", True), (b"500 no\r\n", True), (b"450 no\r\n", False)]
    )
    def test_helo_where_ehlo_is_refused_for_good(self, refusal: bytes, helo: bool) -> None:
        script = Script(_GREETING, refusal, b"250-host\r\n250 PIPELINING\r\n")
        submission = _open(script, dialect=Dialect.SMTP)
        assert (b"HELO client.example.org\r\n" in script.heard) == helo
        assert submission.usable == helo
        # A reply to HELO offers nothing.
        assert submission.keywords == {}

    def test_lmtp_knows_no_helo(self) -> None:
        script = Script(_GREETING, b"500 no\r\n", _OK)
        submission = _open(script)
        assert not submission.usable
        assert script.heard == b"LHLO client.example.org\r\n"

    def test_354_for_nobody_is_ended_by_a_dot(self) -> None:
        # RFC 2920 3.1.
        script = Script(
            *(_GREETING, _PIPELINING, _OK + _NO + _GO, b"554 5.5.1 nobody\r\n"),
            *(_OK + _OK + _GO, _OK),
        )
        submission = _open(script, dialect=Dialect.SMTP)
        assert _codes(_submit(submission, script, "a")) == [550]
        assert script.flights[-1] == b".\r\n"
        assert _codes(_submit(submission, script, "a")) == [250]

    def test_421_to_the_dot_for_nobody(self) -> None:
        script = Script(_GREETING, _PIPELINING, _OK + _NO + _GO, _BYE)
        submission = _open(script, dialect=Dialect.SMTP)
        assert _codes(_submit(submission, script, "a")) == [550]
        assert not submission.usable

    @pytest.mark.parametrize("refusal", [b"554 5.5.1 nobody\r\n", b"503 5.5.1 nobody\r\n"])
    def test_data_for_nobody_is_refused(self, refusal: bytes) -> None:
        script = Script(_GREETING, _PIPELINING, _OK + _NO + refusal, _OK)
        submission = _open(script, dialect=Dialect.SMTP)
        assert _codes(_submit(submission, script, "a")) == [550]
        assert script.flights[-1] == b"RSET\r\n"
        assert submission.usable


def _scripts() -> Iterator[tuple[Dialect, int, tuple[bytes, ...], int]]:
    """A dialect, a chunk size, what a server says in good order, replies before the first final."""
    yield Dialect.LMTP, 0, (_GREETING, _PIPELINING, _OK, _OK, _OK, _GO, _OK, _OK), 6
    yield Dialect.LMTP, 9, (_GREETING, _CHUNKING, _OK, _OK, _OK, _OK, _OK), 5
    yield Dialect.LMTP, 2, (_GREETING, _CHUNKING, _OK, _OK, _OK, _OK, _OK, _OK), 6
    yield Dialect.SMTP, 0, (_GREETING, _PIPELINING, _OK, _OK, _OK, _GO, _OK), 6
    yield Dialect.SMTP, 9, (_GREETING, _CHUNKING, _OK, _OK, _OK, _OK), 5


_PLACES: Final = [
    pytest.param(dialect, chunk_size, lines, place, finals, id=f"{number}-{place}")
    for number, (dialect, chunk_size, lines, finals) in enumerate(_scripts())
    for place in range(len(lines))
]


def _known(dialect: Dialect, place: int, finals: int) -> int:
    """How many of two recipients have their final reply at `place`."""
    return max(place - finals, 0) if dialect is Dialect.LMTP else 0


@pytest.mark.parametrize(("dialect", "chunk_size", "lines", "place", "finals"), _PLACES)
class TestFailuresAtEachPlace:
    """What is known is kept, all others have a 4xx, and nothing is said on a session that is over.

    `place` is the reply that something else comes instead of.
    """

    @pytest.mark.parametrize("end", [b"", b"25", b"250-2.0.0 ok\r\n"])
    def test_the_end(
        self,
        dialect: Dialect,
        chunk_size: int,
        lines: tuple[bytes, ...],
        place: int,
        finals: int,
        end: bytes,
    ) -> None:
        script = Script(*lines[:place], end)
        self._check(script, dialect, chunk_size, _known(dialect, place, finals), 451)

    def test_silence(
        self,
        dialect: Dialect,
        chunk_size: int,
        lines: tuple[bytes, ...],
        place: int,
        finals: int,
    ) -> None:
        script = Script(*lines[:place], Interrupt.TIMEOUT, *[_OK] * 9)
        self._check(script, dialect, chunk_size, _known(dialect, place, finals), 451)

    def test_421(
        self,
        dialect: Dialect,
        chunk_size: int,
        lines: tuple[bytes, ...],
        place: int,
        finals: int,
    ) -> None:
        script = Script(*lines[:place], _BYE)
        self._check(script, dialect, chunk_size, _known(dialect, place, finals), 421)

    @pytest.mark.parametrize(
        "words",
        [
            b"nonsense\r\n",
            b"250 bare\n",
            b"250-a\r\n251 b\r\n",
            b"199 low\r\n",
            b"600 high\r\n",
            b"\x16\x03\x01\x00\x05",
            b"HTTP/1.1 400 Bad Request\r\n",
            b"250 " + b"x" * 70_000 + b"\r\n",
            b"221 bye\r\n",
        ],
    )
    def test_what_is_no_reply(
        self,
        dialect: Dialect,
        chunk_size: int,
        lines: tuple[bytes, ...],
        place: int,
        finals: int,
        words: bytes,
    ) -> None:
        script = Script(*lines[:place], words, *[_OK] * 9)
        submission = self._check(script, dialect, chunk_size, _known(dialect, place, finals), 451)
        assert submission.failure is not None

    def test_a_reply_without_end(
        self,
        dialect: Dialect,
        chunk_size: int,
        lines: tuple[bytes, ...],
        place: int,
        finals: int,
    ) -> None:
        script = Endless(*lines[:place])
        self._check(script, dialect, chunk_size, _known(dialect, place, finals), 451)

    def _check(
        self, script: Script, dialect: Dialect, chunk_size: int, known: int, code: int
    ) -> Submission:
        submission = _open(script, dialect=dialect, chunk_size=chunk_size)
        results = _submit(submission, script, "a", "b", content=[b"ab", b"cd"])
        assert _codes(results) == [250] * known + [code] * (2 - known)
        assert [result.verb for result in results[:known]] == [Verb.END] * known
        assert not submission.usable
        heard = script.heard
        assert all(code >= 400 for code in _codes(_submit(submission, script, "a")))
        _perform(submission.close(), script)
        assert script.heard == heard
        return submission


class TestReplies:
    @pytest.mark.parametrize("code", [215, 259, 299])
    def test_the_first_digit_decides(self, code: int) -> None:
        script = Script(_GREETING, _PIPELINING, _OK * 2 + _GO, b"%d \xc3\xbc\r\n" % code)
        submission = _open(script)
        (result,) = _submit(submission, script, "a")
        assert (result.reply.code, result.reply.text) == (code, "ü")

    def test_421_to_one_recipient_is_not_for_the_others(self) -> None:
        script = Script(_GREETING, _PIPELINING, _OK * 4 + _GO, _OK + _BYE + _NO)
        submission = _open(script)
        assert _codes(_submit(submission, script, "a", "b", "c")) == [250, 421, 550]
        # RFC 5321 3.8: the server closes behind it.
        assert not submission.usable
        assert submission.failure is None

    @pytest.mark.parametrize("surplus", [b"250 2.0.0 again\r\n", b"250-half\r\n", b"25"])
    @pytest.mark.parametrize("late", [False, True])
    def test_a_reply_too_many_answers_nothing(self, surplus: bytes, late: bool) -> None:
        finals = _OK if late else _OK + surplus
        early = (b"\r\n.\r\n", surplus) if late else None
        script = Script(_GREETING, _PIPELINING, _OK * 2 + _GO, finals, *[_OK] * 9, early=early)
        submission = _open(script)
        assert _codes(_submit(submission, script, "a")) == [250]
        heard = script.heard
        assert _codes(_submit(submission, script, "b")) == [451]
        assert submission.failure is not None
        assert script.heard == heard

    def test_a_reply_too_many_to_an_envelope(self) -> None:
        script = Script(_GREETING, _CHUNKING, _OK * 4, *[_OK] * 9)
        submission = _open(script, chunk_size=10)
        assert _codes(_submit(submission, script, "a", "b")) == [451, 451]
        assert submission.failure is not None
        assert b"BDAT" not in script.heard

    def test_421_between_two_messages(self) -> None:
        script = Script(*(_GREETING, _PIPELINING, _OK * 2 + _GO, _OK), early=(b"\r\n.\r\n", _BYE))
        submission = _open(script)
        assert _codes(_submit(submission, script, "a")) == [250]
        assert _codes(_submit(submission, script, "b")) == [421]
        assert script.heard.count(b"MAIL") == 1

    def test_421_read_with_the_last_reply(self) -> None:
        script = Script(_GREETING, _PIPELINING, _OK * 2 + _GO, _OK + _BYE)
        submission = _open(script)
        assert _codes(_submit(submission, script, "a")) == [250]
        assert not submission.usable
        assert submission.failure is None

    def test_354_for_nobody_breaks_lmtp(self) -> None:
        # RFC 2033 4.2: the reply must be 503.
        script = Script(_GREETING, _PIPELINING, _OK + _NO + _GO)
        submission = _open(script)
        assert _codes(_submit(submission, script, "a")) == [550]
        assert submission.failure is not None
        assert not script.heard.endswith(b".\r\n")


_PIECES: Final = [b"one\r\n", b"two\r\n", b"three\r\n"]


class TestEarlyReplies:
    """The server answers before the content is complete."""

    @pytest.mark.parametrize(
        ("dialect", "words", "codes"),
        [
            (Dialect.LMTP, _BYE, [421, 421]),
            (Dialect.LMTP, _BYE * 2, [421, 421]),
            (Dialect.LMTP, b"552 5.3.4 big\r\n", [552, 451]),
            (Dialect.LMTP, b"552 5.3.4 big\r\n" + _NO, [552, 550]),
            (Dialect.LMTP, b"552 5.3.4 big\r\n" + _BYE, [552, 421]),
            (Dialect.LMTP, b"", [451, 451]),
            (Dialect.SMTP, b"552 5.3.4 big\r\n", [552, 552]),
            (Dialect.SMTP, b"552 5.3.4 big\r\n" + _BYE, [552, 552]),
            (Dialect.SMTP, _BYE, [421, 421]),
        ],
    )
    def test_amid_data_no_more_is_sent(
        self, dialect: Dialect, words: bytes, codes: list[int]
    ) -> None:
        script = Script(_GREETING, _PIPELINING, _OK * 3 + _GO, early=(b"one", words))
        submission = _open(script, dialect=dialect)
        assert _codes(_submit(submission, script, "a", "b", content=_PIECES)) == codes
        assert script.heard.endswith(b"one\r\n")
        assert not submission.usable
        assert submission.failure is None

    @pytest.mark.parametrize("words", [_OK, _OK * 2, b"garbage\r\n", _GO])
    def test_no_early_reply_accepts(self, words: bytes) -> None:
        script = Script(_GREETING, _PIPELINING, _OK * 3 + _GO, early=(b"one", words))
        submission = _open(script)
        assert _codes(_submit(submission, script, "a", "b", content=_PIECES)) == [451, 451]
        assert submission.failure is not None

    def test_amid_chunks_the_rest_is_not_sent(self) -> None:
        script = Script(
            _GREETING, _CHUNKING, _OK * 2, b"250 ok\r\n", _OK, early=(b"one", b"552 5.3.4 big\r\n")
        )
        submission = _open(script, chunk_size=7)
        assert _codes(_submit(submission, script, "a", content=_PIECES)) == [552]
        assert b"two" not in script.heard
        assert script.heard.endswith(b"RSET\r\n")
        assert submission.usable

    def test_421_amid_chunks(self) -> None:
        script = Script(_GREETING, _CHUNKING, _OK * 2, early=(b"one", _BYE))
        submission = _open(script, chunk_size=7)
        assert _codes(_submit(submission, script, "a", content=_PIECES)) == [421]
        assert b"two" not in script.heard

    def test_chunks_in_flight_are_bounded(self) -> None:
        script = Script(_GREETING, _CHUNKING, _OK * 2, _OK, _OK, _OK, _OK, _OK)
        submission = _open(script, chunk_size=1, limits=Limits(window=3))
        assert _codes(_submit(submission, script, "a", content=[b"abcd"])) == [250]


class TestReading:
    @pytest.mark.parametrize("chunk_size", [0, 2])
    @pytest.mark.parametrize("answer", [OSError("no such disk"), None, "text"])
    def test_a_content_that_cannot_be_read(
        self, answer: OSError | str | None, chunk_size: int
    ) -> None:
        def read() -> bytes:
            if pieces:
                return pieces.pop()
            if isinstance(answer, OSError):
                raise answer
            return answer  # type: ignore[return-value]  # what must not be

        pieces = [b"abc"]
        peer = Peer()
        submission = _open(peer, chunk_size=chunk_size)
        with pytest.raises((OSError, TypeError)):
            _perform(submission.submit(None, _recipients("alice"), read), peer)
        heard = peer.heard
        assert not submission.usable
        assert _codes(_submit(submission, peer, "bob")) == [451]
        _perform(submission.close(), peer)
        assert peer.heard == heard
        assert not heard.endswith(b"\r\n.\r\n")
        assert b"LAST" not in heard

    def test_a_content_that_comes_from_elsewhere(self) -> None:
        peer = Peer()
        submission = _open(peer)
        futures: list[Future[bytes]] = [Future(), Future()]
        pieces = iter(futures)
        futures[1].set_result(b"")
        waits = 0
        results: list[Result] = []
        conversation = submission.submit(None, _recipients("alice"), lambda: next(pieces))
        try:
            while True:
                match next(conversation):
                    case Send(data=octets):
                        peer.read(octets)
                    case Receive() as receive:
                        receive.outcome = peer.look()
                    case Run() as run:
                        begin(run)
                    case Wait():
                        waits += 1
                        futures[0].set_result(b"hi\r\n")
        except StopIteration as end:
            results = end.value
        assert _codes(results) == [250]
        assert waits == 1

    @pytest.mark.parametrize("chunk_size", [0, 3])
    def test_binarymime_is_no_text(self, chunk_size: int) -> None:
        hello = b"250-host\r\n250-CHUNKING\r\n250-8BITMIME\r\n250 BINARYMIME\r\n"
        script = Script(_GREETING, hello, *[_OK] * 5)
        submission = _open(script, chunk_size=chunk_size)
        conversation = submission.submit(
            None, _recipients("a"), _reader([b"\n\r\0\n"]), body=Body.BINARYMIME
        )
        if not chunk_size:
            with pytest.raises(LocalProtocolError, match="BDAT"):
                _perform(conversation, script)
            return
        results = _perform(conversation, script)
        assert isinstance(results, list)
        assert _codes(results) == [250]
        assert script.flights[-2:] == [b"BDAT 3\r\n\n\r\0", b"BDAT 1 LAST\r\n\n"]

    @pytest.mark.parametrize("awaited", [Send, Receive])
    def test_a_conversation_that_is_given_up(self, awaited: type[Effect]) -> None:
        script = Script(_GREETING, _PLAIN, _OK)
        submission = _open(script)
        conversation = submission.say(Noop())
        for effect in conversation:
            if isinstance(effect, Receive):
                effect.outcome = Interrupt.TIMEOUT
                if effect.deadline == 0.0:
                    continue
            if isinstance(effect, awaited):
                break
        conversation.close()
        assert not submission.usable
        # Nobody gets the reply that is still to come.
        reply = _perform(submission.say(Noop()), script)
        assert str(reply).startswith("451 ")

    def test_a_conversation_that_is_closed_amid_the_content(self) -> None:
        peer = Peer()
        submission = _open(peer)
        conversation = submission.submit(None, _recipients("alice"), lambda: b"x" * 10)
        for effect in conversation:
            if isinstance(effect, Send) and effect.data.startswith(b"x"):
                break
            if isinstance(effect, Send):
                peer.read(effect.data)
            if isinstance(effect, Receive):
                effect.outcome = peer.look()
        conversation.close()
        assert not submission.usable


class TestMisuse:
    """Nothing has been said, so the session goes on."""

    def _refused(self, hello: bytes, start: Callable[[Submission], object]) -> str:
        script = Script(_GREETING, hello, _OK, _OK, _GO, _OK)
        submission = _open(script)
        heard = script.heard
        with pytest.raises(LocalProtocolError) as caught:
            start(submission)
        assert script.heard == heard
        assert submission.usable
        assert _codes(_submit(submission, script, "a")) == [250]
        return str(caught.value)

    @pytest.mark.parametrize(
        ("reverse_path", "local_part"), [(None, "ü"), (Address("ü", "example.net"), "a")]
    )
    def test_an_address_beyond_ascii(self, reverse_path: Address | None, local_part: str) -> None:
        text = self._refused(
            _PLAIN,
            lambda submission: _perform(
                submission.submit(reverse_path, _recipients("b", local_part), lambda: b""),
                Script(),
            ),
        )
        assert "SMTPUTF8" in text

    @pytest.mark.parametrize(
        ("parameters", "keyword"),
        [
            (MailParameters(smtputf8=True), "SMTPUTF8"),
            (MailParameters(size=1), "SIZE"),
            (MailParameters(body=Body.EIGHTBITMIME), "8BITMIME"),
            (MailParameters(body=Body.BINARYMIME), "BDAT"),
            (MailParameters(envid="x"), "DSN"),
        ],
    )
    def test_a_parameter_that_is_not_offered(
        self, parameters: MailParameters, keyword: str
    ) -> None:
        text = self._refused(
            _PLAIN,
            lambda submission: _perform(
                submission.submit(None, _recipients("a"), lambda: b"", parameters=parameters),
                Script(),
            ),
        )
        assert keyword in text

    def test_the_same_recipient_twice(self) -> None:
        self._refused(
            _PLAIN,
            lambda submission: _perform(
                submission.submit(None, _recipients("a") * 2, lambda: b""), Script()
            ),
        )

    def test_utf8_where_it_is_offered(self) -> None:
        hello = b"250-host\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"
        script = Script(_GREETING, hello, _OK * 2 + _GO, _OK)
        submission = _open(script)
        results = _perform(
            submission.submit(
                Address("ü", "example.net"),
                _recipients("ö"),
                lambda: b"",
                size=9,
                body=Body.EIGHTBITMIME,
                parameters=MailParameters(smtputf8=True),
            ),
            script,
        )
        assert isinstance(results, list)
        assert _codes(results) == [250]
        mail, rcpt = script.flights[1].split(b"\r\n")[:2]
        assert mail.startswith("MAIL FROM:<ü@example.net> ".encode())
        assert set(mail.split()[2:]) == {b"BODY=8BITMIME", b"SMTPUTF8"}
        assert rcpt == "RCPT TO:<ö@example.org>".encode()

    def test_the_size_is_declared_where_it_is_offered(self) -> None:
        script = Script(_GREETING, _PIPELINING, b"552 too big\r\n503 no\r\n503 no\r\n")
        submission = _open(script)
        results = _perform(
            submission.submit(None, _recipients("alice"), lambda: b"", size=77), script
        )
        assert isinstance(results, list)
        assert [(result.reply.code, result.verb) for result in results] == [(552, Verb.MAIL)]
        assert b"MAIL FROM:<> SIZE=77\r\n" in script.heard


_TLS: Final = b"250-host\r\n250-PIPELINING\r\n250 STARTTLS\r\n"
_START: Final = b"220 2.0.0 begin\r\n"


class TestTls:
    def test_lhlo_is_said_anew(self) -> None:
        settings = Settings(extensions=STANDARD_EXTENSIONS | {Extension.STARTTLS})
        peer = Peer(settings=settings, tls="TLSv1.3 X")
        submission = _open(peer)
        assert (submission.tls, submission.keywords["STARTTLS"]) == (None, "")
        assert _say(submission.start_tls(), peer).code == 250
        assert submission.tls == peer.driver.session.tls == "TLSv1.3 X"
        assert "STARTTLS" not in submission.keywords
        assert peer.heard.endswith(b"STARTTLS\r\nLHLO client.example.org\r\n")
        assert _codes(_submit(submission, peer, "alice", "nobody")) == [250, 550]
        # RFC 3207 4.2: not a second time.
        heard = peer.heard
        with pytest.raises(LocalProtocolError, match="TLS is active"):
            _perform(submission.start_tls(), peer)
        assert peer.heard == heard
        assert _say(submission.close(), peer).code == 221

    @pytest.mark.parametrize("dialect", list(Dialect))
    def test_what_was_learnt_is_forgotten(self, dialect: Dialect) -> None:
        script = Script(_GREETING, _TLS, _START, _PLAIN, tls="TLSv1.3")
        submission = _open(script, dialect=dialect)
        assert _say(submission.begin_tls(), script) == Reply(220, "begin", enhanced="2.0.0")
        assert submission.keywords == {}
        assert script.handshakes == [script.heard]
        # RFC 3207 4.2: nothing but LHLO follows.
        with pytest.raises(LocalProtocolError):
            _submit(submission, script, "a")
        assert _say(submission.hello("other.example.org"), script).code == 250
        assert script.heard.endswith(dialect.value.encode() + b" other.example.org\r\n")

    def test_an_smtp_server_is_asked_for_extensions_anew(self) -> None:
        script = Script(_GREETING, b"502 no\r\n", _PLAIN, tls="TLSv1.3")
        submission = _open(script, dialect=Dialect.SMTP)
        with pytest.raises(LocalProtocolError, match="STARTTLS"):
            _perform(submission.start_tls(), script)
        assert script.heard.endswith(b"HELO client.example.org\r\n")

    def test_not_offered(self) -> None:
        script = Script(_GREETING, _PIPELINING)
        submission = _open(script)
        heard = script.heard
        with pytest.raises(LocalProtocolError, match="STARTTLS"):
            _perform(submission.start_tls(), script)
        assert script.heard == heard
        assert submission.usable

    def test_refused(self) -> None:
        script = Script(_GREETING, _TLS, b"454 4.7.0 not now\r\n", _OK * 2 + _GO, _OK)
        submission = _open(script)
        assert _say(submission.start_tls(), script).code == 454
        assert script.handshakes == []
        # Whether to go on in the clear is for the caller to decide.
        assert (submission.tls, submission.usable) == (None, True)
        assert _codes(_submit(submission, script, "a")) == [250]

    def test_a_handshake_that_fails(self) -> None:
        script = Script(_GREETING, _TLS, _START, _PLAIN, tls=None)
        submission = _open(script)
        reply = _say(submission.start_tls(), script)
        assert str(reply) == "451 4.7.0 the TLS handshake failed"
        self._check_nothing_is_said(submission, script)
        assert submission.failure is None

    @pytest.mark.parametrize(
        ("rest", "handshakes"),
        [
            (b"250 host\r\n", 0),
            (b"250-host\r\n250 AUTH PLAIN\r\n", 0),
            (b"250-host\r\n", 1),
            (b"2", 1),
            (b"\x16\x03\x03", 0),
        ],
    )
    def test_replies_in_the_clear_are_not_taken(self, rest: bytes, handshakes: int) -> None:
        # The counterpart of CVE-2011-0411: whoever is between the two could say them.
        script = Script(_GREETING, _TLS, _START + rest, _PLAIN, tls="TLSv1.3")
        submission = _open(script)
        assert _say(submission.start_tls(), script).code == 451
        assert len(script.handshakes) == handshakes
        assert submission.tls is None
        assert isinstance(submission.failure, RemoteProtocolError)
        self._check_nothing_is_said(submission, script)

    def test_421_in_the_clear(self) -> None:
        script = Script(_GREETING, _TLS, _START + _BYE, tls="TLSv1.3")
        submission = _open(script)
        assert _say(submission.start_tls(), script).code == 421
        assert script.handshakes == []
        self._check_nothing_is_said(submission, script)

    @pytest.mark.parametrize("words", [b"", b"421 4.3.2 bye\r\n", b"354 go\r\n", b"nonsense\r\n"])
    def test_the_session_ends_instead(self, words: bytes) -> None:
        script = Script(_GREETING, _TLS, words, tls="TLSv1.3")
        submission = _open(script)
        assert not _say(submission.start_tls(), script).accepted
        assert script.handshakes == []
        self._check_nothing_is_said(submission, script)

    def test_lhlo_is_refused_behind_the_handshake(self) -> None:
        script = Script(_GREETING, _TLS, _START, b"550 5.7.1 not you\r\n", tls="TLSv1.3")
        submission = _open(script)
        assert _say(submission.start_tls(), script).code == 550
        assert submission.over

    def test_why_a_handshake_fails_is_told(self) -> None:
        script = Script(_GREETING, _TLS, _START, _PLAIN)
        submission = _open(script)

        def start() -> None:
            for effect in submission.start_tls():
                match effect:
                    case Send(data=octets):
                        script.read(octets)
                    case Receive():
                        effect.outcome = script.write() if effect.deadline > 0.0 else script.look()
                    case Handshake():
                        effect.error = OSError("the server is not whom it says")

        with pytest.raises(OSError, match="not whom it says"):
            start()
        self._check_nothing_is_said(submission, script)

    def test_a_handshake_that_is_given_up(self) -> None:
        script = Script(_GREETING, _TLS, _START)
        submission = _open(script)
        conversation = submission.start_tls()
        for effect in conversation:
            if isinstance(effect, Send):
                script.read(effect.data)
            elif isinstance(effect, Receive):
                effect.outcome = script.write() if effect.deadline > 0.0 else script.look()
            else:
                break
        conversation.close()
        self._check_nothing_is_said(submission, script)

    def _check_nothing_is_said(self, submission: Submission, script: Script) -> None:
        heard = script.heard
        assert (submission.over, submission.usable) == (True, False)
        assert not _say(submission.start_tls(), script).accepted
        assert all(code >= 400 for code in _codes(_submit(submission, script, "a")))
        _perform(submission.close(), script)
        assert script.heard == heard


_AUTH: Final = b"250-host\r\n250 AUTH PLAIN login EXTERNAL ECHO\r\n"
_BELIEVED: Final = b"235 2.7.0 welcome\r\n"


class Turns:
    """A mechanism of an embedder's own: it says what it was told to, and hears the challenges."""

    name: Final = "ECHO"

    def __init__(self, *answers: bytes | Exception | None) -> None:
        self.answers = list(answers)
        self.heard: list[bytes | None] = []

    def respond(self, challenge: bytes | None, /) -> bytes | None:
        self.heard.append(challenge)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class EchoServer:
    """The server's side of a mechanism of an embedder's own."""

    def __init__(self) -> None:
        self._heard: list[bytes | None] = []

    def respond(self, response: bytes | None, /) -> bytes | Credentials:
        self._heard.append(response)
        if self._heard == [None, b"\x00\xff", b""]:
            return Credentials(mechanism="ECHO", authorization_id="", authentication_id="echo")
        return b"" if len(self._heard) == 1 else b"\x80" * 300


class Gate(Handler):
    """Believes whoever knows the password, or needs none."""

    def __init__(self) -> None:
        self.judged: list[Credentials] = []

    def mechanism(self, session: Session, name: str, /) -> Mechanism | None:
        return EchoServer() if name == "ECHO" else super().mechanism(session, name)

    def authenticate(self, session: Session, credentials: Credentials, /) -> Answer[Reply | None]:
        self.judged.append(credentials)
        if credentials.password in ("pässword", "p" * 500, None):
            return None
        return super().authenticate(session, credentials)


class TestAuthenticate:
    SETTINGS = Settings(
        extensions=STANDARD_EXTENSIONS | {Extension.STARTTLS, Extension.AUTH},
        auth_mechanisms=("PLAIN", "LOGIN", "EXTERNAL", "ECHO"),
    )

    @pytest.mark.parametrize(
        ("mechanism", "judged"),
        [
            (
                PlainClient("ärger", "pässword", authorization="postmaster"),
                Credentials(
                    mechanism="PLAIN",
                    authentication_id="ärger",
                    authorization_id="postmaster",
                    password="pässword",
                ),
            ),
            (
                # Too long for the line of AUTH.
                PlainClient("alice", "p" * 500),
                Credentials(
                    mechanism="PLAIN",
                    authentication_id="alice",
                    authorization_id="",
                    password="p" * 500,
                ),
            ),
            (
                LoginClient("alice", "pässword"),
                Credentials(
                    mechanism="LOGIN",
                    authentication_id="alice",
                    authorization_id="",
                    password="pässword",
                ),
            ),
            (
                ExternalClient(),
                Credentials(mechanism="EXTERNAL", authentication_id="", authorization_id=""),
            ),
            (
                ExternalClient("alice"),
                Credentials(mechanism="EXTERNAL", authentication_id="", authorization_id="alice"),
            ),
            (
                Turns(None, b"\x00\xff", b""),
                Credentials(mechanism="ECHO", authentication_id="echo", authorization_id=""),
            ),
        ],
    )
    def test_our_server_believes_it(self, mechanism: ClientMechanism, judged: Credentials) -> None:
        gate = Gate()
        peer = Peer(gate, self.SETTINGS, tls="TLSv1.3")
        submission = _open(peer)
        assert _say(submission.start_tls(), peer).accepted
        keywords = submission.keywords
        assert _say(submission.authenticate(mechanism), peer).code == 235
        assert gate.judged == [judged]
        # RFC 4954 4: without a security layer what was learnt stays.
        assert submission.keywords == keywords
        assert submission.usable

    @pytest.mark.parametrize("kind", [PlainClient, LoginClient])
    def test_a_refusal_leaves_another_try(self, kind: type[PlainClient | LoginClient]) -> None:
        gate = Gate()
        peer = Peer(gate, self.SETTINGS, tls="TLSv1.3")
        submission = _open(peer)
        assert _say(submission.start_tls(), peer).accepted
        assert _say(submission.authenticate(kind("alice", "wrong")), peer).code == 535
        mechanism = kind("alice", "pässword")
        for code in (235, 503):
            assert _say(submission.authenticate(mechanism), peer).code == code
        assert len(gate.judged) == 2

    @pytest.mark.parametrize(
        ("mechanism", "line"),
        [
            (PlainClient("u", "p"), b"AUTH PLAIN AHUAcA=="),
            (LoginClient("u", "p"), b"AUTH LOGIN"),
            # RFC 4954 4: a response of no octets.
            (ExternalClient(), b"AUTH EXTERNAL ="),
            # The longest that RFC 5321 4.5.3.1.4 lets through: 510 octets and CRLF.
            (Turns(b"x" * 375), b"AUTH ECHO " + b"eHh4" * 125),
        ],
    )
    def test_the_initial_response(self, mechanism: ClientMechanism, line: bytes) -> None:
        script = Script(_GREETING, _AUTH, _BELIEVED)
        submission = _open(script)
        assert _say(submission.authenticate(mechanism), script).code == 235
        assert script.flights[1] == line + b"\r\n"

    def test_an_initial_response_that_is_too_long_waits(self) -> None:
        script = Script(_GREETING, _AUTH, b"334 \r\n", b"334 aGk=\r\n", _BELIEVED)
        submission = _open(script)
        mechanism = Turns(b"x" * 376, b"")
        assert _say(submission.authenticate(mechanism), script).code == 235
        assert script.flights[1] == b"AUTH ECHO\r\n"
        assert script.flights[2] == b"eHh4" * 125 + b"eA==\r\n"
        assert script.flights[3] == b"\r\n"
        assert mechanism.heard == [None, b"hi"]

    @pytest.mark.parametrize(
        ("mechanism", "challenge"),
        [
            (Turns(None, None), b"334 aGk=\r\n"),
            (Turns(None), b"334 no base64\r\n"),
            (Turns(None), b"334 aGk\r\n"),
            (Turns(None), b"334 \xc3\xbc\r\n"),
            (Turns(None), b"334-aGk=\r\n334 aGk=\r\n"),
            # One question too many.
            (PlainClient("u", "p"), b"334 \r\n"),
            (ExternalClient("u"), b"334 \r\n"),
        ],
    )
    def test_giving_up(self, mechanism: ClientMechanism, challenge: bytes) -> None:
        script = Script(_GREETING, _AUTH, challenge, b"501 5.7.0 cancelled\r\n", _OK)
        submission = _open(script)
        assert _say(submission.authenticate(mechanism), script).code == 501
        assert script.flights[2] == b"*\r\n"
        assert submission.usable
        assert _say(submission.say(Noop()), script).code == 250

    def test_login_is_asked_too_often(self) -> None:
        script = Script(_GREETING, _AUTH, *[b"334 \r\n"] * 3, b"501 5.7.0 cancelled\r\n")
        submission = _open(script)
        assert _say(submission.authenticate(LoginClient("u", "p")), script).code == 501
        assert script.flights[2:] == [b"dQ==\r\n", b"cA==\r\n", b"*\r\n"]

    def test_a_challenge_behind_the_end(self) -> None:
        script = Script(_GREETING, _AUTH, *[b"334 \r\n"] * 9)
        submission = _open(script)
        assert _say(submission.authenticate(Turns(None, None)), script).code == 451
        assert script.heard.endswith(b"AUTH ECHO\r\n*\r\n")
        assert submission.over
        assert submission.failure is not None

    @pytest.mark.parametrize("words", [b"", _BYE, b"nonsense\r\n", b"220 host\r\n"])
    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_the_session_ends_instead(self, words: bytes, place: int) -> None:
        script = Script(_GREETING, _AUTH, *[b"334 \r\n"] * place, words)
        submission = _open(script)
        reply = _say(submission.authenticate(LoginClient("u", "p")), script)
        assert reply.code == (421 if words is _BYE else 451)
        heard = script.heard
        assert submission.over
        assert _say(submission.authenticate(LoginClient("u", "p")), script) == reply
        assert script.heard == heard

    @pytest.mark.parametrize("hello", [_PLAIN, b"250-host\r\n250 AUTH\r\n", _AUTH])
    def test_not_offered(self, hello: bytes) -> None:
        class Ntlm(Turns):
            name = "NTLM"  # type: ignore[misc]  # another mechanism

        script = Script(_GREETING, hello)
        submission = _open(script)
        heard = script.heard
        mechanism = Ntlm(None)
        with pytest.raises(LocalProtocolError, match="AUTH NTLM"):
            _perform(submission.authenticate(mechanism), script)
        assert script.heard == heard
        assert mechanism.heard == []
        assert submission.usable

    def test_a_mechanism_that_raises(self) -> None:
        script = Script(_GREETING, _AUTH, b"334 \r\n", _OK)
        submission = _open(script)
        with pytest.raises(OSError, match="no ticket"):
            _perform(submission.authenticate(Turns(OSError("no ticket"))), script)
        # Nothing had been said.
        assert submission.usable
        with pytest.raises(OSError, match="no ticket"):
            _perform(submission.authenticate(Turns(None, OSError("no ticket"))), script)
        assert submission.over
        assert script.heard.endswith(b"AUTH ECHO\r\n")

    @pytest.mark.parametrize(
        "make",
        [
            lambda secret: PlainClient("alice", secret),
            lambda secret: PlainClient("alice", "x", authorization=secret),
            lambda secret: LoginClient("alice", secret),
            ExternalClient,
        ],
    )
    @pytest.mark.parametrize("secret", ["hidden\0", "hidden\udc80"])
    def test_what_cannot_be_sent_is_not_shown(
        self, make: Callable[[str], ClientMechanism], secret: str
    ) -> None:
        with pytest.raises(ValueError, match=r"NUL|Unicode") as caught:
            make(secret)
        assert "hidden" not in repr(caught.value)
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
        assert "hidden" not in repr(make("hidden"))

    @pytest.mark.parametrize("kind", [PlainClient, LoginClient])
    @pytest.mark.parametrize(("user", "password"), [("", "p"), ("u", "")])
    def test_nothing_proves_nothing(
        self, kind: type[PlainClient | LoginClient], user: str, password: str
    ) -> None:
        with pytest.raises(ValueError, match="is empty"):
            kind(user, password)


def _limits(words: bytes) -> bytes:
    return b"250-host\r\n250-PIPELINING\r\n250 LIMITS " + words + b"\r\n"


class TestOfferedLimits:
    @pytest.mark.parametrize(
        ("words", "limits"),
        [
            (b"RCPTMAX=5 MAILMAX=7 RCPTDOMAINMAX=3", OfferedLimits(7, 5, 3)),
            (b"rcptmax=999999", OfferedLimits(recipients=999_999)),
            (b"", OfferedLimits()),
            # RFC 9422 5: no 0, six digits at most. What is malformed is as if it were not there.
            (b"RCPTMAX=0 MAILMAX=05 RCPTDOMAINMAX=1000000", OfferedLimits()),
            (b"RCPTMAX MAILMAX= RCPTDOMAINMAX=-1", OfferedLimits()),
            (b"RCPTMAX=x MAILMAX=1x RCPTDOMAINMAX=1=2", OfferedLimits()),
            ("RCPTMAX=٣ MAILMAX=²".encode(), OfferedLimits()),
            (b"FOO BAR=7 RCPTMAX=0  MAILMAX=4", OfferedLimits(transactions=4)),
            (b"RCPTMAX=5 RCPTMAX=3 RCPTMAX=4", OfferedLimits(recipients=3)),
        ],
    )
    def test_what_is_understood(self, words: bytes, limits: OfferedLimits) -> None:
        submission = _open(Script(_GREETING, _limits(words)))
        assert submission.offered_limits == limits

    def test_none_are_offered(self) -> None:
        submission = _open(Script(_GREETING, _PIPELINING))
        assert submission.offered_limits == OfferedLimits()

    def test_they_may_change(self) -> None:
        script = Script(_GREETING, _limits(b"RCPTMAX=1"), _limits(b"RCPTMAX=2"))
        submission = _open(script)
        _perform(submission.hello(), script)
        assert submission.offered_limits == OfferedLimits(recipients=2)

    def test_recipients_beyond_are_not_sent(self) -> None:
        script = Script(_GREETING, _limits(b"RCPTMAX=2"), *[_OK + _NO + _OK + _GO, _OK] * 2)
        submission = _open(script)
        for _ in range(2):
            results = _submit(submission, script, "a", "b", "c", "d")
            assert [str(result.reply)[:9] for result in results] == [
                "550 5.1.1",
                "250 2.0.0",
                "452 4.5.3",
                "452 4.5.3",
            ]
            assert [result.verb for result in results] == [
                Verb.RCPT,
                Verb.END,
                Verb.RCPT,
                Verb.RCPT,
            ]
        assert script.heard.count(b"RCPT") == 4
        assert submission.usable

    def test_recipients_beyond_where_mail_is_refused(self) -> None:
        script = Script(_GREETING, _limits(b"RCPTMAX=1"), _NO * 3)
        submission = _open(script)
        results = _submit(submission, script, "a", "b")
        assert _codes(results) == [550, 452]
        assert [result.verb for result in results] == [Verb.MAIL, Verb.RCPT]

    def test_recipients_beyond_where_the_session_ends(self) -> None:
        script = Script(_GREETING, _limits(b"RCPTMAX=1"), _BYE)
        submission = _open(script)
        assert _codes(_submit(submission, script, "a", "b")) == [421, 452]

    def test_our_server_says_what_it_keeps(self) -> None:
        settings = Settings(
            extensions=STANDARD_EXTENSIONS | {Extension.LIMITS},
            limits=Limits(recipients=2, transactions=2),
        )
        peer = Peer(settings=settings)
        submission = _open(peer)
        assert _codes(_submit(submission, peer, "alice", "bob", "carol")) == [250, 250, 452]
        assert _codes(_submit(submission, peer, "alice", sender="spam")) == [550]
        assert not submission.usable
        assert _say(submission.close(), peer).code == 221
        assert 452 not in peer.driver.codes

    @pytest.mark.parametrize("reply", [_OK * 2 + _GO, b"550 5.7.1 no\r\n" * 3])
    def test_no_more_messages_in_the_session(self, reply: bytes) -> None:
        # RFC 9422 5.1: refused ones count too.
        finals = (_OK,) if reply.startswith(b"250") else ()
        script = Script(_GREETING, _limits(b"MAILMAX=2"), *[reply, *finals] * 2, b"221 bye\r\n")
        submission = _open(script)
        for _ in range(2):
            assert submission.usable
            assert submission.refusal is None
            _submit(submission, script, "a")
        assert not submission.usable
        assert str(submission.refusal).startswith("451 4.5.3 ")
        heard = script.heard
        results = _submit(submission, script, "a", "b")
        assert [result.reply for result in results] == [submission.refusal] * 2
        assert {result.verb for result in results} == {Verb.MAIL}
        assert script.heard == heard
        # The session is not over: the server is told that the client leaves.
        assert not submission.over
        assert _say(submission.close(), script).code == 221
        assert submission.over

    def test_what_was_never_said_does_not_count(self) -> None:
        script = Script(_GREETING, _limits(b"MAILMAX=1 RCPTDOMAINMAX=1"), _OK * 2 + _GO, _OK)
        submission = _open(script)
        with pytest.raises(LocalProtocolError, match="SMTPUTF8"):
            _submit(submission, script, "ü")
        with pytest.raises(LocalProtocolError, match="SMTPUTF8"):
            _submit(submission, script, "a", sender="ü")
        _perform(
            submission.submit(None, [], _reader([])),
            script,
        )
        (other,) = _to("a@example.com")
        results = _perform(submission.submit(None, [other], _reader([b"x\r\n"])), script)
        assert isinstance(results, list)
        assert _codes(results) == [250]

    def test_domains_beyond_are_not_sent(self) -> None:
        script = Script(
            _GREETING, _limits(b"RCPTDOMAINMAX=2"), _OK * 5 + _GO, _OK * 4, _OK * 2 + _GO, _OK
        )
        submission = _open(script)
        recipients = _to(
            "a@one.example", "b@ONE.example", "c@two", "d@three", "e@two", "postmaster"
        )
        results = _perform(submission.submit(None, recipients, _reader([b"x\r\n"])), script)
        assert isinstance(results, list)
        assert _codes(results) == [250, 250, 250, 452, 250, 452]
        assert str(results[3].reply).startswith("452 4.5.3 too many recipient domains")
        # They are those of the session, not of one transaction (RFC 9422 5.3).
        recipients = _to("d@three", "a@two")
        results = _perform(submission.submit(None, recipients, _reader([b"x\r\n"])), script)
        assert isinstance(results, list)
        assert _codes(results) == [452, 250]
        heard = script.heard
        results = _perform(submission.submit(None, _to("d@three"), _reader([b"x\r\n"])), script)
        assert isinstance(results, list)
        assert _codes(results) == [452]
        assert script.heard == heard
        assert b"three" not in heard
        assert submission.usable

    def test_fewer_domains_than_there_were(self) -> None:
        script = Script(
            *(_GREETING, _limits(b"RCPTDOMAINMAX=2"), _OK * 3 + _GO, _OK * 2),
            *(_limits(b"RCPTDOMAINMAX=1"), _OK * 2 + _GO, _OK),
        )
        submission = _open(script)
        for recipients, codes in (
            (_to("a@one", "a@two"), [250, 250]),
            (_to("a@three", "a@two"), [452, 250]),
        ):
            results = _perform(submission.submit(None, recipients, _reader([b"x\r\n"])), script)
            assert isinstance(results, list)
            assert _codes(results) == codes
            _perform(submission.hello(), script)


def _to(*addresses: str) -> list[Recipient]:
    return [Recipient(address=parse_mailbox(address)) for address in addresses]


_SESSION: Final = (
    _GREETING,
    _TLS,
    _START,
    b"250-host\r\n250-PIPELINING\r\n250-AUTH LOGIN\r\n250 LIMITS MAILMAX=2 RCPTMAX=2\r\n",
    b"334 VXNlcm5hbWU6\r\n",
    b"334 UGFzc3dvcmQ6\r\n",
    _BELIEVED,
    _OK + _NO + b"250-2.1.5 a\r\n250 2.1.5 \xc3\xbc\r\n" + _GO,
    b"250-2.0.0 queued\r\n250 2.0.0 as 1\r\n",
    b"450 4.7.1 later\r\n503 5.5.1 no\r\n503 5.5.1 no\r\n",
    b"221 2.0.0 bye\r\n",
)


def _hold(script: Script) -> list[object]:
    """A whole session; all that is learnt in it."""
    submission = _open(script)
    learnt: list[object] = [
        _say(submission.start_tls(), script),
        _say(submission.authenticate(LoginClient("u", "p")), script),
    ]
    for local_parts in ("abc", "d", "e"):
        results = _submit(submission, script, *local_parts)
        learnt += [(result.reply, result.verb) for result in results]
    learnt += [_say(submission.close(), script), submission.failure, script.flights]
    return learnt


@given(st.data())
def test_any_split_gives_the_same_results(data: st.DataObject) -> None:
    pieces: list[bytes] = []
    for words in _SESSION:
        cuts = data.draw(st.sets(st.integers(1, len(words) - 1), max_size=8).map(sorted))
        pieces += [words[a:b] for a, b in itertools.pairwise([0, *cuts, len(words)])]
    whole = _hold(Script(*_SESSION, tls="TLSv1.3"))
    assert _hold(Script(*pieces, tls="TLSv1.3")) == whole
    assert [str(item)[:3] for item in whole[:2]] == ["250", "235"]


def test_no_reply_in_front_of_the_content_accepts() -> None:
    script = Script(_GREETING, _PIPELINING, _OK * 2 + _GO + _OK)
    submission = _open(script)
    [result] = _submit(submission, script, "one")
    assert not result.reply.accepted
    assert submission.over


@pytest.mark.parametrize("tls", [None, "TLSv1.3 X"])
def test_a_handshake_in_front_of_the_greeting(tls: str | None) -> None:
    # RFC 8314 3.
    script = Script(_GREETING, _PLAIN, tls=tls)
    submission = Submission("client.example.org", clock=lambda: 0.0)
    reply = _say(submission.open(implicit_tls=True), script)
    assert script.handshakes == [b""]
    assert submission.tls == tls
    if tls is None:
        assert reply.code == 451
        assert submission.over
        assert script.heard == b""
    else:
        assert reply.code == 250
        assert script.heard == b"LHLO client.example.org\r\n"
