"""Templates of paths: of Maildirs, and of homes.

The invariant: whatever user is put into one, the result lies below `root`, or below the user's
home, as many levels down as the template has components behind it; and two users that differ in a
variable of the template never have the same path.
"""

import os
import re
from pathlib import PurePosixPath
from typing import Final

from ._variables import Names, Piece, Text, Variable, read_variables

_IN_PATH_NAME: Final = re.compile(r"[A-Za-z0-9._+='\-]")
# NAME_MAX of every file system that holds mail.
_COMPONENT_LIMIT: Final = 255
# What a piece of a name becomes where it would hide the directory, or be no name at all.
_DOT: Final = "_"


class MailTemplate:
    """A path such as `./mail/{domain}/{user}`, `/srv/mail/%d/%n` or `~/Maildir`.

    `root` is the absolute path of the directory in front of the first component with a variable;
    None where that is the user's home. Raises ValueError for a text that is no template.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        if not text.isprintable():
            raise ValueError("it has a character that is not printable")
        components = _components(text)
        at_home = bool(components) and _is_home(components[0])
        fixed = 1 if at_home else 0
        while not at_home and fixed < len(components) and not _variables(components[fixed]):
            fixed += 1
        self._components = components[fixed:]
        variables = [one for pieces in self._components for one in _variables(pieces)]
        if any(one.source == "home" for one in variables):
            raise ValueError("the home may stand in front only")
        for pieces in self._components:
            _check(pieces)
        self.root: Final = None if at_home else _root(text, components[:fixed])
        if self.root is not None:
            if not any(one.whole and one.source in {"user", "local"} for one in variables):
                raise ValueError("{user} is not in it: all users would share one Maildir")
            if self.root == "/":
                raise ValueError("there is no directory in front of the first field")
        self.needs_domain: Final = any(one.source == "domain" for one in variables)

    def __str__(self) -> str:
        return self._text

    def example(self) -> str:
        """The path of me@example.org, as it was written."""
        return Text(self._text).expand(Names(local="me", domain="example.org", home="~"))

    def expand(self, names: Names) -> PurePosixPath:
        """The path for this user, relative to `root` or to its home.

        Raises ValueError where the names have characters that no path may have, where the domain is
        missing, and where a component becomes too long for a file system.
        """
        names.check()
        path = []
        for pieces in self._components:
            component = "".join(
                piece if isinstance(piece, str) else _value(piece, names) for piece in pieces
            )
            if len(os.fsencode(component)) > _COMPONENT_LIMIT:
                raise ValueError("it is too long")
            path.append(component)
        return PurePosixPath(*path)


def _components(text: str) -> list[tuple[Piece, ...]]:
    """The path, one component an item."""
    components: list[list[Piece]] = [[]]
    for piece in read_variables(text):
        if isinstance(piece, Variable):
            components[-1].append(piece)
            continue
        first, *others = piece.split("/")
        components[-1] += filter(None, (first,))
        components += ([other] if other else [] for other in others)
    return [tuple(pieces) for pieces in components if pieces and pieces != ["."]]


def _variables(pieces: tuple[Piece, ...]) -> list[Variable]:
    return [piece for piece in pieces if isinstance(piece, Variable)]


def _is_home(pieces: tuple[Piece, ...]) -> bool:
    return pieces in {("~",), (Variable("home"),)}


def _root(text: str, components: list[tuple[Piece, ...]]) -> str:
    fixed = "/".join(str(piece) for pieces in components for piece in pieces)
    return os.path.abspath(("/" if text.startswith("/") else "") + fixed)


def _check(pieces: tuple[Piece, ...]) -> None:
    """Raise ValueError if a component is none, or leaves open where one variable ends."""
    if pieces == ("..",):
        raise ValueError("'..' stands behind a field")
    # "{user}{domain}" would give "ab" + "c.org" and "a" + "bc.org" the same Maildir.
    between: str | None = None
    for piece in pieces:
        if isinstance(piece, str):
            between = None if between is None else between + piece
            continue
        if between is not None and _IN_PATH_NAME.sub("", between) == "":
            raise ValueError("two fields need '@' or '/' between them")
        between = ""


def _value(variable: Variable, names: Names) -> str:
    value = variable.of(names)
    # A piece may begin with a dot although the name does not.
    return _DOT + value[1:] if value.startswith(".") else value or _DOT
