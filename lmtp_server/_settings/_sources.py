"""Where settings are given: in the file, in the environment, by flags.

The invariant: every value that was given has a place that a person finds; the environment wins over
the file, a flag over both.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from ._positions import Path, find_lines
from ._table import Table, find_setting

PREFIX: Final = "LMTP_SERVER_"
CONFIG: Final = PREFIX + "CONFIG"
# What Kubernetes sets in every container for a service that is called lmtp-server.
_KUBERNETES: Final = re.compile(
    PREFIX + r"(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT(?:_[0-9]+_TCP(?:_[A-Z]+)?)?)"
)
_BOOLS: Final = {"yes": True, "no": False}
# Largest settings file, in octets.
_LARGEST: Final = 16 << 20


@dataclass(slots=True)
class Given:
    """Values, and the place of each by its path: `settings.toml:3`, `--workers`."""

    values: dict[str, Any] = field(default_factory=dict)
    places: dict[Path, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    """What could not be read at all."""

    def place(self, path: Path) -> str:
        """The place of what `path` leads to, or of what is nearest above it; empty if nothing of it
        was given."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.places:
                return self.places[path[:end]]
        return ""


def read_file(path: str, given: Given) -> None:
    """Add what the TOML file `path` has."""
    try:
        with open(path, "rb") as file:
            octets = file.read(_LARGEST + 1)
        if len(octets) > _LARGEST:
            given.faults.append(f"{path}: it is too large for settings")
            return
        text = octets.decode()
        given.values = tomllib.loads(text)
        lines = find_lines(text)
    except OSError as error:
        given.faults.append(f"--config: cannot read {path!r}: {error.strerror}")
    except tomllib.TOMLDecodeError as error:
        given.faults.append(f"{path}: this is no TOML: {error}")
    except UnicodeDecodeError as error:
        given.faults.append(f"{path}: this is no TOML: octet {error.start} is not UTF-8")
    except RecursionError:
        given.faults.append(f"{path}: this is no TOML for settings: it is nested too deeply")
    else:
        given.places = {key: f"{path}:{line}" for key, line in lines.items()}


def read_environment(table: type[Table], environment: Mapping[str, str], given: Given) -> None:
    """Add the variables `LMTP_SERVER_KEY`, with `__` between the levels: `..._QUOTA__GRACE`."""
    for name in sorted(environment):
        if not name.startswith(PREFIX) or name == CONFIG or _KUBERNETES.fullmatch(name):
            continue
        path = tuple(
            int(key) if key.isdecimal() and key.isascii() else key.lower()
            for key in name.removeprefix(PREFIX).split("__")
        )
        _put(table, path, environment[name], name, given)


def read_flags(table: type[Table], flags: Mapping[str, object], given: Given) -> None:
    """Add what flags say, by the names of settings: texts, lists of texts, bools."""
    for name, value in flags.items():
        _put(table, (name,), value, "--" + name.replace("_", "-"), given)


def _put(table: type[Table], path: Path, value: object, place: str, given: Given) -> None:
    _, setting = find_setting(table, path, given.values)
    if setting is not None and isinstance(value, str):
        value = _fitting(setting.field, value)
    here: Any = given.values
    for key, following in zip(path, [*path[1:], None], strict=True):
        if isinstance(here, dict) and isinstance(key, str):
            if following is None:
                here[key] = value
            elif not isinstance(here.get(key), dict | list):
                here[key] = [] if isinstance(following, int) else {}
        elif isinstance(here, list) and isinstance(key, int) and key <= len(here):
            if key == len(here):
                here.append({})
            if following is None:
                here[key] = value
            elif not isinstance(here[key], dict | list):
                here[key] = {}
        else:
            given.faults.append(
                f"{place}: there is nothing to set there; items of a list count from 0,"
                " without a gap"
            )
            return
        here = here[key]
    for end in range(1, len(path)):
        given.places.setdefault(path[:end], place)
    # Nothing of what stood there before is left.
    for old in [old for old in given.places if old[: len(path)] == path]:
        del given.places[old]
    given.places[path] = place


def _fitting(field: FieldInfo, text: str) -> object:
    """`text` as the kind of value that the field takes; itself if it is of none."""
    kind: Any = field.annotation
    if field.metadata:
        kind = Annotated[(kind, *field.metadata)]
    adapter: TypeAdapter[object] = TypeAdapter(kind)
    for value in _readings(text):
        try:
            adapter.validate_python(value, strict=True)
        except ValidationError:
            continue
        return value
    return text


def _readings(text: str) -> list[object]:
    readings: list[object] = [text]
    if text.lower() in _BOOLS:
        readings.append(_BOOLS[text.lower()])
    try:
        readings.append(tomllib.loads(f"value = {text}")["value"])
    except (tomllib.TOMLDecodeError, RecursionError, KeyError):
        pass
    readings.append([item.strip() for item in text.split(",")] if text else [])
    return readings
