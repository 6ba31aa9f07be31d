"""Mutants of the transition table: each is one cell changed, removed or added.

The table is data, and copied where it is imported, so a mutant is a new process in which the table
is changed before anything has read it. It is held against the tests of each role by themselves,
without the tests that compare the table with a copy: what is to be seen is that behaviour shows
each cell, in a server and in a client.
"""

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

import pytest

_ROOT: Final = Path(__file__).parents[2]
_MODULE: Final = "lmtp_proto._state"
# Moves that no peer and no caller names: looked up in the one state that they lead out of.
_MOVES: Final = ("CONNECT", "END", "SETTLED", "SECURED")
# States in which a server reads command lines.
_LISTENING: Final = ("REFUSED", "GREETED", "READY", "MAIL", "RCPT", "CHUNK", "BROKEN")
# Commands that a client says when the server has offered them, and so not before LHLO.
_OFFERED: Final = ("BDAT", "BDAT_LAST", "STARTTLS", "AUTH", "XCLIENT", "XFORWARD")

TESTS: Final = {
    "server": (
        *("tests/protocol/test_transitions.py", "tests/protocol/test_server.py"),
        "-k",
        "not (test_client or to_the_client or the_table_is_what or every_cell_is_walked)",
    ),
    # Joined to our server, it would be the server that shows the mutant.
    "client": (
        *("tests/protocol/test_transitions.py", "tests/protocol/test_client.py"),
        *("-k", "(test_client or to_the_client) and not TestPair"),
    ),
}
"""Arguments of pytest for each role."""


class TableMutant(NamedTuple):
    """One cell that is not what it should be; names are those of `State` and `Verb`."""

    state: str
    verb: str
    field: str | None
    """What leads elsewhere; None where the cell is removed, or added."""
    target: str | None
    """Where to; None where the cell is removed."""

    def __str__(self) -> str:
        cell = f"{self.state} {self.verb}"
        if self.target is None:
            return f"{cell} removed"
        if self.field is None:
            return f"{cell} added"
        return f"{cell} {self.field} -> {self.target}"


def mutants(role: str) -> Iterator[TableMutant]:
    """All mutants for a role of TESTS."""
    module = _load("mutated_table")
    table = module.TRANSITIONS
    states = list(module.State)
    # Nothing leads to CONNECTED, so that a role need not know what it would be to come back there.
    reached = states[1:]
    for (state, verb), step in table.items():
        yield TableMutant(state.name, verb.name, None, None)
        for field, target in step._asdict().items():
            if target is not None:
                other = reached[(reached.index(target) + 1) % len(reached)]
                yield TableMutant(state.name, verb.name, field, other.name)
    for state in states:
        for verb in module.Verb:
            if (state, verb) not in table and _asked(role, state.name, verb.name):
                yield TableMutant(state.name, verb.name, None, state.name)


def _asked(role: str, state: str, verb: str) -> bool:
    """Whether the role can come to look up the pair: a cell that it cannot is seen by nobody."""
    if verb in _MOVES:
        return False
    if role == "server":
        return state in _LISTENING and verb != "RESPONSE"
    # With the greeting in flight a second command wants PIPELINING, which is not yet offered.
    if state == "CONNECTED":
        return False
    return verb not in _OFFERED or state not in ("REFUSED", "GREETED")


def survives(mutant: TableMutant | None, role: str) -> bool:
    """Whether the tests of `role` pass with `mutant`, None for the table as it is."""
    child = os.fork()
    if not child:
        # Whatever goes wrong here shows the mutant.
        status = 1
        try:
            status = _run(mutant, role)
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    return status == 0


def _run(mutant: TableMutant | None, role: str) -> int:
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    module = _load(_MODULE)
    sys.modules[_MODULE] = module
    if mutant is not None:
        _change(module, mutant)
    return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--timeout=10", *TESTS[role]]))


def _change(module: ModuleType, mutant: TableMutant) -> None:
    table = module.TRANSITIONS
    cell = module.State[mutant.state], module.Verb[mutant.verb]
    if mutant.target is None:
        del table[cell]
        return
    target = module.State[mutant.target]
    if mutant.field is None:
        table[cell] = module.Step(target, target)
    else:
        table[cell] = table[cell]._replace(**{mutant.field: target})


def _load(name: str) -> ModuleType:
    """A table of its own, from the file: importing the package would have read it."""
    spec = importlib.util.spec_from_file_location(name, _ROOT / "lmtp_proto" / "_state.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
