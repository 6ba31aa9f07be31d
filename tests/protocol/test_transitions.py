"""The transition table: every cell of it, and every cell it does not have, in both roles.

`_MOVES` states the table once more, from the RFCs, so that a change of one needs a reason for both.
"""

from collections.abc import Callable
from typing import Final

import pytest

from lmtp_proto import (
    NEED_DATA,
    PAUSED,
    STANDARD_EXTENSIONS,
    TRANSITIONS,
    Address,
    Auth,
    AuthResponse,
    Bdat,
    ClientConnection,
    ClientEvent,
    Command,
    ConnectionClosed,
    Content,
    Data,
    EndOfChunk,
    EndOfContent,
    Extension,
    Fault,
    Help,
    Lhlo,
    LocalProtocolError,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Recipient,
    RecipientReplied,
    RecipientReply,
    RemainingReply,
    Replied,
    Reply,
    Rset,
    ServerConnection,
    Signal,
    StartTls,
    State,
    Step,
    Verb,
    Vrfy,
    XClient,
    XForward,
)

_S = State
_V = Verb

_IDLE: Final = {_V.NOOP, _V.VRFY, _V.HELP}
_MOVES: Final[dict[State, dict[Verb, tuple[State, ...]]]] = {
    # RFC 5321 3.1
    _S.CONNECTED: {_V.CONNECT: (_S.GREETED, _S.REFUSED)},
    _S.REFUSED: {_V.QUIT: (_S.CLOSED, _S.CLOSED)},
    # RFC 2033 4.1, RFC 3207 4, RFC 5321 4.1.4
    _S.GREETED: {
        _V.LHLO: (_S.READY, _S.GREETED),
        _V.STARTTLS: (_S.TLS, _S.GREETED),
        _V.RSET: (_S.GREETED, _S.GREETED),
        _V.XCLIENT: (_S.GREETED, _S.GREETED),
    },
    # RFC 4954 4: a challenge (334) is the third way; XCLIENT begins anew, XFORWARD does not.
    _S.EXCHANGE: {_V.RESPONSE: (_S.READY, _S.READY, _S.EXCHANGE)},
    _S.READY: {
        _V.AUTH: (_S.READY, _S.READY, _S.EXCHANGE),
        _V.XCLIENT: (_S.GREETED, _S.READY),
        _V.XFORWARD: (_S.READY, _S.READY),
        _V.LHLO: (_S.READY, _S.READY),
        _V.STARTTLS: (_S.TLS, _S.READY),
        _V.RSET: (_S.READY, _S.READY),
        _V.MAIL: (_S.MAIL, _S.READY),
    },
    # RFC 2033 4.2 and 4.3: no DATA without a recipient, but BDAT LAST with zero replies
    _S.MAIL: {
        _V.LHLO: (_S.READY, _S.MAIL),
        _V.RSET: (_S.READY, _S.MAIL),
        _V.RCPT: (_S.RCPT, _S.MAIL),
        _V.BDAT_LAST: (_S.STATUS, _S.STATUS),
        _V.BDAT: (_S.BROKEN, _S.BROKEN),
    },
    _S.RCPT: {
        _V.LHLO: (_S.READY, _S.RCPT),
        _V.RSET: (_S.READY, _S.RCPT),
        _V.RCPT: (_S.RCPT, _S.RCPT),
        _V.DATA: (_S.DATA, _S.RCPT),
        _V.BDAT: (_S.CHUNK, _S.BROKEN),
        _V.BDAT_LAST: (_S.STATUS, _S.STATUS),
    },
    _S.DATA: {_V.END: (_S.STATUS, _S.STATUS)},
    # RFC 3030 2
    _S.CHUNK: {
        _V.LHLO: (_S.READY, _S.CHUNK),
        _V.RSET: (_S.READY, _S.CHUNK),
        _V.BDAT: (_S.CHUNK, _S.BROKEN),
        _V.BDAT_LAST: (_S.STATUS, _S.STATUS),
    },
    _S.BROKEN: {_V.LHLO: (_S.READY, _S.BROKEN), _V.RSET: (_S.READY, _S.BROKEN)},
    _S.STATUS: {_V.SETTLED: (_S.READY, _S.READY)},
    _S.TLS: {_V.SECURED: (_S.GREETED, _S.CLOSED)},
    _S.CLOSED: {},
}
_LISTENING: Final = (_S.GREETED, _S.READY, _S.MAIL, _S.RCPT, _S.CHUNK, _S.BROKEN)
for _state in _LISTENING:
    _MOVES[_state] |= dict.fromkeys(_IDLE, (_state, _state))
    _MOVES[_state][_V.QUIT] = (_S.CLOSED, _S.CLOSED)

