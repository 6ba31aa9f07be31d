"""The client role: against our server through two transactions, and against any replies."""

import itertools
from collections.abc import Sequence
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmtp_proto import (
    NEED_DATA,
    Address,
    Auth,
    AuthResponse,
    Bdat,
    Body,
    ClientConnection,
    Command,
    ConnectionClosed,
    Data,
    Dialect,
    Help,
    Lhlo,
    LocalProtocolError,
    Mail,
    MailParameters,
    Noop,
    Quit,
    Rcpt,
    RcptParameters,
    Recipient,
    RecipientReplied,
    RemoteProtocolError,
    Replied,
    Reply,
    Rset,
    StartTls,
    State,
    Vrfy,
    XClient,
    XForward,
)
from tests.dialogs.handler import SETTINGS, DialogHandler
from tests.protocol.driver import Driver

_MAIL: Final = Mail(reverse_path=Address("sender", "example.net"))
_LHLO_REPLY: Final = b"250-host\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 SIZE 1000\r\n"


def _rcpt(local_part: str) -> Rcpt:
    return Rcpt(recipient=Recipient(address=Address(local_part, "example.org")))


def _events(client: ClientConnection) -> list[object]:
    return list(iter(client.next_event, NEED_DATA))


def _codes(events: list[object]) -> list[int]:
    return [event.reply.code for event in events if isinstance(event, Replied | RecipientReplied)]


class Pair:
    """A client joined to our server."""

    def __init__(self) -> None:
        self.client = ClientConnection()
        self.server = Driver(DialogHandler(), SETTINGS)
        self.exchange(b"")
        self.exchange(self.client.send(Lhlo(domain="client.example.org")))

    def exchange(self, octets: bytes) -> list[object]:
        """Give the server octets; the client's events."""
        if octets:
            self.server.receive(octets)
        output = self.server.output
        self.server.writes.clear()
        self.client.receive_data(output)
        return _events(self.client)

    def say(self, *commands: Command) -> list[object]:
        return self.exchange(b"".join(map(self.client.send, commands)))


