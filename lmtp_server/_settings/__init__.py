"""The settings, from flags and a TOML file to models that are valid in every part."""

from ._read import ServeSettings, SettingsError, read_settings

__all__ = ["ServeSettings", "SettingsError", "read_settings"]
