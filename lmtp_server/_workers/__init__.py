"""The processes of the daemon: the supervisor, its workers, and the sockets they share.

The invariant: from the first ready line to the stop there is always a worker that accepts, whatever
becomes of the others and of the settings.
"""

from ._listeners import ACTIVATED, ListenerPlan, Opened, Sockets
from ._notify import Notifier
from ._plan import Plan, PlanError, Post, Rules
from ._presence import Presence
from ._process import Worker
from ._runtimes import RUNTIMES, Runtime, fastest, load, missing
from ._supervisor import Supervisor
from ._title import Title
from ._tls import TlsFiles, explain, open_certificates
from ._watcher import Watcher

__all__ = [
    "ACTIVATED",
    "RUNTIMES",
    "ListenerPlan",
    "Notifier",
    "Opened",
    "Plan",
    "PlanError",
    "Post",
    "Presence",
    "Rules",
    "Runtime",
    "Sockets",
    "Supervisor",
    "Title",
    "TlsFiles",
    "Watcher",
    "Worker",
    "explain",
    "fastest",
    "load",
    "missing",
    "open_certificates",
]
