"""The settings, from a TOML file, the environment and flags to models that are valid in every part.

`read_settings` reads them, `show_settings` writes them down again, `import_doveconf` makes them of
Dovecot's.
"""

from ._doveconf import DovecotError
from ._dovecot_import import Imported, import_doveconf
from ._faults import SettingsError
from ._listener import ListenerTable
from ._read import read_settings
from ._show import show_settings
from ._top import ServeSettings

__all__ = [
    "DovecotError",
    "Imported",
    "ListenerTable",
    "ServeSettings",
    "SettingsError",
    "import_doveconf",
    "read_settings",
    "show_settings",
]
