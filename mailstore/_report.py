"""How a delivery went, for logs and statistics.

The invariant: what a report says was looked up once for each message; where nobody asks for reports
nothing is looked up.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import Final

from lmtp_proto import Recipient, Transaction

from ._destination import Destination
from ._header import HeaderFields
from ._mailbox_name import INBOX, Mailbox
from ._spool import Spool

_NO_FIELDS: Final = HeaderFields()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryReport:
    """How the delivery of a message to one recipient went."""

    user: str
    """Who the recipient is, as its `Destination` says."""
    mailbox: str
    """The mailbox that got the message, by the name that people see, or was to get it."""
    error: Exception | None = None
    """Why it was not stored; None if it was."""
    storage_id: str = ""
    """The name of its file, without flags; empty where it was not stored."""
    size: int = 0
    """Octets as stored, without what was written in front."""
    virtual_size: int = 0
    """The same with every line end as CRLF."""
    seconds: float = 0.0
    """From the end of the content until it was stored, or could not be."""
    fields: HeaderFields = _NO_FIELDS
    """What the header says, as it came."""


Report = Callable[[Transaction, Recipient, DeliveryReport], object]
"""Called for each recipient when its delivery is over, in any thread, before it is answered. What
it raises is logged and otherwise ignored."""


class Landing:
    """The mailbox of a copy: the one that it is for, and once it lies there, the one it lies in;
    None is one that there is not."""

    __slots__ = ("mailbox",)

    def __init__(self, mailbox: Mailbox | None) -> None:
        self.mailbox = mailbox


class Reporter:
    """Reports the deliveries of one message, which `spool` has."""

    __slots__ = ("_destinations", "_report", "_since", "_spool", "_transaction")

    def __init__(
        self,
        report: Report,
        transaction: Transaction,
        destinations: Mapping[Recipient, PurePath | Destination],
        spool: Spool,
    ) -> None:
        self._report: Final = report
        self._transaction = transaction
        self._destinations = destinations
        self._spool = spool
        self._since = 0.0

    def begin(
        self, landing: Landing, name: str = ""
    ) -> Callable[[Recipient, Exception | None], None]:
        """What is to be called for each recipient of the copy that becomes the file `name`. The
        content is complete."""
        if not self._since:
            self._since = time.monotonic()
        # The spool may be closed by then.
        spool = self._spool
        return partial(self._tell, landing, name, spool.size, spool.virtual_size, spool.fields)

    def _tell(
        self,
        landing: Landing,
        name: str,
        size: int,
        virtual_size: int,
        fields: HeaderFields,
        recipient: Recipient,
        error: Exception | None,
    ) -> None:
        destination = self._destinations[recipient]
        user, mailbox = "", "INBOX"
        if isinstance(destination, Destination):
            user = destination.user
            if landing.mailbox != INBOX:
                mailbox = destination.mailbox
        report = DeliveryReport(
            user=user,
            mailbox=mailbox,
            error=error,
            storage_id=name if error is None else "",
            size=size,
            virtual_size=virtual_size,
            seconds=time.monotonic() - self._since,
            fields=fields,
        )
        self._report(self._transaction, recipient, report)
