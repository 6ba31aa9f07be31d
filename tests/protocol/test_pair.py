"""Server and client joined: every extension through two transactions, and each of them turned off.

Neither side is driven by a conversation here: what one machine says is what the other one reads.
"""

from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Final

import pytest

from lmtp_proto import (
    NEED_DATA,
    Address,
    Auth,
    AuthResponse,
    Bdat,
    Body,
    ByMode,
    ClientConnection,
    ClientEvent,
    Command,
    ConnectionClosed,
    Content,
    Data,
    DeliverBy,
    EndOfChunk,
    EndOfContent,
    Extension,
    Fault,
    Lhlo,
    Limits,
    LocalProtocolError,
    Mail,
    MailParameters,
    Notify,
    OriginalRecipient,
    Rcpt,
    RcptParameters,
    Recipient,
    RecipientReplied,
    RecipientReply,
    Replied,
    Reply,
    Ret,
    RrvsAction,
    ServerConnection,
    ServerEvent,
    Signal,
    StartTls,
    State,
    Submitter,
    ValidSince,
    XClient,
    XForward,
)

_ALL: Final = frozenset(Extension)
_LIMITS: Final = Limits(recipients=3, transactions=2, message_size=10_000)
_WORDS: Final = {
    Extension.AUTH: "PLAIN",
    Extension.FUTURERELEASE: "86400 2027-01-01T00:00:00Z",
    Extension.XCLIENT: "ADDR LOGIN",
    Extension.XFORWARD: "ADDR NAME",
    Extension.XRCPTFORWARD: "",
}
_LHLO: Final = Lhlo(domain="client.example.org")
_PIECE: Final = 7


class Pair:
    """A server that accepts whatever it can, and a client that has said LHLO to it."""

    def __init__(self, extensions: frozenset[Extension] = _ALL, *, tls: bool = False) -> None:
        self.server = ServerConnection(limits=_LIMITS, extensions=extensions)
        self.client = ClientConnection()
        self.served: list[ServerEvent] = []
        """What has reached the server since `say()` was called."""
        self._carry(self.server.send(Reply(220, "host", enhanced="")))
        self.say(_LHLO)
        if tls:
            self.say(StartTls())
            self.secure()
            self.say(_LHLO)

    def say(self, *commands: Command) -> list[Reply]:
        """Say them in one flight; the replies."""
        return self.exchange(b"".join(map(self.client.send, commands)))

    def exchange(self, octets: bytes) -> list[Reply]:
        """Give the server octets of the client, in pieces; the replies."""
        return [event.reply for event in self.events(octets)]

    def events(self, octets: bytes) -> list[Replied | RecipientReplied]:
        """As `exchange()`, with what each reply is to."""
        self.served = []
        output = b""
        for start in range(0, len(octets), _PIECE):
            self.server.receive_data(octets[start : start + _PIECE])
            while not isinstance(event := self.server.next_event(), Signal):
                self.served.append(event)
                output += self._answer(event)
        return self._carry(output)

    @property
    def states(self) -> set[State]:
        """Where the two stand: one state, if they are in step."""
        return {self.client.state, self.server.state}

    def secure(self) -> None:
        """Both have done their part of the TLS handshake."""
        self.server.tls_established()
        self.client.tls_established()

    def _carry(self, output: bytes) -> list[Replied | RecipientReplied]:
        events: list[Replied | RecipientReplied] = []
        for start in range(0, len(output), _PIECE):
            self.client.receive_data(output[start : start + _PIECE])
            while (event := self.client.next_event()) is not NEED_DATA:
                assert isinstance(event, Replied | RecipientReplied)
                events.append(event)
        return events

    def _answer(self, event: ServerEvent) -> bytes:
        match event:
            case Fault(reply=reply):
                return self.server.send(reply)
            case Lhlo():
                keywords = self.server.keywords(_WORDS)
                return self.server.send(Reply(250, "host", *keywords, enhanced=""))
            case StartTls() | XClient():
                return self.server.send(Reply(220, "go"))
            case Auth(response=None):
                return self.server.send(Reply(334, ""))
            case Auth() | AuthResponse():
                return self.server.send(Reply(235, "in"))
            case Data():
                return self.server.send(Reply(354, "go"))
            case Bdat() | Content() | ConnectionClosed():
                return b""
            case EndOfContent(recipients=recipients):
                # Out of order: the machine puts them right.
                answers = [
                    RecipientReply(recipient=each, reply=Reply(250, f"for {each}"))
                    for each in reversed(recipients)
                ]
                return b"".join(map(self.server.send, answers))
            case _:
                return self.server.send(Reply(250, "ok"))


