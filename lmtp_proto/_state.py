"""The transition table of LMTP: what may follow what, for server and client alike.

A session is in one `State`. A command, named by its `Verb`, is legal when `TRANSITIONS` has a cell
for the pair; the missing cell is `503 5.5.1`. The reply decides where the session goes: a 2xx or
3xx takes `Step.accepted`, a 4xx or 5xx takes `Step.refused`. Moves that no command causes - the
greeting, the end of content, the last status, the finished TLS handshake - are verbs too
(`CONNECT`, `END`, `SETTLED`, `SECURED`), so that no move is made outside this table. A challenge
(334) takes `Step.challenged`, to a state in which lines are answers to it (`RESPONSE`). The server
walks it as it answers, the client as it reads the answers.

READY and GREETED know no transaction: whoever enters them forgets sender and recipients.
"""

from enum import Enum
from typing import Final, NamedTuple


class State(Enum):
    """Where a session stands between two commands."""

    # Members are singletons: identity is their hash, at the speed of C.
    __hash__ = object.__hash__

    CONNECTED = "the greeting is owed"
    REFUSED = "the greeting said that there is no service here"
    GREETED = "LHLO is awaited"
    READY = "no transaction"
    MAIL = "the reverse-path is known, no recipient yet"
    RCPT = "one or more recipients are accepted"
    DATA = "content flows until the dot"
    CHUNK = "between two chunks of a BDAT transaction"
    BROKEN = "a chunk was refused: the transaction can only be reset"
    STATUS = "one reply is owed for each accepted recipient"
    EXCHANGE = "the answer to a challenge is awaited"
    TLS = "the TLS handshake is awaited"
    CLOSED = "nothing more is said"


class Verb(Enum):
    """A command, or a move that no command causes (the last five)."""

    __hash__ = object.__hash__

    LHLO = "LHLO"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    BDAT = "BDAT"
    BDAT_LAST = "BDAT LAST"
    RSET = "RSET"
    NOOP = "NOOP"
    VRFY = "VRFY"
    HELP = "HELP"
    QUIT = "QUIT"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"
    XCLIENT = "XCLIENT"
    XFORWARD = "XFORWARD"
    RESPONSE = "the answer to a challenge"
    CONNECT = "the greeting"
    END = "the end of content"
    SETTLED = "the last status"
    SECURED = "the TLS handshake"


class Step(NamedTuple):
    """Where a verb leads: `accepted` on 2xx and 354, `refused` on 4xx and 5xx.

    `challenged` is where 334 leads, None where no challenge can follow.
    """

    accepted: State
    refused: State
    challenged: State | None = None


_S = State
_V = Verb

TRANSITIONS: Final[dict[tuple[State, Verb], Step]] = {
    # RFC 5321 3.1: the server speaks first.
    (_S.CONNECTED, _V.CONNECT): Step(_S.GREETED, _S.REFUSED),
    # RFC 5321 3.1: after 554 the server waits for QUIT and answers all else with 503.
    (_S.REFUSED, _V.QUIT): Step(_S.CLOSED, _S.CLOSED),
    # RFC 2033 4.1: LHLO takes the place of HELO and EHLO, which are not verbs of LMTP.
    (_S.GREETED, _V.LHLO): Step(_S.READY, _S.GREETED),
    (_S.GREETED, _V.STARTTLS): Step(_S.TLS, _S.GREETED),
    (_S.READY, _V.LHLO): Step(_S.READY, _S.READY),
    (_S.READY, _V.STARTTLS): Step(_S.TLS, _S.READY),
    (_S.READY, _V.MAIL): Step(_S.MAIL, _S.READY),
    (_S.MAIL, _V.RCPT): Step(_S.RCPT, _S.MAIL),
    # RFC 2033 4.3: without an accepted recipient, BDAT LAST ends in zero replies.
    # (DATA has no cell here: RFC 2033 4.2 wants 503.)
    (_S.MAIL, _V.BDAT_LAST): Step(_S.STATUS, _S.STATUS),
    # RFC 3030 2: a chunk that nobody is to have is refused, and the message has a hole.
    (_S.MAIL, _V.BDAT): Step(_S.BROKEN, _S.BROKEN),
    (_S.RCPT, _V.RCPT): Step(_S.RCPT, _S.RCPT),
    (_S.RCPT, _V.DATA): Step(_S.DATA, _S.RCPT),
    (_S.RCPT, _V.BDAT): Step(_S.CHUNK, _S.BROKEN),
    (_S.RCPT, _V.BDAT_LAST): Step(_S.STATUS, _S.STATUS),
    # RFC 5321 4.1.1.4: only CRLF "." CRLF ends the content.
    (_S.DATA, _V.END): Step(_S.STATUS, _S.STATUS),
    # RFC 3030 2: once a chunk is taken, DATA is refused until the transaction is reset.
    (_S.CHUNK, _V.BDAT): Step(_S.CHUNK, _S.BROKEN),
    (_S.CHUNK, _V.BDAT_LAST): Step(_S.STATUS, _S.STATUS),
    # RFC 2033 4.2: the transaction ends with the last recipient's reply.
    (_S.STATUS, _V.SETTLED): Step(_S.READY, _S.READY),
    # RFC 4954 4: not in a transaction; a challenge is answered, and that may be challenged again.
    (_S.READY, _V.AUTH): Step(_S.READY, _S.READY, _S.EXCHANGE),
    (_S.EXCHANGE, _V.RESPONSE): Step(_S.READY, _S.READY, _S.EXCHANGE),
    # Postfix XCLIENT: the session begins anew, with the greeting as its reply.
    (_S.GREETED, _V.XCLIENT): Step(_S.GREETED, _S.GREETED),
    (_S.READY, _V.XCLIENT): Step(_S.GREETED, _S.READY),
    (_S.READY, _V.XFORWARD): Step(_S.READY, _S.READY),
    # RFC 3207 4.2: after the handshake both sides know nothing but the greeting.
    (_S.TLS, _V.SECURED): Step(_S.GREETED, _S.CLOSED),
    # RFC 5321 4.1.4: a LHLO or RSET amid a transaction drops it; a refused LHLO changes nothing.
    **{
        (state, _V.LHLO): Step(_S.READY, state) for state in (_S.MAIL, _S.RCPT, _S.CHUNK, _S.BROKEN)
    },
    **{
        (state, _V.RSET): Step(_S.READY, state)
        for state in (_S.READY, _S.MAIL, _S.RCPT, _S.CHUNK, _S.BROKEN)
    },
    (_S.GREETED, _V.RSET): Step(_S.GREETED, _S.GREETED),
    # RFC 5321 4.1.4: NOOP, HELP, VRFY and QUIT are served at any time between two commands.
    **{
        (state, verb): Step(state, state)
        for state in (_S.GREETED, _S.READY, _S.MAIL, _S.RCPT, _S.CHUNK, _S.BROKEN)
        for verb in (_V.NOOP, _V.VRFY, _V.HELP)
    },
    **{
        (state, _V.QUIT): Step(_S.CLOSED, _S.CLOSED)
        for state in (_S.GREETED, _S.READY, _S.MAIL, _S.RCPT, _S.CHUNK, _S.BROKEN)
    },
}
"""`(State, Verb) -> Step`; a pair that is missing is answered `503 5.5.1`."""