_LINES: Final = {
    _V.LHLO: b"LHLO client.example.org\r\n",
    _V.MAIL: b"MAIL FROM:<sender@example.net>\r\n",
    _V.RCPT: b"RCPT TO:<alice@example.org>\r\n",
    _V.DATA: b"DATA\r\n",
    _V.BDAT: b"BDAT 3\r\nabc",
    _V.BDAT_LAST: b"BDAT 3 LAST\r\nabc",
    _V.RSET: b"RSET\r\n",
    _V.NOOP: b"NOOP\r\n",
    _V.VRFY: b"VRFY alice\r\n",
    _V.HELP: b"HELP\r\n",
    _V.QUIT: b"QUIT\r\n",
    _V.STARTTLS: b"STARTTLS\r\n",
    _V.AUTH: b"AUTH PLAIN\r\n",
    _V.XCLIENT: b"XCLIENT ADDR=192.0.2.1\r\n",
    _V.XFORWARD: b"XFORWARD ADDR=192.0.2.1\r\n",
}
_EXTENSIONS: Final = STANDARD_EXTENSIONS | {
    Extension.STARTTLS,
    Extension.AUTH,
    Extension.XCLIENT,
    Extension.XFORWARD,
}
_ACCEPT: Final = {
    _V.DATA: Reply(354, "go"),
    _V.STARTTLS: Reply(220, "go"),
    _V.AUTH: Reply(235, "in"),
    _V.XCLIENT: Reply(220, "hello again"),
    _V.QUIT: Reply(221, "bye"),
}
_OK: Final = Reply(250, "ok")
_CHALLENGE: Final = Reply(334, "")
_NO: Final = Reply(550, "no")


def _step(connection: ServerConnection, octets: bytes, reply: Reply) -> None:
    connection.receive_data(octets)
    event = connection.next_event()
    while isinstance(event, Bdat | Content):
        event = connection.next_event()
    connection.send(reply)


def _now(connection: ServerConnection) -> State:
    """The state now: a type checker takes the attribute for what it was before."""
    return connection.state


def _in(state: State) -> ServerConnection:
    """A connection that has come to `state` by the shortest way."""
    connection = ServerConnection(extensions=_EXTENSIONS)
    if state is _S.CONNECTED:
        return connection
    connection.send(Reply(554 if state is _S.REFUSED else 220, "hello"))
    steps = {
        _S.REFUSED: [],
        _S.GREETED: [],
        _S.TLS: [_V.STARTTLS],
        _S.CLOSED: [_V.QUIT],
        _S.READY: [_V.LHLO],
        _S.EXCHANGE: [_V.LHLO],
        _S.MAIL: [_V.LHLO, _V.MAIL],
        _S.RCPT: [_V.LHLO, _V.MAIL, _V.RCPT],
        _S.DATA: [_V.LHLO, _V.MAIL, _V.RCPT, _V.DATA],
        _S.CHUNK: [_V.LHLO, _V.MAIL, _V.RCPT, _V.BDAT],
        _S.BROKEN: [_V.LHLO, _V.MAIL, _V.RCPT],
        _S.STATUS: [_V.LHLO, _V.MAIL, _V.RCPT],
    }[state]
    for verb in steps:
        _step(connection, _LINES[verb], _ACCEPT.get(verb, _OK))
    if state is _S.EXCHANGE:
        _step(connection, _LINES[_V.AUTH], _CHALLENGE)
    elif state is _S.BROKEN:
        _step(connection, _LINES[_V.BDAT], _NO)
    elif state is _S.STATUS:
        connection.receive_data(_LINES[_V.BDAT_LAST])
        while not isinstance(connection.next_event(), EndOfContent):
            pass
    assert connection.state is state
    return connection


