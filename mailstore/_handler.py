"""The handler that puts a store behind a server.

The invariant: a recipient is accepted only with a place for its mail, and that place is where the
message of this transaction goes.
"""

from collections.abc import Callable
from pathlib import PurePath

from lmtp_proto import Handler, Mail, Recipient, Reply, Session, Transaction

from ._destination import Destination
from ._store import MaildirSink, MaildirStore

Locate = Callable[[Recipient], PurePath | Destination | Reply]
"""Decides where the mail of a recipient goes: the path of its Maildir, below the root of the store,
for the INBOX; a `Destination` for any mailbox; or a reply that refuses the recipient. It is called
for each RCPT and must not block."""


class StoreHandler(Handler):
    """Accepts the recipients that `locate` knows and delivers to `store`."""

    def __init__(self, store: MaildirStore, locate: Locate) -> None:
        self._store = store
        self._locate = locate
        # The recipients of the transaction in progress, for each session.
        self._places: dict[Session, dict[Recipient, PurePath | Destination]] = {}

    def mail(self, session: Session, _mail: Mail, /) -> None:
        """A transaction begins; nothing is left of the one before."""
        self._places[session] = {}

    def rcpt(self, transaction: Transaction, recipient: Recipient, /) -> Reply | None:
        """Accept the recipient if there is a place for its mail."""
        place = self._locate(recipient)
        if isinstance(place, Reply):
            return place
        self._places[transaction.session][recipient] = place
        return None

    def open(self, transaction: Transaction, /) -> MaildirSink:
        """The content goes to the store."""
        return self._store.open(transaction, self._places[transaction.session])

    def disconnect(self, session: Session, /) -> None:
        """Forget the session."""
        self._places.pop(session, None)
