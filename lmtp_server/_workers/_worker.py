"""A worker: one of the processes that serve the listeners."""

import faulthandler
import gc
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TYPE_CHECKING, Final

from lmtp_proto import STANDARD_EXTENSIONS, Around, Extension, Observer, Session, Settings
from lmtp_server._agents import AgentPlaces, spool_directory
from lmtp_server._components import Mail, make_users, open_mail
from lmtp_server._observers import observe
from lmtp_server._privileges import AgentHandler, AgentPool
from lmtp_server._settings import ServeSettings
from mailstore import Report, StoreHandler, StoreObserver, UserLimits

from ._listeners import Opened
from ._plan import Post
from ._presence import Presence
from ._runtimes import Service, run
from ._title import Title

if TYPE_CHECKING:
    from lmtp_server._plugins import PluginHandler, Plugins

# Objects made before the collector looks for cycles, of which a session leaves few.
_COLLECT_AFTER: Final = 20_000
# Seconds a thread computes on while another waits: the committer waits after each of its system
# calls, and all who deliver wait for it.
_SWITCH_INTERVAL: Final = 0.0005
_FOR_OTHERS: Final = frozenset({Extension.XCLIENT, Extension.XFORWARD, Extension.XRCPTFORWARD})


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What is called in each worker beside its service; each in this order."""

    confine: Callable[[], None] = lambda: None
    """Gives up what the worker does not need: privileges, capabilities, system calls. Called
    before anything else is done; listeners and certificates are open by then, nothing from the
    network has been read. It asserts what it has done, and raises where that did not work: the
    worker ends then."""
    agents: Callable[[], AgentPool] | None = None
    """Makes the agents that write mail, called once; None where the worker writes it."""
    user_limits: UserLimits | None = None
    """What the workers count deliveries to a user in, together; None where nothing is limited."""
    plugins: "Plugins | None" = None
    """Who is asked and told of what goes on; None, and nothing is spent on it."""
    observers: Sequence[Callable[[Post], Observer]] = ()
    """Each makes one that watches the worker's sessions."""
    report: Report | None = None
    """Told how each delivery went."""
    around: Around | None = None
    """What conversations pass through."""
    started: Sequence[Callable[[Post, Presence], None]] = ()
    """Called before connections are accepted, with what the worker has from its supervisor and
    who is there."""
    beats: Sequence[Callable[[], None]] = ()
    """Called again and again, a second apart or less, where sessions are served."""
    store: StoreObserver | None = None
    """Watches the store, where the worker writes mail itself."""
    reopen: Sequence[Callable[[], None]] = ()
    """Called when log files are to be opened anew."""
    ended: Sequence[Callable[[], None]] = ()
    """Called when all sessions are over and all mail is stored."""


def work(settings: ServeSettings, listeners: Sequence[Opened], hooks: Hooks, post: Post) -> None:
    """Deliver what comes in on `listeners` until the channel says that this ends."""
    # A worker that is silent is sent SIGABRT, that it may say where it is.
    faulthandler.enable()
    title = Title("lmtp-worker")
    hooks.confine()
    post.channel.reopen += hooks.reopen
    trusted = {each.plan.address: each.plan.trusted for each in listeners if each.plan.trusted}
    presence = Presence(post.place, most=settings.limits.total_client_limit)
    for started in hooks.started:
        started(post, presence)

    def beat() -> None:
        presence.beat()
        for each in hooks.beats:
            each()
        count = post.place.connections
        title.show(f"{count} connection{'' if count == 1 else 's'}")

    handler: _Handler | _AgentHandler
    if hooks.agents is None:
        # Where it writes as one user, that is its own.
        mail = open_mail(settings, own_uid=os.geteuid(), observer=hooks.store)
        close = mail.close
        handler = _Handler(mail, trusted, hooks.user_limits, hooks.report)
    else:
        pool = hooks.agents()
        close = pool.close
        handler = _AgentHandler(pool, settings, trusted, hooks.user_limits, hooks.report)
    plugged = None if hooks.plugins is None else _plug(hooks.plugins, handler, settings)
    service = Service(
        handler=plugged or handler,
        settings=Settings(
            hostname=settings.hostname,
            greeting=settings.greeting,
            limits=settings.limits.limits,
            path_rules=settings.limits.path_rules,
            content_policy=settings.content.policy,
            extensions=STANDARD_EXTENSIONS | _FOR_OTHERS if trusted else STANDARD_EXTENSIONS,
            observer=observe([each(post) for each in hooks.observers]),
            logs_refusals=not hooks.observers,
            names_refusals=True,
            around=hooks.around,
        ),
        listeners=[each.listener(presence, shared=settings.workers > 1) for each in listeners],
        max_connections=settings.limits.client_limit,
        channel=post.channel,
        beat=beat,
        drain=settings.drain,
    )
    _tune()
    run(settings.runtime, service)
    if plugged is not None:
        plugged.stop()
    close()
    for ended in hooks.ended:
        ended()


def _plug(
    plugins: "Plugins", handler: "_Handler | _AgentHandler", settings: ServeSettings
) -> "PluginHandler":
    """`handler`, with the plugins around it."""
    from lmtp_server._plugins import PluginHandler

    return PluginHandler(
        handler, plugins, handler.find, detail_is_mailbox=settings.save_to_detail_mailbox
    )


def _tune() -> None:
    """Spend less on collecting garbage and on handing the interpreter from thread to thread."""
    # What is loaded by now stays: it is neither looked through nor copied from the supervisor.
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 20)
    sys.setswitchinterval(_SWITCH_INTERVAL)


_Networks = Mapping[str, Sequence[IPv4Network | IPv6Network]]


class _Trust:
    """Which peers may speak for others: those in the networks of a listener, by its name."""

    def __init__(self, networks: _Networks) -> None:
        self._networks = networks

    def __call__(self, session: Session) -> bool:
        if not self._networks or session.client_ip is None:
            return False
        address = ip_address(session.client_ip)
        return any(address in network for network in self._networks.get(session.listener, ()))


class _Handler(StoreHandler):
    """The store's."""

    def __init__(
        self, mail: Mail, trusted: _Networks, limits: UserLimits | None, report: Report | None
    ) -> None:
        super().__init__(mail.store, mail.users.locate, user_limits=limits, report=report)
        self.find = mail.users.find
        self._trusts = _Trust(trusted)

    def trusts(self, session: Session, /) -> bool:
        return self._trusts(session)


class _AgentHandler(AgentHandler):
    """That of users' agents."""

    def __init__(
        self,
        pool: AgentPool,
        settings: ServeSettings,
        trusted: _Networks,
        limits: UserLimits | None,
        report: Report | None,
    ) -> None:
        users = make_users(settings, own_uid=None)
        places = AgentPlaces(users, settings)
        super().__init__(
            pool,
            places.locate,
            spool_directory=spool_directory(settings),
            user_limits=limits,
            report=report,
        )
        self.find = users.find
        self._trusts = _Trust(trusted)

    def trusts(self, session: Session, /) -> bool:
        return self._trusts(session)