class TestPair:
    def test_the_greeting_and_lhlo(self) -> None:
        pair = Pair()
        assert pair.client.state is State.READY
        assert pair.client.keywords == {
            "PIPELINING": "",
            "ENHANCEDSTATUSCODES": "",
            "8BITMIME": "",
            "SIZE": "10000",
            "CHUNKING": "",
        }

    @pytest.mark.parametrize("chunked", [False, True])
    def test_two_transactions(self, chunked: bool) -> None:
        pair = Pair()
        client = pair.client
        for number in (1, 2):
            good, refused, again, full = map(_rcpt, ("alice", "nobody", "alice", "full"))
            commands: list[Command] = [_MAIL, good, refused, again, full]
            if not chunked:
                commands.append(Data())
            codes = _codes(pair.say(*commands))
            assert codes == [250, 250, 550, 250, 250, 354][: len(commands)], number
            accepted = [good.recipient, again.recipient, full.recipient]
            assert client.accepted == accepted
            if chunked:
                octets = client.send(Bdat(size=2)) + client.send_content(b".\r")
                octets += client.send(Bdat(size=1, last=True)) + client.send_content(b"\n")
            else:
                octets = client.send_content(b".\r") + client.send_content(b"\n")
                octets += client.end_content()
            events = pair.exchange(octets)
            statuses = [event for event in events if isinstance(event, RecipientReplied)]
            assert [status.recipient for status in statuses] == accepted
            assert [status.reply.code for status in statuses] == [250, 250, 452]
            assert statuses[0].reply.text == "saved 3: .\\r\\n"
            assert client.state is State.READY
            assert client.owed == client.accepted == []
            assert client.in_flight == 0
        assert _codes(pair.say(Quit())) == [221]
        assert client.state is State.CLOSED

    def test_data_behind_refused_recipients(self) -> None:
        pair = Pair()
        assert _codes(
            pair.say(
                _MAIL,
                _rcpt("no"),
                _rcpt("no"),
                Data(),
            )
        ) == [250, 550, 550, 503]
        assert pair.client.state is State.MAIL
        assert _codes(pair.say(_rcpt("alice"), Data())) == [250, 354]

    def test_everything_behind_a_refused_mail(self) -> None:
        pair = Pair()
        spam = Mail(reverse_path=Address("spam", "example.net"))
        assert _codes(pair.say(spam, _rcpt("alice"), Data())) == [550, 503, 503]
        assert pair.client.state is State.READY
        assert _codes(pair.say(_MAIL, Rset(), Noop())) == [250, 250, 250]

    def test_the_last_chunk_without_a_recipient_has_no_reply(self) -> None:
        # RFC 2033 4.3.
        pair = Pair()
        client = pair.client
        commands: list[Command] = [_MAIL, _rcpt("nobody"), Bdat(size=2, last=True)]
        octets = b"".join(map(client.send, commands))
        assert _codes(pair.exchange(octets + client.send_content(b"hi"))) == [250, 550]
        assert client.owed == []
        assert _codes(pair.say(Noop())) == [250]
        assert client.state is State.READY

    def test_the_last_chunk_for_nobody_once_that_is_known(self) -> None:
        pair = Pair()
        client = pair.client
        assert _codes(pair.say(_MAIL, _rcpt("nobody"))) == [250, 550]
        octets = client.send(Bdat(size=2, last=True))
        with pytest.raises(LocalProtocolError):
            client.send(Noop())
        assert pair.exchange(octets + client.send_content(b"hi")) == []
        assert client.in_flight == 0
        assert _codes(pair.say(Noop())) == [250]

    def test_the_last_chunk_behind_a_refused_mail_has_one(self) -> None:
        pair = Pair()
        client = pair.client
        spam = Mail(reverse_path=Address("spam", "example.net"))
        commands: list[Command] = [spam, _rcpt("alice"), Bdat(size=2, last=True)]
        octets = b"".join(map(client.send, commands))
        assert _codes(pair.exchange(octets + client.send_content(b"hi"))) == [550, 503, 503]
        assert client.in_flight == 0
        assert _codes(pair.say(Noop())) == [250]

    def test_the_last_chunk_behind_a_refused_one(self) -> None:
        pair = Pair()
        client = pair.client
        pair.say(_MAIL, _rcpt("alice"), _rcpt("bob"))
        pair.exchange(client.send(Bdat(size=10_001)) + client.send_content(b"x" * 10_001))
        assert client.state is State.BROKEN
        assert _codes(pair.say(Rset(), Noop())) == [250, 250]

    def test_chunks_in_flight_behind_a_refused_one(self) -> None:
        pair = Pair()
        client = pair.client
        pair.say(_MAIL, _rcpt("alice"), _rcpt("bob"))
        octets = client.send(Bdat(size=10_001)) + client.send_content(b"x" * 10_001)
        octets += client.send(Bdat(size=1)) + client.send_content(b"x")
        octets += client.send(Bdat(size=0, last=True))
        pair.exchange(octets)
        # Both sides agree on the number of replies, whatever it is.
        assert client.in_flight == 0
        assert client.owed == []
        assert _codes(pair.say(Rset(), Noop())) == [250, 250]
        assert client.state is State.READY

    def test_421_in_place_of_a_reply(self) -> None:
        pair = Pair()
        pair.server.stop.requested = True
        events = pair.say(_MAIL, _rcpt("alice"), Data())
        assert _codes(events)[-1] == 421
        assert pair.client.state is State.CLOSED
        assert pair.server.closed


def _client(*output: bytes, commands: Sequence[Command] = ()) -> ClientConnection:
    """A client that has said LHLO and `commands`, and has read `output` behind the LHLO reply."""
    client = ClientConnection()
    client.receive_data(b"220 host\r\n")
    client.next_event()
    client.send(Lhlo(domain="x"))
    client.receive_data(_LHLO_REPLY)
    client.next_event()
    for command in commands:
        client.send(command)
    for octets in output:
        client.receive_data(octets)
    return client