def test_the_table_is_what_the_rfcs_say() -> None:
    assert {
        (state, verb): Step(*moves)
        for state, verbs in _MOVES.items()
        for verb, moves in verbs.items()
    } == TRANSITIONS


def test_every_cell_is_walked_in_both_roles() -> None:
    # Greeting, end of content, last status and handshake have tests of their own.
    moves = {
        (_S.CONNECTED, _V.CONNECT),
        (_S.DATA, _V.END),
        (_S.STATUS, _V.SETTLED),
        (_S.TLS, _V.SECURED),
    }
    assert {cell for cell in TRANSITIONS if cell[1] not in _COMMANDS} == moves
    # So has the server's answer in an exchange.
    assert set(TRANSITIONS) - moves - {(_S.EXCHANGE, _V.RESPONSE)} <= set(_CELLS)


_CELLS = [(state, verb) for state in (*_LISTENING, _S.REFUSED) for verb in _LINES]


@pytest.mark.parametrize(("state", "verb"), _CELLS)
@pytest.mark.parametrize("accept", [True, False])
def test_cell(state: State, verb: Verb, accept: bool) -> None:
    connection = _in(state)
    moves = _MOVES[state].get(verb)
    recipients, mail = list(connection.recipients), connection.mail
    connection.receive_data(_LINES[verb])
    event = connection.next_event()
    if moves is None:
        assert isinstance(event, Fault)
        assert (event.reply.code, event.reply.enhanced) == (503, "5.5.1")
        assert not event.fatal
        assert connection.send(event.reply) == event.reply.wire
        assert connection.state is state
        assert (list(connection.recipients), connection.mail) == (recipients, mail)
        # The octets of a chunk that is refused went with it.
        assert connection.next_event() is NEED_DATA
        return
    while isinstance(event, Bdat | Content):
        event = connection.next_event()
    if verb is _V.BDAT_LAST:
        assert isinstance(event, EndOfContent)
        assert list(event.recipients) == recipients
        if recipients:
            assert connection.state is moves[0]
            connection.send(RemainingReply(reply=_OK if accept else _NO))
        assert connection.state is _MOVES[_S.STATUS][_V.SETTLED][0]
        return
    reply = _ACCEPT.get(verb, _OK) if accept else _NO
    assert connection.next_event() is PAUSED
    if accept and (state, verb) == (_S.MAIL, _V.BDAT):
        with pytest.raises(LocalProtocolError, match="no valid recipients"):
            connection.send(reply)
        reply = _NO
    assert connection.send(reply) == reply.wire
    assert connection.state is moves[0 if accept else 1]
    if verb is _V.QUIT:
        assert isinstance(connection.next_event(), ConnectionClosed)
    if connection.state in (_S.READY, _S.GREETED):
        assert connection.mail is None
        assert list(connection.recipients) == []


@pytest.mark.parametrize("verb", _LINES)
def test_no_command_is_read_elsewhere(verb: Verb) -> None:
    line = _LINES[verb]
    for state in (_S.CONNECTED, _S.STATUS, _S.TLS):
        connection = _in(state)
        connection.receive_data(line)
        assert connection.next_event() is PAUSED
        assert connection.state is state
    connection = _in(_S.DATA)
    connection.receive_data(line)
    assert isinstance(connection.next_event(), Content)
    assert connection.state is _S.DATA
    connection = _in(_S.EXCHANGE)
    connection.receive_data(line)
    assert isinstance(connection.next_event(), AuthResponse | Fault)
    connection = _in(_S.CLOSED)
    connection.receive_data(line)
    assert isinstance(connection.next_event(), ConnectionClosed)
    assert connection.next_event() is PAUSED


