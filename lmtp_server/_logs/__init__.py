"""Logs: destinations, the lines about deliveries, and rawlogs.

A `Log` is opened by the supervisor and inherited by the workers; `DeliveryLog` writes the line of
each recipient, `DebugLog` what else there is, `Rawlogs` what is read and written.
"""

from ._deliveries import DebugLog, DeliveryLog
from ._fields import decoded
from ._line_format import DELIVER_FORMAT, PREFIX, LineFormat
from ._log import Log, LogError, LogOptions, Logs, configure, configure_one_shot
from ._rawlog import RawlogOptions, Rawlogs
from ._syslog import FACILITIES
from ._text import TIMESTAMP

__all__ = [
    "DELIVER_FORMAT",
    "FACILITIES",
    "PREFIX",
    "TIMESTAMP",
    "DebugLog",
    "DeliveryLog",
    "LineFormat",
    "Log",
    "LogError",
    "LogOptions",
    "Logs",
    "RawlogOptions",
    "Rawlogs",
    "configure",
    "configure_one_shot",
    "decoded",
]
