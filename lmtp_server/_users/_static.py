"""Users who all look alike: fields with variables in them, and perhaps a list of who there is.

The invariant: a user that exists has a path; a name that could make none does not exist.
"""

import os
from collections.abc import Mapping, Sequence

from ._changing_file import ChangingFile
from ._entry import Fields, NotFound
from ._template import MailTemplate
from ._variables import Names, Text


class StaticUsers:
    """Every user exists, or those in the file `users` (a `Driver`).

    `fields` are what each of them has; `home` and `mail`, if they are given, are paths below their
    first directories. `paths` are templates that a user must be able to fill, as that of the
    Maildirs; one that cannot does not exist.
    """

    def __init__(
        self,
        fields: Mapping[str, str],
        *,
        home: MailTemplate | None = None,
        mail: MailTemplate | None = None,
        users: str | None = None,
        paths: Sequence[MailTemplate] = (),
    ) -> None:
        self._fields = {key: Text(value) for key, value in fields.items()}
        self._home = home
        self._mail = mail
        # Of the roots, the administrator's links are good; the store follows none.
        self._mail_root = None if mail is None or mail.root is None else os.path.realpath(mail.root)
        self._paths = paths
        self._users = None if users is None else ChangingFile(users, _read)

    @property
    def constant(self) -> bool:
        """Whether nothing has to be looked at: no list, no home."""
        return self._users is None and self._home is None

    def recall(self, user: str, /) -> Fields | NotFound | None:
        """The user's fields, unless the list has to be read first. Raises DirectoryError."""
        if self._users is not None:
            listed = self._users.unchanged()
            if listed is None:
                return None
            if not _is_in(user, listed):
                return NotFound(user)
        return self._expand(user)

    def lookup(self, user: str, /) -> Fields | NotFound:
        """The user's fields. Raises DirectoryError."""
        if self._users is not None and not _is_in(user, self._users.get()):
            return NotFound(user)
        return self._expand(user)

    def _expand(self, user: str) -> Fields | NotFound:
        names = Names.of(user)
        try:
            # Whatever the fields are, they are made of a name that may stand in a path.
            names.check()
            home = None if self._home is None else f"{self._home.root}/{self._home.expand(names)}"
            names = Names(local=names.local, domain=names.domain, home=home)
            for path in self._paths:
                path.expand(names)
            fields = {key: text.expand(names) for key, text in self._fields.items()}
            if home is not None:
                fields["home"] = home
            if self._mail is not None:
                fields["mail"] = f"{self._mail_root or home or '~'}/{self._mail.expand(names)}"
        except ValueError:
            return NotFound(user)
        return fields


def _read(octets: bytes) -> frozenset[str]:
    users = set()
    for line in octets.decode("utf-8", "surrogateescape").split("\n"):
        user = line.strip()
        if user and not user.startswith("#"):
            users.add(user)
    return frozenset(users)


def _is_in(user: str, listed: frozenset[str]) -> bool:
    """Whether the list has the user, or `@domain` for all of its domain."""
    _, at, domain = user.rpartition("@")
    return user in listed or (bool(at) and f"@{domain}" in listed)
