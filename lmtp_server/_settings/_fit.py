"""From text to the kind of value that a setting has: for variables, flags and Dovecot's settings.

The invariant: what is given back is a value that the setting takes.
"""

import tomllib
from collections.abc import Iterator
from typing import Annotated, Any, Final

from pydantic import TypeAdapter, ValidationError

from ._table import Setting

_BOOLS: Final = {"yes": True, "no": False}


def fit(setting: Setting, text: str) -> object:
    """`text` as a value of the setting: as it stands, yes or no, as TOML has it, or a list with
    commas. Raises ValueError."""
    kind: Any = setting.field.annotation
    if setting.field.metadata:
        kind = Annotated[(kind, *setting.field.metadata)]
    adapter: TypeAdapter[object] = TypeAdapter(kind)
    for value in _readings(text):
        try:
            adapter.validate_python(value, strict=True)
        except ValidationError:
            continue
        return value
    raise ValueError(f"{text!r} is not allowed; allowed is {setting.allowed}")


def _readings(text: str) -> Iterator[object]:
    read = list(_as_toml(text))
    # { file = "PATH" } stands for a text, and is none itself.
    if text.startswith("{"):
        yield from read
    yield text
    if text.lower() in _BOOLS:
        yield _BOOLS[text.lower()]
    yield from read
    yield [item.strip() for item in text.split(",")] if text else []


def _as_toml(text: str) -> Iterator[object]:
    try:
        yield tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        pass
