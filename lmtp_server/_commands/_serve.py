"""The command `serve`: from settings to running workers.

The invariant: all that can be wrong with the settings, the listeners and the mail root is found
before a worker is started, and then nothing stays behind; at a reload as at the start.
"""

import grp
import logging
import os
import pwd
import resource
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Final

from lmtp_proto import Recipient, Transaction
from lmtp_server import _mail_root, _privileges
from lmtp_server._agents import (
    AGENTS_OF_A_WORKER,
    agent_options,
    broker_options,
    make_lookup,
    who_serves,
)
from lmtp_server._components import mail_root
from lmtp_server._logs import DebugLog, DeliveryLog, LineFormat, Log, Logs, Rawlogs
from lmtp_server._monitoring import Monitoring
from lmtp_server._privileges import (
    AgentOptions,
    Capability,
    Lookup,
    Mode,
    PrivilegesError,
    Settled,
)
from lmtp_server._settings import ListenerTable, ServeSettings, SettingsError
from lmtp_server._settings._types import revealed
from lmtp_server._settings._worker_rules import WorkerTable
from lmtp_server._tracing import tracing_options
from lmtp_server._workers import (
    ListenerPlan,
    Notifier,
    Opened,
    Plan,
    PlanError,
    Post,
    Rules,
    Sockets,
    Supervisor,
    load,
    missing,
)
from lmtp_server._workers._worker import Hooks, work
from lmtp_sockets import activated_sockets
from mailstore import DeliveryReport, Report, UserLimits

from ._tls_files import tls_files

if TYPE_CHECKING:
    from lmtp_server._plugins import Plugins
    from lmtp_server._traces import Tracing, TracingOptions


_logger: Final = logging.getLogger("lmtp_server")


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
    service = _Service(Sockets(activated), read, settings)
    try:
        plan = service.plan(settings)
        service.logs.adopt()
        _raise_descriptor_limit()
        service.settle(settings)
        broker = service.settled.broker
        return Supervisor(
            plan,
            reload=service.reload,
            stopping=service.sockets.close,
            reopen=[service.logs.reopen],
            notifier=Notifier(),
            vital=None if broker is None else broker.control,
            watcher=service.monitoring.watcher,
        ).run()
    finally:
        service.sockets.close()
        service.monitoring.close()
        if service.settled.broker is not None:
            service.settled.broker.wait()


