"""What the models of all tables of the settings file have in common, and how they are looked into.

The invariant: every setting says what it means and what it may be, in the place where it is
defined; faults, the reference page and `config show` take it from there.
"""

import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

_UNIONS: Final = (Union, types.UnionType)


@dataclass(frozen=True, slots=True)
class Allowed:
    """What values a setting may have, for people."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a setting means. `dovecot` are Dovecot's names for it; `default` describes a default
    that depends on the machine."""

    meaning: str
    dovecot: tuple[str, ...] = ()
    default: str = ""


class Table(BaseModel):
    """A table of the settings file. The first line of the docstring says what it is about."""

    model_config = ConfigDict(
        arbitrary_types_allowed=True,
        extra="forbid",
        frozen=True,
        strict=True,
        # Each table would be built for itself, and once more within the one that holds it.
        defer_build=True,
    )

    @classmethod
    def unset(cls) -> Self:
        """The table in which nothing is set. Its defaults are not validated, so that what would
        validate them need not be built when the program starts."""
        return super().model_construct()


class TableFault(ValueError):  # noqa: N818  # as pydantic has it, it becomes one of many faults
    """Settings of a table that do not go together; `key` is where to look."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


@dataclass(frozen=True, slots=True)
class Setting:
    """A field of a table as people see it."""

    field: FieldInfo

    @property
    def about(self) -> About:
        """What it means."""
        return next(one for one in self.field.metadata if isinstance(one, About))

    @property
    def allowed(self) -> str:
        """What it may be. Of several texts the last is the most special."""
        metadata = [*_metadata(self.field.annotation), *self.field.metadata]
        texts = [one.text for one in metadata if isinstance(one, Allowed)]
        return texts[-1] if texts else "a table"

    @property
    def tables(self) -> tuple[type[Table], ...]:
        """The tables that it is, or is a list of: several where a key of theirs says which."""
        return tuple(_tables(self.field.annotation))

    @property
    def is_list_of_tables(self) -> bool:
        """Whether it is written as `[[name]]`."""
        return bool(self.tables) and any(
            get_origin(part) is list for part in _parts(self.field.annotation)
        )

    @property
    def is_map_of_tables(self) -> bool:
        """Whether it is written as `[name.KEY]`, with keys that people choose."""
        return bool(self.tables) and any(
            get_origin(part) is dict for part in _parts(self.field.annotation)
        )


def settings_of(table: type[Table]) -> Mapping[str, Setting]:
    """The settings of a table, by name."""
    return {name: Setting(field) for name, field in table.model_fields.items()}


def find_setting(
    table: type[Table], path: tuple[str | int, ...], values: object
) -> tuple[type[Table], Setting | None]:
    """The table that `path` leads to or into, and the setting in it that it names, if there is
    one. `values` are what was given, which says which table it is where there are several."""
    setting: Setting | None = None
    for key in path:
        values = _inside(values, key)
        if isinstance(key, int):
            table = _choose(setting, values, table)
            continue
        if setting is not None and setting.is_map_of_tables and setting.tables[0] is not table:
            table = setting.tables[0]
            continue
        setting = settings_of(table).get(key)
        if setting is None:
            return table, None
        if setting.tables and not setting.is_list_of_tables and not setting.is_map_of_tables:
            table = _choose(setting, values, table)
    return table, setting


def _choose(setting: Setting | None, values: object, otherwise: type[Table]) -> type[Table]:
    tables = () if setting is None else setting.tables
    driver = values.get("driver") if isinstance(values, dict) else None
    for table in tables:
        if driver is not None and driver in get_args(table.model_fields["driver"].annotation):
            return table
    return tables[0] if tables else otherwise


def _inside(values: object, key: str | int) -> object:
    if isinstance(values, dict):
        return values.get(key)
    if isinstance(values, list) and isinstance(key, int) and key < len(values):
        return values[key]
    return None


def _parts(annotation: object) -> Iterator[object]:
    """An annotation, or the parts of a union."""
    if get_origin(annotation) is Annotated:
        yield from _parts(get_args(annotation)[0])
    elif get_origin(annotation) in _UNIONS:
        for part in get_args(annotation):
            yield from _parts(part)
    else:
        yield annotation


def _metadata(annotation: object) -> Iterator[object]:
    """What is said of the parts of a union."""
    if get_origin(annotation) is Annotated:
        inner, *said = get_args(annotation)
        yield from _metadata(inner)
        yield from said
    elif get_origin(annotation) in _UNIONS:
        for part in get_args(annotation):
            yield from _metadata(part)


def _tables(annotation: object) -> Iterator[type[Table]]:
    for part in _parts(annotation):
        if isinstance(part, type) and issubclass(part, Table):
            yield part
        elif get_origin(part) in (list, dict):
            yield from _tables(get_args(part)[-1])
