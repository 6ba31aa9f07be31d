"""What can happen on a connection, as values.

Events a server reads are commands, content and the end of both; a command carries the means to
answer it. A client sends the same command objects and reads replies.

Events do not change. Those that every message has are held to that by `Final` alone: a frozen
dataclass takes several times as long to make.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from ._address import Address
from ._parameters import (
    NO_MAIL_PARAMETERS,
    NO_RCPT_PARAMETERS,
    MailParameters,
    RcptParameters,
)
from ._reply import Reply


class Signal(Enum):
    """What `next_event()` gives when there is no event."""

    NEED_DATA = "call receive_data() or receive_eof() first"
    PAUSED = "an answer is owed first"


NEED_DATA: Final = Signal.NEED_DATA
PAUSED: Final = Signal.PAUSED


@dataclass(slots=True, init=False, eq=False, kw_only=True)
class Recipient:
    """One RCPT command's forward-path.

    Two recipients are the same only when they are the same object: RFC 2033 4.2 wants a reply for
    each RCPT command, equal forward-paths included.
    """

    address: Final[Address]
    parameters: Final[RcptParameters]

    def __init__(
        self, *, address: Address, parameters: RcptParameters = NO_RCPT_PARAMETERS
    ) -> None:
        self.address = address
        self.parameters = parameters

    def __str__(self) -> str:
        return str(self.address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lhlo:
    """LHLO: who the client says it is."""

    domain: str


@dataclass(slots=True, init=False, unsafe_hash=True, kw_only=True)
class Mail:
    """MAIL FROM: a transaction begins."""

    reverse_path: Final[Address | None]
    """None is the null reverse-path `<>` of a notification."""
    parameters: Final[MailParameters]

    def __init__(
        self, *, reverse_path: Address | None, parameters: MailParameters = NO_MAIL_PARAMETERS
    ) -> None:
        self.reverse_path = reverse_path
        self.parameters = parameters


@dataclass(slots=True, init=False, unsafe_hash=True, kw_only=True)
class Rcpt:
    """RCPT TO: one more recipient, accepted when the reply is."""

    recipient: Final[Recipient]

    def __init__(self, *, recipient: Recipient) -> None:
        self.recipient = recipient


@dataclass(frozen=True, slots=True)
class Data:
    """DATA: content until the dot follows a 354 reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bdat:
    """BDAT: `size` octets follow; with `last` they end the content (RFC 3030 2).

    A server answers it when the octets are in: at `EndOfChunk`, or each recipient at
    `EndOfContent`.
    """

    size: int
    last: bool = False


@dataclass(frozen=True, slots=True)
class Rset:
    """RSET: the transaction is dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noop:
    """NOOP, with what stood behind it."""

    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vrfy:
    """VRFY: is there such a user?"""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Help:
    """HELP, with its topic or `""`."""

    text: str = ""


@dataclass(frozen=True, slots=True)
class Quit:
    """QUIT: the client takes its leave."""


@dataclass(frozen=True, slots=True)
class StartTls:
    """STARTTLS: a handshake follows a 220 reply (RFC 3207)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """AUTH: the client wants to prove who it is (RFC 4954 4).

    `response` is the initial response, None when none was given. It may be a password: `repr()`
    does not show it.
    """

    mechanism: str
    response: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthResponse:
    """The answer to a challenge, None when the client gives up (`*`)."""

    response: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class XClient:
    """XCLIENT: whom the client stands for (Postfix). None is an attribute that is not known."""

    attributes: Mapping[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class XForward:
    """XFORWARD: where the message came from (Postfix). None is an attribute that is not known."""

    attributes: Mapping[str, str | None]


Command = (
    Lhlo
    | Mail
    | Rcpt
    | Data
    | Bdat
    | Rset
    | Noop
    | Vrfy
    | Help
    | Quit
    | StartTls
    | Auth
    | AuthResponse
    | XClient
    | XForward
)


@dataclass(slots=True, init=False, unsafe_hash=True, kw_only=True)
class Content:
    """The next octets of the content, without stuffed dots; their division means nothing."""

    data: Final[bytes]

    def __init__(self, *, data: bytes) -> None:
        self.data = data


@dataclass(frozen=True, slots=True, kw_only=True)
class EndOfChunk:
    """The octets of a BDAT command without LAST are in; one reply is owed."""

    size: int


@dataclass(slots=True, init=False, unsafe_hash=True, kw_only=True)
class EndOfContent:
    """The content is complete; a reply is owed for each of `recipients`, in this order.

    `size` is the number of its octets. `refusal` is set when the content was refused on the way:
    by `refuse_content()` or because it is larger than the limit. It is then the answer for all.
    """

    recipients: Final[Sequence[Recipient]]
    size: Final[int]
    refusal: Final[Reply | None]

    def __init__(
        self, *, recipients: Sequence[Recipient], size: int, refusal: Reply | None = None
    ) -> None:
        self.recipients = recipients
        self.size = size
        self.refusal = refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A line that is no command, or not now; `reply` is its ready answer.

    `fatal`: the session cannot go on and ends with the reply.
    """

    line: bytes
    reply: Reply
    fatal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionClosed:
    """The peer sends no more; `mid_transaction` when a message was on its way."""

    mid_transaction: bool


ServerEvent = Command | Content | EndOfChunk | EndOfContent | Fault | ConnectionClosed


@dataclass(slots=True, init=False, unsafe_hash=True, kw_only=True)
class RecipientReply:
    """A server's final word on one recipient."""

    recipient: Final[Recipient]
    reply: Final[Reply]

    def __init__(self, *, recipient: Recipient, reply: Reply) -> None:
        self.recipient = recipient
        self.reply = reply


@dataclass(frozen=True, slots=True, kw_only=True)
class RemainingReply:
    """A server's final word on every recipient that has none yet."""

    reply: Reply