@pytest.mark.parametrize("state", _LISTENING)
def test_421_to_any_command_closes(state: State) -> None:
    connection = _in(state)
    connection.receive_data(b"NOOP\r\nNOOP\r\n")
    connection.next_event()
    connection.send(Reply(421, "later"))
    assert connection.state is _S.CLOSED
    assert isinstance(connection.next_event(), ConnectionClosed)


@pytest.mark.parametrize("verb", [_V.LHLO, _V.MAIL, _V.RSET])
@pytest.mark.parametrize("code", [400, 599])
def test_every_4xx_and_5xx_refuses(verb: Verb, code: int) -> None:
    connection = _in(_S.READY)
    _step(connection, _LINES[verb], Reply(code, "no"))
    assert connection.state is _S.READY
    assert connection.mail is None


@pytest.mark.parametrize(
    ("line", "code", "state"),
    [
        (b"BOGUS\r\n", 400, _S.READY),
        (b"BOGUS\r\n", 421, _S.CLOSED),
        (b"BOGUS\r\n", 422, _S.READY),
        # The first octets of a TLS handshake.
        (b"\x16\x03", 500, _S.CLOSED),
    ],
)
def test_the_answer_to_a_fault(line: bytes, code: int, state: State) -> None:
    connection = _in(_S.READY)
    connection.receive_data(line)
    assert isinstance(connection.next_event(), Fault)
    reply = Reply(code, "no")
    assert connection.send(reply) == reply.wire
    assert connection.state is state


@pytest.mark.parametrize(
    ("code", "state"), [(220, _S.GREETED), (421, _S.CLOSED), (554, _S.REFUSED)]
)
def test_greeting(code: int, state: State) -> None:
    connection = _in(_S.CONNECTED)
    connection.receive_data(b"LHLO x\r\n")
    assert connection.next_event() is PAUSED
    reply = Reply(code, "hello", enhanced="")
    assert connection.send(reply) == reply.wire
    assert connection.state is state


def test_end_of_content_by_dot() -> None:
    connection = _in(_S.DATA)
    connection.receive_data(b"hi\r\n.\r\n")
    connection.next_event()
    assert _now(connection) is _S.DATA
    assert isinstance(connection.next_event(), EndOfContent)
    assert _now(connection) is _S.STATUS
    connection.receive_data(b"QUIT\r\n")
    assert connection.next_event() is PAUSED
    connection.send(RemainingReply(reply=_OK))
    assert connection.state is _S.READY


def test_tls_established() -> None:
    connection = _in(_S.TLS)
    assert connection.next_event() is PAUSED
    connection.tls_established()
    assert connection.state is _S.GREETED
    connection.receive_data(_LINES[_V.MAIL])
    assert isinstance(connection.next_event(), Fault)


def test_tls_that_fails() -> None:
    connection = _in(_S.TLS)
    connection.shut_down(Reply(421, "no TLS"))
    assert connection.state is _MOVES[_S.TLS][_V.SECURED][1]
    assert isinstance(connection.next_event(), ConnectionClosed)


@pytest.mark.parametrize(
    ("reply", "state"),
    [(_CHALLENGE, _S.EXCHANGE), (Reply(235, "in"), _S.READY), (Reply(535, "no"), _S.READY)],
)
def test_an_exchange(reply: Reply, state: State) -> None:
    connection = _in(_S.EXCHANGE)
    connection.receive_data(b"QUIT\r\n")
    # Four letters that are base64 of three octets.
    assert connection.next_event() == AuthResponse(response=b"AB\x13")
    connection.send(reply)
    assert connection.state is state


def test_nothing_happens_once_closed() -> None:
    connection = _in(_S.CLOSED)
    assert isinstance(connection.next_event(), ConnectionClosed)
    connection.receive_data(b"NOOP\r\n")
    assert connection.next_event() is PAUSED


