"""Names of mailboxes, as people see them and as directories of a Maildir++.

The invariant: what `parse_mailbox` lets through is the INBOX or one directory directly in the
Maildir, whose name begins with a dot and is none of "." and ".."; every other name raises. It takes
and refuses the same names as Dovecot 2.3.
"""

import base64
import codecs
import enum
import os
import re
from typing import Final, NamedTuple

# The separator of levels on disk.
_DISK_SEPARATOR: Final = "."
# NAME_MAX of every file system that holds mail.
_DIRECTORY_LIMIT: Final = 255

_INBOX: Final = "INBOX"
# RFC 3501 5.1.3: printable ASCII but "&" stands for itself.
_TO_ENCODE: Final = re.compile(r"&|[^\x20-\x7e]+")
# Looked up now: later the process may be one that cannot read the standard library.
_UTF_16: Final = codecs.lookup("utf-16-be")
_CONTROL: Final = re.compile(r"[\x00-\x1f]")


class NameEncoding(enum.StrEnum):
    """How names beyond ASCII are written on disk."""

    MODIFIED_UTF_7 = "modified-utf-7"
    """As IMAP writes them (RFC 3501 5.1.3): Maildir++ and Dovecot's default."""
    UTF_8 = "utf-8"
    """As they are: Dovecot's `maildir:...:UTF-8`."""


class MailboxNameError(ValueError):
    """What is wrong with a name; there can be no mailbox of that name."""


class Mailbox(NamedTuple):
    """A mailbox that can exist."""

    levels: tuple[str, ...]
    """Its place in the hierarchy, as it is written on disk; `()` is the INBOX."""
    creatable: bool
    """Whether it may be made. One that is there gets mail in any case."""

    @property
    def directory(self) -> str:
        """Its directory in the Maildir, such as `.a.b`; `""` for the INBOX."""
        return "".join(_DISK_SEPARATOR + level for level in self.levels)


INBOX: Final = Mailbox((), creatable=True)


def parse_mailbox(name: str, *, separator: str, encoding: NameEncoding) -> Mailbox:
    """The mailbox `name`, whose levels stand between `separator`s, one character.

    `""` and `INBOX` in any case are the INBOX, which `INBOX` as a first level is, too, in that any
    case of it means the same. Raises MailboxNameError.
    """
    if not name or _folded(name) == _INBOX:
        return INBOX
    if "\0" in name:
        raise MailboxNameError("it has a NUL")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise MailboxNameError("it is no Unicode text") from None
    if separator != _DISK_SEPARATOR and _DISK_SEPARATOR in name:
        raise MailboxNameError("it has a '.', which separates levels on disk")
    if name.startswith(separator):
        raise MailboxNameError("it begins with a separator of levels")
    if name.endswith(separator):
        raise MailboxNameError("it ends with a separator of levels")
    first, *others = name.split(separator)
    if "" in others:
        raise MailboxNameError("it has two separators of levels in a row")
    if name.startswith("~"):
        raise MailboxNameError("it begins with '~'")
    if others and _folded(first) == _INBOX:
        first = _INBOX
    levels = (first, *others)
    if any("/" in level for level in levels):
        raise MailboxNameError("it has a '/'")
    if encoding is NameEncoding.MODIFIED_UTF_7:
        stored = tuple(map(encode_utf7, levels))
    else:
        # The names of files are octets; this is how the os module takes them as text.
        stored = tuple(os.fsdecode(level.encode()) for level in levels)
    mailbox = Mailbox(stored, creatable=_CONTROL.search(name) is None)
    if len(os.fsencode(mailbox.directory)) > _DIRECTORY_LIMIT:
        raise MailboxNameError("it is too long")
    return mailbox


def encode_utf7(text: str) -> str:
    """`text` in IMAP's modified UTF-7 (RFC 3501 5.1.3)."""
    return _TO_ENCODE.sub(lambda match: _encode_run(match[0]), text)


def _encode_run(text: str) -> str:
    if text == "&":
        return "&-"
    octets = base64.b64encode(_UTF_16.encode(text)[0], b"+,")
    return f"&{octets.rstrip(b'=').decode()}-"


def _folded(text: str) -> str:
    # Beyond ASCII there are letters that become an "I" in upper case.
    return text.upper() if text.isascii() else text
