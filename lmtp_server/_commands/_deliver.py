"""The command `deliver`: one message for one user, as Dovecot's `dovecot-lda`.

The invariant: exit code 0 means that the message is on disk; every other says in the words of
sysexits.h whether trying again can help. No mail is sent: a message that is refused is left to who
has called, whose business it is to tell the sender.
"""

import logging
import os
import pwd
import re
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePosixPath
from typing import Final

from lmtp_proto import (
    Address,
    Mail,
    OriginalRecipient,
    PathError,
    RcptParameters,
    Recipient,
    Reply,
    Session,
    Transaction,
    parse_mailbox,
)
from lmtp_server import _logs, _mail_root
from lmtp_server._components import Quotas, make_store, store_root
from lmtp_server._logs import DeliveryLog, LineFormat
from lmtp_server._settings import ServeSettings
from lmtp_server._users import Located, MailTemplate, Names, UserEntry
from mailstore import DeliveredTo, Destination, TraceOptions, deliver_one

from ._as_user import CommandError, become, failure, find

_logger: Final = logging.getLogger("lmtp_server")

_PIECE: Final = 64 * 1024
_FROM_LINE: Final = re.compile(rb"From +(\S+)")
_KEPT: Final = frozenset({"HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TZ", "USER"})
# As dovecot-lda: whoever calls has added the fields that it wants.
_TRACE: Final = TraceOptions(return_path=False, delivered_to=DeliveredTo.NONE, received=False)
_NOBODY: Final = Address("nobody", "")
_PATH: Final = re.compile(r"^<.*?> ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the flags say; None is a flag that was not given."""

    user: str | None = None
    sender: str | None = None
    original: str | None = None
    recipient: str | None = None
    mailbox: str | None = None
    path: str | None = None
    explain: bool = False
    """Whether standard error gets what the sender of a refused message may be told."""
    keep_environment: bool = False


def deliver(settings: ServeSettings, order: Order) -> int:
    """Deliver one message; the exit code."""
    _configure_log(settings)
    if not order.keep_environment:
        for name in set(os.environ) - _KEPT:
            del os.environ[name]
    try:
        reply = _deliver(settings, order)
    except CommandError as error:
        if error.text and (order.explain or error.code == os.EX_USAGE):
            sys.stderr.write(f"{error.text}\n")
        return error.code
    if reply.code < 300:
        return os.EX_OK
    if order.explain:
        sys.stderr.write(_reason(reply) + "\n")
    return os.EX_TEMPFAIL if reply.code < 500 else os.EX_NOPERM


def _configure_log(settings: ServeSettings) -> None:
    """Log where the daemon logs, to files of whom its workers run as."""
    if os.geteuid() != 0:
        _logs.configure_one_shot(settings.log.options)
        return
    # For root alone: these modules take as long as the rest.
    from lmtp_server._agents import who_serves
    from lmtp_server._privileges import PrivilegesError

    try:
        identity = who_serves(settings).identity
    except PrivilegesError as error:
        _logs.configure_one_shot(_logs.LogOptions())
        _logger.warning("nothing is logged to files: %s", error)
        return
    owner = None if identity is None else (identity.uid, identity.gid)
    _logs.configure_one_shot(settings.log.options, owner)


def _deliver(settings: ServeSettings, order: Order) -> Reply:
    """Find the user, become that user, and deliver. Raises CommandError."""
    # Opened as who has called: the user may not be allowed to.
    descriptor = _open(order.path)
    if order.user is None:
        located, root = _own(settings), "/"
    else:
        located, root = find(settings, order.user), store_root(settings)
    try:
        become(located.entry)
        if root != "/":
            _mail_root.make(root)
        store = make_store(settings, root=root, trace=_TRACE)
        quotas = Quotas(settings, root=root)
    except OSError as error:
        raise failure(located.entry.name, error) from error
    destination = Destination(
        located.maildir,
        mailbox=order.mailbox or "INBOX",
        quota=quotas.of(located),
        user=located.entry.name,
    )
    log = DeliveryLog(
        LineFormat(settings.log.deliver_format),
        LineFormat(settings.log.prefix, prefix=True),
        service="lda",
        describe=_reason,
    )
    pieces = _pieces(descriptor)
    try:
        first, sender = _without_from_line(_first(pieces))
        transaction = _transaction(located.entry.name, order, sender)
        content = chain([first], pieces)
        log.transaction_begun(transaction)
        reply = deliver_one(store, transaction, destination, content, report=log.report)
        (recipient,) = transaction.recipients
        log.recipient_answered(transaction, recipient, reply, 0.0)
        return reply
    except OSError as error:
        raise failure(located.entry.name, error) from error
    finally:
        store.close()
        quotas.finish_warnings()
        quotas.close()


def _reason(reply: Reply) -> str:
    """What a refusal says, without the recipient in front: others say whom it is about."""
    return _PATH.sub("", reply.text)


def _open(path: str | None) -> int:
    if path is None:
        return sys.stdin.fileno()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        reason = "it is no file"
    except OSError as error:
        reason = str(error.strerror)
    _logger.error("the message cannot be read from %a: %s", path, reason)
    raise CommandError(os.EX_TEMPFAIL)


def _own(settings: ServeSettings) -> Located:
    """The user who runs the command, as the environment has it. Raises CommandError."""
    uid = os.geteuid()
    if uid == 0:
        raise CommandError(
            os.EX_USAGE, "lmtp-server: root receives no mail: say whose it is with -d USER"
        )
    try:
        account = pwd.getpwuid(uid)
        name, home = account.pw_name, account.pw_dir
    except KeyError:
        name, home = str(uid), "/"
    name = os.environ.get("USER") or name
    home = os.path.realpath(os.environ.get("HOME") or home)
    entry = UserEntry(name=name, home=home, quota_rules=tuple(settings.quota.rules))
    try:
        template = settings.mail if settings.mail.root is None else MailTemplate("~/Maildir")
        # Whatever links the user has made there are the user's own.
        maildir = os.path.realpath(f"{home}/{template.expand(Names.of(name))}")
        return Located(user=name, entry=entry, maildir=PurePosixPath(maildir))
    except ValueError as error:
        raise failure(name, error) from error


def _pieces(descriptor: int) -> Iterator[bytes]:
    while piece := os.read(descriptor, _PIECE):
        yield piece


def _first(pieces: Iterator[bytes]) -> bytes:
    """The beginning, long enough to hold a first line."""
    first = b""
    for piece in pieces:
        first += piece
        if b"\n" in first or len(first) >= _PIECE:
            break
    return first


def _without_from_line(first: bytes) -> tuple[bytes, str | None]:
    """The beginning of a message without a line of a mailbox file, and the sender in that."""
    if not first.startswith(b"From "):
        return first, None
    line, _, rest = first.partition(b"\n")
    match = _FROM_LINE.match(line)
    return rest, match[1].decode("ascii", "replace") if match else None


def _transaction(user: str, order: Order, from_line: str | None) -> Transaction:
    address = _address("-r", order.recipient or user) or _NOBODY
    original = None
    if order.original:
        original = OriginalRecipient("rfc822", order.original)
    sender = from_line if order.sender is None else order.sender
    recipient = Recipient(address=address, parameters=RcptParameters(orcpt=original))
    session = Session(peer="stdin")
    return Transaction(
        session=session,
        id=session.id,
        mail=Mail(reverse_path=_address("-f", sender) if sender else None),
        recipients=[recipient],
    )


def _address(flag: str, text: str) -> Address | None:
    try:
        return parse_mailbox(text)
    except PathError as error:
        # Mail is not lost for it.
        _logger.warning("%s: %a is no mailbox: %s", flag, text, error)
        return None
