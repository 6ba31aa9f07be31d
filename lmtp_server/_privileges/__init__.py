"""Privileges: who the processes of the daemon are, and how little each may do.

A daemon that root starts binds its listeners, forks the broker if each user's mail is to be written
as that user, and drops to a user of its own before it forks a worker. From there on the broker is
the only process of root's; it has no socket of the network and starts agents, each of which becomes
one user for good and writes that user's mail. Workers hand messages to the agents.

The invariant: no process of root's reads what came from the network, and no process that does can
become root, or write mail for a user whom the directory does not have.
"""

from ._agent import AgentOptions
from ._broker import BrokerOptions, BrokerProcess, start_broker
from ._drop import drop, harden
from ._identity import Identity, PrivilegesError, ValidIds
from ._kernel import Capability
from ._plan import Mode, Plan, plan
from ._pool import AgentPool
from ._seccomp import Confinement
from ._settle import Settled, settle
from ._sink import AgentHandler, AgentSink, Locate, UserMailbox
from ._user import Lookup, MailUser

__all__ = [
    "AgentHandler",
    "AgentOptions",
    "AgentPool",
    "AgentSink",
    "BrokerOptions",
    "BrokerProcess",
    "Capability",
    "Confinement",
    "Identity",
    "Locate",
    "Lookup",
    "MailUser",
    "Mode",
    "Plan",
    "PrivilegesError",
    "Settled",
    "UserMailbox",
    "ValidIds",
    "drop",
    "harden",
    "plan",
    "settle",
    "start_broker",
]
