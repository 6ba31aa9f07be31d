"""Where a recipient's mail goes.

The invariant: a destination can be delivered to as far as its parts tell; what the name of its
mailbox is worth is the store's to say, which knows how names are written.
"""

from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Final

from ._keywords import check_keyword
from ._quota import Quota

# maildir(5), as Dovecot writes and reads them: draft, flagged, passed on, replied, seen, trashed.
_FLAGS: Final = frozenset("DFPRST")


@dataclass(frozen=True, slots=True)
class Destination:
    """A mailbox, and how a message is to lie in it.

    Raises ValueError for flags and keywords that are none.
    """

    maildir: PurePath
    """The user's Maildir, below the root of the store, absolute or relative to it."""
    mailbox: str = "INBOX"
    """The name of the mailbox as people see it."""
    flags: str = ""
    """Flags that the message has from the beginning, of the letters DFPRST of maildir(5)."""
    keywords: tuple[str, ...] = ()
    """IMAP keywords that it has from the beginning."""
    quota: Quota | None = field(default=None, compare=False)
    """The user's quota, for a `StoreHandler` that is not told otherwise."""
    user: str = field(default="", compare=False)
    """Who the user is, for reports."""

    def __post_init__(self) -> None:
        if not _FLAGS.issuperset(self.flags):
            raise ValueError(
                f"{self.flags!a} are no flags: allowed are the letters {''.join(sorted(_FLAGS))}"
            )
        for keyword in self.keywords:
            check_keyword(keyword)
