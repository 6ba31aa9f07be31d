"""Users: from a recipient to the place of its mail.

The invariant: a recipient is refused for good only if there is no such user; whatever else keeps
mail from a user is the server's fault or the administrator's, answered 451 with a line in the log.
Text from the wire reaches a path only through the templates, which check it, and the detail only as
the name of a mailbox, which the store checks.
"""

import logging
import os
import stat
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import PurePosixPath
from typing import Final

from lmtp_proto import Address, Recipient, Reply
from mailstore import Destination, Quota

from ._directory import Directory
from ._entry import DirectoryError, NotFound, UserEntry
from ._names import NameReader, NameRules
from ._template import MailTemplate
from ._variables import Names

_logger: Final = logging.getLogger("lmtp_server")

# Seconds for which a home that was looked at is taken to be what it was, and how many.
_HOME_TTL: Final = 60.0
_HOMES: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidIds:
    """The numbers that users and groups may have; a last one of 0 is no bound."""

    first_uid: int = 500
    last_uid: int = 0
    first_gid: int = 1
    last_gid: int = 0

    def fault(self, entry: UserEntry) -> str | None:
        """What is wrong with the numbers of `entry`."""
        for name, number, first, last in (
            ("uid", entry.uid, self.first_uid, self.last_uid),
            ("gid", entry.gid, self.first_gid, self.last_gid),
        ):
            if number is None:
                continue
            if number == 0:
                return f"its {name} is 0: no mail is delivered as root"
            if number < first:
                return f"its {name} {number} is below first_valid_{name} {first}"
            if last and number > last:
                return f"its {name} {number} is above last_valid_{name} {last}"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A user, and where its mail goes."""

    user: str
    """The name that was looked up, and finds the user again; the entry may have another."""
    entry: UserEntry
    maildir: PurePosixPath
    """Absolute; what leads to a home or to the root of the templates has no links in it."""
    detail: str = ""
    """What stood behind the delimiter in the recipient."""


Found = Located | Reply


class UserError(Exception):
    """Nothing can be delivered to a user now. The text says why, for the log."""


class Users:
    """The users of a `directory`, found by the recipients of mail.

    `mail` is the template of the Maildirs of users whose entries name none. `quota`, if it is
    given, makes the quota of a user. With `detail_is_mailbox` mail goes to the mailbox that the
    detail names. `own_uid` is the one UID that mail is delivered with; None where it is delivered
    with each user's own.
    """

    def __init__(
        self,
        directory: Directory,
        mail: MailTemplate,
        *,
        names: NameRules,
        ids: ValidIds = ValidIds(),
        own_uid: int | None = None,
        detail_is_mailbox: bool = False,
        quota: Callable[[Located], Quota | None] | None = None,
    ) -> None:
        self._directory = directory
        self._mail = mail
        # The store follows no links; above the first variable the administrator's are good.
        self._mail_root = None if mail.root is None else PurePosixPath(os.path.realpath(mail.root))
        self._names: NameReader = names.reader()
        self._ids = ids
        self._own_uid = own_uid
        self._detail_is_mailbox = detail_is_mailbox
        self._quota = quota
        self._homes = _Homes(seen_by_others=own_uid is None)
        # Recipients come back, and often what becomes of them never changes.
        self._found = lru_cache(maxsize=1024)(self._recall) if directory.constant else self._recall

    def locate(
        self, recipient: Recipient
    ) -> Destination | Reply | Callable[[], Destination | Reply]:
        """For a `mailstore.StoreHandler`: where the recipient's mail goes, or a job that says."""
        found = self.find(recipient)
        if isinstance(found, Located | Reply):
            return self._destination(found)
        return partial(self._locate, found)

    def _locate(self, find: Callable[[], Found]) -> Destination | Reply:
        return self._destination(find())

    def _destination(self, found: Found) -> Destination | Reply:
        if isinstance(found, Reply):
            return found
        mailbox = found.detail if self._detail_is_mailbox and found.detail else "INBOX"
        quota = None if self._quota is None else self._quota(found)
        return Destination(found.maildir, mailbox=mailbox, quota=quota, user=found.entry.name)

    def find(self, recipient: Recipient) -> Found | Callable[[], Found]:
        """The user of a recipient, a refusal, or a job that finds it and may block."""
        return self._found(recipient.address)

    def _recall(self, address: Address) -> Found | Callable[[], Found]:
        if address.domain.startswith("["):
            return Reply(550, f"<{address}> Address literals have no users here", enhanced="5.1.2")
        asked, detail = self._names.read(address)
        user = self._names.normal(asked)
        if user is None:
            return _unknown(address, asked)
        try:
            entry = self._directory.recall(user)
        except DirectoryError as error:
            return _failed(address, user, error)
        if entry is None:
            return partial(self._find, address, user, detail)
        if isinstance(entry, NotFound):
            return _unknown(address, user)
        try:
            maildir = self._maildir(entry, may_block=False)
        except UserError as error:
            return _failed(address, user, error)
        if maildir is None:
            return partial(self._find, address, user, detail)
        return Located(user=user, entry=entry, maildir=maildir, detail=detail)

    def _find(self, address: Address, user: str, detail: str) -> Found:
        try:
            found = self.lookup(user)
        except (DirectoryError, UserError) as error:
            return _failed(address, user, error)
        if isinstance(found, NotFound):
            return _unknown(address, user)
        return replace(found, detail=detail)

    def lookup(self, user: str) -> Located | NotFound:
        """The user of that name; may block. Raises DirectoryError and UserError."""
        name = self._names.normal(user)
        entry = NotFound(user) if name is None else self._directory.lookup(name)
        if isinstance(entry, NotFound):
            return entry
        maildir = self._maildir(entry, may_block=True)
        assert maildir is not None
        return Located(user=name or user, entry=entry, maildir=maildir)

    def _maildir(self, entry: UserEntry, *, may_block: bool) -> PurePosixPath | None:
        """Where the user's mail goes; None if its home has to be looked at. Raises UserError."""
        fault = self._ids.fault(entry)
        if fault is not None:
            raise UserError(fault)
        if self._own_uid is not None and entry.uid not in {None, self._own_uid}:
            raise UserError(
                f"its uid is {entry.uid}, and this process, with uid {self._own_uid}, cannot"
                " become that user"
            )
        home = None
        if entry.home is not None:
            home = self._homes.recall(entry.home, entry.uid)
            if home is None and not may_block:
                return None
            home = home or self._homes.look(entry.home, entry.uid)
        if entry.mail is not None:
            return _moved(PurePosixPath(entry.mail), entry.home, home)
        root = self._mail_root
        if root is None:
            if home is None:
                raise UserError(f"it has no home, which the path of its mail {self._mail} needs")
            root = PurePosixPath(home)
        try:
            return root / self._mail.expand(Names.of(entry.name, home))
        except ValueError as error:
            raise UserError(f"it has no place in the mail path {self._mail}: {error}") from None


