"""The change from the process that root has started to those that serve.

The invariant: what `settle` leaves behind is the broker, if there is one, and a process that is no
longer root; a worker that `confine` lets go on can gain nothing.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mailstore import StoreObserver

from ._broker import BrokerOptions, BrokerProcess, Reload, start_broker
from ._drop import drop, harden
from ._identity import PrivilegesError
from ._plan import Mode, Plan
from ._pool import AgentPool
from ._seccomp import Confinement
from ._user import Lookup


@dataclass(frozen=True, slots=True)
class Settled:
    """What the supervisor has once it is nobody in particular; its workers inherit it."""

    mode: Mode
    broker: BrokerProcess | None = None

    def confine(self, *, execute: bool = False) -> None:
        """For a worker, before it does anything: give up all that it does not need. `execute`
        leaves it the right to run programs, as quota warnings do. Raises PrivilegesError."""
        if self.mode is not Mode.UNCHANGED:
            harden(Confinement(network=True, execute=execute))

    def agents(
        self,
        *,
        limit: int = 64,
        idle: float = 60.0,
        timeout: float = 150.0,
        lost: Callable[[], None] = lambda: None,
        store: StoreObserver | None = None,
    ) -> AgentPool:
        """For a worker, once: its agents; see `AgentPool`. Raises PrivilegesError where there is
        no broker, or not any more."""
        if self.broker is None:
            raise PrivilegesError("there is no broker")
        try:
            channel = self.broker.channel()
        except OSError as error:
            raise PrivilegesError(f"the broker cannot be reached: {error.strerror}") from error
        # A copy of the supervisor's end would keep the broker from seeing that one close.
        self.broker.close()
        return AgentPool(channel, limit=limit, idle=idle, timeout=timeout, lost=lost, store=store)


def settle(
    plan: Plan,
    *,
    lookup: Lookup | None = None,
    options: BrokerOptions | None = None,
    reload: Reload | None = None,
    load: Callable[[], object] = lambda: None,
    keep: Iterable[int] = (),
) -> Settled:
    """Start the broker that `plan` asks for and become who it says, for good.

    To be called with the listeners bound and no thread or worker begun. `lookup`, `options` and
    `reload` are for the broker; `load` is called before this process may be unable to read the
    files of what it needs; `keep` are capabilities that this process keeps. Raises
    PrivilegesError and OSError.
    """
    broker = None
    if plan.mode is Mode.BROKER:
        if lookup is None or options is None:
            raise PrivilegesError("a broker needs a directory of users")
        broker = start_broker(lookup, options, reload=reload)
    if plan.identity is not None:
        load()
        drop(plan.identity, keep=keep)
    return Settled(plan.mode, broker)
