"""A command for one user finds that user and becomes it.

The invariant: who is root does nothing in a user's directories before it is that user, for good.
"""

import errno
import logging
import os
from typing import Final

from lmtp_server._components import make_users
from lmtp_server._settings import ServeSettings
from lmtp_server._users import DirectoryError, Located, NotFound, UserEntry, UserError

_logger: Final = logging.getLogger("lmtp_server")


class CommandError(Exception):
    """The command ends with `code`; the text, if there is one, goes to standard error."""

    def __init__(self, code: int, text: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def find(settings: ServeSettings, user: str) -> Located:
    """The user of that name. Raises CommandError; with a text if there is no such user."""
    # Root can become anyone; everybody else is who they are.
    own_uid = os.geteuid() or None
    try:
        found = make_users(settings, own_uid=own_uid).lookup(user)
    except (DirectoryError, UserError) as error:
        raise failure(user, error) from error
    if isinstance(found, NotFound):
        raise CommandError(os.EX_NOUSER, f"User doesn't exist: {found.user}")
    return found


def failure(user: str, error: Exception) -> CommandError:
    """Something is wrong on this host, for the log alone."""
    _logger.error("user %a: %s", user, error)
    return CommandError(os.EX_TEMPFAIL)


def become(entry: UserEntry) -> None:
    """Be the user that the directory has described, where root has called. Raises OSError."""
    if os.geteuid() != 0 or entry.uid is None:
        return
    if entry.gid is None:
        raise OSError(errno.EINVAL, "the user has a uid and no gid")
    os.chdir("/")
    os.setgroups(entry.groups or (entry.gid,))
    os.setresgid(entry.gid, entry.gid, entry.gid)
    os.setresuid(entry.uid, entry.uid, entry.uid)
    if os.getresuid() != (entry.uid,) * 3 or os.getresgid() != (entry.gid,) * 3:
        raise OSError(errno.EPERM, "root could not become the user")