@pytest.mark.parametrize("state", _LISTENING)
def test_the_end_is_told_once_in_each_state(state: State) -> None:
    connection = _in(state)
    mid_transaction = connection.mail is not None
    connection.receive_data(b"NOO")
    connection.receive_eof()
    assert connection.next_event() == ConnectionClosed(mid_transaction=mid_transaction)
    assert connection.state is _S.CLOSED
    assert connection.next_event() is PAUSED


Misuse = Callable[[ServerConnection], object]
_STRANGER: Final = Recipient(address=Address("alice", "example.org"))
_NOTHING: Final = "no reply is owed"
_EARLY: Final = "recipients are answered after the end of the content"
_MISUSE: Final[list[tuple[str, State, Misuse, str]]] = [
    (
        "no greeting code",
        _S.CONNECTED,
        lambda c: c.send(Reply(250, "hello")),
        "250 does not answer the greeting; 220 does",
    ),
    (
        "positive 354 greeting",
        _S.CONNECTED,
        lambda c: c.send(Reply(354, "hello")),
        "354 does not answer the greeting; 220 does",
    ),
    ("reply to nothing", _S.READY, lambda c: c.send(_OK), _NOTHING),
    ("status to nothing", _S.READY, lambda c: c.send(RemainingReply(reply=_OK)), _EARLY),
    ("status before content", _S.RCPT, lambda c: c.send(RemainingReply(reply=_OK)), _EARLY),
    ("reply in DATA", _S.DATA, lambda c: c.send(_OK), _NOTHING),
    ("status in DATA", _S.DATA, lambda c: c.send(RemainingReply(reply=_OK)), _EARLY),
    ("plain reply for a status", _S.STATUS, lambda c: c.send(_OK), _NOTHING),
    *(
        (
            f"{code} for a status",
            _S.STATUS,
            lambda c, code=code: c.send(RemainingReply(reply=Reply(code, "x"))),
            f"{code} is no final reply to a recipient",
        )
        for code in (221, 249, 300, 354, 399)
    ),
    (
        "status for another",
        _S.STATUS,
        lambda c: c.send(RecipientReply(recipient=_STRANGER, reply=_OK)),
        "alice@example.org is no recipient of this message",
    ),
    (
        "refusal without content",
        _S.RCPT,
        lambda c: c.refuse_content(_NO),
        "refuse_content() while no content flows",
    ),
    (
        "refusal after content",
        _S.STATUS,
        lambda c: c.refuse_content(_NO),
        "refuse_content() while no content flows",
    ),
    (
        "positive refusal",
        _S.DATA,
        lambda c: c.refuse_content(_OK),
        "250 2.0.0 ok does not refuse",
    ),
    (
        "TLS that nobody asked for",
        _S.READY,
        lambda c: c.tls_established(),
        "no TLS handshake was awaited",
    ),
    *(
        (
            f"shutting down with {code} in {state.name}",
            state,
            lambda c, code=code: c.shut_down(Reply(code, "x")),
            f"a session is shut down with 421, not {code}",
        )
        for state, code in ((_S.READY, 250), (_S.STATUS, 554), (_S.CLOSED, 420))
    ),
    ("reply when closed", _S.CLOSED, lambda c: c.send(_OK), _NOTHING),
]


