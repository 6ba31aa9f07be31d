"""The handler of a worker that is nobody in particular: it hands messages to users' agents.

The invariant: each recipient gets the reply that its own user's agent has given, and 451 where that
cannot be had. What reached an agent is stored once for each destination, whatever its addresses.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Final

from lmtp_proto import Answer, Handler, Mail, Recipient, Reply, Session, Transaction
from mailstore import Report, UserLimits

from ._content import Content
from ._packets import encode
from ._pool import AgentPool, Due, Request
from ._report_fields import read_report

_logger: Final = logging.getLogger("lmtp_server")

# The recipients in one packet, in octets of JSON; more go ahead in packets of their own.
_IN_PACKET: Final = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class UserMailbox:
    """Where a recipient's mail goes: a user, by the name that the broker's directory has, and one
    of the user's mailboxes."""

    user: str
    mailbox: str = "INBOX"
    flags: str = ""
    keywords: tuple[str, ...] = ()
    has_quota: bool = False
    """Whether it is worth asking at RCPT if there is room."""


_Found = UserMailbox | Reply

Locate = Callable[[Recipient], _Found | Callable[[], _Found]]
"""Decides where the mail of a recipient goes, or refuses it. It must not block; where it would have
to, it gives a job that decides."""


class AgentHandler(Handler):
    """Accepts the recipients that `locate` knows and delivers by the agents of `pool`.

    Messages above 64 KiB wait in unnamed files in `spool_directory`. `user_limits` count a message
    once for each of its users, as long as `mailstore.StoreHandler` does. `report` is told how each
    delivery went, if agents say so.
    """

    def __init__(
        self,
        pool: AgentPool,
        locate: Locate,
        *,
        spool_directory: str,
        user_limits: UserLimits | None = None,
        report: Report | None = None,
    ) -> None:
        self._pool = pool
        self._report = report
        self._locate = locate
        self._spool_directory = spool_directory
        self._user_limits = user_limits
        # The transaction in progress, for each session.
        self._accepted: dict[Session, _Accepted] = {}

    def mail(self, session: Session, _mail: Mail, /) -> None:
        """A transaction begins; nothing is left of the one before."""
        self.disconnect(session)
        self._accepted[session] = _Accepted(self._user_limits)

    def rcpt(self, transaction: Transaction, recipient: Recipient, /) -> Answer[Reply | None]:
        """Accept the recipient if there is a place for its mail, and room."""
        found = self._locate(recipient)
        if callable(found):
            return partial(self._find, found, transaction, recipient)
        return self._accept(found, transaction, recipient)

    def _find(
        self, find: Callable[[], _Found], transaction: Transaction, recipient: Recipient
    ) -> Reply | None:
        answer = self._accept(find(), transaction, recipient)
        return answer.result() if isinstance(answer, Future) else answer

    def _accept(
        self, place: _Found, transaction: Transaction, recipient: Recipient
    ) -> "Reply | Future[Reply] | None":
        if isinstance(place, Reply):
            return place
        accepted = self._accepted.get(transaction.session)
        if accepted is None:
            # The client has gone while the place was looked for.
            return None
        if not accepted.hold(place.user):
            text = f"<{recipient}> Too many concurrent deliveries for user"
            return Reply(451, text, enhanced="4.3.0")
        accepted.places[recipient] = place
        if not place.has_quota or recipient.parameters.ignore_quota:
            return None
        due = Due(recipient)
        number = self._pool.number()
        packet = encode(
            {
                "do": "check",
                "size": transaction.mail.parameters.size or 0,
                "recipient": _describe(recipient, place, 0, number),
            }
        )
        self._pool.ask(place.user, Request([packet], -1, {number: due}))
        return due.reply

    def open(self, transaction: Transaction, /) -> "AgentSink":
        """The content goes to the agents of those it is for."""
        accepted = self._accepted[transaction.session]
        return AgentSink(self._pool, transaction, accepted, self._spool_directory, self._report)

    def disconnect(self, session: Session, /) -> None:
        """Forget the session."""
        accepted = self._accepted.pop(session, None)
        if accepted is not None:
            accepted.release()


class _Accepted:
    """The recipients of a transaction so far, and the users for whom it counts."""

    def __init__(self, limits: UserLimits | None) -> None:
        self.places: dict[Recipient, UserMailbox] = {}
        self._limits = limits
        self._held: set[str] = set()
        self._over = False
        # Recipients are looked for in threads, and a session may end meanwhile.
        self._lock = threading.Lock()

    def hold(self, user: str) -> bool:
        """Count it for `user`; False where there are too many already."""
        with self._lock:
            if self._limits is None or self._over or user in self._held:
                return True
            if not self._limits.acquire(user):
                return False
            self._held.add(user)
            return True

    def release(self) -> None:
        """Count it no more."""
        with self._lock:
            self._over = True
            while self._held:
                assert self._limits is not None
                self._limits.release(self._held.pop())


