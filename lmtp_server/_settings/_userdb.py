"""The tables `[[userdb]]`: where users are looked up, in their order.

The invariant: what a driver needs to be made is there and can be read; names of users and groups
of the system are numbers already.
"""

import grp
import pwd
from collections.abc import Callable
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator

from lmtp_server._users import MailTemplate, PasswdFile, Rule, Skip, Text

_Rule = Annotated[
    Rule,
    PlainValidator(lambda value: _one_of(Rule, value)),
]
_Skip = Annotated[Skip, PlainValidator(lambda value: _one_of(Skip, value))]
_IDS: Final[dict[str, Callable[[str], int]]] = {
    "uid": lambda name: pwd.getpwnam(name).pw_uid,
    "gid": lambda name: grp.getgrnam(name).gr_gid,
}


def _one_of(kind: type[Rule] | type[Skip], value: object) -> Rule | Skip:
    try:
        return kind(str(value))
    except ValueError:
        raise ValueError(f"{value!r} is not one of {', '.join(kind)}") from None


def _fields(value: object) -> dict[str, str]:
    """Userdb fields as texts with variables, UIDs and GIDs as numbers. Raises ValueError."""
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is no table")
    texts = {}
    for key, field in value.items():
        text = str(field)
        Text(text)
        if key in _IDS and not text.isdecimal():
            try:
                text = str(_IDS[key](text))
            except KeyError:
                raise ValueError(f"{key}: there is no {text!r} on this system") from None
        texts[key] = text
    return texts


def _path(value: object) -> MailTemplate:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    try:
        return MailTemplate(value)
    except ValueError as error:
        raise ValueError(f"{value!r}: {error}") from None


def _home(value: object) -> MailTemplate:
    template = _path(value)
    if template.root is None:
        raise ValueError(f"{value!r}: a home cannot lie in itself")
    return template


def _format(text: str) -> str:
    Text(text)
    return text


def _passwd_file(text: str) -> str:
    PasswdFile(text)
    if not text.startswith("/"):
        raise ValueError(f"{text!r} is no absolute path")
    return text


_Fields = Annotated[
    dict[str, str],
    PlainValidator(_fields),
    Field(default_factory=dict, description="a table of texts, by names of userdb fields"),
]
_Path = Annotated[MailTemplate | None, PlainValidator(_path)]
_Home = Annotated[MailTemplate | None, PlainValidator(_home)]
_Seconds = Annotated[
    float, Field(ge=0, le=86400, allow_inf_nan=False, description="seconds from 0 to 86400")
]


class UserdbBase(BaseModel):
    """What all drivers have, as Dovecot's userdbs."""

    model_config = ConfigDict(
        arbitrary_types_allowed=True, extra="forbid", frozen=True, strict=True
    )

    default_fields: _Fields
    override_fields: _Fields
    skip: _Skip = Skip.NEVER
    result_success: _Rule = Rule.RETURN_OK
    result_failure: _Rule = Rule.CONTINUE
    result_internalfail: _Rule = Rule.CONTINUE


class StaticUserdb(UserdbBase):
    """Everybody exists, or those in a file."""

    driver: Literal["static"]
    home: _Home = None
    mail: _Path = None
    fields: _Fields
    users: Annotated[str | None, Field(description="the path of a file")] = None


class PasswdFileUserdb(UserdbBase):
    """A file in Dovecot's format."""

    driver: Literal["passwd-file"]
    path: Annotated[str, AfterValidator(_passwd_file), Field(description="an absolute path")]
    username_format: Annotated[str, AfterValidator(_format)] = "%u"


class SystemUserdb(UserdbBase):
    """The accounts of the system."""

    driver: Literal["system"]
    drop_domain: bool = True
    cache_ttl: _Seconds = 30.0
    cache_negative_ttl: _Seconds = 5.0
    cache_size: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000


UserdbSettings = Annotated[
    StaticUserdb | PasswdFileUserdb | SystemUserdb, Field(discriminator="driver")
]