class TestReplies:
    @given(st.lists(st.integers(0, 200), max_size=5))
    def test_any_split(self, cuts: list[int]) -> None:
        octets = b"250-a\r\n250 b\r\n550 5.1.1 no\r\n250 2.1.5 ok\r\n354 go\r\n"
        places = sorted({0, len(octets), *(cut for cut in cuts if cut < len(octets))})
        client = _client(commands=[_MAIL, _rcpt("a"), _rcpt("b"), Data()])
        codes = []
        for start, end in itertools.pairwise(places):
            client.receive_data(octets[start:end])
            codes += _codes(_events(client))
        assert codes == [250, 550, 250, 354]
        assert [str(recipient) for recipient in client.accepted] == ["b@example.org"]

    @pytest.mark.parametrize(
        "output",
        [
            b"hello\r\n",
            b"250 ok\n",
            b"250-a\r\n251 b\r\n",
            b"\r\n",
            b"250 " + b"x" * 70_000,
            b"250-x\r\n" * 20_000,
            b"\xff\xfe\r\n",
            b"354 go\r\n",
        ],
    )
    def test_what_is_no_reply_to_mail(self, output: bytes) -> None:
        client = _client(output, commands=[_MAIL])
        with pytest.raises(RemoteProtocolError):
            _events(client)

    @pytest.mark.parametrize("reply", ["250 ok", "354 go", "422 no", "550 no"])
    def test_a_reply_to_nothing(self, reply: str) -> None:
        client = _client(f"{reply}\r\n".encode())
        with pytest.raises(RemoteProtocolError) as caught:
            client.next_event()
        assert str(caught.value) == f"{reply} answers nothing"
        assert client.state is State.CLOSED

    def test_a_bare_lf(self) -> None:
        client = _client(b"250 ok\n", commands=[_MAIL])
        with pytest.raises(RemoteProtocolError) as caught:
            client.next_event()
        assert str(caught.value) == "in a reply: a line feed without carriage return"

    def test_354_without_a_recipient(self) -> None:
        # RFC 2033 4.2: the reply must be 503.
        client = _client(b"250 ok\r\n550 no\r\n354 go\r\n", commands=[_MAIL, _rcpt("a"), Data()])
        with pytest.raises(RemoteProtocolError) as caught:
            _events(client)
        assert str(caught.value) == (
            "354 go accepts DATA when the reverse-path is known, no recipient yet"
        )

    @pytest.mark.parametrize("code", [251, 299, 450, 499, 550, 599])
    def test_codes_count_by_their_first_digit(self, code: int) -> None:
        client = _client(b"250 ok\r\n%d x\r\n" % code, commands=[_MAIL, _rcpt("a")])
        assert _codes(_events(client)) == [250, code]
        assert len(client.accepted) == (code < 300)

    def test_421_out_of_turn(self) -> None:
        client = _client(b"421 4.3.2 bye\r\n")
        event = client.next_event()
        assert event == Replied(command=None, reply=Reply(421, "bye", enhanced="4.3.2"))
        assert client.state is State.CLOSED
        with pytest.raises(LocalProtocolError):
            client.send(Noop())

    @pytest.mark.parametrize(
        ("commands", "amid"), [([], False), ([_MAIL], True), ([_MAIL, _rcpt("a")], True)]
    )
    def test_the_end(self, commands: list[Command], amid: bool) -> None:
        client = _client(commands=commands)
        client.receive_eof()
        assert client.next_event() == ConnectionClosed(mid_transaction=amid)
        assert client.next_event() is NEED_DATA
        assert client.state is State.CLOSED

    @given(st.binary(max_size=100))
    def test_any_octets(self, output: bytes) -> None:
        client = _client(output, commands=[_MAIL, _rcpt("a"), Data()])
        client.receive_eof()
        try:
            _events(client)
        except RemoteProtocolError:
            pass


