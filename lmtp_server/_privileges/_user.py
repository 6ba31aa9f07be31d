"""A user as the broker's directory knows it.

The invariant: a `MailUser` has an identity that is not root's, and absolute paths without "..".
"""

from collections.abc import Callable
from dataclasses import dataclass

from mailstore import QuotaPolicy

from ._identity import Identity, PrivilegesError


@dataclass(frozen=True, slots=True, kw_only=True)
class MailUser:
    """Who receives mail, as whom it is written, and where. Raises PrivilegesError."""

    name: str
    identity: Identity
    home: str
    mail: str
    """The user's Maildir. If it is missing the user must be able to make it."""
    quota: QuotaPolicy | None = None
    """What the mail may amount to, counted in the Maildir."""
    chroot: str | None = None
    """A directory that the user's agent does not leave; the other paths are relative to it."""

    def __post_init__(self) -> None:
        for path in (self.home, self.mail, self.chroot or "/"):
            if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
                raise PrivilegesError(f"{path!a} is no absolute path, or has '..' or NUL in it")


Lookup = Callable[[str], MailUser | None]
"""Finds a user by name; None where there is none. It may block and raise: then nobody knows."""
