"""The settings, from a TOML file, the environment and flags to models that are valid in every part.

`read_settings` reads them, `show_settings` writes them down again.
"""

from ._faults import SettingsError
from ._listener import ListenerTable
from ._read import read_settings
from ._top import ServeSettings
from ._userdb import UserdbTable

__all__ = ["ListenerTable", "ServeSettings", "SettingsError", "UserdbTable", "read_settings"]
