"""Whom a process may be: user, group and supplementary groups, and the ranges they must lie in.

The invariant: an `Identity` is never root's, and one that `ValidIds` let pass lies in its ranges.
"""

import grp
import os
import pwd
from dataclasses import dataclass
from typing import Self


class PrivilegesError(Exception):
    """A process cannot become, or stay, who it is to be; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A user as the kernel knows it. Raises PrivilegesError for UID 0 and for negative ids."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    """Supplementary groups; the group itself need not be among them."""

    def __post_init__(self) -> None:
        # 2**32 - 1 means "leave it as it is" to setresuid(2).
        for number in (self.uid, self.gid, *self.groups):
            if not 0 <= number < 2**32 - 1:
                raise PrivilegesError(f"{number} is no id of a user or group")
        if self.uid == 0:
            raise PrivilegesError("UID 0 (root) never receives or writes mail: take another user")

    @classmethod
    def of(cls, user: str, group: str | None = None) -> Self:
        """The identity of a user of this system, by name or number, with all its groups.

        With `group`, that is the group in place of the user's own. Raises PrivilegesError.
        """
        try:
            entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
        except (KeyError, OverflowError):
            raise PrivilegesError(f"there is no user {user!a} on this system") from None
        gid = entry.pw_gid
        if group is not None:
            gid = _gid(group)
        return cls(entry.pw_uid, gid, tuple(os.getgrouplist(entry.pw_name, gid)))


def _gid(group: str) -> int:
    if group.isdecimal():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise PrivilegesError(f"there is no group {group!a} on this system") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidIds:
    """Dovecot's `first_valid_uid` and its siblings; 0 as the last id is no limit."""

    first_uid: int = 500
    last_uid: int = 0
    first_gid: int = 1
    last_gid: int = 0

    def check(self, identity: Identity) -> Identity:
        """`identity` without the supplementary groups that are out of range.

        Raises PrivilegesError if its user or its group is.
        """
        _check("UID", "uid", identity.uid, self.first_uid, self.last_uid)
        _check("GID", "gid", identity.gid, self.first_gid, self.last_gid)
        groups = tuple(
            group for group in identity.groups if _within(group, self.first_gid, self.last_gid)
        )
        return Identity(identity.uid, identity.gid, groups)


def _within(number: int, first: int, last: int) -> bool:
    return first <= number and (not last or number <= last)


def _check(what: str, setting: str, number: int, first: int, last: int) -> None:
    if not _within(number, first, last):
        end = f" to {last} (last_valid_{setting})" if last else " and above"
        raise PrivilegesError(
            f"{what} {number} is not allowed to have mail:"
            f" allowed is {first} (first_valid_{setting}){end}"
        )
