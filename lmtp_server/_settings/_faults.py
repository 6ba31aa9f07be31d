"""What is wrong with settings, in words.

The invariant: a fault says where it is, what is there and what is allowed; no secret is repeated.
"""

import reprlib
from collections.abc import Iterator
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ._positions import Path
from ._sources import Given
from ._table import Table, TableFault, find_setting, settings_of
from ._toml import toml_key
from ._types import SecretText

# Names that are told of those that are near, and of all there are.
_NEAR: Final = 3


class SettingsError(Exception):
    """Settings that are no good; `faults` has a line for each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


def tell(error: ValidationError, root: type[Table], given: Given) -> list[str]:
    """A line for each fault, those of the file in the order of its lines."""
    told = []
    for number, fault in enumerate(error.errors()):
        path, text = _explain(fault, root, given)
        place = given.place(path)
        file, _, line = place.rpartition(":")
        order = (file, int(line)) if file and line.isdecimal() else ("\U0010ffff", number)
        # A flag and a variable say by themselves which setting they are.
        where = f"{place}: {show_path(path)}" if file else place or show_path(path)
        told.append((order, number, f"{where}: {text}"))
    return [text for _, _, text in sorted(told)]


def show_path(path: Path) -> str:
    """A path as people write it: `listener[0].address`, counted from 0; always on one line."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            text += f".{toml_key(key)}" if text else toml_key(key)
    return text


def _explain(fault: ErrorDetails, root: type[Table], given: Given) -> tuple[Path, str]:
    missing = fault["type"] == "missing"
    path = _without_tags(fault["loc"], given.values, keep_last=missing)
    if fault["type"] == "extra_forbidden":
        return path, _unknown(path, root, given)
    if fault["type"].startswith("union_tag"):
        path += ("driver",)
        missing = fault["type"] == "union_tag_not_found"
    table, setting = find_setting(root, path, given.values)
    allowed = "a table" if setting is None else setting.allowed
    if missing:
        return path, f"it is missing; allowed is {allowed}"
    if fault["type"] == "value_error":
        wrong = fault["ctx"]["error"]
        if isinstance(wrong, TableFault):
            keys = [int(key) if key.isdecimal() else key for key in wrong.key.split(".")]
            return (*path, *keys), str(wrong)
        return path, str(wrong)
    value = _value(path, given.values)
    if setting is not None and _is_secret(setting.field.annotation):
        return path, f"this is not allowed; allowed is {allowed}"
    if fault["type"] == "model_type" and setting is not None and setting.is_list_of_tables:
        allowed = f"a table [[{show_path(path).partition('[')[0]}]]"
    elif fault["type"] in {"model_type", "model_attributes_type", "dict_type"}:
        allowed = f"a table: {', '.join(settings_of(table))}" if setting is None else allowed
    return path, f"{reprlib.repr(value)} is not allowed; allowed is {allowed}"


def _is_secret(annotation: object) -> bool:
    return SecretText.__origin__.__name__ in repr(annotation)  # type: ignore[attr-defined]  # of Annotated


def _without_tags(loc: tuple[str | int, ...], values: object, *, keep_last: bool) -> Path:
    """The path without the drivers' names, which pydantic puts behind the item of a list."""
    path: list[str | int] = []
    for number, key in enumerate(loc):
        if isinstance(values, dict) and key not in values:
            if keep_last and number == len(loc) - 1:
                path.append(key)
            continue
        path.append(key)
        values = _inside(values, key)
    return tuple(path)


def _inside(values: Any, key: str | int) -> object:
    try:
        inside: object = values[key]
    except (LookupError, TypeError):
        return None
    return inside


def _value(path: Path, values: object) -> object:
    for key in path:
        values = _inside(values, key)
    return values


def _unknown(path: Path, root: type[Table], given: Given) -> str:
    name = str(path[-1])
    table, _ = find_setting(root, path[:-1], given.values)
    names = list(settings_of(table))
    # Only here, and where settings are imported, is anything of Dovecot's needed.
    from ._dovecot_names import hint

    known = hint(name, root)
    if known:
        return f"there is no such setting; {known}"
    elsewhere = [each for each in _all_paths(root) if each.rpartition(".")[2] == name]
    if elsewhere:
        return f"there is no such setting here; is it {' or '.join(elsewhere[:_NEAR])}?"
    # For those alone who have made a mistake.
    import difflib

    near = difflib.get_close_matches(name.replace("-", "_").lower(), names, _NEAR)
    if near:
        return f"there is no such setting; is it {' or '.join(near)}?"
    return f"there is no such setting; those there are: {', '.join(sorted(names))}"


def _all_paths(root: type[Table]) -> Iterator[str]:
    for name, setting in settings_of(root).items():
        yield name
        for table in setting.tables:
            for below in _all_paths(table):
                yield f"{name}.{below}"
