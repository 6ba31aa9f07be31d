"""Finds plugins by their names and makes them with their tables.

The invariant: what is given back has every plugin that was asked for; what is wrong is told at
once.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Final

from pluggy import PluginManager
from pluggy import PluginValidationError as InvalidError

from lmtp_proto import Reply
from lmtp_server.plugins import Delivery, Hooks, MakePlugin

_logger: Final = logging.getLogger("lmtp_server")

GROUP: Final = "lmtp_server.plugins"
# There without an entry point, so that they are wherever the server is.
_OWN: Final = {
    "mail_log": ("lmtp_server._plugins._mail_log", "MailLog"),
    "push_notification": ("lmtp_server._plugins._push_notification", "PushNotification"),
}


class PluginsError(Exception):
    """Plugins that cannot be had: for each fault its key below the settings, and a text."""

    def __init__(self, faults: list[tuple[tuple[str, ...], str]]) -> None:
        super().__init__("; ".join(text for _, text in faults))
        self.faults = faults


class Plugins:
    """Plugins, in the order in which they are asked."""

    def __init__(self, manager: PluginManager) -> None:
        self._manager = manager

    def has(self, hook: str) -> bool:
        """Whether a plugin has that hook."""
        return next(self._calls(hook, {}), None) is not None

    def judge(self, hook: str, codes: range | tuple[int, ...], **told: object) -> Reply | None:
        """The first reply to a hook. What is no reply with one of `codes` becomes one."""
        for name, call in self._calls(hook, told):
            try:
                reply = call()
            except Exception:
                _logger.exception("plugin %s: %s failed", name, hook)
            else:
                if reply is None:
                    continue
                if isinstance(reply, Reply) and reply.code in codes:
                    return reply
                _logger.error("plugin %s: %s gave %a: no reply that refuses", name, hook, reply)
            code = 451 if 451 in codes else 421
            return Reply(code, "Temporary internal error", enhanced="4.3.0")
        return None

    def tell(self, hook: str, **told: object) -> None:
        """Tell all plugins."""
        for name, call in self._calls(hook, told):
            try:
                call()
            except Exception:
                _logger.exception("plugin %s: %s failed%s", name, hook, _of_what(told))

    def _calls(
        self, hook: str, told: Mapping[str, object]
    ) -> Iterator[tuple[str, Callable[[], object]]]:
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():

            def call(implementation: Any = implementation) -> object:
                return implementation.function(*(told[name] for name in implementation.argnames))

            yield implementation.plugin_name, call


def _of_what(told: Mapping[str, object]) -> str:
    delivery = told.get("delivery")
    if not isinstance(delivery, Delivery):
        return ""
    return f" for {delivery.transaction.recipient_id(delivery.recipient)}"


def load_plugins(names: Sequence[str], tables: Mapping[str, Mapping[str, object]]) -> Plugins:
    """The plugins of these names, each made with its table. Raises PluginsError."""
    manager = PluginManager("lmtp_server")
    manager.add_hookspecs(Hooks)
    faults: list[tuple[tuple[str, ...], str]] = []
    for name in names:
        try:
            make = _find(name)
        except Exception as error:
            faults.append((("plugins",), f"{name}: {error}"))
            continue
        if manager.has_plugin(name):
            faults.append((("plugins",), f"{name} is there twice"))
            continue
        try:
            manager.register(make(tables.get(name, {})), name)
        except ValueError as error:
            faults += [(("plugin", name), str(text)) for text in error.args or (error,)]
        except InvalidError as error:
            faults.append((("plugins",), f"{name}: {error}"))
        except Exception as error:
            faults.append((("plugin", name), f"{type(error).__name__}: {error}"))
    for name in tables:
        if name not in names:
            faults.append((("plugin", name), f"it is not in use: plugins does not name {name!r}"))
    try:
        manager.check_pending()
    except InvalidError as error:
        faults.append((("plugins",), str(error)))
    for name, plugin in manager.list_name_plugin():
        for caller in manager.get_hookcallers(plugin) or ():
            mine = [each for each in caller.get_hookimpls() if each.plugin_name == name]
            if any(each.hookwrapper or each.wrapper for each in mine):
                text = f"{name}: {caller.name} wraps others, which is not supported"
                faults.append((("plugins",), text))
    if faults:
        raise PluginsError(faults)
    return Plugins(manager)


def _find(name: str) -> MakePlugin:
    if name in _OWN:
        module, attribute = _OWN[name]
        made: MakePlugin = getattr(import_module(module), attribute)
        return made
    for entry in entry_points(group=GROUP, name=name):
        found: MakePlugin = entry.load()
        return found
    there = sorted({*_OWN, *(entry.name for entry in entry_points(group=GROUP))})
    raise LookupError(f"there is no such plugin; there are {', '.join(there)}")
