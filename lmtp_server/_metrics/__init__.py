"""What the service tells of itself: counters of all workers together, health, sessions.

The invariant: nobody who asks holds up a worker or the supervisor; and a counter never goes back,
whatever becomes of the process that counted.
"""

from ._area import SERVING, STARTING, Area, Seen, WorkerRow
from ._count import Counting
from ._health import find_fault
from ._monitor import Monitor, MonitorOptions
from ._watch import Watch

__all__ = [
    "SERVING",
    "STARTING",
    "Area",
    "Counting",
    "Monitor",
    "MonitorOptions",
    "Seen",
    "Watch",
    "WorkerRow",
    "find_fault",
]
