"""Mutants of functions: mutmut makes them and runs the tests; this reads what has survived."""

import os
import re
import shutil
import subprocess
import sys
from typing import Final, NamedTuple

_SERVER: Final = "lmtp_proto._server.xǁServerConnectionǁ"
_CLIENT: Final = "lmtp_proto._client.xǁClientConnectionǁ"
# By mutmut's names: the content, and all that counts replies and pairs them with what they answer.
_MUTATED: Final = (
    "lmtp_proto._content.*",
    "lmtp_proto._server.x__check_code__*",
    *(
        f"{_SERVER}{name}__*"
        for name in (
            *("send", "_answer_recipients", "_ready_answers", "_settle", "_enter"),
            *("_end_of_content", "_forget_transaction", "shut_down", "_shut"),
        )
    ),
    *(
        f"{_CLIENT}{name}__*"
        for name in (
            *("send", "next_event", "_end", "_match", "_unasked", "_await_finals", "_final"),
            *("_pass_unanswered", "_move", "_look_ahead", "_enter", "_settle", "_close"),
        )
    ),
)
_MUTMUT: Final = (sys.executable, "-m", "mutmut")
_NAME: Final = re.compile(r"(?:xǁ(?P<owner>\w+)ǁ|x_)(?P<name>\w+)__mutmut_\d+$")


class Outcome(NamedTuple):
    """What became of the mutants."""

    counts: dict[str, int]
    """How many of each of mutmut's statuses."""
    alive: list[str]
    """Those that no test has killed, as the README shows them."""


def run() -> Outcome:
    """Make the mutants anew and run the tests against each.

    Raises CalledProcessError when mutmut fails, as it does where the tests fail without a mutant.
    """
    # What mutmut has kept of an earlier run is of other code, or other tests.
    shutil.rmtree("mutants", ignore_errors=True)
    # The same examples in each run: a mutant lives or dies by the tests, not by chance.
    environment = {**os.environ, "CI": "1"}
    subprocess.run([*_MUTMUT, "run", "--max-children=1", *_MUTATED], env=environment, check=True)
    counts: dict[str, int] = {}
    alive = []
    for line in _output("results", "--all", "true").splitlines():
        mutant, _, status = line.strip().partition(": ")
        if status == "not checked":
            continue
        counts[status] = counts.get(status, 0) + 1
        if status != "killed":
            alive.append(_shown(mutant))
    return Outcome(counts, alive)


def _shown(mutant: str) -> str:
    """The function's name and the lines that differ, as a block of the README shows them."""
    found = _NAME.search(mutant)
    assert found is not None
    owner = found["owner"]
    difference = [
        f"{line[0]} {line[1:].strip()}"
        for line in _output("show", mutant).splitlines()
        if line[:1] in ("+", "-") and line[:3] not in ("+++", "---")
    ]
    return "\n".join([f"{owner}.{found['name']}" if owner else found["name"], *difference])


def _output(*arguments: str) -> str:
    return subprocess.run(
        [*_MUTMUT, *arguments], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