@pytest.mark.parametrize(
    ("state", "misuse", "text"), [case[1:] for case in _MISUSE], ids=[case[0] for case in _MISUSE]
)
def test_misuse_raises_and_changes_nothing(state: State, misuse: Misuse, text: str) -> None:
    connection = _in(state)

    def snapshot() -> object:
        return (
            connection.state,
            connection.mail,
            list(connection.recipients),
            list(connection.unanswered),
            connection.refusal,
            connection.content_flows,
        )

    before = snapshot()
    with pytest.raises(LocalProtocolError) as caught:
        misuse(connection)
    assert str(caught.value) == text
    assert snapshot() == before


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        (b"LHLO x\r\n", 354, "354 does not answer LHLO"),
        (b"LHLO x\r\n", 220, "220 does not answer LHLO"),
        (b"NOOP\r\n", 300, "300 does not answer NOOP"),
        (b"NOOP\r\n", 354, "354 does not answer NOOP"),
        (b"NOOP\r\n", 221, "221 does not answer NOOP"),
        (b"RSET\r\n", 220, "220 does not answer RSET"),
        (b"STARTTLS\r\n", 250, "250 does not answer STARTTLS; 220 does"),
        (b"XCLIENT ADDR=192.0.2.1\r\n", 250, "250 does not answer XCLIENT; 220 does"),
        *(
            (b"AUTH PLAIN\r\n", code, f"{code} does not answer AUTH; 235 and 334 do")
            for code in (220, 234, 236, 250, 333, 335, 354)
        ),
        (b"BOGUS\r\n", 250, "250 x for a fault"),
        (b"BOGUS\r\n", 399, "399 x for a fault"),
        (b"MAIL FROM:<a@b> X\r\n", 250, "250 x for a fault"),
    ],
)
def test_a_positive_code_of_another_command_is_misuse(line: bytes, code: int, text: str) -> None:
    state = _S.READY if line.startswith(b"AUTH") else _S.GREETED
    connection = _in(state)
    connection.receive_data(line)
    connection.next_event()
    with pytest.raises(LocalProtocolError) as caught:
        connection.send(Reply(code, "x", enhanced=""))
    assert str(caught.value) == text
    assert connection.state is state
    # The command is still owed its reply.
    assert connection.next_event() is PAUSED
    connection.send(Reply(451, "x"))
    assert connection.next_event() is NEED_DATA


@pytest.mark.parametrize("code", [220, 234, 236, 250, 333, 335, 354])
def test_a_response_is_answered_as_auth_is(code: int) -> None:
    connection = _in(_S.EXCHANGE)
    connection.receive_data(b"AAAA\r\n")
    connection.next_event()
    with pytest.raises(LocalProtocolError) as caught:
        connection.send(Reply(code, "x"))
    assert str(caught.value) == f"{code} does not answer AUTH; 235 and 334 do"
    assert _now(connection) is _S.EXCHANGE
    assert connection.authenticated is False


def test_xclient_ends_what_auth_has_begun() -> None:
    connection = _in(_S.READY)
    _step(connection, _LINES[_V.AUTH], Reply(235, "in"))
    assert connection.authenticated is True
    _step(connection, _LINES[_V.XCLIENT], Reply(220, "hello again"))
    assert connection.authenticated is False


@pytest.mark.parametrize("code", [250, 300, 400, 550])
def test_a_chunk_that_is_refused_is_not_accepted(code: int) -> None:
    connection = _in(_S.RCPT)
    connection.receive_data(b"BDAT 3\r\na")
    connection.next_event()
    connection.refuse_content(_NO)
    connection.receive_data(b"bc")
    while connection.next_event() is not PAUSED:
        pass
    if code < 400:
        with pytest.raises(LocalProtocolError):
            connection.send(Reply(code, "x"))
    else:
        connection.send(Reply(code, "x"))
        assert connection.state is _S.BROKEN


def test_quit_is_answered_with_221_alone() -> None:
    connection = _in(_S.READY)
    connection.receive_data(b"QUIT\r\n")
    connection.next_event()
    with pytest.raises(LocalProtocolError) as caught:
        connection.send(_OK)
    assert str(caught.value) == "250 does not answer QUIT; 221 does"
    assert _now(connection) is _S.READY
    connection.send(Reply(221, "bye"))
    assert _now(connection) is _S.CLOSED


def test_data_is_answered_with_354_alone() -> None:
    connection = _in(_S.RCPT)
    connection.receive_data(b"DATA\r\n")
    connection.next_event()
    with pytest.raises(LocalProtocolError) as caught:
        connection.send(_OK)
    assert str(caught.value) == "250 does not answer DATA; 354 does"
    connection.send(Reply(354, "go"))
    assert connection.state is _S.DATA


def test_nothing_is_received_after_the_end() -> None:
    connection = _in(_S.READY)
    connection.receive_eof()
    with pytest.raises(LocalProtocolError):
        connection.receive_data(b"NOOP\r\n")


