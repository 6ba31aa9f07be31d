"""The settings of `serve`, from flags and a TOML file.

The invariant: a `ServeSettings` is valid in every part; what is wrong is told all at once, each
fault with its value, its place (flag or file and key) and what is allowed.
"""

import os
import re
import reprlib
import socket
import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Final, get_args

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError
from pydantic_core import ErrorDetails

from lmtp_server._template import MailTemplate
from lmtp_server._workers import Runtime, fastest

from ._listeners import ListenerTable, check_address
from ._tls import TlsTable
from ._workers import WorkerTable

# Names that RFC 5321 4.1.2 allows, and the underscores that hosts have nevertheless.
_HOSTNAME: Final = r"^[A-Za-z0-9_]([A-Za-z0-9._\-]{0,253}[A-Za-z0-9_])?$"


class SettingsError(Exception):
    """Settings that are no good; `faults` has a line for each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


def _template(value: object) -> MailTemplate:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    try:
        return MailTemplate(value)
    except ValueError as error:
        raise ValueError(
            f"{value!r}: {error}; allowed is a path with {{user}} and perhaps {{domain}} behind"
            " its first directory"
        ) from None


def _own_name() -> str:
    name = socket.gethostname()
    return name if re.fullmatch(_HOSTNAME, name) else "localhost"


_Address = Annotated[str, PlainValidator(check_address)]


class ServeSettings(BaseModel):
    """Everything `serve` can be told.

    The names are the keys of the TOML file, and with "-" for "_" those of the flags. A field's
    description says what is allowed.
    """

    model_config = ConfigDict(
        arbitrary_types_allowed=True, extra="forbid", frozen=True, strict=True
    )

    listen: Annotated[
        list[_Address], Field(min_length=1, description="a list of one or more addresses")
    ] = ["127.0.0.1:2424", "unix:./lmtp.sock"]
    mail: Annotated[MailTemplate, PlainValidator(_template)] = MailTemplate(
        "./mail/{domain}/{user}"
    )
    runtime: Annotated[
        Runtime, Field(default_factory=fastest, description="asyncio, uvloop, gevent or blocking")
    ]
    workers: Annotated[
        int,
        Field(
            default_factory=lambda: len(os.sched_getaffinity(0)),
            ge=1,
            le=1024,
            description="a whole number from 1 to 1024",
        ),
    ]
    hostname: Annotated[
        str,
        Field(default_factory=_own_name, pattern=_HOSTNAME, description="the name of a host"),
    ]
    recipient_delimiter: Annotated[
        str,
        Field(
            pattern=r"^[[:punct:]&&[^@]]*$",
            description="a text of punctuation characters except '@', or none",
        ),
    ] = "+"
    save_to_detail_mailbox: Annotated[bool, Field(description="true or false")] = False
    mailbox_autocreate: Annotated[bool, Field(description="true or false")] = False
    mailbox_autosubscribe: Annotated[bool, Field(description="true or false")] = False
    drain: Annotated[
        float,
        Field(ge=0, le=86400, allow_inf_nan=False, description="seconds from 0 to 86400"),
    ] = 30.0
    base_dir: Annotated[str | None, Field(description="the path of a directory", min_length=1)] = (
        None
    )
    listener: list[ListenerTable] = []
    tls: TlsTable | None = None
    worker: WorkerTable = WorkerTable()

    @property
    def plain_addresses(self) -> list[str]:
        """Where there are listeners beside those with tables of their own: what `listen` says.

        Without it `lmtp` in `base_dir`, if there is one; else the default of `listen`, unless
        there are tables.
        """
        if "listen" in self.model_fields_set:
            return self.listen
        if self.base_dir is not None:
            return [f"unix:{self.base_dir}/lmtp"]
        return [] if self.listener else self.listen


_NUMBERS: Final[dict[str, Callable[[str], float]]] = {"workers": int, "drain": float}


def read_settings(
    flags: Mapping[str, object], config: str | None, faults: Sequence[str] = ()
) -> ServeSettings:
    """The settings that `flags` and the TOML file `config` make together; a flag wins.

    `flags` has those given, as texts, by field name. Raises SettingsError for what is wrong with
    them and for the `faults` that were found before.
    """
    found = list(faults)
    given: dict[str, object] = {}
    if config is not None:
        try:
            given = _read_file(config)
        except SettingsError as error:
            found += error.faults
    settings = None
    try:
        settings = ServeSettings.model_validate({**given, **_with_numbers(flags)})
    except ValidationError as error:
        for fault in error.errors():
            name = str(fault["loc"][0])
            if name in flags:
                place = "--" + name.replace("_", "-")
            else:
                # What is wrong in a list is wrong at its place there, counted from 0 as in TOML.
                path = "".join(
                    f"[{part}]" if isinstance(part, int) else f".{part}"
                    for part in fault["loc"][1:]
                )
                place = f"{config}: {name}{path}"
            found.append(f"{place}: {_explain(fault)}")
    if found or settings is None:
        raise SettingsError(found)
    return settings


def _with_numbers(flags: Mapping[str, object]) -> dict[str, object]:
    """`flags` with numbers where numbers are wanted and possible."""
    values = dict(flags)
    for name, kind in _NUMBERS.items():
        text = values.get(name)
        if isinstance(text, str):
            try:
                values[name] = kind(text)
            except ValueError:
                # It is found to be wrong with the others.
                pass
    return values


def _read_file(path: str) -> dict[str, object]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise SettingsError([f"--config: cannot read {path!r}: {error.strerror}"]) from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError([f"{path}: this is no TOML: {error}"]) from error
    except UnicodeDecodeError as error:
        raise SettingsError(
            [f"{path}: this is no TOML: octet {error.start} is not UTF-8"]
        ) from error


def _explain(fault: ErrorDetails) -> str:
    """What is wrong with a value, and what is allowed."""
    # The model and the field that the path ends in.
    model: type[BaseModel] = ServeSettings
    allowed: str | None = None
    for part in fault["loc"]:
        field = model.model_fields.get(str(part))
        if field is None:
            continue
        allowed = field.description or allowed
        model = _model(field.annotation) or model
    if fault["type"] == "extra_forbidden":
        names = ", ".join(sorted(model.model_fields))
        return f"there is no such setting; those there are: {names}"
    if fault["type"] == "value_error":
        return str(fault["ctx"]["error"])
    if fault["type"] == "missing":
        return f"it is missing; needed is {allowed}"
    return f"{reprlib.repr(fault['input'])} is not allowed; allowed is {allowed or 'a table'}"


def _model(annotation: object) -> type[BaseModel] | None:
    """The table that a field holds, or holds a list of."""
    for each in (annotation, *get_args(annotation)):
        if isinstance(each, type) and issubclass(each, BaseModel):
            return each
    return None
