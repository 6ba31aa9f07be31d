"""The handler that puts a store behind a server.

The invariant: a recipient is accepted only with a place for its mail, and that place is where the
message of this transaction goes.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import PurePath
from typing import Final, NamedTuple

from lmtp_proto import Answer, Handler, Mail, Recipient, Reply, Session, Transaction

from ._destination import Destination
from ._folders import NoFolderError
from ._outcome import refusal
from ._quota import Quota, QuotaExceeded
from ._report import Report
from ._store import BUSY, MaildirSink, MaildirStore
from ._user_limits import UserLimits

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
    held: set[PurePath | Destination]
    """Where its deliveries count for the limits of their users."""


class StoreHandler(Handler):
    """Accepts the recipients that `locate` knows and delivers to `store`.

    A recipient with a quota, by its `Destination` or by `quota`, is accepted only if a message of
    the declared SIZE has room. With `user_limits`, it is accepted only if there are not too many
    deliveries to the same Maildir on their way: each counts from RCPT on until its message is over
    or, where that never came, until the next MAIL. Recipients with the same destination count once.

    `report` is told how each delivery went.
    """

    def __init__(
        self,
        store: MaildirStore,
        locate: Locate,
        *,
        quota: QuotaOf | None = None,
        user_limits: UserLimits | None = None,
        report: Report | None = None,
    ) -> None:
        self._store = store
        self._locate = locate
        self._quota = quota
        self._user_limits = user_limits
        self._report = report
        # The recipients of the transaction in progress, for each session.
        self._accepted: dict[Session, _Accepted] = {}

    def mail(self, session: Session, _mail: Mail, /) -> None:
        """A transaction begins; nothing is left of the one before."""
        self._forget(session)
        self._accepted[session] = _Accepted({}, {}, set())

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
        if isinstance(answer, Future):
            return answer.result()
        return answer() if callable(answer) else answer

    def _accept(
        self, place: _Found, transaction: Transaction, recipient: Recipient
    ) -> Reply | Callable[[], Reply | None] | Future[Reply | None] | None:
        if isinstance(place, Reply):
            return place
        session = transaction.session
        accepted = self._accepted.get(session)
        if accepted is None:
            # The client has gone while the place was looked for.
            return None
        # Hashing a path takes longer than all the rest.
        known = self._user_limits is not None and place in accepted.held
        if not (known or self._hold(accepted, place)):
            text = f"<{recipient}> Too many concurrent deliveries for user"
            return Reply(451, text, enhanced="4.3.0")
        if self._accepted.get(session) is not accepted:
            # It has gone since.
            self._release(accepted)
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
            if not known:
                self._give_back(accepted, place)
            return refusal(error, recipient)
        size = transaction.mail.parameters.size or 0
        check = partial(_check, quota, recipient, size, folder)
        if not known:
            check = partial(self._keep_if, check, accepted, place)
        return self._store.in_turn(place, check, refusal(BUSY, recipient))

    def open(self, transaction: Transaction, /) -> MaildirSink:
        """The content goes to the store."""
        accepted = self._accepted[transaction.session]
        sink = self._store.open(transaction, accepted.places, accepted.quotas, report=self._report)
        if self._user_limits is not None:
            sink.on_close = partial(self._release, accepted)
        return sink

    def disconnect(self, session: Session, /) -> None:
        """Forget the session."""
        self._forget(session)

    def _forget(self, session: Session) -> None:
        accepted = self._accepted.pop(session, None)
        if accepted is not None:
            self._release(accepted)

    def _hold(self, accepted: _Accepted, place: PurePath | Destination) -> bool:
        """Count a delivery to `place`; False where there are too many."""
        if self._user_limits is not None:
            if not self._user_limits.acquire(_user(place)):
                return False
            accepted.held.add(place)
        return True

    def _keep_if(
        self,
        check: Callable[[], Reply | None],
        accepted: _Accepted,
        place: PurePath | Destination,
    ) -> Reply | None:
        """What `check` says; who is refused counts no more."""
        reply = check()
        if reply is not None:
            self._give_back(accepted, place)
        return reply

    def _release(self, accepted: _Accepted) -> None:
        for place in list(accepted.held):
            self._give_back(accepted, place)

    def _give_back(self, accepted: _Accepted, place: PurePath | Destination) -> None:
        try:
            accepted.held.remove(place)
        except KeyError:
            # A session may end while a job of its own runs.
            return
        if self._user_limits is not None:
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