class _Service:
    """Makes plans of settings; holds what lives longer than a plan."""

    def __init__(
        self, sockets: Sockets, read: Callable[[], ServeSettings], settings: ServeSettings
    ) -> None:
        self.sockets = sockets
        self.settled = Settled(Mode.UNCHANGED)
        self.monitoring = Monitoring()
        self._read = read
        self._who = _who(settings)
        self._privileges = _plan_privileges(settings)
        identity = self._privileges.identity
        self.logs = Logs(None if identity is None else (identity.uid, identity.gid))
        # The workers of two plans share what they count in.
        self._limits = cache(UserLimits)
        self._announced: list[str] = []

    def settle(self, settings: ServeSettings) -> None:
        """Start the broker and be root no more, where that is so. Raises SettingsError."""
        mode = self._privileges.mode
        if mode is Mode.UNCHANGED and os.geteuid() == 0:
            _logger.warning(
                "started by root, everything runs as root: set user, or userdb for users with"
                " uids of their own"
            )
        try:
            self.settled = _privileges.settle(
                self._privileges,
                lookup=make_lookup(settings) if mode is Mode.BROKER else None,
                options=replace(broker_options(settings), log_descriptors=self.logs.descriptors()),
                reload=self._reload_agents,
                load=partial(self._load, settings),
                # For listeners that a reload adds.
                keep=[Capability.NET_BIND_SERVICE],
            )
        except (PrivilegesError, OSError) as error:
            raise SettingsError([f"user: {error}"]) from error
        if mode is Mode.ONE_USER:
            # Now that this is the user who has to write there.
            faults: list[str] = []
            _prepare_root(mail_root(settings), None, faults)
            if faults:
                raise SettingsError(faults)

    def _load(self, settings: ServeSettings) -> None:
        load(settings.runtime)
        self.monitoring.load(settings)

    def reload(self) -> Plan:
        """A plan from settings that are read anew. Raises PlanError."""
        try:
            settings = self._read()
            if _who(settings) != self._who:
                raise PlanError(["user: whom the processes run as changes with a restart only"])
            return self.plan(settings)
        except SettingsError as error:
            raise PlanError(error.faults) from error

    def _reload_agents(self) -> tuple[Lookup, AgentOptions]:
        """What the broker makes of the settings; this runs in its process. Raises SettingsError."""
        settings = self._read()
        faults: list[str] = []
        if self.logs.open(settings.log.options, faults) is None:
            raise SettingsError(faults)
        try:
            made = make_lookup(settings), agent_options(settings)
        except BaseException:
            self.logs.drop()
            raise
        self.logs.adopt()
        return made

    def plan(self, settings: ServeSettings) -> Plan:
        """A plan for `settings`; its listeners listen and the mail root is there. Raises
        SettingsError."""
        faults: list[str] = []
        if missing(settings.runtime):
            faults.append(
                f"runtime: {settings.runtime} is not installed:"
                f" pip install 'lmtp-proto[{settings.runtime}]'"
            )
        made = _make_base_dir(settings, faults)
        listeners = self.sockets.open(_listener_plans(settings, faults), faults)
        if self._privileges.mode is not Mode.BROKER:
            _prepare_root(mail_root(settings), self._privileges.identity, faults)
        log = self.logs.open(settings.log.options, faults)
        answering = self.monitoring.open(settings, faults)
        tracing = tracing_options(settings, faults)
        if faults or log is None:
            self._dropped()
            if made is not None:
                os.rmdir(made)
            raise SettingsError(faults)
        most = settings.limits.user_concurrency_limit
        return Plan(
            work=partial(
                self._work,
                settings,
                listeners,
                log,
                answering,
                self._limits(most) if most else None,
                _plugins(settings),
                tracing,
            ),
            count=settings.workers,
            drain=settings.drain,
            rules=_rules(settings.worker),
            adopted=partial(self._adopted, settings, listeners, answering),
            dropped=self._dropped,
        )

    def _dropped(self) -> None:
        self.sockets.drop()
        self.logs.drop()
        self.monitoring.drop()

    def _work(
        self,
        settings: ServeSettings,
        listeners: list[Opened],
        log: Log,
        answering: list[Opened],
        user_limits: UserLimits | None,
        plugins: "Plugins | None",
        options: "TracingOptions | None",
        post: Post,
    ) -> None:
        log.install()
        self.sockets.close_others(listeners)
        counting = self.monitoring.in_worker(post, answering)
        settled = self.settled
        tracing = _tracing(options)
        deliveries = _delivery_log(settings, tracing)
        raw = settings.log.rawlogs(settings.recipient_delimiter)
        rawlogs = None if raw is None else Rawlogs(raw)
        hooks = Hooks(
            confine=partial(settled.confine, execute=bool(settings.quota.warnings)),
            agents=None
            if settled.broker is None
            else partial(settled.agents, limit=AGENTS_OF_A_WORKER, store=counting),
            user_limits=user_limits,
            observers=[
                # Before the lines of deliveries, which name its traces.
                *([] if tracing is None else [lambda _post: tracing]),
                lambda _post: deliveries,
                *([lambda _post: DebugLog()] if settings.log.debug else []),
                *([] if counting is None else [lambda _post: counting]),
            ],
            report=_reports(deliveries, tracing),
            around=None if rawlogs is None else rawlogs.around,
            started=[] if tracing is None else [lambda _post, _presence: tracing.start()],
            reopen=[log.reopen],
            ended=[
                *([] if rawlogs is None else [rawlogs.close]),
                *([] if tracing is None else [tracing.close]),
                log.tell,
            ],
            beats=[] if counting is None else [counting.beat],
            store=counting,
            plugins=plugins,
        )
        work(settings, listeners, hooks, post)

    def _adopted(
        self, settings: ServeSettings, listeners: list[Opened], answering: list[Opened]
    ) -> None:
        self.sockets.adopt(listeners)
        self.logs.adopt()
        if self._announced and self.settled.broker is not None:
            try:
                self.settled.broker.reload()
            except OSError as error:
                _logger.error("the broker has not said that it has the new settings: %s", error)
        addresses = [each.address for each in listeners]
        self.monitoring.adopt(settings, answering, addresses, self.settled.confine)
        _announce(settings, [each for each in addresses if each not in self._announced])
        self._announced = addresses


def _plugins(settings: ServeSettings) -> "Plugins | None":
    if not settings.plugins:
        return None
    from lmtp_server._plugins import load_plugins

    return load_plugins(settings.plugins, revealed(settings.plugin))


def _who(settings: ServeSettings) -> tuple[object, ...]:
    """What settles whom the processes run as."""
    return settings.user, settings.group, settings.network_user, bool(settings.userdb)


