"""Plugins: loading them, and the handler that asks them. Imported where some are configured."""

from ._handler import PluginHandler
from ._load import Plugins, PluginsError, load_plugins

__all__ = ["PluginHandler", "Plugins", "PluginsError", "load_plugins"]
