"""Who runs as whom, from what was set and who started the daemon.

The invariant: where root has started it, no process that reads the network or writes mail stays
root; what stands in the way is told before anything is started.
"""

import os
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ._identity import Identity, PrivilegesError, ValidIds

_NETWORK_USERS: Final = ("lmtp", "nobody")


class Mode(StrEnum):
    """Who writes mail."""

    UNCHANGED = "unchanged"
    """Root has not started the daemon: all processes are those of whoever has."""
    ONE_USER = "one user"
    """The workers, as the one user that has all mail."""
    BROKER = "broker"
    """Agents of each user, which a broker starts; the workers are nobody in particular."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The mode, and whom supervisor and workers become once the listeners are bound."""

    mode: Mode
    identity: Identity | None = None
    """None where they stay who they are."""


def plan(
    *,
    user: str | None = None,
    group: str | None = None,
    network_user: str | None = None,
    valid_ids: ValidIds,
) -> Plan:
    """The plan for this process. `user` and `group` have all mail; without them each user has
    mail as itself, and `network_user`, by default `lmtp` or else `nobody`, serves the listeners.

    Raises PrivilegesError.
    """
    identity = None
    if user is not None:
        identity = valid_ids.check(Identity.of(user, group))
    elif group is not None:
        raise PrivilegesError("a group without a user: set the user as well")
    if os.geteuid() != 0:
        if identity is not None and identity.uid != os.geteuid():
            raise PrivilegesError(f"only root can start a server that runs as {user!a}")
        return Plan(Mode.UNCHANGED)
    if identity is not None:
        return Plan(Mode.ONE_USER, identity)
    return Plan(Mode.BROKER, _network_identity(network_user))


def _network_identity(name: str | None) -> Identity:
    if name is not None:
        return Identity.of(name)
    for default in _NETWORK_USERS:
        try:
            return Identity.of(default)
        except PrivilegesError:
            continue
    raise PrivilegesError(
        "there is no user to serve the network:"
        " make one (useradd --system lmtp) or set network_user"
    )