class TestSmtp:
    """SMTP's one reply, and what it does not share with LMTP."""

    def _smtp(self, *output: bytes, commands: Sequence[Command]) -> ClientConnection:
        client = ClientConnection(dialect=Dialect.SMTP)
        client.receive_data(b"220 host\r\n")
        client.next_event()
        assert client.send(Lhlo(domain="x")) == b"EHLO x\r\n"
        client.receive_data(_LHLO_REPLY)
        client.next_event()
        for command in commands:
            client.send(command)
        for octets in output:
            client.receive_data(octets)
        return client

    @pytest.mark.parametrize("chunked", [False, True])
    @pytest.mark.parametrize("final", [b"250 queued\r\n", b"554 no\r\n"])
    def test_one_reply_is_for_all(self, final: bytes, chunked: bool) -> None:
        a, b, c = map(_rcpt, ("a", "b", "c"))
        end: Command = Bdat(size=0, last=True) if chunked else Data()
        go = b"" if chunked else b"354 go\r\n"
        client = self._smtp(
            b"250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n" + go, commands=[_MAIL, a, b, c, end]
        )
        assert _codes(_events(client))[:4] == [250, 250, 550, 250]
        if not chunked:
            client.end_content()
        client.receive_data(final)
        first = client.next_event()
        assert first == RecipientReplied(recipient=a.recipient, reply=_reply(final))
        assert client.owed == [c.recipient]
        with pytest.raises(LocalProtocolError):
            client.send(_MAIL)
        assert client.next_event() == RecipientReplied(recipient=c.recipient, reply=_reply(final))
        assert client.next_event() is NEED_DATA
        assert client.state is State.READY
        client.send(_MAIL)

    def test_the_last_chunk_for_nobody_has_a_reply(self) -> None:
        # RFC 3030 2.
        commands: list[Command] = [_MAIL, _rcpt("a"), Bdat(size=0, last=True)]
        client = self._smtp(b"250 ok\r\n550 no\r\n503 no\r\n", commands=commands)
        assert _codes(_events(client)) == [250, 550, 503]
        assert client.state is State.MAIL
        client.send(Rset())

    def test_the_last_chunk_for_nobody_is_not_accepted(self) -> None:
        commands: list[Command] = [_MAIL, _rcpt("a"), Bdat(size=0, last=True)]
        client = self._smtp(b"250 ok\r\n550 no\r\n250 ok\r\n", commands=commands)
        with pytest.raises(RemoteProtocolError):
            _events(client)

    @pytest.mark.parametrize("dialect", Dialect)
    @pytest.mark.parametrize(
        ("command", "code", "helo"),
        [
            (Lhlo(domain="x"), 499, False),
            (Lhlo(domain="x"), 500, True),
            (Lhlo(domain="x"), 502, True),
            (Noop(), 500, False),
        ],
    )
    def test_helo_where_ehlo_is_unknown(
        self, dialect: Dialect, command: Command, code: int, helo: bool
    ) -> None:
        # RFC 5321 3.2.
        client = ClientConnection(dialect=dialect)
        client.receive_data(b"220 host\r\n")
        client.next_event()
        client.send(command)
        client.receive_data(b"%d no\r\n" % code)
        client.next_event()
        assert client.send(Lhlo(domain="x")) == (
            b"HELO x\r\n" if helo and dialect is Dialect.SMTP else f"{dialect.value} x\r\n".encode()
        )

    def test_data_wants_a_recipient(self) -> None:
        client = self._smtp(commands=[_MAIL])
        with pytest.raises(LocalProtocolError):
            client.send(Data())

    @pytest.mark.parametrize(
        ("code", "state"), [(554, State.READY), (421, State.CLOSED), (422, State.READY)]
    )
    def test_data_for_nobody(self, code: int, state: State) -> None:
        commands: list[Command] = [_MAIL, _rcpt("a"), Data()]
        client = self._smtp(b"250 ok\r\n550 no\r\n354 go\r\n", commands=commands)
        assert _codes(_events(client)) == [250, 550, 354]
        assert client.end_content() == b".\r\n"
        assert client.in_flight == 1
        line = b"%d nobody\r\n" % code
        client.receive_data(line)
        assert client.next_event() == Replied(command=None, reply=_reply(line))
        assert client.state is state

    def test_data_for_nobody_refused(self) -> None:
        commands: list[Command] = [_MAIL, _rcpt("a"), Data()]
        client = self._smtp(b"250 ok\r\n550 no\r\n554 no\r\n", commands=commands)
        assert _codes(_events(client)) == [250, 550, 554]
        assert client.state is State.MAIL
        client.send(_rcpt("b"))


def _reply(line: bytes) -> Reply:
    return Reply(int(line[:3]), line[4:-2].decode(), enhanced="")


