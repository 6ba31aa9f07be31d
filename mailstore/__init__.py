"""What happens to a message once the protocol hands it over: spool, trace header, Maildir.

A `MaildirStore` delivers durably: a recipient is answered 250 when its copy is on disk. A
`StoreHandler` puts it behind any of the servers, `deliver_one` does without one. A `Destination`
names one of a user's mailboxes. `MaildirQuotas` and `RedisQuotas` bound what users may hold,
`UserLimits` how many deliveries to one user there may be at a time. `RetryOptions` has the store
recognise messages that come again because their reply was lost. A `DeliveryReport` says how a
delivery went.
"""

from ._committer import StoreObserver
from ._destination import Destination
from ._handler import Locate, QuotaOf, StoreHandler
from ._header import HeaderFields
from ._mailbox_name import NameEncoding
from ._maildir_quota import MaildirQuota, MaildirQuotas
from ._one_shot import deliver_one
from ._options import DeliveredTo, FolderOptions, TraceOptions
from ._quota import (
    Quota,
    QuotaExceeded,
    QuotaPolicy,
    QuotaUnavailable,
    QuotaWarning,
    Reservation,
    Usage,
)
from ._quota_rules import Limits, QuotaRules
from ._redis_quota import RedisQuota, RedisQuotas
from ._report import DeliveryReport, Report
from ._retries import RetryOptions
from ._spool import LineEnding, Spool
from ._store import MaildirSink, MaildirStore
from ._sync import Sync
from ._user_limits import UserLimits

__all__ = [
    "DeliveredTo",
    "DeliveryReport",
    "Destination",
    "FolderOptions",
    "HeaderFields",
    "Limits",
    "LineEnding",
    "Locate",
    "MaildirQuota",
    "MaildirQuotas",
    "MaildirSink",
    "MaildirStore",
    "NameEncoding",
    "Quota",
    "QuotaExceeded",
    "QuotaOf",
    "QuotaPolicy",
    "QuotaRules",
    "QuotaUnavailable",
    "QuotaWarning",
    "RedisQuota",
    "RedisQuotas",
    "Report",
    "Reservation",
    "RetryOptions",
    "Spool",
    "StoreHandler",
    "StoreObserver",
    "Sync",
    "TraceOptions",
    "Usage",
    "UserLimits",
    "deliver_one",
]
