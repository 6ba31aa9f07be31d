"""The tables `[[userdb]]`, one kind for each driver."""

import grp
import pwd
from collections.abc import Callable, Mapping
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, PlainValidator, model_validator

from lmtp_server._users import PasswdFile, Rule, Skip, Text

from ._table import About, Allowed, Table, TableFault
from ._types import Flag, Path, Seconds, Template, count

_IDS: Final[Mapping[str, Callable[[str], int]]] = {
    "uid": lambda name: pwd.getpwnam(name).pw_uid,
    "gid": lambda name: grp.getgrnam(name).gr_gid,
}


def _rule(value: object) -> Rule:
    if isinstance(value, str) and value in list(Rule):
        return Rule(value)
    raise ValueError(f"{value!r} is not allowed; allowed are {', '.join(Rule)}")


def _skip(value: object) -> Skip:
    if isinstance(value, str) and value in list(Skip):
        return Skip(value)
    raise ValueError(f"{value!r} is not allowed; allowed are {', '.join(Skip)}")


_Rule = Annotated[Rule, PlainValidator(_rule), Allowed(", ".join(Rule))]
_Skip = Annotated[Skip, PlainValidator(_skip), Allowed(", ".join(Skip))]


def _variables(text: str) -> str:
    Text(text)
    return text


WithVariables = Annotated[
    str, AfterValidator(_variables), Allowed("a text with variables such as %u, %n, %d")
]


def _fields(value: object) -> dict[str, str]:
    """Texts with variables; users and groups as numbers, since they are no longer found by name in
    a process that has given up its privileges."""
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is not allowed; allowed is a table of fields")
    texts = {}
    for name, field in value.items():
        if not isinstance(field, str | int):
            raise TableFault(name, f"{field!r} is not allowed; allowed is a text")
        text = str(field)
        try:
            Text(text)
        except ValueError as error:
            raise TableFault(name, str(error)) from None
        if name in _IDS and not text.isdecimal():
            try:
                text = str(_IDS[name](text))
            except KeyError:
                raise TableFault(name, f"there is no {text!r} on this system") from None
        texts[name] = text
    return texts


_Fields = Annotated[
    dict[str, str],
    PlainValidator(_fields),
    Allowed("a table of fields, such as { uid = 'vmail', quota_rule = '*:storage=1G' }"),
]


def _absolute(text: str) -> str:
    PasswdFile(text)
    if not text.startswith("/"):
        raise ValueError(f"{text!r} is no absolute path")
    return text


class _AnyUserdb(Table):
    default_fields: Annotated[
        _Fields,
        About(
            meaning="what users have whom it gives no such field",
            dovecot=("default_fields", "fields_default"),
        ),
    ] = Field(default_factory=dict)
    override_fields: Annotated[
        _Fields,
        About(meaning="what users have, whatever it says", dovecot=("override_fields",)),
    ] = Field(default_factory=dict)
    skip: Annotated[
        _Skip,
        About(
            meaning="when it is not asked: if one before has found the user, or not found",
            dovecot=("skip",),
        ),
    ] = Skip.NEVER
    result_success: Annotated[
        _Rule, About(meaning="what follows when it knows the user", dovecot=("result_success",))
    ] = Rule.RETURN_OK
    result_failure: Annotated[
        _Rule, About(meaning="when it does not", dovecot=("result_failure",))
    ] = Rule.CONTINUE
    result_internalfail: Annotated[
        _Rule, About(meaning="when it cannot say", dovecot=("result_internalfail",))
    ] = Rule.CONTINUE


class StaticUserdb(_AnyUserdb):
    """All users look alike."""

    driver: Annotated[
        Literal["static"],
        Allowed("static, passwd-file or system"),
        About(meaning="users who all look alike", dovecot=("userdb static",)),
    ]
    home: Annotated[
        Template | None, About(meaning="their homes", dovecot=("mail_home", "home"))
    ] = None
    mail: Annotated[
        Template | None,
        About(
            meaning="their Maildirs, in place of the `mail` of all", dovecot=("mail", "mail_path")
        ),
    ] = None
    fields: Annotated[
        _Fields,
        About(meaning="what else they have", dovecot=("args", "fields", "mail_uid", "mail_gid")),
    ] = Field(default_factory=dict)
    users: Annotated[
        Path | None,
        About(
            meaning="a file with their names, one a line, `@DOMAIN` for a whole domain; unset:"
            " everybody exists",
            dovecot=("allow_all_users",),
        ),
    ] = None

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.home is not None and self.home.root is None:
            raise TableFault("home", "a home is not in a home: it begins with a directory")
        if self.mail is not None and self.mail.root is None and self.home is None:
            raise TableFault("mail", "it is in the home, and these users have none: set home")
        for name in ("home", "mail"):
            if name in self.fields:
                raise TableFault("fields", f"{name} stands beside fields, not in it")
        return self


class PasswdFileUserdb(_AnyUserdb):
    """Users in a file as Dovecot's."""

    driver: Annotated[
        Literal["passwd-file"],
        Allowed("static, passwd-file or system"),
        About(meaning="users in a file of Dovecot's format", dovecot=("userdb passwd-file",)),
    ]
    path: Annotated[
        str,
        AfterValidator(_absolute),
        Allowed("an absolute path, perhaps with variables such as %d"),
        About(
            meaning="the file; with variables such as %d, one for each domain",
            dovecot=("args", "passwd_file_path"),
        ),
    ]
    username_format: Annotated[
        WithVariables,
        About(
            meaning="what of a user's name a line begins with",
            dovecot=("username_format", "auth_username_format"),
        ),
    ] = "%u"


class SystemUserdb(_AnyUserdb):
    """The users of this machine, as NSS knows them."""

    driver: Annotated[
        Literal["system"],
        Allowed("static, passwd-file or system"),
        About(meaning="the accounts of this machine", dovecot=("userdb passwd",)),
    ]
    drop_domain: Annotated[
        Flag,
        About(meaning="whether accounts have no domain", dovecot=("auth_username_format = %n",)),
    ] = True
    cache_ttl: Annotated[
        Seconds,
        About(meaning="how long a user it knows is kept; 0: not", dovecot=("auth_cache_ttl",)),
    ] = 30.0
    cache_negative_ttl: Annotated[
        Seconds,
        About(
            meaning="how long a user it does not know is kept", dovecot=("auth_cache_negative_ttl",)
        ),
    ] = 5.0
    cache_size: Annotated[
        int,
        *count(1, 10_000_000),
        About(meaning="users that are kept", dovecot=("auth_cache_size",)),
    ] = 10_000


UserdbTable = StaticUserdb | PasswdFileUserdb | SystemUserdb
"""A `[[userdb]]`."""
