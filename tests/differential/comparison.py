"""The dialogues told to our server and to a private Dovecot, and where their codes may differ.

Dovecot is set up as like the server of the dialogues as it can be: the same users, of which one is
over quota, one has a mailbox that cannot be written and two cannot be looked up; and the same
message size. What cannot be set up stands among the differences, in docs/dovecot-differences.toml.
"""

import json
import logging
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import lmtp_blocking
from benchmarks.peers.dovecot import PrivateDovecot
from lmtp_proto import Settings
from tests.dialogs.handler import SETTINGS, DialogHandler
from tests.dialogs.transcript import Dialog, dialogs
from tests.differential.replay import Codes, awaited, name, replay

_LIST: Final = Path(__file__).parents[2] / "docs/dovecot-differences.toml"
# Dialogues held at the same time: most of their time passes in waiting.
_CONNECTIONS: Final = 16

USERS: Final = (
    "postmaster::::::",
    *(
        f"{local_part}@example.org::::::"
        for local_part in (
            *("alice", "bob", "carol", "o\\'hara", "a", "b", "c", "d", "e", "f", "g"),
            *("job", "multi", "reject"),
        )
    ),
    "full@example.org:::::::userdb_quota_rule=*:storage=1B",
    "crash@example.org:::::::userdb_mail=maildir:/dev/null/none",
    "later@example.org:::::::userdb_tempfail=yes",
    "oops@example.org:::::::userdb_tempfail=yes",
)
"""Lines of a passwd-file: who is not in it is unknown. A quote is looked up as `\\'`."""

# The only limit of a message's size that Dovecot 2.3 has is that of the quota.
_SETTINGS: Final = f"""
auth_username_chars =
mail_plugins = quota
quota_full_tempfail = yes
plugin {{
  quota = count:User quota
  quota_vsizes = yes
  quota_max_mail_size = {SETTINGS.limits.message_size}
}}
"""


@dataclass(frozen=True, slots=True)
class Difference:
    """A turn of a dialogue with other codes from two servers. As text, a line of the list."""

    dialog: str
    turn: str
    dovecot: Codes
    ours: Codes

    def __str__(self) -> str:
        # A string of JSON is one of TOML.
        turn = json.dumps(self.turn, ensure_ascii=False)
        return (
            f'{{ dialog = "{self.dialog}", turn = {turn}, '
            f"dovecot = {list(self.dovecot)}, ours = {list(self.ours)} }},"
        )


@dataclass(frozen=True, slots=True)
class Listed:
    """The differences that are known."""

    version: str
    """Of the Dovecot with which the list was made."""
    sections: Mapping[Difference, str]
    """Where the reason for each is found."""


def listed(configuration: str | None = None) -> Listed:
    """Read the list: that of the dialogues' server, or that of our daemon with the imported
    settings of `tests/differential/configured/CONFIGURATION.conf`. Raises ValueError for a turn
    that stands in it twice."""
    table = tomllib.loads(_LIST.read_text(encoding="utf-8"))
    reasons = table["reason"]
    if configuration is not None:
        reasons = [each for each in table["imported"] if each["configuration"] == configuration]
    sections: dict[Difference, str] = {}
    for reason in reasons:
        for row in reason["differences"]:
            found = Difference(
                row["dialog"], row["turn"], tuple(row["dovecot"]), tuple(row["ours"])
            )
            sections[found] = reason["section"]
    turns = [(difference.dialog, difference.turn) for difference in sections]
    if len(set(turns)) != sum(len(reason["differences"]) for reason in reasons):
        raise ValueError(f"a turn stands in {_LIST.name} twice")
    return Listed(table["dovecot"], sections)


@contextmanager
def our_server(settings: Settings = SETTINGS) -> Iterator[str]:
    """Run the server of the dialogues; where it listens, HOST:PORT."""
    server = lmtp_blocking.Server(DialogHandler(), settings=settings)
    server.start("127.0.0.1:0")
    # What goes wrong in the handler is what the dialogues want.
    logging.disable()
    try:
        yield server.addresses[0]
    finally:
        server.stop()
        logging.disable(logging.NOTSET)


@contextmanager
def dovecot_server() -> Iterator[str]:
    """Run Dovecot; where it listens, HOST:PORT."""
    with PrivateDovecot(users=USERS, settings=_SETTINGS) as dovecot:
        yield dovecot.lmtp_address


def compare(
    ours: str,
    other: str,
    known: Sequence[Difference] = (),
    *,
    alike: Sequence[Difference] = (),
    quiet: float = 0.0,
    told: Sequence[Dialog] | None = None,
) -> list[Difference]:
    """Tell dialogues to two servers and return where their codes differ.

    Args:
        ours: Where our server listens, HOST:PORT.
        other: Where the other does, Dovecot or another of ours.
        known: Differences that are awaited; elsewhere the codes should be the same.
        alike: Turns in which both are awaited to say what Dovecot says there.
        quiet: Seconds to wait in each turn for replies beyond those awaited. Without it differences
            are found as well, but one that is not known may be seen some turns too late.
        told: The dialogues; by default all of tests/dialogs.
    """
    counts = {(one.dialog, one.turn): len(one.dovecot) for one in (*alike, *known)}
    our_counts = {(one.dialog, one.turn): len(one.dovecot) for one in alike}
    our_counts |= {(one.dialog, one.turn): len(one.ours) for one in known}

    def differences(dialog: Dialog) -> list[Difference]:
        turns = [name(number, turn) for number, turn in enumerate(dialog.turns, 1)]
        usual = [awaited(turn) for turn in dialog.turns]
        reference = replay(
            ours,
            dialog,
            [
                our_counts.get((dialog.name, turn), count)
                for turn, count in zip(turns, usual, strict=True)
            ],
            quiet=quiet,
        )
        said = replay(
            other,
            dialog,
            [
                counts.get((dialog.name, turn), count)
                for turn, count in zip(turns, usual, strict=True)
            ],
            reference=reference,
            quiet=quiet,
        )
        return [
            Difference(dialog.name, turn, theirs, codes)
            for turn, theirs, codes in zip(turns, said, reference, strict=True)
            if theirs != codes
        ]

    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        return [
            one
            for found in pool.map(differences, dialogs() if told is None else told)
            for one in found
        ]
