"""Mailboxes within Maildirs: found, made, subscribed to; the INBOX where there is none.

The invariant: what is opened is the mailbox that was asked for or the INBOX of the same user. A
folder that was made is complete and durable, and nothing of it is outside the Maildir.

Everything here may wait for a disk or for another program's lock, so it runs in the thread of who
delivers and not in the committer's.
"""

import errno
import logging
import os
import stat
from itertools import islice
from typing import Final, NamedTuple

from ._control_file import ControlFileError
from ._destination import Destination
from ._files import release
from ._keywords import letters_of
from ._mailbox_name import INBOX, Mailbox, MailboxNameError, parse_mailbox
from ._maildir import (
    Maildir,
    Parts,
    enter,
    make_directory,
    open_base,
    open_maildir,
    open_parts,
    sync_directory,
)
from ._options import FolderOptions
from ._permissions import Permissions
from ._subscriptions import subscribe

_logger: Final = logging.getLogger("mailstore")

# Marks a directory as a folder of the Maildir above it (Maildir++).
_FOLDER_MARK: Final = "maildirfolder"
# Marks a shared mailbox of Dovecot; its permissions are those of the directory.
_SHARED_MARK: Final = "dovecot-shared"

_PASS: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TOUCH: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class NoFolderError(Exception):
    """There is no such folder, and none is made."""


class _TooManyError(FileNotFoundError):
    """There is no such folder, and the user may have no more."""


class Place(NamedTuple):
    """A destination whose parts are known to be good."""

    parts: Parts
    """The user's Maildir."""
    mailbox: Mailbox = INBOX
    flags: str = ""
    keywords: tuple[str, ...] = ()
    mailbox_limit: int = 0
    """How many mailboxes the user may have before no more are made; 0 for any number."""

    @property
    def is_plain(self) -> bool:
        """Whether it is the INBOX, and the message has no flags."""
        return not (self.mailbox.levels or self.flags or self.keywords)

    def __str__(self) -> str:
        return "/".join((*self.parts, *filter(None, (self.mailbox.directory,))))


def find_place(parts: Parts, destination: Destination, options: FolderOptions) -> Place:
    """The place of `destination`, whose Maildir is `parts`.

    Raises NoFolderError for a name that no mailbox has, if such are to be refused.
    """
    name = destination.mailbox
    try:
        mailbox = parse_mailbox(name, separator=options.separator, encoding=options.encoding)
    except MailboxNameError as error:
        mailbox = _fall_back(name, str(error), options)
    return Place(parts, mailbox, destination.flags, destination.keywords)


def open_place(root: int, place: Place, options: FolderOptions) -> tuple[Maildir, str, Mailbox]:
    """Open `place` below the directory `root`, and what is appended to the name of its message;
    last which of the mailboxes it is.

    The Maildir is the caller's to close. Raises NoFolderError, if missing folders are to be
    refused, and OSError; TimeoutError if somebody else holds the lock of a mailbox for long.
    """
    base = open_base(root, place.parts)
    mailbox = place.mailbox
    try:
        if place.mailbox.levels:
            try:
                outer, base = base, _open_folder(root, base, place, options)
                release(outer)
            except _TooManyError:
                fault = f"the user has {place.mailbox_limit} mailboxes and may have no more"
                mailbox = _fall_back(".".join(place.mailbox.levels), fault, options)
            except FileNotFoundError:
                mailbox = _fall_back(".".join(place.mailbox.levels), "it does not exist", options)
        letters = _letters(base, place, options) if place.keywords else ""
        info = info_of(place.flags + letters)
        maildir = open_parts(base, flagged=bool(info))
    finally:
        release(base)
    maildir.sweep()
    return maildir, info, mailbox


def info_of(flags: str) -> str:
    """What is appended to the name of a message with these flags and letters of keywords."""
    # maildir(5): in ASCII order.
    return ":2," + "".join(sorted(set(flags))) if flags else ""