class _Homes:
    """Homes that were looked at, for a while: links in a path, an automounter and a dead file
    server are not for the thread of who serves. `seen_by_others`: who writes there may go where
    this process may not."""

    def __init__(self, *, seen_by_others: bool) -> None:
        self._seen_by_others = seen_by_others
        # By home and owner: until when, and the path without links. Oldest first.
        self._known: OrderedDict[tuple[str, int | None], tuple[float, str]] = OrderedDict()

    def recall(self, home: str, uid: int | None) -> str | None:
        known = self._known.get((home, uid))
        if known is None or time.monotonic() >= known[0]:
            return None
        return known[1]

    def look(self, home: str, uid: int | None) -> str:
        """The path without links. Raises UserError for what is no directory of that user."""
        real = os.path.realpath(home)
        try:
            status = os.stat(real)
        except FileNotFoundError:
            # It is made with the first mail, where that may be.
            return real
        except OSError as error:
            if self._seen_by_others and isinstance(error, PermissionError):
                return real
            raise UserError(f"its home {home!a} cannot be looked at: {error.strerror}") from error
        if not stat.S_ISDIR(status.st_mode):
            raise UserError(f"its home {home!a} is no directory")
        if uid is not None and status.st_uid != uid:
            raise UserError(f"its home {home!a} belongs to uid {status.st_uid}, not to {uid}")
        self._known[home, uid] = time.monotonic() + _HOME_TTL, real
        if len(self._known) > _HOMES:
            self._known.popitem(last=False)
        return real


def _moved(path: PurePosixPath, home: str | None, real: str | None) -> PurePosixPath:
    """`path` with the home's path without links in place of the home's."""
    if home is None or real is None or not path.is_relative_to(home):
        return path
    return PurePosixPath(real) / path.relative_to(home)


def _unknown(address: Address, user: str) -> Reply:
    return Reply(550, f"<{address}> User doesn't exist: {user}", enhanced="5.1.1")


def _failed(address: Address, user: str, error: Exception) -> Reply:
    _logger.error("user %a: %s", user, error)
    return Reply(451, f"<{address}> Temporary internal error", enhanced="4.3.0")
