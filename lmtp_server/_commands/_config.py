"""The command `config`: shows settings, and makes them from Dovecot's.

The invariant: what goes to standard output is a settings file; all that is for people goes to
standard error.
"""

import os
import sys

from lmtp_server._settings import (
    DovecotError,
    ServeSettings,
    import_doveconf,
    show_settings,
)


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
