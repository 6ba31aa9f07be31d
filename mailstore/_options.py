"""How a store treats folders, and what it writes in front of messages.

The invariant: options are checked when they are made, so that no delivery fails for them.
"""

import enum
import re
from dataclasses import dataclass
from typing import Final

from ._mailbox_name import NameEncoding

# RFC 5322 2.2.
_FIELD_NAME: Final = re.compile(r"[!-9;-~]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderOptions:
    """Folders of Maildirs (Maildir++). Raises ValueError for a separator that can be none."""

    separator: str = "."
    """What stands between the levels of a mailbox's name; on disk it is always a dot."""
    encoding: NameEncoding = NameEncoding.MODIFIED_UTF_7
    """How names beyond ASCII are written on disk."""
    autocreate: bool = False
    """Make a folder that is missing, as Dovecot's `lda_mailbox_autocreate`."""
    autosubscribe: bool = False
    """Subscribe to a folder that was made, as Dovecot's `lda_mailbox_autosubscribe`."""
    refuse_missing: bool = False
    """Answer 550 where there is no such folder and none is made; else the INBOX gets the mail."""
    lock_timeout: float = 30.0
    """Seconds to wait for a lock on a user's subscriptions or keywords, and for a turn where many
    deliveries to one Maildir wait; 451 4.2.0 then."""

    def __post_init__(self) -> None:
        separator = self.separator
        if len(separator) != 1 or not separator.isascii() or not separator.isprintable():
            raise ValueError(f"{separator!a} is no separator: it is one printable ASCII character")


class DeliveredTo(enum.StrEnum):
    """What Delivered-To says, as Dovecot's `lmtp_hdr_delivery_address`."""

    FINAL = "final"
    """The recipient of RCPT."""
    ORIGINAL = "original"
    """The original recipient; that of RCPT where no other is known."""
    NONE = "none"
    """There is no such field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceOptions:
    """The fields in front of a message. Raises ValueError for what is no name of a field, or for a
    negative limit."""

    return_path: bool = True
    """Whether there is a Return-Path, in place of any that the message brings along."""
    delivered_to: DeliveredTo = DeliveredTo.FINAL
    received: bool = True
    """Whether there is a Received, as Dovecot's `lmtp_add_received_header`."""
    original_recipient_header: str = ""
    """The field that names the original recipient where no ORCPT does, such as `X-Original-To`
    (Dovecot's `lda_original_recipient_header`). It must be one that the client takes care of."""
    hop_limit: int = 100
    """A message that brings along more fields Received is taken for one that goes in circles, and
    is refused with 554 5.4.6 (RFC 5321 6.3); 0 for any number."""

    def __post_init__(self) -> None:
        name = self.original_recipient_header
        if name and _FIELD_NAME.fullmatch(name) is None:
            raise ValueError(f"{name!a} is no name of a header field")
        if self.hop_limit < 0:
            raise ValueError(f"the limit of hops {self.hop_limit} is negative: 0 is none")
