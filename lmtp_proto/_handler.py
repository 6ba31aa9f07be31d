"""What an embedder writes: the decisions of a server, and where content goes.

Every method may answer at once or hand back a `Job`. One that raises is answered
`451 4.3.0` for that command or recipient, with a log line; the session goes on.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from secrets import token_urlsafe
from types import MappingProxyType
from typing import Final, Protocol, TypeAlias, TypeVar, Union

from ._address import STRICT, Address, PathRules
from ._command import CommandParser
from ._effects import Effect, Job
from ._events import Mail, Recipient
from ._extensions import STANDARD_EXTENSIONS, Extension
from ._limits import Limits
from ._observer import Observer
from ._policy import INCOMING_CONTENT, ContentPolicy
from ._proxy_protocol import ProxyHeader
from ._reply import Reply
from ._sasl import MECHANISMS, Credentials, Mechanism

T = TypeVar("T")

Answer: TypeAlias = Union[T, Job[T]]  # noqa: UP007  # a TypeVar in "|" is no alias to mypy
"""A value, or the work that leads to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What all sessions of a server share."""

    hostname: str = "localhost"
    """The server's name in the greeting, the LHLO reply and trace headers."""
    greeting: str = "LMTP ready"
    """The text behind the host name in the greeting."""
    limits: Limits = field(default_factory=Limits)
    extensions: frozenset[Extension] = STANDARD_EXTENSIONS
    path_rules: PathRules = STRICT
    content_policy: ContentPolicy = INCOMING_CONTENT
    """What happens to bare CR, bare LF, NUL and long lines."""
    auth_mechanisms: tuple[str, ...] = ("PLAIN", "LOGIN")
    """What AUTH offers where that extension is on. PLAIN and LOGIN are for TLS and UNIX sockets
    alone (RFC 4954 4)."""
    keyword_arguments: Mapping[Extension, str] = field(default_factory=dict)
    """What stands behind an extension's keyword in the LHLO reply, where it is the server's to
    choose: `{Extension.FUTURERELEASE: "86400 2027-01-01T00:00:00Z"}` (RFC 4865 3)."""

    observer: Observer | None = None
    """Who watches the sessions; None, and nothing is spent on it."""
    logs_refusals: bool = True
    """Whether refusals of recipients and of content are logged; not where an observer does it."""
    names_refusals: bool = False
    """Whether each refusal of a recipient has the id of its transaction in its text, behind the
    recipient that stands in front or first: it is what log lines have."""
    around: "Around | None" = None
    """What passes each conversation on, and sees what is read and written, without TLS; None, and
    nothing is spent on it."""

    def parser(self) -> CommandParser:
        """A parser for the commands of all sessions with these settings."""
        return CommandParser(self.limits, self.extensions, self.path_rules)


# Sessions that say nothing of others share what they have not said.
_NOTHING: Final[Mapping[str, str | None]] = MappingProxyType({})


def _nothing() -> Mapping[str, str | None]:
    return _NOTHING


def _new_id() -> str:
    return token_urlsafe(12)


@dataclass(slots=True, eq=False, kw_only=True)
class Session:
    """One connection, as far as handlers and logs are concerned."""

    peer: str
    """Who is on the other side, for logs: `192.0.2.1:4711`, `[2001:db8::1]:4711` or `unix`."""
    client_ip: str | None = None
    """The peer's IP address, None on a UNIX socket."""
    listener: str = ""
    """Where the client has connected, as the server names it."""
    id: str = field(default_factory=_new_id)
    """Names the session in logs and replies; printable ASCII without spaces."""
    lhlo_domain: str | None = None
    """What the client called itself in LHLO, None before."""
    tls: str | None = None
    """Protocol and cipher, None without TLS."""
    certificate: Mapping[str, object] | None = None
    """The client's certificate, as `ssl.SSLSocket.getpeercert()` gives it, once verified."""
    proxy: ProxyHeader | None = None
    """What the PROXY header said, None where there was none."""
    trusted: bool = False
    """Whether the peer may speak for others, as `Handler.trusts()` said."""
    user: str | None = None
    """As whom the client acts since AUTH or by XCLIENT, None otherwise."""
    xclient: Mapping[str, str | None] = field(default_factory=_nothing)
    """What XCLIENT has said of the client."""
    xforward: Mapping[str, str | None] = field(default_factory=_nothing)
    """What XFORWARD has said of the message's origin."""
    transactions: int = 0
    """How many transactions have begun."""


