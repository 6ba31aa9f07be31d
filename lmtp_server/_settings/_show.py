"""Settings as a TOML file.

The invariant: what is written is read as the same settings again, and no secret is in it.
"""

from collections.abc import Iterator, Mapping

from pydantic_core import PydanticUndefined

from ._table import Setting, Table, settings_of
from ._toml import toml_key, toml_value
from ._types import Secret


def show_settings(settings: Table, *, diff: bool = False) -> str:
    """The settings as a TOML file; with `diff` only those that differ from the defaults."""
    return "\n".join([*_table(settings, "", diff=diff), ""]).lstrip("\n")


def _table(table: Table, name: str, *, diff: bool) -> Iterator[str]:
    """The lines of a table: first its own settings, then the tables in it."""
    below: list[str] = []
    for key, setting in settings_of(type(table)).items():
        value = getattr(table, key)
        default = setting.field.get_default(call_default_factory=True)
        if diff and default is not PydanticUndefined and _plain(value) == _plain(default):
            continue
        path = f"{name}.{key}" if name else key
        if setting.tables:
            below += _tables(setting, value, path, diff=diff)
        elif value is None:
            yield f"# {key} is not set"
        elif isinstance(value, Secret) and value.source is None:
            yield f"# {key} is a secret, which is not shown"
        else:
            yield f"{toml_key(key)} = {toml_value(_plain(value))}"
    yield from below


def _tables(setting: Setting, value: object, path: str, *, diff: bool) -> Iterator[str]:
    if isinstance(value, Table):
        lines = list(_table(value, path, diff=diff))
        if lines:
            yield from ("", f"[{path}]", *lines)
    elif isinstance(value, list):
        for item in value:
            yield from ("", f"[[{path}]]", *_table(item, path, diff=diff))
    elif isinstance(value, dict):
        for key, item in value.items():
            name = f"{path}.{toml_key(key)}"
            yield from ("", f"[{name}]", *_table(item, name, diff=diff))


def _plain(value: object) -> object:
    """A value as TOML has it; what TOML has not stays."""
    if value is None or isinstance(value, Table):
        return value
    if isinstance(value, Secret):
        return value.source
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if type(value) in (bool, int, float, str):
        return value
    return str(value)
