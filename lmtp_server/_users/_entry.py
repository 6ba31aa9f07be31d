"""What a directory says of a user.

The invariant: an entry is good in every part: its numbers are numbers of users and groups and never
0, its paths are absolute, its quota rules can be read. One that is not is a failure of the
directory, which says what is wrong, and never a user who does not exist.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Protocol

from mailstore import QuotaRules

from ._variables import Names, Text

Fields = Mapping[str, str]
"""What a driver finds: values by Dovecot's names of userdb fields, `uid`, `quota_rule`, ..."""

_NONE: Final[Fields] = MappingProxyType({})
_NUMBER: Final = re.compile(r"[0-9]{1,10}", re.ASCII)
# (uid_t) -1 means "no user" to system calls.
_LARGEST_ID: Final = 0xFFFF_FFFE
_QUOTA_RULE: Final = re.compile(r"quota_rule([0-9]{0,4})", re.ASCII)
# Dovecot 2.4's names for the limits of all folders, and their rules in 2.3.
_QUOTA_LIMITS: Final = {"quota_storage_size": "storage", "quota_message_count": "messages"}
_MAILDIR: Final = "maildir:"


class DirectoryError(Exception):
    """The directory cannot say whether there is such a user, or what it says is no good. The text
    says why, for the log."""


@dataclass(frozen=True, slots=True)
class NotFound:
    """There is no such user. `user` is the name that was looked for."""

    user: str


class Driver(Protocol):
    """A source of users. It may be used by several threads at a time."""

    @property
    def constant(self) -> bool:
        """Whether `recall` always says the same of a user, and never None."""

    def recall(self, user: str, /) -> Fields | NotFound | None:
        """What can be said without waiting for a file, a host or another thread.

        None if it has to be looked up. Raises DirectoryError.
        """

    def lookup(self, user: str, /) -> Fields | NotFound:
        """What is found now; may block. Raises DirectoryError; any other exception is a failure,
        too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserEntry:
    """One user. What is None or empty is left to the settings."""

    name: str
    """As the directory calls the user, which may not be what was asked for."""
    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] | None = None
    """All groups of the user but that of root; None where they are not known."""
    home: str | None = None
    """Absolute."""
    mail: str | None = None
    """The Maildir: absolute."""
    quota_rules: tuple[str, ...] = ()
    """Rules in the syntax of `mailstore.QuotaRules`."""
    fields: Fields = field(default_factory=lambda: _NONE)
    """All else, by Dovecot's names: `proxy`, `host`, `port`, `protocol`, ..."""


def make_entry(user: str, fields: Fields) -> UserEntry:
    """The entry for what a directory says of `user`. Raises DirectoryError."""
    if "tempfail" in fields:
        raise DirectoryError("its entry has the field tempfail: mail has to wait")
    rest = dict(fields)
    name = rest.pop("user", "") or user
    home = rest.pop("home", "") or None
    try:
        if home is not None:
            _check_path(home, "the home")
            home = os.path.normpath(home)
        return UserEntry(
            name=name,
            uid=_number(rest.pop("uid", ""), "uid"),
            gid=_number(rest.pop("gid", ""), "gid"),
            groups=_groups(rest.pop("groups", "")),
            home=home,
            mail=_mail(rest.pop("mail", ""), name, home),
            quota_rules=_quota_rules(rest),
            fields=MappingProxyType(rest),
        )
    except ValueError as error:
        raise DirectoryError(f"its entry is no good: {error}") from None


def _number(text: str, name: str) -> int | None:
    if not text:
        return None
    if _NUMBER.fullmatch(text) is None or int(text) > _LARGEST_ID:
        raise ValueError(f"the {name} {text!a} is no number of one")
    if int(text) == 0:
        raise ValueError(f"the {name} is 0: no mail is delivered as root")
    return int(text)


def _groups(text: str) -> tuple[int, ...] | None:
    if not text:
        return None
    parts = (part.strip() for part in text.split(","))
    numbers = (_number(part, "group") for part in parts if part != "0")
    return tuple(number for number in numbers if number is not None)


def _check_path(path: str, what: str) -> None:
    if not path.startswith("/"):
        raise ValueError(f"{what} {path!a} is no absolute path")
    if not path.isprintable() or ".." in path.split("/"):
        raise ValueError(f"{what} {path!a} has '..' or a character that is not printable in it")


def _mail(text: str, name: str, home: str | None) -> str | None:
    """The Maildir in Dovecot's `maildir:~/Maildir`. Raises ValueError."""
    if not text:
        return None
    location = text.removeprefix(_MAILDIR)
    names = Names.of(name, home)
    if "%" in location:
        names.check()
    path = Text(location, own=False).expand(names)
    driver, colon, _ = path.partition(":")
    if colon and "/" not in driver:
        raise ValueError(f"mail {text!a}: only Maildirs are delivered to")
    path, *options = path.split(":")
    if options:
        raise ValueError(f"mail {text!a}: options behind the path are not known here")
    if path == "~" or path.startswith("~/"):
        if home is None:
            raise ValueError(f"mail {text!a}: the user has no home")
        path = home + path[1:]
    _check_path(path, "mail")
    return os.path.normpath(path)


def _quota_rules(fields: dict[str, str]) -> tuple[str, ...]:
    """The rules among `fields`, which are taken out of them, in their order. Raises ValueError."""
    rules: dict[int, str] = {}
    for key in list(fields):
        match = _QUOTA_RULE.fullmatch(key)
        if match is not None:
            rules[int(match[1] or 1)] = fields.pop(key)
    limits = [
        f"*:{limit}={fields.pop(key)}"
        for key, limit in _QUOTA_LIMITS.items()
        if fields.get(key, "")
    ]
    found = tuple(rules[number] for number in sorted(rules) if rules[number])
    found += tuple(limits)
    if found:
        QuotaRules(*found)
    return found
