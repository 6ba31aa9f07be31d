"""The client role: against our server through two transactions, and against any replies."""

import itertools
from collections.abc import Generator, Sequence
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmtp_proto import (
    NEED_DATA,
    Address,
    Bdat,
    ClientConnection,
    Command,
    ConnectionClosed,
    Data,
    Effect,
    Lhlo,
    LocalProtocolError,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Receive,
    Recipient,
    RecipientReplied,
    RemoteProtocolError,
    Replied,
    Reply,
    Rset,
    Run,
    Send,
    State,
    Submission,
    Wait,
)
from tests.dialogs.handler import SETTINGS, DialogHandler
from tests.protocol.driver import Driver, begin

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

    def test_a_reply_to_nothing(self) -> None:
        client = _client(b"250 ok\r\n")
        with pytest.raises(RemoteProtocolError):
            client.next_event()

    def test_354_without_a_recipient(self) -> None:
        # RFC 2033 4.2: the reply must be 503.
        client = _client(b"250 ok\r\n550 no\r\n354 go\r\n", commands=[_MAIL, _rcpt("a"), Data()])
        with pytest.raises(RemoteProtocolError):
            _events(client)

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


class TestMisuse:
    @pytest.mark.parametrize(
        "command",
        [
            _rcpt("a"),
            Data(),
            Bdat(size=1),
            Lhlo(domain="x\r\nQUIT"),
            Lhlo(domain="ü"),
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
        with pytest.raises(LocalProtocolError):
            client.send(_rcpt("a"))
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
        client.send(Bdat(size=3))
        with pytest.raises(LocalProtocolError):
            client.send_content(b"four")
        client.send_content(b"ab")
        with pytest.raises(LocalProtocolError):
            client.send(Bdat(size=0, last=True))
        client.send_content(b"c")
        client.send(Bdat(size=0, last=True))


def _perform(conversation: Generator[Effect, None, object], server: "Peer") -> object:
    """Run a client's conversation against a server; what it returns."""
    try:
        while True:
            effect = next(conversation)
            match effect:
                case Send():
                    server.read(effect.data)
                case Receive():
                    effect.outcome = server.write()
                case Run():
                    begin(effect)
                case Wait(run=run):
                    assert run.done
    except StopIteration as end:
        return end.value


class Peer:
    """Our server, as the client's runtime sees it."""

    def __init__(self) -> None:
        self.driver = Driver(DialogHandler(), SETTINGS)

    def read(self, octets: bytes) -> None:
        if not self.driver.closed:
            self.driver.receive(octets)

    def write(self) -> bytes:
        output = self.driver.output
        self.driver.writes.clear()
        return output


class Script(Peer):
    """A server that says the next of its lines each time it is read from, then closes."""

    def __init__(self, *lines: bytes) -> None:
        self.lines = list(lines)
        self.heard = b""

    def read(self, octets: bytes) -> None:
        self.heard += octets

    def write(self) -> bytes:
        return self.lines.pop(0) if self.lines else b""


def _submit(
    peer: Peer, *local_parts: str, content: Sequence[bytes] = (b"hi\r\n",), sender: str = "sender"
) -> tuple[Submission, list[int]]:
    submission = Submission("client.example.org", clock=lambda: 0.0)
    _perform(submission.open(), peer)
    codes = _again(submission, peer, *local_parts, content=content, sender=sender)
    return submission, codes


def _again(
    submission: Submission,
    peer: Peer,
    *local_parts: str,
    content: Sequence[bytes] = (b"hi\r\n",),
    sender: str = "sender",
) -> list[int]:
    parts = iter([*content, b""])
    recipients = [_rcpt(local_part).recipient for local_part in local_parts]
    results = _perform(
        submission.submit(Address(sender, "example.net"), recipients, lambda: next(parts)), peer
    )
    assert isinstance(results, list)
    assert [result.recipient for result in results] == recipients
    return [result.reply.code for result in results]


class TestSubmission:
    def test_each_recipient_has_its_own_reply(self) -> None:
        peer = Peer()
        submission, codes = _submit(peer, "alice", "nobody", "alice", "full", "later", "crash")
        assert codes == [250, 550, 250, 452, 450, 451]
        assert _again(submission, peer, "bob") == [250]
        _perform(submission.close(), peer)
        assert peer.driver.closed

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
        self, sender: str, local_parts: list[str], codes: list[int]
    ) -> None:
        peer = Peer()
        submission, found = _submit(peer, *local_parts, sender=sender)
        assert found == codes
        assert _again(submission, peer, "alice") == [250]

    def test_dots_are_stuffed(self) -> None:
        peer = Peer()
        submission, codes = _submit(peer, "alice", content=[b".\r\n", b".", b".a\r\n", b"b"])
        assert codes == [250]
        assert submission.failure is None

    @pytest.mark.parametrize(
        "lines",
        [
            (),
            (b"220 host\r\n",),
            (b"220 host\r\n", _LHLO_REPLY),
            (b"220 host\r\n", _LHLO_REPLY, b"250 ok\r\n"),
            (b"220 host\r\n", _LHLO_REPLY, b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n"),
            (b"220 host\r\n", _LHLO_REPLY, b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n", b"250 "),
        ],
    )
    def test_a_server_that_goes_is_451(self, lines: tuple[bytes, ...]) -> None:
        _, codes = _submit(Script(*lines), "alice", "bob")
        assert codes == [451, 451]

    def test_a_server_that_goes_amid_the_statuses(self) -> None:
        envelope = b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n"
        script = Script(b"220 host\r\n", _LHLO_REPLY, envelope, b"250 saved\r\n")
        _, codes = _submit(script, "alice", "bob")
        assert codes == [250, 451]

    @pytest.mark.parametrize(
        "lines",
        [
            (b"421 4.3.2 no\r\n",),
            (b"220 host\r\n", b"421 4.3.2 no\r\n"),
            (b"220 host\r\n", _LHLO_REPLY, b"421 4.3.2 no\r\n"),
            (b"220 host\r\n", _LHLO_REPLY, b"250 ok\r\n421 4.3.2 no\r\n"),
        ],
    )
    def test_421_is_for_all_who_have_no_reply(self, lines: tuple[bytes, ...]) -> None:
        _, codes = _submit(Script(*lines), "alice", "bob")
        assert codes == [421, 421]

    @pytest.mark.parametrize(
        "answer",
        [
            b"nonsense\r\n",
            b"250-\xff\r\n251 x\r\n",
            "250 2.\u0663.0 x\r\n250\r\n".encode(),
            b"354 x\r\n",
        ],
    )
    def test_a_server_that_breaks_the_protocol(self, answer: bytes) -> None:
        submission, codes = _submit(Script(b"220 host\r\n", _LHLO_REPLY, answer), "alice")
        assert codes == [451]
        if submission.failure is None:
            assert answer.startswith(b"250 ")

    def test_the_size_is_declared_where_it_is_offered(self) -> None:
        script = Script(b"220 host\r\n", _LHLO_REPLY, b"552 too big\r\n503 no\r\n503 no\r\n")
        submission = Submission("x", clock=lambda: 0.0)
        _perform(submission.open(), script)
        recipients = [_rcpt("alice").recipient]
        _perform(submission.submit(None, recipients, lambda: b"", size=77), script)
        assert b"MAIL FROM:<> SIZE=77\r\n" in script.heard
