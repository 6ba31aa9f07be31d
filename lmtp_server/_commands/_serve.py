"""The command `serve`: from settings to running workers.

The invariant: all that can be wrong with the settings, the listeners and the mail root is found
before a worker is started, and then nothing stays behind.
"""

import os
import resource
import shlex
import socket
import sys
from functools import partial

from lmtp_server import _logging, _mail_root
from lmtp_server._components import mail_root
from lmtp_server._runtimes import missing
from lmtp_server._settings import ServeSettings, SettingsError
from lmtp_server._supervisor import Supervisor
from lmtp_server._worker import work
from lmtp_sockets import format_address, listen, parse_address, unlink_if_ours


def serve(settings: ServeSettings) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. Raises SettingsError if nothing was started."""
    listeners: list[socket.socket] = []

    def close() -> None:
        # Clients shall find another server at once, not wait in the backlog of this one.
        for listener in listeners:
            unlink_if_ours(listener)
            listener.close()

    try:
        _prepare(settings, listeners)
        _logging.configure()
        _raise_descriptor_limit()
        supervisor = Supervisor(
            partial(work, settings, listeners),
            count=settings.workers,
            drain=settings.drain,
            ready=lambda: _announce(settings, listeners),
            stopping=close,
        )
        return supervisor.run()
    finally:
        close()


def _prepare(settings: ServeSettings, listeners: list[socket.socket]) -> None:
    """Fill `listeners` and make the mail root. Raises SettingsError."""
    faults = []
    if missing(settings.runtime):
        faults.append(
            f"runtime: {settings.runtime} is not installed:"
            f" pip install 'lmtp-proto[{settings.runtime}]'"
        )
    for listener in settings.listeners:
        try:
            listeners.append(listen(parse_address(listener.address), mode=listener.mode))
        except OSError as error:
            faults.append(f"listen: {error.strerror or error}")
    root = mail_root(settings)
    try:
        if root is not None:
            _mail_root.check(root)
            if not faults:
                _mail_root.make(root)
    except OSError as error:
        faults.append(f"mail: cannot keep mail in {root!r}: {error.strerror}")
    if faults:
        raise SettingsError(faults)


def _raise_descriptor_limit() -> None:
    """Allow as many connections and files as the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _announce(settings: ServeSettings, listeners: list[socket.socket]) -> None:
    """Tell who waits for it, and a person at a terminal, that connections are accepted."""
    lines = [f"listening on {format_address(listener)}\n" for listener in listeners]
    if sys.stderr.isatty():
        to = shlex.quote(format_address(listeners[0]))
        maildir = settings.mail.example()
        lines.append(
            f"send a first message, to lie in {maildir}/new: echo hello | {_command()} send"
            f" --to {to} --from you@example.org --rcpt me@example.org -\n"
        )
    sys.stderr.write("".join(lines))
    sys.stderr.flush()


def _command() -> str:
    """How this program was called."""
    name = sys.argv[0]
    if os.path.basename(name) == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m lmtp_server"
    return shlex.quote(name)
