"""The command `user`: what the directory says of users, as `doveadm user` prints it.

The invariant: what is printed is what the server would deliver by.
"""

import os
import sys
from collections.abc import Sequence

from lmtp_server import _logs
from lmtp_server._settings import ServeSettings
from lmtp_server._users import Located

from ._as_user import CommandError, find


def user(settings: ServeSettings, names: Sequence[str], field: str | None) -> int:
    """Print the fields of each user, or the one `field`; the exit code of the last that failed."""
    _logs.configure()
    status = os.EX_OK
    for name in names:
        try:
            fields = _fields(name, find(settings, name))
        except CommandError as error:
            status = error.code
            if error.text:
                sys.stderr.write(f"{error.text}\n")
            continue
        if field is None:
            lines = [f"{key}\t{value}" for key, value in {"field": "value", **fields}.items()]
        else:
            lines = [fields[field]] if field in fields else []
        sys.stdout.write("".join(f"{_printable(line)}\n" for line in lines))
        if field is None:
            sys.stdout.write("\n")
    return status


def _fields(name: str, found: Located) -> dict[str, str]:
    """The fields, by Dovecot's names."""
    entry = found.entry
    fields = {
        "user": "" if entry.name == name else entry.name,
        "uid": "" if entry.uid is None else str(entry.uid),
        "gid": "" if entry.gid is None else str(entry.gid),
        "groups": ",".join(map(str, entry.groups or ())),
        "home": entry.home or "",
        "mail": f"maildir:{found.maildir}",
    }
    for number, rule in enumerate(entry.quota_rules):
        fields[f"quota_rule{number + 1 if number else ''}"] = rule
    return {key: value for key, value in {**fields, **entry.fields}.items() if value}


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\t" else "?" for c in text)