class TestExtensions:
    """Commands that lead out of the transaction's way."""

    def _offering(self, *keywords: bytes) -> ClientConnection:
        client = ClientConnection()
        client.receive_data(b"220 host\r\n")
        client.next_event()
        client.send(Lhlo(domain="x"))
        client.receive_data(b"".join(b"250-%s\r\n" % each for each in (b"host", *keywords)))
        client.receive_data(b"250 PIPELINING\r\n")
        client.next_event()
        return client

    @pytest.mark.parametrize(
        ("command", "octets"),
        [
            (Noop(), b"NOOP\r\n"),
            (Noop(text="a b"), b"NOOP a b\r\n"),
            (Help(), b"HELP\r\n"),
            (Help(text="RCPT"), b"HELP RCPT\r\n"),
            (Vrfy(text="alice"), b"VRFY alice\r\n"),
            # RFC 4954 4: "=" is a response without octets.
            (Auth(mechanism="EXTERNAL", response=b""), b"AUTH EXTERNAL =\r\n"),
            (Auth(mechanism="PLAIN", response=b"\0a\0b"), b"AUTH PLAIN AGEAYg==\r\n"),
            (
                XForward(attributes={"NAME": "a b", "ADDR": None}),
                b"XFORWARD NAME=a+20b ADDR=[UNAVAILABLE]\r\n",
            ),
        ],
    )
    def test_what_is_written(self, command: Command, octets: bytes) -> None:
        assert self._offering(b"AUTH PLAIN", b"XFORWARD NAME ADDR").send(command) == octets

    def test_an_exchange_that_is_given_up(self) -> None:
        client = self._offering(b"AUTH PLAIN")
        client.send(Auth(mechanism="PLAIN"))
        client.receive_data(b"334 \r\n")
        _events(client)
        assert client.send(AuthResponse(response=None)) == b"*\r\n"
        client.receive_data(b"501 5.7.0 given up\r\n")
        assert _codes(_events(client)) == [501]
        assert client.state is State.READY

    @pytest.mark.parametrize("final", [b"235 2.7.0 ok\r\n", b"535 5.7.8 no\r\n"])
    def test_auth(self, final: bytes) -> None:
        client = self._offering(b"AUTH LOGIN")
        assert client.send(Auth(mechanism="LOGIN")) == b"AUTH LOGIN\r\n"
        with pytest.raises(LocalProtocolError):
            client.send(Noop())
        for _ in range(2):
            client.receive_data(b"334 VXNlcm5hbWU6\r\n")
            assert _codes(_events(client)) == [334]
            assert client.state is State.EXCHANGE
            with pytest.raises(LocalProtocolError):
                client.send(Noop())
            assert client.send(AuthResponse(response=b"me")) == b"bWU=\r\n"
        client.receive_data(final)
        assert _codes(_events(client)) == [int(final[:3])]
        client.send(_MAIL)

    def test_xclient_begins_anew(self) -> None:
        client = self._offering(b"XCLIENT ADDR")
        client.send(XClient(attributes={"ADDR": "192.0.2.1"}))
        client.receive_data(b"220 host\r\n")
        assert _codes(_events(client)) == [220]
        assert client.keywords == {}
        assert client.state is State.GREETED
        client.send(Lhlo(domain="x"))

    def test_starttls(self) -> None:
        client = self._offering(b"STARTTLS")
        client.send(StartTls())
        client.receive_data(b"220 go\r\n")
        _events(client)
        client.tls_established()
        assert client.keywords == {}
        client.send(Lhlo(domain="x"))

    @pytest.mark.parametrize("rest", [b"250 evil\r\n", b"25", b"250-half\r\n"])
    def test_octets_in_the_clear_behind_starttls(self, rest: bytes) -> None:
        client = self._offering(b"STARTTLS")
        with pytest.raises(LocalProtocolError):
            client.tls_established()
        client.send(StartTls())
        client.receive_data(b"220 go\r\n" + rest)
        client.next_event()
        if rest.startswith(b"250-"):
            assert client.next_event() is NEED_DATA
        with pytest.raises(RemoteProtocolError):
            client.tls_established()
        assert client.state is State.CLOSED

    @pytest.mark.parametrize(
        "command",
        [
            StartTls(),
            Auth(mechanism="PLAIN"),
            XClient(attributes={"ADDR": "192.0.2.1"}),
            XForward(attributes={"ADDR": "192.0.2.1"}),
        ],
    )
    def test_what_is_not_offered(self, command: Command) -> None:
        client = self._offering()
        with pytest.raises(LocalProtocolError, match="does not offer"):
            client.send(command)
        client.send(_MAIL)

    def test_nothing_is_said_behind_lhlo(self) -> None:
        client = self._offering()
        client.send(Lhlo(domain="x"))
        with pytest.raises(LocalProtocolError) as caught:
            client.send(_MAIL)
        assert str(caught.value) == "the reply to LHLO is awaited (RFC 2920 3.1)"

    def test_binarymime_goes_by_bdat(self) -> None:
        # RFC 3030 3.
        client = self._offering(b"CHUNKING", b"BINARYMIME", b"8BITMIME")
        parameters = MailParameters(body=Body.BINARYMIME)
        client.send(Mail(reverse_path=None, parameters=parameters))
        client.send(_rcpt("a"))
        with pytest.raises(LocalProtocolError) as caught:
            client.send(Data())
        assert str(caught.value) == "BODY=BINARYMIME goes with BDAT alone (RFC 3030 3)"
        client.send(Bdat(size=0, last=True))

    @pytest.mark.parametrize(
        ("command", "keyword"),
        [
            (Mail(reverse_path=None, parameters=MailParameters(smtputf8=True)), "SMTPUTF8"),
            (
                Mail(reverse_path=None, parameters=MailParameters(body=Body.BINARYMIME)),
                "BINARYMIME",
            ),
            (Mail(reverse_path=None, parameters=MailParameters(envid="x")), "DSN"),
            (Mail(reverse_path=None, parameters=MailParameters(size=1)), "SIZE"),
            (Mail(reverse_path=None, parameters=MailParameters(require_tls=True)), "REQUIRETLS"),
            (
                Rcpt(
                    recipient=Recipient(
                        address=Address("a", "b"), parameters=RcptParameters(ignore_quota=True)
                    )
                ),
                "IGNOREQUOTA",
            ),
        ],
    )
    def test_parameters_that_are_not_offered(self, command: Command, keyword: str) -> None:
        client = self._offering(b"8BITMIME")
        if isinstance(command, Rcpt):
            client.send(_MAIL)
        with pytest.raises(LocalProtocolError, match=keyword):
            client.send(command)
        offering = self._offering(keyword.encode())
        if isinstance(command, Rcpt):
            offering.send(_MAIL)
        offering.send(command)

    def test_utf8_is_the_transaction_s(self) -> None:
        client = self._offering(b"SMTPUTF8")
        utf8 = Mail(reverse_path=None, parameters=MailParameters(smtputf8=True))
        client.send(utf8)
        client.send(_rcpt("ü"))
        with pytest.raises(LocalProtocolError):
            client.send(Vrfy(text="ü"))
        client.send(Rset())
        client.send(_MAIL)
        with pytest.raises(LocalProtocolError, match="SMTPUTF8"):
            client.send(_rcpt("ü"))


