"""The command `config`: checks and shows settings, and makes them from Dovecot's.

The invariant: what goes to standard output is a settings file; all that is for people goes to
standard error.
"""

import os
import ssl
import sys
import time

from lmtp_server._settings import ServeSettings
from lmtp_server._settings._doveconf import DovecotError
from lmtp_server._settings._dovecot_import import import_doveconf
from lmtp_server._settings._show import show_settings


def check(settings: ServeSettings) -> list[str]:
    """What is wrong with the files that `settings` name."""
    # Not for the other commands, which need nothing of it.
    from lmtp_server._workers import explain, open_certificates

    from ._tls_files import tls_files

    faults: list[str] = []
    for table in settings.listeners:
        files = tls_files(settings.tls, table)
        if files is None:
            continue
        try:
            expire_at = open_certificates(files).expire_at
        except (OSError, ssl.SSLError) as error:
            faults.append(explain(error, files))
        else:
            if expire_at <= time.time():
                faults.append(f"a certificate in {files.certificate} has expired")
    # Listeners have certificates in common.
    return list(dict.fromkeys(faults))


def show(settings: ServeSettings, *, diff: bool) -> int:
    """Print all settings, or those that differ from the defaults; the exit code."""
    sys.stdout.write(show_settings(settings, diff=diff))
    return os.EX_OK


def import_dovecot(path: str) -> int:
    """Print settings made of what `doveconf -n` has written to `path`; the exit code."""
    try:
        # doveconf writes what it was given, whatever its encoding.
        with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
            text = file.read().decode("utf-8", "replace")
    except OSError as error:
        sys.stderr.write(f"lmtp-server: cannot read {path!r}: {error.strerror}\n")
        return os.EX_NOINPUT
    try:
        imported = import_doveconf(text)
    except DovecotError as error:
        sys.stderr.write(f"lmtp-server: {path}: {error}\n")
        return os.EX_DATAERR
    sys.stdout.write(imported.toml)
    for note in imported.notes:
        sys.stderr.write(f"{note}\n")
    return os.EX_OK
