"""What happens to a message once the protocol hands it over: spool, trace header, Maildir.

A `MaildirStore` delivers durably: a recipient is answered 250 when its copy is on disk. A
`StoreHandler` puts it behind any of the servers.
"""

from ._handler import Locate, StoreHandler
from ._spool import LineEnding, Spool
from ._store import MaildirSink, MaildirStore
from ._sync import Sync

__all__ = [
    "LineEnding",
    "Locate",
    "MaildirSink",
    "MaildirStore",
    "Spool",
    "StoreHandler",
    "Sync",
]