def _rcpt(local_part: str, parameters: RcptParameters | None = None) -> Rcpt:
    address = Address(local_part, "example.org")
    return Rcpt(recipient=Recipient(address=address, parameters=parameters or RcptParameters()))


def _codes(replies: Sequence[Reply]) -> list[int]:
    return [reply.code for reply in replies]


_TIME: Final = datetime(2026, 3, 1, 12, 30, 45, tzinfo=UTC)
_MAILS: Final = (
    Mail(
        reverse_path=Address("jürgen", "bücher.example"),
        parameters=MailParameters(
            size=9_000,
            body=Body.EIGHTBITMIME,
            smtputf8=True,
            ret=Ret.HDRS,
            envid="QQ+314 = x",
            auth=Submitter(Address("e=mc2", "example.com")),
            require_tls=True,
            mt_priority=-3,
            deliver_by=DeliverBy(120, ByMode.RETURN, trace=True),
            hold=3600,
        ),
    ),
    Mail(
        reverse_path=None,
        parameters=MailParameters(
            size=0,
            body=Body.BINARYMIME,
            ret=Ret.FULL,
            auth=Submitter(None),
            mt_priority=9,
            deliver_by=DeliverBy(-1, ByMode.NOTIFY),
            hold=_TIME,
        ),
    ),
)
_RCPTS: Final = (
    (
        _rcpt(
            "ü",
            RcptParameters(
                notify=frozenset({Notify.SUCCESS, Notify.DELAY}),
                orcpt=OriginalRecipient("utf-8", "ü+=\\@b"),
                rrvs=ValidSince(_TIME, RrvsAction.REJECT),
                ignore_quota=True,
                forward={"user": "a b", "tab": "c\td=e"},
            ),
        ),
        _rcpt("alice"),
        # RFC 2033 4.2: equal paths are two recipients.
        _rcpt("alice", RcptParameters(notify=frozenset({Notify.NEVER}))),
    ),
    (
        _rcpt("a b", RcptParameters(orcpt=OriginalRecipient("rfc822", "a+b@c"))),
        _rcpt("bob", RcptParameters(rrvs=ValidSince(_TIME), forward={"x": ""})),
    ),
)


def test_every_parameter_is_among_them() -> None:
    for kind, given in (
        (MailParameters, [mail.parameters for mail in _MAILS]),
        (RcptParameters, [rcpt.recipient.parameters for rcpts in _RCPTS for rcpt in rcpts]),
    ):
        nothing = kind()
        for field in fields(kind):
            values = [getattr(each, field.name) for each in given]
            assert values != [getattr(nothing, field.name)] * len(values), field.name


def _envelope(pair: Pair, number: int, *last: Command) -> None:
    """The whole envelope in one flight, and how it arrives."""
    mail, rcpts = _MAILS[number], _RCPTS[number]
    replies = pair.say(mail, *rcpts, *last)
    assert _codes(replies) == [250] * (1 + len(rcpts)) + [354] * len(last)
    arrived = pair.served
    assert arrived[0] == mail
    assert len(arrived) == 1 + len(rcpts) + len(last)
    for event, rcpt in zip(arrived[1:], rcpts, strict=False):
        assert isinstance(event, Rcpt)
        assert event.recipient.address == rcpt.recipient.address
        assert event.recipient.parameters == rcpt.recipient.parameters
    assert pair.client.accepted == [rcpt.recipient for rcpt in rcpts]


def _content(served: Sequence[ServerEvent]) -> bytes:
    return b"".join(event.data for event in served if isinstance(event, Content))


def _finals(events: Sequence[ClientEvent], number: int) -> None:
    """A reply for each recipient: his own, in RCPT order."""
    recipients = [rcpt.recipient for rcpt in _RCPTS[number]]
    found = [event for event in events if isinstance(event, RecipientReplied)]
    assert list(events) == found
    assert [event.recipient for event in found] == recipients
    for recipient, event in zip(recipients, found, strict=True):
        # A reply is ASCII.
        text = f"for {recipient}".encode("ascii", "replace").decode()
        assert event.reply == Reply(250, text)


