"""What happens to a message once the protocol hands it over: spool, trace header, Maildir.

A `MaildirStore` delivers durably: a recipient is answered 250 when its copy is on disk. A
`StoreHandler` puts it behind any of the servers. A `Destination` names one of a user's mailboxes.
"""

from ._destination import Destination
from ._handler import Locate, StoreHandler
from ._mailbox_name import NameEncoding
from ._options import DeliveredTo, FolderOptions, TraceOptions
from ._spool import LineEnding, Spool
from ._store import MaildirSink, MaildirStore
from ._sync import Sync

__all__ = [
    "DeliveredTo",
    "Destination",
    "FolderOptions",
    "LineEnding",
    "Locate",
    "MaildirSink",
    "MaildirStore",
    "NameEncoding",
    "Spool",
    "StoreHandler",
    "Sync",
    "TraceOptions",
]