class TestOutOfStep:
    @pytest.mark.parametrize("words", [b"250 ok\r\n", b"25", b"250-half\r\n"])
    def test_what_came_before_a_command_is_not_its_answer(self, words: bytes) -> None:
        client = _client(words)
        if words.startswith(b"250-"):
            assert client.next_event() is NEED_DATA
        with pytest.raises(RemoteProtocolError) as caught:
            client.send(_MAIL)
        assert str(caught.value) == "the server said something that answers nothing"
        assert client.state is State.CLOSED
        with pytest.raises(LocalProtocolError):
            client.send(_MAIL)

    @pytest.mark.parametrize("code", [220, 221, 235, 300, 334, 354, 399])
    def test_codes_that_mean_something_else(self, code: int) -> None:
        client = _client(b"%d x\r\n" % code, commands=[_MAIL])
        with pytest.raises(RemoteProtocolError) as caught:
            client.next_event()
        assert str(caught.value) == f"{code} x does not answer MAIL"
        assert client.state is State.CLOSED

    @pytest.mark.parametrize("code", [220, 221, 235, 300, 334, 354, 399])
    def test_final_replies_that_mean_something_else(self, code: int) -> None:
        client = _client(b"250 ok\r\n" * 2 + b"354 go\r\n", commands=[_MAIL, _rcpt("a"), Data()])
        _events(client)
        client.end_content()
        client.receive_data(b"%d x\r\n" % code)
        with pytest.raises(RemoteProtocolError) as caught:
            client.next_event()
        assert str(caught.value) == f"{code} x is no final reply to a recipient"

    @pytest.mark.parametrize(
        ("code", "state"),
        [(250, State.READY), (400, State.READY), (421, State.CLOSED), (422, State.READY)],
    )
    def test_421_to_a_recipient_ends_the_session_with_the_last_one(
        self, code: int, state: State
    ) -> None:
        a, b = map(_rcpt, "ab")
        client = _client(b"250 ok\r\n" * 3 + b"354 go\r\n", commands=[_MAIL, a, b, Data()])
        _events(client)
        client.end_content()
        client.receive_data(b"%d x\r\n250 ok\r\n" % code)
        first = client.next_event()
        assert isinstance(first, RecipientReplied)
        assert (first.recipient, first.reply.code) == (a.recipient, code)
        assert client.state is State.STATUS
        last = client.next_event()
        assert isinstance(last, RecipientReplied)
        assert (last.recipient, last.reply.code) == (b.recipient, 250)
        assert client.state is state

    @pytest.mark.parametrize("code", [300, 334, 399])
    def test_any_3xx_challenges(self, code: int) -> None:
        client = ClientConnection()
        client.receive_data(b"220 host\r\n")
        client.next_event()
        client.send(Lhlo(domain="x"))
        client.receive_data(b"250-host\r\n250 AUTH LOGIN\r\n")
        client.next_event()
        client.send(Auth(mechanism="LOGIN"))
        client.receive_data(b"%d x\r\n" % code)
        client.next_event()
        assert client.state is State.EXCHANGE

    @pytest.mark.parametrize("code", [300, 354, 399])
    def test_any_3xx_lets_the_content_begin(self, code: int) -> None:
        client = _client(
            b"250 ok\r\n" * 2 + b"%d go\r\n" % code, commands=[_MAIL, _rcpt("a"), Data()]
        )
        _events(client)
        assert client.state is State.DATA
        assert client.send_content(b".") == b".."

    def test_data_is_not_accepted_with_2xx(self) -> None:
        client = _client(b"250 ok\r\n" * 3, commands=[_MAIL, _rcpt("a"), Data()])
        with pytest.raises(RemoteProtocolError):
            _events(client)

    @pytest.mark.parametrize("reply", ["250 ok", "354 go"])
    def test_an_early_reply_that_accepts(self, reply: str) -> None:
        client = _client(b"250 ok\r\n" * 2 + b"354 go\r\n", commands=[_MAIL, _rcpt("a"), Data()])
        _events(client)
        client.receive_data(f"{reply}\r\n".encode())
        with pytest.raises(RemoteProtocolError) as caught:
            client.next_event()
        assert str(caught.value) == f"{reply} answers nothing"

    def test_a_refusal_changes_what_is_said_behind_the_rest(self) -> None:
        client = _client(b"250 ok\r\n550 no\r\n", commands=[_MAIL, _rcpt("a"), Rset()])
        assert _codes(_events(client)) == [250, 550]
        assert client.state is State.MAIL
        # RSET is in flight: behind it no transaction is open.
        with pytest.raises(LocalProtocolError) as caught:
            client.send(_rcpt("b"))
        assert str(caught.value) == "RCPT cannot be said when no transaction"
        client.send(_MAIL)

    def test_each_reply_is_that_of_its_command(self) -> None:
        commands: list[Command] = [_MAIL, _rcpt("a"), Noop(), Rset()]
        client = _client(b"250 1\r\n550 2\r\n250 3\r\n250 4\r\n", commands=commands)
        events = _events(client)
        assert events == [
            Replied(command=command, reply=_reply(line))
            for command, line in zip(
                commands, [b"250 1\r\n", b"550 2\r\n", b"250 3\r\n", b"250 4\r\n"], strict=True
            )
        ]

    def test_an_early_refusal_ends_the_content(self) -> None:
        client = _client(
            b"250 ok\r\n" * 3 + b"354 go\r\n", commands=[_MAIL, _rcpt("a"), _rcpt("b"), Data()]
        )
        _events(client)
        client.send_content(b"x")
        client.receive_data(b"552 big\r\n")
        assert _codes(_events(client)) == [552]
        assert [str(recipient) for recipient in client.owed] == ["b@example.org"]
        with pytest.raises(LocalProtocolError):
            client.send_content(b"x")
        with pytest.raises(LocalProtocolError):
            client.end_content()
        client.receive_data(b"550 no\r\n")
        assert _codes(_events(client)) == [550]
        assert client.state is State.CLOSED

    def test_octets_behind_the_end(self) -> None:
        client = _client()
        client.receive_eof()
        with pytest.raises(LocalProtocolError):
            client.receive_data(b"x")

    def test_the_end_amid_the_content(self) -> None:
        client = _client(b"250 ok\r\n" * 2 + b"354 go\r\n", commands=[_MAIL, _rcpt("a"), Data()])
        _events(client)
        client.receive_eof()
        assert client.next_event() == ConnectionClosed(mid_transaction=True)
        with pytest.raises(LocalProtocolError):
            client.send_content(b"x")