def test_two_transactions_with_every_extension() -> None:
    pair = Pair()
    client, server = pair.client, pair.server
    clear = client.keywords
    assert set(clear) == {extension.value for extension in _ALL - {Extension.REQUIRETLS}}
    assert clear["SIZE"] == "10000"
    assert clear["LIMITS"] == "MAILMAX=2 RCPTMAX=3"
    assert clear["FUTURERELEASE"] == _WORDS[Extension.FUTURERELEASE]

    assert _codes(pair.say(StartTls())) == [220]
    assert pair.states == {State.TLS}
    pair.secure()
    assert pair.states == {State.GREETED}
    assert client.keywords == {}
    assert _codes(pair.say(_LHLO)) == [250]
    assert set(client.keywords) == {extension.value for extension in _ALL - {Extension.STARTTLS}}

    assert _codes(pair.say(Auth(mechanism="PLAIN"))) == [334]
    assert pair.states == {State.EXCHANGE}
    assert _codes(pair.say(AuthResponse(response=b"\0a\0b"))) == [235]
    assert pair.served == [AuthResponse(response=b"\0a\0b")]
    assert (pair.states, server.authenticated) == ({State.READY}, True)

    client_is = XClient(attributes={"ADDR": "192.0.2.1", "LOGIN": "a b", "NAME": None})
    assert _codes(pair.say(client_is)) == [220]
    assert pair.served == [client_is]
    assert client.keywords == {}
    assert (pair.states, server.authenticated) == ({State.GREETED}, False)
    assert _codes(pair.say(_LHLO)) == [250]
    assert _codes(pair.say(Auth(mechanism="PLAIN", response=b"\0a\0b"))) == [235]
    came_from = XForward(attributes={"ADDR": "2001:db8::1", "NAME": "a+b", "PORT": None})
    assert _codes(pair.say(came_from)) == [250]
    assert pair.served == [came_from]

    _envelope(pair, 0, Data())
    text = b".\r\n..\r\nGr\xc3\xbc\xc3\x9fe\r\n.\r\n"
    octets = client.send_content(text[:3]) + client.send_content(text[3:]) + client.end_content()
    _finals(pair.events(octets), 0)
    assert _content(pair.served) == text
    assert pair.states == {State.READY}

    _envelope(pair, 1)
    binary = bytes(range(256)) + b"\r\n.\r\n"
    octets = client.send(Bdat(size=100)) + client.send_content(binary[:100])
    octets += client.send(Bdat(size=0))
    octets += client.send(Bdat(size=len(binary) - 100, last=True))
    octets += client.send_content(binary[100:])
    chunks = pair.events(octets)
    assert _codes([event.reply for event in chunks[:2]]) == [250, 250]
    _finals(chunks[2:], 1)
    assert [event for event in pair.served if isinstance(event, EndOfChunk)] == [
        EndOfChunk(size=100),
        EndOfChunk(size=0),
    ]
    assert _content(pair.served) == binary
    assert pair.states == {State.READY}

    # RFC 9422 4: what LIMITS says is kept.
    assert _codes(pair.say(Mail(reverse_path=None))) == [421]
    assert pair.states == {State.CLOSED}


def test_no_more_recipients_than_said() -> None:
    pair = Pair()
    rcpts = [_rcpt(str(number)) for number in range(5)]
    assert _codes(pair.say(Mail(reverse_path=None), *rcpts, Data())) == [
        *[250] * 4,
        *[452] * 2,
        354,
    ]
    finals = pair.events(pair.client.end_content())
    assert [event.recipient for event in finals if isinstance(event, RecipientReplied)] == [
        rcpt.recipient for rcpt in rcpts[:3]
    ]


def _mail(**parameters: object) -> Mail:
    return Mail(
        reverse_path=None,
        parameters=MailParameters(**parameters),  # type: ignore[arg-type]  # each has its own type
    )


