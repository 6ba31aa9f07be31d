"""The settings as rows of tables, for the page that describes them.

The invariant: every setting of every table has a row.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from ._dovecot_names import WITHOUT, named_by_dovecot
from ._show import plain
from ._table import Setting, Table, settings_of
from ._toml import toml_value
from ._top import ServeSettings


@dataclass(slots=True)
class Row:
    """One setting."""

    key: str
    meaning: str
    allowed: str
    default: str
    dovecot: tuple[str, ...]


@dataclass(slots=True)
class TablePage:
    """One table of the file: its header, empty for the top level, and what it is about."""

    header: str
    about: str
    rows: list[Row] = field(default_factory=list)


def describe_settings() -> Iterator[TablePage]:
    """All tables, the top level first."""
    yield from _describe(ServeSettings, "", "")


def describe_dovecot() -> list[tuple[str, str]]:
    """Dovecot's settings in their order, each with what there is for it here."""
    said: dict[str, list[str]] = {}
    for name, path in named_by_dovecot(ServeSettings):
        said.setdefault(name, []).append(f"`{path}`")
    texts = {name: ", ".join(dict.fromkeys(paths)) for name, paths in said.items()}
    for name, reason in WITHOUT.items():
        texts.setdefault(name, reason)
    return sorted(texts.items())


def _describe(table: type[Table], path: str, header: str) -> Iterator[TablePage]:
    page = TablePage(header, (table.__doc__ or "").strip())
    below: list[TablePage] = []
    for name, setting in settings_of(table).items():
        if setting.tables:
            inner = f"{path}.{name}" if path else name
            for one in setting.tables:
                below += _describe(one, inner, _header(setting, one, inner))
        else:
            page.rows.append(_row(name, setting))
    yield page
    yield from below


def _header(setting: Setting, table: type[Table], path: str) -> str:
    if setting.is_map_of_tables:
        return f'`[{path}."NAME"]`'
    driver = table.model_fields.get("driver")
    if driver is not None and setting.is_list_of_tables:
        (name,) = driver.annotation.__args__  # type: ignore[union-attr]  # a Literal
        return f'`[[{path}]]` with `driver = "{name}"`'
    return f"`[[{path}]]`" if setting.is_list_of_tables else f"`[{path}]`"


def _row(name: str, setting: Setting) -> Row:
    about = setting.about
    return Row(
        key=name,
        meaning=about.meaning,
        allowed=setting.allowed,
        default=about.default or _default(setting),
        dovecot=about.dovecot,
    )


def _default(setting: Setting) -> str:
    if setting.field.is_required():
        return "none: it must be set"
    default = setting.field.get_default(call_default_factory=True)
    return "not set" if default is None else f"`{toml_value(plain(default))}`"
