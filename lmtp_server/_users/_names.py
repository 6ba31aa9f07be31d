"""From a recipient's address to the name of a user.

The invariant: what is looked up consists of allowed characters only, in the case that the settings
say, and never of the detail; an address with others is that of nobody.
"""

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from lmtp_proto import Address

from ._variables import Names, Text

# RFC 5321 4.5.1: the one recipient that every server takes without a domain.
_POSTMASTER: Final = "postmaster"

CHARACTERS: Final = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ01234567890.-_@" + "+='"
"""Dovecot's default, and what its `auth_username_chars` has to be told by many: "+" for those who
use no recipient delimiter, "=" for rewritten senders, "'" for names."""


class UserName(NamedTuple):
    """A user, and what stood behind the delimiter; empty where there was nothing."""

    user: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NameRules:
    """How names of users are made of addresses. Raises ValueError for a format that is none."""

    delimiters: str = "+"
    """Each of these characters ends the user's name in a local part (RFC 5233)."""
    hostname: str = "localhost"
    """The domain of a postmaster who comes without one."""
    format: str = "%Lu"
    """The name in variables, as Dovecot's `auth_username_format`: `%Ln` leaves the domain away. To
    RFC 5321 2.4 local parts that differ in case differ, but no one has such neighbours."""
    characters: str = CHARACTERS
    """Those that a name may have, as Dovecot's `auth_username_chars`; empty: all that may be
    printed."""

    def __post_init__(self) -> None:
        Text(self.format)

    def reader(self) -> "NameReader":
        """What follows the rules."""
        return NameReader(self)


class NameReader:
    """Makes names by rules."""

    __slots__ = ("_allowed", "_delimiter", "_format", "_hostname")

    def __init__(self, rules: NameRules) -> None:
        self._hostname = rules.hostname
        delimiters = rules.delimiters
        self._delimiter = re.compile(f"[{re.escape(delimiters)}]") if delimiters else None
        self._format = Text(rules.format)
        self._allowed = frozenset(rules.characters)

    def read(self, address: Address) -> UserName:
        """The user of a recipient, without the detail."""
        local_part, detail = self._split(address.local_part)
        domain = address.domain
        if not domain and address.local_part.lower() == _POSTMASTER:
            domain = self._hostname
        return UserName(f"{local_part}@{domain}" if domain else local_part, detail)

    def normal(self, user: str) -> str | None:
        """The name in its normal form, None for one that nobody has."""
        local, at, _ = user.rpartition("@")
        # "@" in a quoted local part would have the domain begin there, and "@example.org" has
        # no user.
        if not user or (at and not local) or user.count("@") > 1:
            return None
        try:
            name = self._format.expand(Names.of(user))
        except ValueError:
            return None
        if self._allowed:
            return name if self._allowed.issuperset(name) else None
        return name if name.isprintable() else None

    def _split(self, local_part: str) -> tuple[str, str]:
        if self._delimiter is None:
            return local_part, ""
        user, *detail = self._delimiter.split(local_part, maxsplit=1)
        return user, "".join(detail)