_E: Final = Extension
# What an extension is for, with the code where it is off.
_USES: Final[list[tuple[Extension, Command, int]]] = [
    (_E.EIGHTBITMIME, _mail(body=Body.SEVENBIT), 555),
    (_E.EIGHTBITMIME, _mail(body=Body.EIGHTBITMIME), 555),
    (_E.SIZE, _mail(size=1), 555),
    (_E.CHUNKING, Bdat(size=0), 502),
    (_E.CHUNKING, Bdat(size=0, last=True), 502),
    # RFC 3030 3: it wants CHUNKING.
    (_E.CHUNKING, _mail(body=Body.BINARYMIME), 501),
    (_E.BINARYMIME, _mail(body=Body.BINARYMIME), 501),
    (_E.SMTPUTF8, _mail(smtputf8=True), 555),
    (_E.DSN, _mail(ret=Ret.FULL), 555),
    (_E.DSN, _mail(envid="x"), 555),
    (_E.DSN, _rcpt("a", RcptParameters(notify=frozenset({Notify.NEVER}))), 555),
    (_E.DSN, _rcpt("a", RcptParameters(orcpt=OriginalRecipient("rfc822", "a@b"))), 555),
    (_E.STARTTLS, StartTls(), 502),
    (_E.AUTH, Auth(mechanism="PLAIN", response=b""), 502),
    (_E.AUTH, _mail(auth=Submitter(None)), 555),
    (_E.REQUIRETLS, _mail(require_tls=True), 555),
    (_E.MT_PRIORITY, _mail(mt_priority=0), 555),
    (_E.DELIVERBY, _mail(deliver_by=DeliverBy(1, ByMode.RETURN)), 555),
    (_E.FUTURERELEASE, _mail(hold=1), 555),
    (_E.FUTURERELEASE, _mail(hold=_TIME), 555),
    (_E.RRVS, _rcpt("a", RcptParameters(rrvs=ValidSince(_TIME))), 555),
    (_E.IGNOREQUOTA, _rcpt("a", RcptParameters(ignore_quota=True)), 555),
    (_E.XCLIENT, XClient(attributes={"ADDR": "192.0.2.1"}), 502),
    (_E.XFORWARD, XForward(attributes={"ADDR": "192.0.2.1"}), 502),
    (_E.XRCPTFORWARD, _rcpt("a", RcptParameters(forward={"a": "b"})), 555),
]
# What they are for is no command and no parameter: how commands are sent, what replies say.
_USELESS: Final = {_E.PIPELINING, _E.ENHANCEDSTATUSCODES, _E.LIMITS}


def test_every_extension_is_used() -> None:
    assert {extension for extension, _, _ in _USES} == _ALL - _USELESS


def _ready_for(command: Command, extensions: frozenset[Extension]) -> Pair:
    """A pair in which `command` comes next."""
    pair = Pair(extensions, tls=_E.STARTTLS in extensions and not isinstance(command, StartTls))
    if isinstance(command, Rcpt | Bdat):
        pair.say(Mail(reverse_path=None))
    if isinstance(command, Bdat):
        pair.say(_rcpt("a"))
    return pair


@pytest.mark.parametrize(("extension", "command", "code"), _USES)
def test_an_extension_that_is_off(extension: Extension, command: Command, code: int) -> None:
    on = _ready_for(command, _ALL)
    assert extension.value in on.client.keywords
    octets = on.client.send(command)
    assert all(reply.accepted for reply in on.exchange(octets))
    assert not any(isinstance(event, Fault) for event in on.served)

    off = _ready_for(command, _ALL - {extension})
    assert extension.value not in off.client.keywords
    state = off.server.state
    with pytest.raises(LocalProtocolError, match="does not offer"):
        off.client.send(command)
    # A client that does not ask.
    off.server.receive_data(octets)
    event = off.server.next_event()
    assert isinstance(event, Fault)
    assert event.reply.code == code
    off.server.send(event.reply)
    assert off.server.state is state
    assert off.server.next_event() is NEED_DATA


@pytest.mark.parametrize("extension", sorted(_USELESS, key=str))
def test_an_extension_that_is_not_offered(extension: Extension) -> None:
    pair = Pair(_ALL - {extension})
    assert extension.value not in pair.client.keywords
    assert extension.value in Pair().client.keywords


def test_no_flight_where_pipelining_is_not_offered() -> None:
    pair = Pair(_ALL - {_E.PIPELINING})
    octets = pair.client.send(Mail(reverse_path=None))
    with pytest.raises(LocalProtocolError, match="PIPELINING"):
        pair.client.send(_rcpt("a"))
    assert _codes(pair.exchange(octets)) == [250]
    assert _codes(pair.say(_rcpt("a"))) == [250]


def test_limits_are_kept_unsaid() -> None:
    pair = Pair(_ALL - {_E.LIMITS})
    rcpts = [_rcpt(str(number)) for number in range(4)]
    assert _codes(pair.say(Mail(reverse_path=None), *rcpts)) == [*[250] * 4, 452]
