"""The command `serve`: from settings to running workers.

The invariant: all that can be wrong with the settings, the listeners and the mail root is found
before a worker is started, and then nothing stays behind; at a reload as at the start.
"""

import os
import resource
import shlex
import sys
from collections.abc import Callable
from functools import partial

from lmtp_server import _logging, _mail_root
from lmtp_server._settings import ServeSettings, SettingsError
from lmtp_server._workers import (
    ListenerPlan,
    Notifier,
    Opened,
    Plan,
    PlanError,
    Post,
    Sockets,
    Supervisor,
    missing,
)
from lmtp_server._workers._worker import Hooks, work
from lmtp_sockets import activated_sockets


def serve(read: Callable[[], ServeSettings]) -> int:
    """Serve until SIGTERM or SIGINT; the exit code.

    `read` gives the settings, at the start and at each SIGHUP. Raises SettingsError if nothing was
    started.
    """
    settings = read()
    try:
        activated = activated_sockets()
    except (OSError, ValueError) as error:
        raise SettingsError([f"sockets of the service manager: {error}"]) from error
    service = _Service(Sockets(activated), read)
    try:
        plan = service.plan(settings)
        _logging.configure()
        _raise_descriptor_limit()
        return Supervisor(
            plan, reload=service.reload, stopping=service.sockets.close, notifier=Notifier()
        ).run()
    finally:
        service.sockets.close()


class _Service:
    """Makes plans of settings; holds what lives longer than a plan."""

    def __init__(self, sockets: Sockets, read: Callable[[], ServeSettings]) -> None:
        self.sockets = sockets
        self._read = read
        self._announced: list[str] = []

    def reload(self) -> Plan:
        """A plan from settings that are read anew. Raises PlanError."""
        try:
            return self.plan(self._read())
        except SettingsError as error:
            raise PlanError(error.faults) from error

    def plan(self, settings: ServeSettings) -> Plan:
        """A plan for `settings`; its listeners listen and the mail root is there. Raises
        SettingsError."""
        faults: list[str] = []
        if missing(settings.runtime):
            faults.append(
                f"runtime: {settings.runtime} is not installed:"
                f" pip install 'lmtp-proto[{settings.runtime}]'"
            )
        listeners = self.sockets.open(_listener_plans(settings, faults), faults)
        root = settings.mail.root
        try:
            _mail_root.check(root)
            if not faults:
                _mail_root.make(root)
        except OSError as error:
            faults.append(f"mail: cannot keep mail in {root!r}: {error.strerror}")
        if faults:
            self.sockets.drop()
            raise SettingsError(faults)
        return Plan(
            work=partial(self._work, settings, listeners),
            count=settings.workers,
            drain=settings.drain,
            rules=settings.worker.rules(),
            adopted=partial(self._adopted, settings, listeners),
            dropped=self.sockets.drop,
        )

    def _work(self, settings: ServeSettings, listeners: list[Opened], post: Post) -> None:
        self.sockets.close_others(listeners)
        work(settings, listeners, Hooks(), post)

    def _adopted(self, settings: ServeSettings, listeners: list[Opened]) -> None:
        self.sockets.adopt(listeners)
        addresses = [each.address for each in listeners]
        _announce(settings, [each for each in addresses if each not in self._announced])
        self._announced = addresses


def _listener_plans(settings: ServeSettings, faults: list[str]) -> list[ListenerPlan]:
    tls = None if settings.tls is None else settings.tls.files()
    plans = [ListenerPlan(address=address) for address in settings.plain_addresses]
    for number, table in enumerate(settings.listener):
        try:
            plans.append(table.plan(tls))
        except ValueError as error:
            faults.append(f"listener[{number}]: {error}")
    return plans


def _raise_descriptor_limit() -> None:
    """Allow as many connections and files as the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _announce(settings: ServeSettings, addresses: list[str]) -> None:
    """Tell who waits for it, and a person at a terminal, that connections are accepted."""
    lines = [f"listening on {address}\n" for address in addresses]
    if addresses and sys.stderr.isatty():
        to = shlex.quote(addresses[0])
        maildir = str(settings.mail).format(user="me", domain="example.org")
        lines.append(
            f"send a first message, to lie in {maildir}/new: echo hello | {_command()} send"
            f" --to {to} --from you@example.org --rcpt me@example.org -\n"
        )
    sys.stderr.write("".join(lines))
    sys.stderr.flush()


def _command() -> str:
    """How this program was called."""
    name = sys.argv[0]
    if os.path.basename(name) == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m lmtp_server"
    return shlex.quote(name)