class AgentSink:
    """Takes the content of one message and has it delivered (an `lmtp_proto.Sink`)."""

    def __init__(
        self,
        pool: AgentPool,
        transaction: Transaction,
        accepted: _Accepted,
        spool_directory: str,
        report: Report | None = None,
    ) -> None:
        self._pool = pool
        self._report = report
        self._transaction = transaction
        self._accepted = accepted
        self._places = accepted.places
        self._content = Content(spool_directory)
        self._due: dict[Recipient, Due] = {}
        self._left_out: frozenset[Recipient] = frozenset()

    def write(self, data: bytes, /) -> Callable[[], None] | None:
        """Take the next octets; a job, if there is one, raises OSError."""
        return self._content.write(data)

    def leave_out(self, recipients: Iterable[Recipient]) -> None:
        """Before any is delivered to: the message is not for these."""
        self._left_out = frozenset(recipients)

    def deliver(self, recipient: Recipient, /) -> Answer[Reply]:
        """Deliver to one recipient: a reply to come, or a job that leads to one.

        The first call hands the message over for all recipients: one user's agent is to see all
        of that user's at once.
        """
        if not self._due:
            recipients = self._transaction.recipients
            for each in recipients:
                told = None if self._report is None else partial(self._tell, self._report, each)
                self._due[each] = Due(each, told)
            if not self._content.in_memory:
                self._content.use()
                return partial(self._hand_over_file, recipient)
            octets = self._content.octets()
            for user, places in self._users().items():
                self._ask(user, places, octets, -1)
        return self._due[recipient].reply

    def close(self) -> None:
        """Let the message go. Deliveries that were begun come to their end."""
        self._content.release()
        self._accepted.release()

    def _tell(self, report: Report, recipient: Recipient, said: object) -> None:
        read = read_report(said, self._places[recipient].user)
        if read is not None:
            try:
                report(self._transaction, recipient, read)
            except Exception:
                _logger.exception("a report failed")

    def _users(self) -> dict[str, list[tuple[int, Recipient]]]:
        """The recipients of each user, with their places in RCPT order."""
        users: dict[str, list[tuple[int, Recipient]]] = {}
        for index, recipient in enumerate(self._transaction.recipients):
            if recipient in self._left_out:
                continue
            users.setdefault(self._places[recipient].user, []).append((index, recipient))
        return users

    def _hand_over_file(self, recipient: Recipient) -> Reply:
        try:
            for user, places in self._users().items():
                try:
                    descriptor = self._content.descriptor()
                except OSError as error:
                    _logger.error("%s: %s", self._transaction.id, error)
                    for _, each in places:
                        self._due[each].fail()
                else:
                    self._ask(user, places, b"", descriptor)
        finally:
            self._content.release()
        return self._due[recipient].reply.result()

    def _ask(
        self, user: str, places: list[tuple[int, Recipient]], octets: bytes, descriptor: int
    ) -> None:
        packets: list[bytes] = []
        due: dict[int, Due] = {}
        items: list[dict[str, object]] = []
        size = 0
        for index, recipient in places:
            number = self._pool.number()
            due[number] = self._due[recipient]
            item = _describe(recipient, self._places[recipient], index, number)
            size += sum(len(str(value)) for value in item.values())
            items.append(item)
            if size > _IN_PACKET:
                packets.append(encode({"do": "recipients", "recipients": items}))
                items, size = [], 0
        transaction = self._transaction
        session = transaction.session
        reverse_path = transaction.reverse_path
        packets.append(
            encode(
                {
                    "do": "deliver",
                    "id": transaction.id,
                    "peer": session.peer,
                    "client_ip": session.client_ip,
                    "lhlo_domain": session.lhlo_domain,
                    "tls": session.tls,
                    "reverse_path": None if reverse_path is None else str(reverse_path),
                    "envid": transaction.mail.parameters.envid,
                    "count": len(transaction.recipients),
                    "recipients": items,
                },
                octets,
            )
        )
        self._pool.ask(user, Request(packets, descriptor, due))


def _describe(
    recipient: Recipient, place: UserMailbox, index: int, number: int
) -> dict[str, object]:
    orcpt = recipient.parameters.orcpt
    return {
        "to": str(recipient.address),
        "orcpt": [] if orcpt is None else [*orcpt],
        "ignore_quota": recipient.parameters.ignore_quota,
        "index": index,
        "number": number,
        "mailbox": place.mailbox,
        "flags": place.flags,
        "keywords": [*place.keywords],
    }
