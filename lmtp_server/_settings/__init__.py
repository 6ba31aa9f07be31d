"""The settings, from a TOML file, the environment and flags to models that are valid in every part.

`read_settings` reads them. What not every command needs is in modules of its own: `_show` writes
them down again, `_dovecot_import` makes them of Dovecot's, `_reference` documents them.
"""

from ._faults import SettingsError
from ._listener import ListenerTable
from ._read import read_settings
from ._top import ServeSettings

__all__ = [
    "ListenerTable",
    "ServeSettings",
    "SettingsError",
    "read_settings",
]
