"""A worker: one of the processes that serve the listeners."""

import socket
from collections.abc import Sequence
from functools import partial

from lmtp_proto import Settings
from mailstore import MaildirStore, StoreHandler

from ._runtimes import Service, run
from ._settings import ServeSettings
from ._supervisor import report_ready
from ._users import Users


def work(
    settings: ServeSettings, listeners: Sequence[socket.socket], channel: socket.socket
) -> None:
    """Deliver what comes in on `listeners` until `channel` is at its end."""
    store = MaildirStore(settings.mail.root, hostname=settings.hostname)
    users = Users(
        settings.mail, hostname=settings.hostname, delimiters=settings.recipient_delimiter
    )
    service = Service(
        handler=StoreHandler(store, users.locate),
        settings=Settings(hostname=settings.hostname),
        listeners=listeners,
        channel=channel,
        ready=partial(report_ready, channel),
        drain=settings.drain,
    )
    run(settings.runtime, service)
    store.close()
