"""The command `quota`: what a user holds and may hold, as `doveadm quota get` and `recalc`.

The invariant: the counter is the one that deliveries use, read and written as its owner.
"""

import os
import sys

from lmtp_server import _logs
from lmtp_server._components import Quotas, store_root
from lmtp_server._settings import ServeSettings
from mailstore import Limits, Usage

from ._as_user import CommandError, become, failure, find


def quota(settings: ServeSettings, name: str, *, recalculate: bool) -> int:
    """Print the usage of a user, or count it anew; the exit code."""
    _logs.configure()
    try:
        found = find(settings, name)
        try:
            become(found.entry)
            quotas = Quotas(settings, root=store_root(settings))
            try:
                counted = quotas.always(found)
                usage = counted.recalculate() if recalculate else counted.usage()
            finally:
                quotas.close()
        except OSError as error:
            raise failure(name, error) from error
    except CommandError as error:
        if error.text:
            sys.stderr.write(f"{error.text}\n")
        return error.code
    if not recalculate:
        sys.stdout.write(_table(usage, quotas.policy(found).rules.default))
    return os.EX_OK


def _table(usage: Usage, limits: Limits) -> str:
    """The usage, storage in KiB as Dovecot counts it: a part of one is one."""
    rows = [
        ("Quota name", "Type", "Value", "Limit", "%"),
        ("User quota", "STORAGE", *_amounts(usage.octets, limits.octets, 1024)),
        ("User quota", "MESSAGE", *_amounts(usage.messages, limits.messages, 1)),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = (
        " ".join(
            text.ljust(width) if column < 2 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "".join(f"{line}\n" for line in lines)


def _amounts(used: int, limit: int, unit: int) -> tuple[str, str, str]:
    percentage = str(used * 100 // limit) if limit else "0"
    return str(-(-used // unit)), str(-(-limit // unit)) if limit else "-", percentage