class TestMisuse:
    @pytest.mark.parametrize(
        "command",
        [
            _rcpt("a"),
            Data(),
            Bdat(size=1),
            Lhlo(domain="x\r\nQUIT"),
            Lhlo(domain="ü"),
            Lhlo(domain=""),
            Lhlo(domain="a b"),
            Lhlo(domain="\ud800"),
            Vrfy(text="a\x00"),
            Noop(text="\x85"),
            Noop(text="\x7f"),
            Noop(text="a\nb"),
            Mail(reverse_path=Address("ü", "c")),
        ],
    )
    def test_changes_nothing(self, command: Command) -> None:
        client = _client()
        with pytest.raises(LocalProtocolError):
            client.send(command)
        assert client.in_flight == 0
        assert client.state is State.READY
        client.send(_MAIL)

    @pytest.mark.parametrize("domain", ["b> SIZE=1", "b>", "b c", "<b", "[1.2.3.4]> X"])
    @pytest.mark.parametrize("verb", ["MAIL", "RCPT"])
    def test_no_domain_carries_parameters(self, verb: str, domain: str) -> None:
        client = _client(commands=[_MAIL] if verb == "RCPT" else [])

        def send() -> None:
            address = Address("a", domain)
            if verb == "RCPT":
                client.send(Rcpt(recipient=Recipient(address=address)))
            else:
                client.send(Mail(reverse_path=address))

        with pytest.raises((LocalProtocolError, ValueError)):
            send()

    def test_before_the_greeting(self) -> None:
        client = ClientConnection()
        with pytest.raises(LocalProtocolError):
            client.send(Lhlo(domain="x"))

    def test_no_pipelining_where_none_is_offered(self) -> None:
        client = ClientConnection()
        client.receive_data(b"220 host\r\n")
        client.next_event()
        client.send(Lhlo(domain="x"))
        client.receive_data(b"250 host\r\n")
        client.next_event()
        client.send(_MAIL)
        with pytest.raises(LocalProtocolError) as caught:
            client.send(_rcpt("a"))
        assert str(caught.value) == "the server does not offer PIPELINING (RFC 2920 3.1)"
        client.receive_data(b"250 ok\r\n")
        client.next_event()
        client.send(_rcpt("a"))
        with pytest.raises(LocalProtocolError):
            client.send(Bdat(size=1))

    def test_content_before_354(self) -> None:
        client = _client(commands=[_MAIL, _rcpt("a"), Data()])
        with pytest.raises(LocalProtocolError):
            client.send_content(b"x")
        with pytest.raises(LocalProtocolError):
            client.end_content()
        with pytest.raises(LocalProtocolError):
            client.send(Noop())

    def test_a_chunk_has_its_size(self) -> None:
        client = _client(b"250 ok\r\n" * 2, commands=[_MAIL, _rcpt("a")])
        _events(client)
        with pytest.raises(LocalProtocolError):
            client.send(Bdat(size=-1))
        client.send(Bdat(size=3))
        with pytest.raises(LocalProtocolError):
            client.send_content(b"four")
        client.send_content(b"ab")
        with pytest.raises(LocalProtocolError):
            client.send(Bdat(size=0, last=True))
        client.send_content(b"c")
        client.send(Bdat(size=0, last=True))


@pytest.mark.parametrize("reply", [b"503 5.5.1 no\r\n", b"250 2.0.0 taken\r\n"])
def test_a_chunk_on_its_way_that_nobody_is_to_have(reply: bytes) -> None:
    # RFC 3030 2: whatever the server says of it, the message is not whole: RSET is what is left.
    client = ClientConnection()
    client.receive_data(b"220 host\r\n")
    client.next_event()
    client.send(Lhlo(domain="c"))
    client.receive_data(b"250-host\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
    client.next_event()
    client.send(Mail(reverse_path=None))
    client.send(Rcpt(recipient=Recipient(address=Address("a", "b"))))
    client.send(Bdat(size=3))
    client.send_content(b"abc")
    client.receive_data(b"250 ok\r\n550 no\r\n" + reply)
    for _ in range(3):
        client.next_event()
    broken = client.state
    assert broken is State.BROKEN
    with pytest.raises(LocalProtocolError):
        client.send(Bdat(size=3, last=True))
    client.send(Rset())
    client.receive_data(b"250 ok\r\n")
    client.next_event()
    assert client.state is State.READY