@dataclass(slots=True, eq=False, kw_only=True)
class Transaction:
    """One message on its way, from MAIL to the last final reply."""

    session: Session
    id: str
    mail: Mail
    recipients: list[Recipient]
    """Those accepted so far, in RCPT order."""

    @property
    def reverse_path(self) -> Address | None:
        """The envelope's sender; None is the null reverse-path."""
        return self.mail.reverse_path

    def recipient_id(self, recipient: Recipient) -> str:
        """Names an accepted recipient in logs: the transaction's id and its number, from 1, in RCPT
        order, which is that of the final replies. Raises ValueError for another's recipient."""
        return f"{self.id}.{self.recipients.index(recipient) + 1}"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Message:
    """A message held in memory, as the default sink collects it."""

    transaction: Transaction
    content: bytes


Around: TypeAlias = Callable[
    [Session, Generator[Effect, None, None]], Generator[Effect, None, None]
]
"""Makes of the conversation of a session one that yields the same effects, and closes it."""


class Sink(Protocol):
    """Where one message's content goes. Its methods are called in this order."""

    def write(self, data: bytes, /) -> Answer[Reply | None]:
        """Take the next octets: lines end in CRLF, no stuffed dots.

        A negative reply, or an exception, refuses the message for all recipients.
        """

    def deliver(self, recipient: Recipient, /) -> Answer[Reply]:
        """Deliver to one recipient and say how it went: the final reply.

        Called once for each recipient, in RCPT order, when the content is complete. Jobs run at
        the same time; replies leave in order as soon as they are known.
        """

    def close(self) -> None:
        """The message is over, delivered or not. Called once, always; nobody waits for a job.

        When a server is stopped and its grace is over, jobs of `deliver()` may still run.
        """


class Handler:
    """A server's decisions; as it stands, everything is accepted and every message is refused.

    Override `deliver()` for messages held in memory, `open()` for content that is streamed, and
    whatever else there is to decide.
    """

    def connect(self, session: Session, /) -> Answer[Reply | None]:
        """A client has connected. None greets it, 220 with its own words behind the host name; a
        negative reply (421, 554) sends it away."""
        return None

    def trusts(self, session: Session, /) -> bool:
        """Whether the peer may use XCLIENT, XFORWARD and XRCPTFORWARD: nobody, unless told."""
        return False

    def lhlo(self, session: Session, domain: str, /) -> Answer[Reply | None]:
        """LHLO came, with what the client calls itself. None accepts; 250 accepts with words of
        greeting behind the host name; a negative reply (550) refuses."""
        return None

    def mechanism(self, session: Session, name: str, /) -> Mechanism | None:
        """A new exchange for one of `Settings.auth_mechanisms`, None for one that is not known."""
        make = MECHANISMS.get(name)
        return None if make is None else make()

    def authenticate(self, session: Session, credentials: Credentials, /) -> Answer[Reply | None]:
        """Judge what the client gave. None accepts it; 535 refuses (RFC 4954 6)."""
        return Reply(535, "authentication failed", enhanced="5.7.8")

    def mail(self, session: Session, mail: Mail, /) -> Answer[Reply | None]:
        """MAIL came. None accepts; a reply accepts or refuses with its own words."""
        return None

    def rcpt(self, transaction: Transaction, recipient: Recipient, /) -> Answer[Reply | None]:
        """RCPT came. None accepts; a reply accepts or refuses with its own words."""
        return None

    def vrfy(self, session: Session, text: str, /) -> Answer[Reply | None]:
        """VRFY came. None says `252`: try it with RCPT (RFC 5321 3.5.3)."""
        return None

    def open(self, transaction: Transaction, /) -> Answer[Sink | Reply]:
        """Content is about to come. A sink takes it; a negative reply refuses DATA or BDAT."""
        return MemorySink(self.deliver, transaction)

    def deliver(self, message: Message, recipient: Recipient, /) -> Answer[Reply]:
        """Deliver a message held in memory to one recipient, and say how it went."""
        return Reply(550, "this server delivers nothing", enhanced="5.3.2")

    def disconnect(self, session: Session, /) -> None:
        """The session is over; nothing can be said any more, and nobody waits for a job."""


class MemorySink:
    """Collects a message in memory; `Limits.message_size` bounds it."""

    __slots__ = ("_deliver", "_message", "_parts", "_transaction")

    def __init__(
        self,
        deliver: Callable[[Message, Recipient], Answer[Reply]],
        transaction: Transaction,
    ) -> None:
        self._deliver = deliver
        self._transaction = transaction
        self._parts: list[bytes] = []
        self._message: Message | None = None

    def write(self, data: bytes, /) -> None:
        """Keep the octets."""
        self._parts.append(data)

    def deliver(self, recipient: Recipient, /) -> Answer[Reply]:
        """Hand the whole message on for this recipient."""
        if self._message is None:
            self._message = Message(transaction=self._transaction, content=b"".join(self._parts))
            self._parts.clear()
        return self._deliver(self._message, recipient)

    def close(self) -> None:
        """Let the message go."""
        self._parts.clear()
        self._message = None
