"""The handler that puts a store behind a server.

The invariant: a recipient is accepted only with a place for its mail, and that place is where the
message of this transaction goes.
"""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import PurePath
from typing import Final

from lmtp_proto import Answer, Handler, Mail, Recipient, Reply, Session, Transaction

from ._destination import Destination
from ._folders import NoFolderError
from ._outcome import refusal
from ._quota import Quota, QuotaExceeded
from ._store import BUSY, NO_QUOTAS, MaildirSink, MaildirStore
from ._user_limits import UserLimits

_logger: Final = logging.getLogger("mailstore")

Locate = Callable[[Recipient], PurePath | Destination | Reply]
"""Decides where the mail of a recipient goes: the path of its Maildir, below the root of the store,
for the INBOX; a `Destination` for any mailbox; or a reply that refuses the recipient. It is called
for each RCPT and must not block."""

QuotaOf = Callable[[Recipient], Quota | None]
"""Gives the quota of a recipient that `Locate` knows, None for one without. It is called for each
RCPT and must not block."""


class StoreHandler(Handler):
    """Accepts the recipients that `locate` knows and delivers to `store`.

    With `quota`, a recipient is accepted only if a message of the declared SIZE has room. With
    `user_limits`, it is accepted only if there are not too many deliveries to the same Maildir on
    their way: each counts from RCPT on until its message is over or, where that never came, until
    the next MAIL. Recipients with the same destination count once.
    """

    def __init__(
        self,
        store: MaildirStore,
        locate: Locate,
        *,
        quota: QuotaOf | None = None,
        user_limits: UserLimits | None = None,
    ) -> None:
        self._store = store
        self._locate = locate
        self._quota = quota
        # The recipients of the transaction in progress, for each session.
        self._places: dict[Session, dict[Recipient, PurePath | Destination]] = {}
        self._quotas: dict[Session, dict[Recipient, Quota]] = {}
        self._user_limits = user_limits
        self._held: dict[Session, set[PurePath | Destination]] = {}

    def mail(self, session: Session, _mail: Mail, /) -> None:
        """A transaction begins; nothing is left of the one before."""
        self._release(session)
        self._places[session] = {}
        if self._quota is not None:
            self._quotas[session] = {}

    def rcpt(self, transaction: Transaction, recipient: Recipient, /) -> Answer[Reply | None]:
        """Accept the recipient if there is a place for its mail."""
        place = self._locate(recipient)
        if isinstance(place, Reply):
            return place
        session = transaction.session
        known = place in self._held.get(session, ())
        if not (known or self._hold(session, place)):
            text = f"<{recipient}> Too many concurrent deliveries for user"
            return Reply(451, text, enhanced="4.3.0")
        self._places[session][recipient] = place
        quota = None if self._quota is None else self._quota(recipient)
        if quota is None:
            return None
        self._quotas[session][recipient] = quota
        if recipient.parameters.ignore_quota:
            return None
        try:
            folder = self._store.folder_name(place)
        except NoFolderError as error:
            return refusal(error, recipient)
        size = transaction.mail.parameters.size or 0
        check = partial(_check, quota, recipient, size, folder)
        if not known:
            check = partial(self._accept, check, session, place)
        return self._store.in_turn(place, check, refusal(BUSY, recipient))

    def open(self, transaction: Transaction, /) -> MaildirSink:
        """The content goes to the store."""
        session = transaction.session
        sink = self._store.open(
            transaction, self._places[session], self._quotas.get(session, NO_QUOTAS)
        )
        if self._user_limits is not None:
            sink.on_close = partial(self._release, session)
        return sink

    def disconnect(self, session: Session, /) -> None:
        """Forget the session."""
        self._release(session)
        self._places.pop(session, None)
        self._quotas.pop(session, None)

    def _hold(self, session: Session, place: PurePath | Destination) -> bool:
        """Count a delivery to `place`; False where there are too many."""
        if self._user_limits is not None:
            if not self._user_limits.acquire(_user(place)):
                return False
            self._held.setdefault(session, set()).add(place)
        return True

    def _accept(
        self, check: Callable[[], Reply | None], session: Session, place: PurePath | Destination
    ) -> Reply | None:
        """What `check` says; who is refused counts no more."""
        reply = check()
        if reply is not None:
            self._release(session, place)
        return reply

    def _release(self, session: Session, only: PurePath | Destination | None = None) -> None:
        if self._user_limits is None:
            return
        held = self._held.get(session, set()) if only else self._held.pop(session, set())
        for place in [only] if only else list(held):
            # A session may end while a job of its own runs.
            try:
                held.remove(place)
            except KeyError:
                continue
            self._user_limits.release(_user(place))


def _user(place: PurePath | Destination) -> str:
    return str(place.maildir if isinstance(place, Destination) else place)


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