def test_a_chunk_reply_is_owed_once() -> None:
    connection = _in(_S.RCPT)
    connection.receive_data(b"BDAT 0\r\n")
    assert isinstance(connection.next_event(), Bdat)
    assert connection.next_event() == EndOfChunk(size=0)
    assert connection.next_event() is PAUSED
    connection.send(_OK)
    with pytest.raises(LocalProtocolError):
        connection.send(_OK)


# --- the client's role ---------------------------------------------------------------------------

_COMMANDS: Final[dict[Verb, Command]] = {
    _V.LHLO: Lhlo(domain="client.example.org"),
    _V.MAIL: Mail(reverse_path=None),
    _V.RCPT: Rcpt(recipient=Recipient(address=Address("alice", "example.org"))),
    _V.DATA: Data(),
    _V.BDAT: Bdat(size=3),
    _V.BDAT_LAST: Bdat(size=3, last=True),
    _V.RSET: Rset(),
    _V.NOOP: Noop(),
    _V.VRFY: Vrfy(text="alice"),
    _V.HELP: Help(),
    _V.QUIT: Quit(),
    _V.STARTTLS: StartTls(),
    _V.AUTH: Auth(mechanism="PLAIN"),
    _V.XCLIENT: XClient(attributes={"ADDR": "192.0.2.1"}),
    _V.XFORWARD: XForward(attributes={"ADDR": "192.0.2.1"}),
    _V.RESPONSE: AuthResponse(response=b"x"),
}
_POSITIVE: Final = {
    _V.LHLO: b"250-host\r\n250-CHUNKING\r\n250-STARTTLS\r\n250-AUTH PLAIN\r\n"
    b"250-XCLIENT ADDR\r\n250-XFORWARD ADDR\r\n250 PIPELINING\r\n",
    _V.DATA: b"354 go\r\n",
    _V.STARTTLS: b"220 go\r\n",
    _V.AUTH: b"235 in\r\n",
    _V.RESPONSE: b"235 in\r\n",
    _V.XCLIENT: b"220 host\r\n",
    _V.QUIT: b"221 bye\r\n",
}
_YES: Final = b"250 ok\r\n"
_NOPE: Final = b"550 no\r\n"
_ASKED: Final = b"334 \r\n"


def _say(client: ClientConnection, verb: Verb, reply: bytes) -> ClientEvent | Signal:
    """Say a command, with the octets of its chunk; the event of the reply."""
    client.send(_COMMANDS[verb])
    if verb in (_V.BDAT, _V.BDAT_LAST):
        client.send_content(b"abc")
    client.receive_data(reply)
    return client.next_event()


def _client_in(state: State) -> ClientConnection:
    """A client that has come to `state` by the shortest way."""
    client = ClientConnection()
    if state is _S.CONNECTED:
        return client
    client.receive_data(b"554 no\r\n" if state is _S.REFUSED else b"220 host\r\n")
    client.next_event()
    ways = {
        _S.TLS: [_V.LHLO, _V.STARTTLS],
        _S.CLOSED: [_V.LHLO, _V.QUIT],
        _S.READY: [_V.LHLO],
        _S.EXCHANGE: [_V.LHLO],
        _S.MAIL: [_V.LHLO, _V.MAIL],
        _S.RCPT: [_V.LHLO, _V.MAIL, _V.RCPT],
        _S.DATA: [_V.LHLO, _V.MAIL, _V.RCPT, _V.DATA],
        _S.CHUNK: [_V.LHLO, _V.MAIL, _V.RCPT, _V.BDAT],
        _S.BROKEN: [_V.LHLO, _V.MAIL, _V.RCPT],
        _S.STATUS: [_V.LHLO, _V.MAIL, _V.RCPT, _V.DATA],
    }
    for verb in ways.get(state, []):
        _say(client, verb, _POSITIVE.get(verb, _YES))
    if state is _S.EXCHANGE:
        _say(client, _V.AUTH, _ASKED)
    elif state is _S.BROKEN:
        _say(client, _V.BDAT, _NOPE)
    elif state is _S.STATUS:
        client.end_content()
    assert client.state is state
    return client


