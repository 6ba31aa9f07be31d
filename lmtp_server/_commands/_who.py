"""The command `who`: the sessions of all workers now.

The invariant: one line is one session; what clients have said is shown, never obeyed.
"""

import json
import os
import sys
from typing import Any

from lmtp_server._settings import ServeSettings

from ._asking import AskError, ask_service
from ._columns import show_table

_HEADER = ("PEER", "TLS", "STATE", "SECONDS", "RECIPIENTS", "WORKER", "SESSION")


def who(settings: ServeSettings, *, as_json: bool) -> int:
    """Print who is there; the exit code."""
    try:
        answer = ask_service(settings, "who")
    except AskError as error:
        return error.tell()
    if as_json:
        # ASCII alone: escapes of a terminal are escaped.
        sys.stdout.write(f"{json.dumps(answer)}\n")
    else:
        show_table(
            _HEADER, [_row(each) for each in answer["sessions"]], right=("SECONDS", "WORKER")
        )
    silent = answer["silent"]
    if silent:
        names = ", ".join(map(str, silent))
        sys.stderr.write(f"lmtp-server: no answer in time of worker {names}: there may be more\n")
        return os.EX_TEMPFAIL
    return os.EX_OK


def _row(session: dict[str, Any]) -> list[str]:
    recipients = " ".join(session["recipients"])
    if session["more_recipients"]:
        recipients += f" and {session['more_recipients']} more"
    return [
        session["peer"],
        session["tls"] or "-",
        session["state"],
        f"{session['seconds']:.1f}",
        recipients or "-",
        str(session["worker"]),
        session["id"],
    ]
