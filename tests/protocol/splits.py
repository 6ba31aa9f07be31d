"""All splits of all strings, without going through each from its beginning.

How octets are cut matters to a decoder only through what it has become and given out so far. Splits
that have led to the same are one from there on: a string of n octets, which can be cut in 2**(n-1)
ways, costs n steps instead.
"""

import ast
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

import tests

Outcome = TypeVar("Outcome")
Machine = TypeVar("Machine")


def strings_in_all_splits(
    alphabet: Sequence[bytes],
    length: int,
    start: Outcome,
    step: Callable[[Outcome, bytes], Outcome],
) -> Iterator[tuple[bytes, Counter[Outcome]]]:
    """Every string of up to `length` pieces of `alphabet`, with the outcomes of all its splits.

    `step` gives what becomes of an outcome when a piece follows; outcomes that are equal must be
    equal for whatever follows. Each outcome comes with the number of splits that lead to it.
    """

    def longer(
        octets: bytes, reached: list[Counter[Outcome]]
    ) -> Iterator[tuple[bytes, Counter[Outcome]]]:
        for last in alphabet:
            string = octets + last
            outcomes: Counter[Outcome] = Counter()
            for begin, befores in enumerate(reached):
                for before, splits in befores.items():
                    outcomes[step(before, string[begin:])] += splits
            yield string, outcomes
            if len(reached) < length:
                yield from longer(string, [*reached, outcomes])

    yield from longer(b"", [Counter([start])])


def state(machine: object) -> tuple[object, ...]:
    """All that `machine` knows: the values of its slots, beside which it can keep nothing."""
    assert not hasattr(machine, "__dict__")
    return tuple(getattr(machine, name) for name in _slots(type(machine)))


def restored(machine: Machine, values: tuple[object, ...]) -> Machine:
    """`machine`, a new one, made as one was when `state()` was asked."""
    for name, value in zip(_slots(type(machine)), values, strict=True):
        setattr(machine, name, value)
    return machine


def _slots(kind: type[object]) -> tuple[str, ...]:
    slots = _KNOWN.get(kind)
    if slots is None:
        slots = _KNOWN[kind] = _written_slots(kind.__module__, kind.__name__)
    return slots


_KNOWN: Final[dict[type[object], tuple[str, ...]]] = {}


def _written_slots(module: str, name: str) -> tuple[str, ...]:
    # As they are written: a compiled class does not tell.
    file = Path(tests.__path__[0], "..", *module.split(".")).with_suffix(".py")
    (written,) = (
        node
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name == name
    )
    (slots,) = (
        ast.literal_eval(node.value)
        for node in written.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__slots__"
    )
    assert isinstance(slots, tuple)
    return slots
