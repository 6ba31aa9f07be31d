"""Variables in settings: `{user}` as here, `%n` and `%{user | username}` as in Dovecot.

The invariant: a text that could be read can be expanded where all variables that it names have a
value; what is not known is refused when it is read, never left in the result.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NewType

PathName = NewType("PathName", str)
"""A text that is safe as a component of a path and as a part of one."""

# No "/" and no NUL, which file systems forbid; nothing that a shell or a terminal would take for
# more than a letter, because people look at these directories. "+" stays for those who use no
# recipient delimiter, "=" for rewritten senders (SRS, VERP), "'" for names.
_PATH_NAME: Final = re.compile(r"[A-Za-z0-9_+='\-][A-Za-z0-9._+='\-]*")

_PERCENT: Final = re.compile(
    r"%(?:(?P<escaped>%)|\{(?P<long>[^{}]*)\}"
    r"|(?:(?P<offset>-?[0-9]{1,4})\.)?(?P<width>[0-9]{1,4})?(?P<case>[LU]?)(?P<short>[a-zA-Z$])|)"
)
_ANY: Final = re.compile(rf"{_PERCENT.pattern}|\{{(?P<own>[^{{}}]*)\}}|[{{}}]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The variables of one kind of text: what each name stands for."""

    own: Mapping[str, str]
    """As `{name}`."""
    short: Mapping[str, str]
    """As `%n`."""
    long: Mapping[str, str]
    """As `%{name}`."""
    known: str
    """All of them, for people."""


_USERS: Final = Vocabulary(
    own={"user": "local", "domain": "domain", "home": "home"},
    short={"u": "user", "n": "local", "d": "domain", "h": "home"},
    long={"user": "user", "username": "local", "domain": "domain", "home": "home"},
    known="{user}, {domain}, {home} and Dovecot's %u, %n, %d, %h and %{user}",
)
# What a filter of Dovecot 2.4 takes from a name.
_PARTS: Final = {"username": "local", "domain": "domain"}


def path_name(text: str) -> PathName:
    """`text`, checked. Raises ValueError that says what is wrong with it."""
    if not text:
        raise ValueError("it is empty")
    if _PATH_NAME.fullmatch(text) is None:
        if text.startswith("."):
            raise ValueError("it begins with a dot")
        raise ValueError("it has a character that is not allowed here")
    return PathName(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What the variables stand for. `domain` and `home` are None where there is none."""

    local: str
    domain: str | None
    home: str | None = None

    @classmethod
    def of(cls, user: str, home: str | None = None) -> "Names":
        """The names of a user, whose domain is behind the last '@'."""
        local, at, domain = user.rpartition("@")
        return cls(local=local if at else user, domain=domain if at else None, home=home)

    def check(self) -> None:
        """Raise ValueError for names that must not become part of a path."""
        path_name(self.local)
        if self.domain is not None:
            path_name(self.domain)

    @property
    def user(self) -> str:
        """The user with its domain."""
        return self.local if self.domain is None else f"{self.local}@{self.domain}"


@dataclass(frozen=True, slots=True)
class Variable:
    """What a word of the vocabulary stands for; perhaps a piece of it, in one case."""

    source: str
    case: Literal["", "lower", "upper"] = ""
    offset: int = 0
    width: int | None = None

    @property
    def whole(self) -> bool:
        """Whether all of it is taken; names that differ only in case are taken for one's own."""
        return not self.offset and self.width is None

    def of(self, names: Names) -> str:
        """The value. Raises ValueError where the user has none."""
        value = self._raw(names)
        if value is None:
            raise ValueError("it has no domain" if self.source == "domain" else "it has no home")
        return self.cut(value)

    def cut(self, value: str) -> str:
        """As much of `value` as is taken, in the case that is asked for."""
        if self.case:
            value = value.lower() if self.case == "lower" else value.upper()
        value = value[self.offset :]
        return value if self.width is None else value[: self.width]

    def _raw(self, names: Names) -> str | None:
        match self.source:
            case "user":
                return names.user
            case "local":
                return names.local
            case "domain":
                return names.domain
            case _:
                return names.home


Piece = str | Variable


def read_variables(
    text: str, *, own: bool = True, vocabulary: Vocabulary = _USERS
) -> tuple[Piece, ...]:
    """Literals and variables in their order. Raises ValueError that says what is wrong.

    `own` False leaves braces alone, for text that is written for Dovecot.
    """
    pieces: list[Piece] = []
    literal = ""
    end = 0
    for match in (_ANY if own else _PERCENT).finditer(text):
        literal += text[end : match.start()]
        end = match.end()
        piece = _piece(match, vocabulary)
        if isinstance(piece, str):
            literal += piece
            continue
        pieces += filter(None, (literal,))
        literal = ""
        pieces.append(piece)
    pieces += filter(None, (literal + text[end:],))
    return tuple(pieces)


def _piece(match: re.Match[str], vocabulary: Vocabulary) -> Piece:
    groups = match.groupdict()
    # One that stands before neither letter nor brace is that of a percentage.
    if groups["escaped"] or match[0] == "%":
        return "%"
    if groups["long"] is not None:
        return _long(groups["long"], vocabulary)
    source = vocabulary.short.get(groups["short"] or "")
    if source is not None:
        width = groups["width"]
        return Variable(
            source,
            {"L": "lower", "U": "upper"}.get(groups["case"] or "", ""),  # type: ignore[arg-type]  # dict.get() loses the literals
            int(groups["offset"] or 0),
            None if width is None else int(width),
        )
    source = vocabulary.own.get(groups.get("own") or "")
    if source is None:
        raise ValueError(
            f"{match[0]!a} is no variable here: only {vocabulary.known}, with L or U, a width,"
            " lower or upper"
        )
    return Variable(source)


def _long(text: str, vocabulary: Vocabulary) -> Variable:
    """Dovecot 2.4's `%{user | username | lower}`. Raises ValueError."""
    name, *filters = (part.strip() for part in text.split("|"))
    source = vocabulary.long.get(name)
    if source is None:
        raise ValueError(
            f"%{{{name}}} is no variable here: only {', '.join(sorted(vocabulary.long))}"
        )
    case: Literal["", "lower", "upper"] = ""
    for each in filters:
        if each == "lower":
            case = "lower"
        elif each == "upper":
            case = "upper"
        elif each in _PARTS and source == "user":
            source = _PARTS[each]
        else:
            raise ValueError(
                f"{each!a} is no filter here: only lower, upper, and of the user username, domain"
            )
    return Variable(source, case)


class Text:
    """A text with variables, for values that are no paths. Raises ValueError for what is none."""

    __slots__ = ("_pieces", "_text")

    def __init__(self, text: str, *, own: bool = True) -> None:
        self._text = text
        self._pieces = read_variables(text, own=own)

    def __str__(self) -> str:
        return self._text

    def expand(self, names: Names) -> str:
        """The text for this user. Raises ValueError where a variable has no value."""
        return "".join(
            piece if isinstance(piece, str) else piece.of(names) for piece in self._pieces
        )