def _plan_privileges(settings: ServeSettings) -> _privileges.Plan:
    """Whom the processes are to run as. Raises SettingsError."""
    try:
        plan = who_serves(settings)
    except PrivilegesError as error:
        raise SettingsError([f"user: {error}"]) from error
    if plan.mode is Mode.BROKER and settings.quota.backend == "redis":
        fault = (
            "quota.backend: agents, which write each user's mail, have no network and count in its"
            " Maildir: set backend = 'maildirsize', or user, who has all mail"
        )
        raise SettingsError([fault])
    return plan


def _make_base_dir(settings: ServeSettings, faults: list[str]) -> str | None:
    """Make the directory of the sockets, as Dovecot does; its path, if it was missing."""
    path = settings.base_dir
    if path is None or os.path.lexists(path):
        return None
    try:
        os.mkdir(path)
        made = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            # Whatever the umask: who may connect is up to the sockets in it.
            os.fchmod(made, 0o755)
        finally:
            os.close(made)
    except OSError as error:
        faults.append(f"base_dir: cannot make {path!r}: {error.strerror}")
        return None
    return path


def _prepare_root(
    root: str | None, identity: _privileges.Identity | None, faults: list[str]
) -> None:
    """Make the directory above all Maildirs, for `identity` if that is not who this is."""
    if root is None:
        return
    try:
        if identity is None or os.geteuid() != 0:
            _mail_root.check(root)
            if not faults:
                _mail_root.make(root)
        elif not os.path.lexists(root) and not faults:
            _mail_root.make(root)
            os.lchown(root, identity.uid, identity.gid)
    except OSError as error:
        faults.append(f"mail: cannot keep mail in {root!r}: {error.strerror}")


def _listener_plans(settings: ServeSettings, faults: list[str]) -> list[ListenerPlan]:
    plans = []
    for table in settings.listeners:
        try:
            plans.append(_listener_plan(settings, table))
        except KeyError as error:
            faults.append(f"{table.address}: {error.args[0]}")
    return plans


def _listener_plan(settings: ServeSettings, table: ListenerTable) -> ListenerPlan:
    """The plan of one listener. Raises KeyError for accounts that do not exist."""
    return ListenerPlan(
        address=table.address,
        mode=table.mode,
        owner=None if table.user is None else _id(table.user, "user", _uid),
        group=None if table.group is None else _id(table.group, "group", _gid),
        tls=tls_files(settings.tls, table),
        implicit_tls=table.tls == "implicit",
        proxies=[network.value for network in table.proxy_networks],
        trusted=[network.value for network in table.trusted_networks],
        client_limit=table.client_limit,
        client_limit_per_peer=table.client_limit_per_peer,
    )


def _uid(name: str) -> int:
    return pwd.getpwnam(name).pw_uid


def _gid(name: str) -> int:
    return grp.getgrnam(name).gr_gid


def _id(name: str, kind: str, look_up: Callable[[str], int]) -> int:
    if name.isdigit():
        return int(name)
    try:
        return look_up(name)
    except KeyError:
        raise KeyError(f"there is no {kind} {name!r}") from None


def _rules(table: WorkerTable) -> Rules:
    return Rules(
        max_connections=table.max_connections,
        max_transactions=table.max_transactions,
        jitter=table.jitter,
        memory_limit=table.memory_limit,
        memory_hard_limit=table.memory_hard_limit,
        heartbeat=table.heartbeat,
    )


def _delivery_log(settings: ServeSettings, tracing: "Tracing | None") -> DeliveryLog:
    return DeliveryLog(
        LineFormat(settings.log.deliver_format),
        LineFormat(settings.log.prefix, prefix=True),
        trace_id=None if tracing is None else tracing.trace_id,
    )


def _tracing(options: "TracingOptions | None") -> "Tracing | None":
    if options is None:
        return None
    from lmtp_server._traces import Tracing

    return Tracing(options)


def _reports(deliveries: DeliveryLog, tracing: "Tracing | None") -> Report:
    if tracing is None:
        return deliveries.report

    def report(transaction: Transaction, recipient: Recipient, report: DeliveryReport) -> None:
        tracing.report(transaction, recipient, report)
        deliveries.report(transaction, recipient, report)

    return report


def _raise_descriptor_limit() -> None:
    """Allow as many connections and files as the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _announce(settings: ServeSettings, addresses: list[str]) -> None:
    """Tell who waits for it, and a person at a terminal, that connections are accepted."""
    lines = [f"listening on {address}\n" for address in addresses]
    if addresses and sys.stderr.isatty():
        to = shlex.quote(addresses[0])
        maildir = settings.mail.example()
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