# Before LHLO the server has offered nothing, and behind XCLIENT or STARTTLS nothing any more.
_NOT_OFFERED: Final = {(_S.GREETED, _V.STARTTLS), (_S.GREETED, _V.XCLIENT)}
# A chunk that nobody is to have is not said.
_NOT_SAID: Final = {(_S.MAIL, _V.BDAT)}


@pytest.mark.parametrize("verb", _COMMANDS)
@pytest.mark.parametrize("state", State)
def test_client_cell(state: State, verb: Verb) -> None:
    moves = _MOVES[state].get(verb)
    if moves is None or (state, verb) in _NOT_OFFERED | _NOT_SAID:
        client = _client_in(state)
        before = (client.state, client.in_flight, client.accepted, client.owed, client.keywords)
        with pytest.raises(LocalProtocolError):
            client.send(_COMMANDS[verb])
        assert before == (
            *(client.state, client.in_flight),
            *(client.accepted, client.owed, client.keywords),
        )
        return
    if (state, verb) == (_S.MAIL, _V.BDAT_LAST):
        # RFC 2033 4.3: nobody is left who would be answered for.
        client = _client_in(state)
        assert _say(client, verb, b"") is NEED_DATA
        assert (client.state, client.in_flight) == (_MOVES[moves[0]][_V.SETTLED][0], 0)
        return
    replies = (_POSITIVE.get(verb, _YES), _NOPE, _ASKED)
    for reply, state_then in zip(replies, moves, strict=False):
        client = _client_in(state)
        event = _say(client, verb, reply)
        if verb is _V.BDAT_LAST:
            assert isinstance(event, RecipientReplied)
            assert client.state is _MOVES[state_then][_V.SETTLED][0]
        else:
            assert isinstance(event, Replied)
            assert event.command is _COMMANDS[verb]
            assert client.state is state_then
        assert event.reply.code == int(reply[:3])
        assert client.in_flight == 0
        if client.state in (_S.READY, _S.GREETED):
            assert client.accepted == []


@pytest.mark.parametrize(
    ("reply", "state"),
    [(b"220 x", _S.GREETED), (b"554 x", _S.REFUSED), (b"450 x", _S.REFUSED), (b"421 x", _S.CLOSED)],
)
def test_client_greeting(reply: bytes, state: State) -> None:
    client = _client_in(_S.CONNECTED)
    assert client.in_flight == 1
    client.receive_data(reply + b"\r\n")
    event = client.next_event()
    assert isinstance(event, Replied)
    assert event.command is None
    assert (client.state, client.in_flight) == (state, 0)


@pytest.mark.parametrize("reply", [_YES, _NOPE])
def test_client_end_of_content(reply: bytes) -> None:
    client = _client_in(_S.DATA)
    client.end_content()
    assert client.state is _MOVES[_S.DATA][_V.END][0]
    client.receive_data(reply)
    assert isinstance(client.next_event(), RecipientReplied)
    assert client.state is _MOVES[_S.STATUS][_V.SETTLED][0]


def test_client_tls() -> None:
    client = _client_in(_S.TLS)
    client.tls_established()
    assert client.state is _MOVES[_S.TLS][_V.SECURED][0]


def test_client_tls_that_fails() -> None:
    # The connection is closed: nothing more can be said on it.
    client = _client_in(_S.TLS)
    client.receive_eof()
    assert client.next_event() == ConnectionClosed(mid_transaction=False)
    assert client.state is _MOVES[_S.TLS][_V.SECURED][1]


@pytest.mark.parametrize("state", [each for each in State if each is not _S.CLOSED])
def test_421_to_the_client_at_any_moment(state: State) -> None:
    client = _client_in(state)
    client.receive_data(b"421 bye\r\n")
    assert isinstance(client.next_event(), Replied | RecipientReplied)
    assert client.state is _S.CLOSED
    assert client.next_event() is NEED_DATA
