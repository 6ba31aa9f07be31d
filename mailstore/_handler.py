"""The handler that puts a store behind a server.

The invariant: a recipient is accepted only with a place for its mail, and that place is where the
message of this transaction goes.
"""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import PurePath
from typing import Final, NamedTuple

from lmtp_proto import Answer, Handler, Mail, Recipient, Reply, Session, Transaction

from ._destination import Destination
from ._folders import NoFolderError
from ._outcome import refusal
from ._quota import Quota, QuotaExceeded
from ._store import MaildirSink, MaildirStore

_logger: Final = logging.getLogger("mailstore")

_Found = PurePath | Destination | Reply

Locate = Callable[[Recipient], _Found | Callable[[], _Found]]
"""Decides where the mail of a recipient goes: the path of its Maildir, below the root of the store,
for the INBOX; a `Destination` for any mailbox; or a reply that refuses the recipient. It is called
for each RCPT and must not block; where it would have to, it gives a job that decides."""

QuotaOf = Callable[[Recipient], Quota | None]
"""Gives the quota of a recipient that `Locate` knows, None for one without. It is called for each
RCPT behind `Locate`, or in its job, and must not block."""


class _Accepted(NamedTuple):
    """The recipients of a transaction so far."""

    places: dict[Recipient, PurePath | Destination]
    quotas: dict[Recipient, Quota]


class StoreHandler(Handler):
    """Accepts the recipients that `locate` knows and delivers to `store`.

    A recipient with a quota, by its `Destination` or by `quota`, is accepted only if a message of
    the declared SIZE has room.
    """

    def __init__(
        self, store: MaildirStore, locate: Locate, *, quota: QuotaOf | None = None
    ) -> None:
        self._store = store
        self._locate = locate
        self._quota = quota
        # The recipients of the transaction in progress, for each session.
        self._accepted: dict[Session, _Accepted] = {}

    def mail(self, session: Session, _mail: Mail, /) -> None:
        """A transaction begins; nothing is left of the one before."""
        self._accepted[session] = _Accepted({}, {})

    def rcpt(self, transaction: Transaction, recipient: Recipient, /) -> Answer[Reply | None]:
        """Accept the recipient if there is a place for its mail."""
        found = self._locate(recipient)
        if callable(found):
            return partial(self._find, found, transaction, recipient)
        return self._accept(found, transaction, recipient)

    def _find(
        self, find: Callable[[], _Found], transaction: Transaction, recipient: Recipient
    ) -> Reply | None:
        answer = self._accept(find(), transaction, recipient)
        return answer() if callable(answer) else answer

    def _accept(
        self, place: _Found, transaction: Transaction, recipient: Recipient
    ) -> Reply | Callable[[], Reply | None] | None:
        if isinstance(place, Reply):
            return place
        accepted = self._accepted.get(transaction.session)
        if accepted is None:
            # The client has gone while the place was looked for.
            return None
        accepted.places[recipient] = place
        quota = place.quota if isinstance(place, Destination) else None
        if self._quota is not None:
            quota = self._quota(recipient)
        if quota is None:
            return None
        accepted.quotas[recipient] = quota
        if recipient.parameters.ignore_quota:
            return None
        try:
            folder = self._store.folder_name(place)
        except NoFolderError as error:
            return refusal(error, recipient)
        size = transaction.mail.parameters.size or 0
        return partial(_check, quota, recipient, size, folder)

    def open(self, transaction: Transaction, /) -> MaildirSink:
        """The content goes to the store."""
        accepted = self._accepted[transaction.session]
        return self._store.open(transaction, accepted.places, accepted.quotas)

    def disconnect(self, session: Session, /) -> None:
        """Forget the session."""
        self._accepted.pop(session, None)


def _check(quota: Quota, recipient: Recipient, size: int, folder: str) -> Reply | None:
    try:
        quota.check(size, folder=folder)
    except QuotaExceeded as exceeded:
        return exceeded.reply(recipient)
    except OSError as error:
        _logger.error(
            "the quota of <%s> cannot be told: %s",
            str(recipient).encode("ascii", "backslashreplace").decode(),
            error,
        )
        return refusal(error, recipient)
    return None
