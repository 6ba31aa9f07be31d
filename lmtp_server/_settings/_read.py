"""The settings of `serve`, from a TOML file, the environment and flags.

The invariant: a `ServeSettings` is valid in every part; what is wrong is told all at once, each
fault with its value, its place (file and line, variable or flag) and what is allowed.
"""

import os
from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from ._faults import SettingsError, show_path, tell
from ._sources import CONFIG, Given, read_environment, read_file, read_flags
from ._top import ServeSettings
from ._types import concealed, revealed


def read_settings(
    flags: Mapping[str, object],
    config: str | None,
    faults: Sequence[str] = (),
    *,
    environment: Mapping[str, str] = os.environ,
) -> ServeSettings:
    """The settings that `flags`, `environment` and the TOML file `config` make together; a flag
    wins over the environment, that over the file. Without `config` the file is that which the
    environment names, if it does.

    `flags` has those given, as texts, by field name. Raises SettingsError for what is wrong with
    them and for the `faults` that were found before.
    """
    given = Given(faults=list(faults))
    config = config or environment.get(CONFIG) or None
    if config is not None:
        read_file(config, given)
    read_environment(ServeSettings, environment, given)
    read_flags(ServeSettings, flags, given)
    settings = None
    try:
        settings = ServeSettings.model_validate(given.values)
    except ValidationError as error:
        given.faults += tell(error, ServeSettings, given)
    given.faults += _plugin_faults(given)
    if given.faults or settings is None:
        raise SettingsError(given.faults)
    return settings


def _plugin_faults(given: Given) -> list[str]:
    """What is wrong with the plugins, as far as they are known whatever else is wrong."""
    names = given.values.get("plugins", [])
    tables = given.values.get("plugin", {})
    if not isinstance(names, list) or not isinstance(tables, dict) or not (names or tables):
        return []
    if not all(isinstance(each, str) for each in names):
        return []
    if not all(isinstance(each, dict) for each in tables.values()):
        return []
    try:
        from lmtp_server._plugins import PluginsError, load_plugins
    except ImportError:
        return ["plugins: pluggy is not installed: pip install 'lmtp-proto[plugins]'"]
    try:
        # References that lead nowhere are told as what they are.
        tables = {name: revealed(concealed(table)) for name, table in tables.items()}
    except ValueError:
        return []
    try:
        load_plugins(names, tables)
    except PluginsError as error:
        return [_told(given, path, text) for path, text in error.faults]
    return []


def _told(given: Given, path: tuple[str, ...], text: str) -> str:
    place = given.place(path)
    name = show_path(path)
    return f"{place}: {name}: {text}" if place and place != name else f"{name}: {text}"
