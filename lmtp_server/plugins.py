"""What plugins are written with: the hooks, and what they are told.

A plugin is a callable that an entry point of the group `lmtp_server.plugins` names. It is called
with its table `[plugin.NAME]`, without side effects, and gives an object with hooks: methods that
`hookimpl` marks, named like those of `Hooks`, with all or some of their parameters. It raises
ValueError for a table that is no good: its arguments are the faults, a text each.

The invariant: hooks run in threads of their own or of the runtime, never on an event loop; one that
raises is logged, and ends no session.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from email.parser import BytesHeaderParser
from functools import cached_property

from pluggy import HookimplMarker, HookspecMarker

from lmtp_proto import Recipient, Reply, Session, Transaction
from lmtp_server._logs import decoded

__all__ = ["Content", "Delivery", "Hooks", "MakePlugin", "hookimpl", "hookspec"]

hookspec = HookspecMarker("lmtp_server")
"""Marks the hooks that there are."""
hookimpl = HookimplMarker("lmtp_server")
"""Marks a hook of a plugin. Wrappers (`wrapper`, `hookwrapper`) are not supported."""

MakePlugin = Callable[[Mapping[str, object]], object]
"""What an entry point names."""


@dataclass(eq=False)
class Content:
    """A message, as far as plugins are told of it."""

    header: bytes
    """Its header section, without trace fields of this server; at most 64 KiB."""
    size: int
    """Its octets, with lines that end in CRLF."""
    lines: int
    """Its lines."""

    @cached_property
    def fields(self) -> Message:
        """Its header fields, as `email` reads them."""
        return BytesHeaderParser().parsebytes(self.header)

    def text(self, name: str) -> str:
        """A header field as people read it, on one line; empty where there is none."""
        for found, value in self.fields.raw_items():
            if found.lower() == name.lower():
                # RFC 6532: what is no ASCII is UTF-8, which `email` keeps as octets.
                octets = str(value).encode("utf-8", "surrogateescape")
                return decoded(b" ".join(octets.split()), len(octets))
        return ""


@dataclass(frozen=True, eq=False, kw_only=True)
class Delivery:
    """A message on its way to one recipient."""

    transaction: Transaction
    recipient: Recipient
    user: str
    """Whose mail it is; empty where the directory can say it no more."""
    mailbox: str
    """The mailbox that it goes to, as people see its name."""
    content: Content = field(repr=False)


class Hooks:
    """The hooks. Those that judge answer None, or a negative reply, which refuses; the first reply
    counts. One that raises, or answers what is no negative reply, refuses for now: 451 4.3.0, and
    421 at the connection."""

    @hookspec
    def lmtp_started(self) -> None:
        """A worker is about to accept connections. Threads are started here."""

    @hookspec
    def lmtp_stopped(self) -> None:
        """The worker has ended its sessions."""

    @hookspec(firstresult=True)
    def lmtp_connect(self, session: Session) -> Reply | None:
        """A client has connected; 421 and 554 send it away."""

    @hookspec(firstresult=True)
    def lmtp_rcpt(self, transaction: Transaction, recipient: Recipient) -> Reply | None:
        """RCPT came, and the directory was not asked yet."""

    @hookspec(firstresult=True)
    def lmtp_before_delivery(self, delivery: Delivery) -> Reply | None:
        """The content is complete."""

    @hookspec
    def lmtp_after_delivery(self, delivery: Delivery, reply: Reply) -> None:
        """`reply` is the final reply for the recipient. Nobody waits for this hook: it is called in
        a thread of its own, one delivery after the other."""
