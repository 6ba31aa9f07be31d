"""What the service tells of itself: counters of all workers together, health, sessions.

The invariant: nobody who asks holds up a worker or the supervisor; and a counter never goes back,
whatever becomes of the process that counted.
"""

from ._area import Area, WorkerRow
from ._count import Counting
from ._monitor import Monitor, MonitorOptions
from ._watch import Watch

__all__ = ["Area", "Counting", "Monitor", "MonitorOptions", "Watch", "WorkerRow"]
