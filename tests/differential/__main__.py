"""`python -m tests.differential`: tell the dialogues to Dovecot and to us, and print what differs.

The table has a line for each turn in which the codes differ: dialogue, turn, Dovecot's codes, ours,
and where the reason stands. Behind it stands what is not listed in docs/dovecot-differences.toml,
as it would be there, and what is listed and no longer differs; then the exit status is 1.
"""

import sys
from typing import Final

from benchmarks.peers.dovecot import PrivateDovecot
from tests.differential.comparison import compare, dovecot_server, listed, our_server
from tests.differential.replay import Codes

# Seconds of silence after which a server is taken to say no more.
_QUIET: Final = 0.5


def _shown(codes: Codes) -> str:
    return " ".join(map(str, codes)) or "none"


def main() -> int:
    """Compare; 1 where the list is not what was found."""
    if reason := PrivateDovecot.missing():
        sys.stderr.write(f"{reason}\n")
        return 2
    known = listed()
    with our_server() as ours, dovecot_server() as dovecot:
        found = compare(ours, dovecot, list(known.sections), quiet=_QUIET)
    rows = [("dialogue", "turn", "Dovecot", "ours", "reason")]
    rows += [
        (
            one.dialog,
            one.turn,
            _shown(one.dovecot),
            _shown(one.ours),
            known.sections.get(one, "not listed"),
        )
        for one in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(f"{'  '.join(cells).rstrip()}\n")
    sys.stdout.write(
        f"{len(found)} differences; Dovecot {PrivateDovecot.version()}, "
        f"the list was made with {known.version}\n"
    )
    unlisted = [one for one in found if one not in known.sections]
    stale = [one for one in known.sections if one not in found]
    for heading, differences in (("not listed:", unlisted), ("no longer so:", stale)):
        if differences:
            sys.stdout.write("\n".join([heading, *map(str, differences), ""]))
    return 1 if unlisted or stale else 0


if __name__ == "__main__":
    sys.exit(main())
