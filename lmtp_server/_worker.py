"""A worker: one of the processes that serve the listeners."""

import gc
import os
import socket
import sys
from collections.abc import Sequence
from functools import partial
from typing import Final

from lmtp_proto import Settings
from mailstore import StoreHandler

from ._components import open_mail
from ._runtimes import Service, run
from ._settings import ServeSettings
from ._supervisor import report_ready

# Objects made before the collector looks for cycles, of which a session leaves few.
_COLLECT_AFTER: Final = 20_000
# Seconds a thread computes on while another waits: the committer waits after each of its system
# calls, and all who deliver wait for it.
_SWITCH_INTERVAL: Final = 0.0005


def _tune() -> None:
    """Spend less on collecting garbage and on handing the interpreter from thread to thread."""
    # What is loaded by now stays: it is neither looked through nor copied from the supervisor.
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 20)
    sys.setswitchinterval(_SWITCH_INTERVAL)


def work(
    settings: ServeSettings, listeners: Sequence[socket.socket], channel: socket.socket
) -> None:
    """Deliver what comes in on `listeners` until `channel` is at its end."""
    mail = open_mail(settings, own_uid=os.geteuid())
    service = Service(
        handler=StoreHandler(mail.store, mail.users.locate),
        settings=Settings(
            hostname=settings.hostname,
            greeting=settings.greeting,
            limits=settings.limits.limits,
            path_rules=settings.limits.path_rules,
            content_policy=settings.content.policy,
        ),
        listeners=listeners,
        channel=channel,
        ready=partial(report_ready, channel),
        drain=settings.drain,
    )
    _tune()
    run(settings.runtime, service)
    mail.close()
