"""Dovecot's file `subscriptions`: the mailboxes that a user's client shows.

The invariant: a subscription is added and nothing else changes; who reads the file finds it as it
was or as it is then, and Dovecot and this module never write it at once.
"""

from collections.abc import Sequence
from typing import Final

from ._control_file import ControlFileError, read_control_file
from ._dotlock import dotlock
from ._files import write_all
from ._permissions import Permissions

SUBSCRIPTIONS: Final = "subscriptions"

_VERSION_2: Final = b"V\t2\n\n"
# What a version begins with; no mailbox begins so, as tabs are not allowed in names.
_ANY_VERSION: Final = b"V\t"
# Dovecot's: seconds without a change after which a lock counts for nothing.
_STALE: Final = 30.0
_ESCAPES: Final = {
    ord("\0"): b"\x010",
    ord("\x01"): b"\x011",
    ord("\t"): b"\x01t",
    ord("\r"): b"\x01r",
    ord("\n"): b"\x01n",
}


def add_subscription(content: bytes | None, levels: Sequence[bytes]) -> bytes | None:
    """The file `content` (None: there is none) with the mailbox of these levels in it.

    None if it is in it already. Version 1 has a line of the name on disk for each, version 2 a line
    of escaped levels between tabs; a new file is of version 2. Raises ControlFileError for a file
    of another version.
    """
    if content is None:
        content = _VERSION_2
    if content.startswith(_VERSION_2):
        line = b"\t".join(map(escape, levels))
        lines = content[len(_VERSION_2) :].split(b"\n")
    elif content.startswith(_ANY_VERSION):
        raise ControlFileError(f"{SUBSCRIPTIONS} is of a version that is not known")
    else:
        line = b".".join(levels)
        lines = content.split(b"\n")
    if line in lines:
        return None
    if content and not content.endswith(b"\n"):
        content += b"\n"
    return content + line + b"\n"


def escape(text: bytes) -> bytes:
    """`text` without characters that separate fields and lines (Dovecot's tab-escaping)."""
    return b"".join(_ESCAPES.get(octet) or bytes((octet,)) for octet in text)


def subscribe(
    maildir: int, levels: Sequence[bytes], *, permissions: Permissions, timeout: float
) -> None:
    """Subscribe to a mailbox in the Maildir `maildir`, a descriptor; durably.

    Raises ControlFileError for a file that is none and OSError; TimeoutError if somebody has held
    the lock for `timeout` seconds.
    """
    with dotlock(
        maildir, SUBSCRIPTIONS, permissions=permissions, timeout=timeout, stale=_STALE
    ) as lock:
        found = read_control_file(maildir, SUBSCRIPTIONS)
        content = add_subscription(None if found is None else found[0], levels)
        if content is not None:
            write_all(lock.descriptor, content)
            lock.replace()
