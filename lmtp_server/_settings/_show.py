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
        if diff and default is not PydanticUndefined and plain(value) == plain(default):
            continue
        path = f"{name}.{key}" if name else key
        if setting.tables:
            below += _tables(setting, value, path, diff=diff)
        elif value is None:
            yield f"# {key} is not set"
        else:
            yield from _assignment(key, value)
    yield from below


def _assignment(key: str, value: object) -> Iterator[str]:
    hidden: list[str] = []
    shown = _without_secrets(key, value, hidden)
    for path in hidden:
        # Nobody but a plugin knows what its texts are.
        verb = "may be" if key == "plugin" else "is"
        yield f"# {path} {verb} a secret, which is not shown"
    if key not in hidden:
        yield f"{toml_key(key)} = {toml_value(plain(shown))}"


def _without_secrets(path: str, value: object, hidden: list[str]) -> object:
    """The value without what is not to be shown, whose paths go to `hidden`; a list with such an
    item is left out whole."""
    if isinstance(value, Mapping):
        inside = {
            name: _without_secrets(f"{path}.{toml_key(name)}", item, hidden)
            for name, item in value.items()
        }
        return {
            name: item for name, item in inside.items() if f"{path}.{toml_key(name)}" not in hidden
        }
    if _has_secret(value):
        hidden.append(path)
    return value


def _has_secret(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(_has_secret(item) for item in value.values())
    if isinstance(value, list):
        return any(_has_secret(item) for item in value)
    return isinstance(value, Secret) and value.source is None


def _tables(setting: Setting, value: object, path: str, *, diff: bool) -> Iterator[str]:
    if isinstance(value, Table):
        lines = list(_table(value, path, diff=diff))
        # A table that need not be there says something by being there.
        if lines or setting.field.default is None:
            yield from ("", f"[{path}]", *lines)
    elif isinstance(value, list):
        for item in value:
            yield from ("", f"[[{path}]]", *_table(item, path, diff=diff))
    elif isinstance(value, dict):
        for key, item in value.items():
            name = f"{path}.{toml_key(key)}"
            yield from ("", f"[{name}]", *_table(item, name, diff=diff))


def plain(value: object) -> object:
    """A value as TOML has it; what TOML has not stays."""
    if value is None or isinstance(value, Table):
        return value
    if isinstance(value, Secret):
        return value.source
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if type(value) in (bool, int, float, str):
        return value
    return str(value)
