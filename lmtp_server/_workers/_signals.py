"""Signals as the supervisor takes them: one after the other, in its own loop, none of them lost."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

SIGNALS: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGCHLD,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGTTIN,
    signal.SIGTTOU,
)
# What is the supervisor's alone. A terminal sends SIGINT to all at once, and whoever signals all
# processes of a name means the service.
_NOT_FOR_WORKERS: Final = (
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGTTIN,
    signal.SIGTTOU,
)


@contextmanager
def caught_signals() -> Iterator[tuple[list[int], socket.socket]]:
    """The numbers of the signals that have come, and a socket that is readable when one has."""
    caught: list[int] = []

    def catch(number: int, _frame: object) -> None:
        caught.append(number)

    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        handlers = {number: signal.signal(number, catch) for number in SIGNALS}
        # A full buffer wakes as well as one octet.
        wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield caught, reader
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in handlers.items():
                signal.signal(number, handler)


def leave_to_supervisor() -> None:
    """In a worker: take no signal that is the supervisor's."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number in _NOT_FOR_WORKERS:
        signal.signal(number, signal.SIG_IGN)


def describe(status: int) -> str:
    """How a process has ended, by its wait status."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was ended by {name}"
