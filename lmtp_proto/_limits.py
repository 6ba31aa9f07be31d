"""Every limit of a session in one frozen object, each with its source."""

from dataclasses import dataclass
from typing import Final

# A year: what every runtime's timers can count.
_LONGEST: Final = 31_536_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a session takes before it refuses. Sizes are octets, times are seconds.

    The defaults are not below what the RFCs let a peer rely on. Raises ValueError for a limit with
    which no session could be held.
    """

    command_line: int = 4096
    """Longest command line, CRLF included. RFC 5321 4.5.3.1.4 wants 512 at least, and each
    extension adds its own; Dovecot takes 4096."""
    parameters: int = 20
    """Parameters of one MAIL or RCPT; more are answered `555 5.5.4` (RFC 5321 4.1.1.11). There are
    11 for MAIL, and no extension lets one be given twice."""
    reply: int = 65_536
    """Longest reply a client reads, all its lines together."""
    recipients: int = 1000
    """Accepted recipients of a transaction. RFC 5321 4.5.3.1.8 wants 100 at least; the next is
    answered `452 4.5.3` (4.5.3.1.10)."""
    transactions: int | None = None
    """Transactions of a session; the next MAIL ends it with `421 4.5.3` (RFC 9422 5). None: any
    number."""
    commands: int | None = None
    """Command lines of a session, whatever comes of them, and answers to challenges; the next one
    ends it with `421 4.7.0`. No RFC has such a limit: MTAs that keep connections for many messages,
    as Postfix does, take up another one then. None: any number."""
    session_time: float | None = None
    """How long a session may last. It is ended with `421 4.4.2` (RFC 5321 3.8) when the server
    would read or serve the next command, not while it has the content of a message or a part of
    it: that has its own timeout. None: as long as the others are kept."""
    message_size: int = 268_435_456
    """Largest content. RFC 1870: declared larger it is refused at MAIL, found larger it is read to
    its end and refused for every recipient with `552 5.3.4`."""
    discard: int = 268_435_456
    """Octets of refused content that are read and dropped to stay in step, before the session is
    ended with 421."""
    faults: int = 10
    """Commands in a row that may be wrong; the next one ends the session with `421 4.7.0`, as
    Dovecot does. What a client had sent before it could read of a refused MAIL or chunk is not
    counted (RFC 2920 3.1)."""
    command_timeout: float = 300.0
    """For a whole command to arrive. RFC 5321 4.5.3.2.7: at least 5 minutes."""
    content_timeout: float = 300.0
    """For the next octets of content. RFC 5321 4.5.3.2.5 lets a client pause for 3 minutes."""
    content_rate: int = 500
    """Octets a second at which content has to come, on average, `content_timeout` given in advance;
    time that the server itself takes does not count. Postfix's smtpd_min_data_rate. 0: none."""
    handshake_timeout: float = 60.0
    """For a TLS handshake, and for a PROXY header, which its sender writes at once (PROXY protocol
    2: at least 3 seconds)."""
    write_timeout: float = 300.0
    """For the peer to read what is sent to it. Nothing is read from it meanwhile, so that a peer
    which does not read is owed the replies of one write at most: a hundred to commands, and one for
    each of `recipients` (RFC 2920 3.2)."""
    reply_timeout: float = 300.0
    """A client's, for the reply to a command. RFC 5321 4.5.3.2.1 to .4."""
    final_reply_timeout: float = 600.0
    """A client's, for each reply after the content. RFC 5321 4.5.3.2.6."""
    window: int = 100
    """Commands a client sends before it reads a reply, so that neither side can fill the other's
    buffers (RFC 2920 3.1)."""

    def __post_init__(self) -> None:
        for name, least in (
            ("command_line", 512),
            # SIZE and BODY, which nearly every client gives.
            ("parameters", 2),
            ("reply", 512),
            ("recipients", 1),
            ("transactions", 1),
            ("commands", 1),
            ("message_size", 1),
            ("discard", 0),
            ("content_rate", 0),
            ("faults", 1),
            ("window", 1),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"Limits.{name} is {value}; at least {least}")
        for name in (
            "command_timeout",
            "content_timeout",
            "handshake_timeout",
            "write_timeout",
            "reply_timeout",
            "final_reply_timeout",
            "session_time",
        ):
            value = getattr(self, name)
            if value is not None and not 0 < value < _LONGEST:
                raise ValueError(f"Limits.{name} is {value}; 0 to {_LONGEST} seconds")