def _fall_back(name: str, fault: str, options: FolderOptions) -> Mailbox:
    if options.refuse_missing:
        raise NoFolderError(f"there is no mailbox {name!a}: {fault}")
    _logger.info("there is no mailbox %a: %s; the INBOX gets the message", name, fault)
    return INBOX


def _open_folder(root: int, base: int, place: Place, options: FolderOptions) -> int:
    """The directory of the folder in the Maildir `base`. FileNotFoundError: it does not exist."""
    mailbox = place.mailbox
    may_create = options.autocreate and mailbox.creatable
    try:
        if not may_create or _exists(base, mailbox.directory):
            return os.open(mailbox.directory, _PASS, dir_fd=base)
        if place.mailbox_limit and _has_mailboxes(base, place.mailbox_limit):
            raise _TooManyError(errno.ENOENT, os.strerror(errno.ENOENT), mailbox.directory)
        # A Maildir is whole before it has folders.
        open_maildir(root, place.parts).close()
        folder = _create(base, mailbox)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise FileNotFoundError(error.errno, error.strerror, mailbox.directory) from None
        raise
    if options.autosubscribe:
        _subscribe(base, mailbox, options)
    return folder


def _create(base: int, mailbox: Mailbox) -> int:
    """Make a folder of the Maildir `base` and open it."""
    permissions = _permissions_for(base, mailbox)
    make_directory(base, mailbox.directory, permissions)
    folder = os.open(mailbox.directory, _PASS, dir_fd=base)
    try:
        for part in ("cur", "new", "tmp"):
            release(enter(folder, part, permissions))
        _touch(folder, _FOLDER_MARK, permissions)
        if _exists(base, _SHARED_MARK):
            _touch(folder, _SHARED_MARK, permissions)
        sync_directory(folder)
    except BaseException:
        release(folder)
        raise
    return folder


def _permissions_for(base: int, mailbox: Mailbox) -> Permissions:
    """The permissions of the nearest mailbox above that there is."""
    levels = mailbox.levels[:-1]
    while levels:
        directory = Mailbox(levels, creatable=False).directory
        try:
            status = os.stat(directory, dir_fd=base, follow_symlinks=False)
        except FileNotFoundError:
            pass
        else:
            if stat.S_ISDIR(status.st_mode):
                return Permissions.of(status)
        levels = levels[:-1]
    return Permissions.of(os.fstat(base))


def _has_mailboxes(base: int, number: int) -> bool:
    """Whether the Maildir `base` has at least so many mailboxes, the INBOX included."""
    descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=base)
    try:
        with os.scandir(descriptor) as entries:
            folders = (
                entry
                for entry in entries
                if entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
            )
            return 1 + sum(1 for _ in islice(folders, number)) >= number
    finally:
        release(descriptor)


def _touch(directory: int, name: str, permissions: Permissions) -> None:
    try:
        descriptor = os.open(name, _TOUCH, permissions.file_mode, dir_fd=directory)
    except FileExistsError:
        return
    try:
        permissions.settle_file(descriptor)
    finally:
        release(descriptor)


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _subscribe(base: int, mailbox: Mailbox, options: FolderOptions) -> None:
    try:
        subscribe(
            base,
            [os.fsencode(level) for level in mailbox.levels],
            permissions=Permissions.of(os.fstat(base)),
            timeout=options.lock_timeout,
        )
    except (ControlFileError, OSError) as error:
        # As with Dovecot, the message matters more.
        _logger.warning("no subscription to the new folder %a: %s", mailbox.directory, error)


def _letters(base: int, place: Place, options: FolderOptions) -> str:
    try:
        return letters_of(
            base,
            place.keywords,
            permissions=Permissions.of(os.fstat(base)),
            timeout=options.lock_timeout,
        )
    except ControlFileError as error:
        # It would never be delivered.
        _logger.warning("a message in %a is without its keywords: %s", str(place), error)
        return ""
