"""The formats of delivery lines, with Dovecot's variables: `%{msgid}`, and `%m` as in Dovecot 2.3.

The invariant: a format that could be read has a text for every delivery.
"""

from collections.abc import Callable, Mapping
from typing import Final

from lmtp_server._users import Variable, Vocabulary, read_variables

from ._delivery_line import VALUES, Line

DELIVER_FORMAT: Final = "msgid=%{msgid}: %{message}"
"""As Dovecot's `deliver_log_format`."""
PREFIX: Final = "%{service}(%{user})<%{pid}><%{session}>: "
"""As Dovecot's `mail_log_prefix`."""

_LONG: Final = {name: name for name in VALUES}


def _vocabulary(short: Mapping[str, str]) -> Vocabulary:
    shorts = ", ".join(f"%{letter}" for letter in short)
    longs = ", ".join(f"%{{{name}}}" for name in sorted(VALUES))
    return Vocabulary(own={}, short=short, long=_LONG, known=f"{longs}, {shorts}")


_DELIVER: Final = _vocabulary(
    {
        "$": "message",
        "m": "msgid",
        "s": "subject",
        "f": "from",
        "e": "from_envelope",
        "p": "size",
        "w": "vsize",
    }
)
_PREFIX: Final = _vocabulary(
    {
        "u": "user",
        "n": "username",
        "d": "domain",
        "s": "service",
        "p": "pid",
        "r": "remote_ip",
    }
)

_Part = str | Callable[[Line], str]


class LineFormat:
    """A format: of the line itself or, with `prefix`, of what stands in front of it. Raises
    ValueError for a variable that is none."""

    __slots__ = ("_parts", "_text")

    def __init__(self, text: str, *, prefix: bool = False) -> None:
        self._text = text
        pieces = read_variables(text, own=False, vocabulary=_PREFIX if prefix else _DELIVER)
        self._parts: list[_Part] = [_part(piece) for piece in pieces]

    def __str__(self) -> str:
        return self._text

    def expand(self, line: Line) -> str:
        """The text for one delivery."""
        return "".join([part if isinstance(part, str) else part(line) for part in self._parts])


def _part(piece: str | Variable) -> _Part:
    if isinstance(piece, str):
        return piece
    value = VALUES[piece.source]
    if piece.whole and not piece.case:
        return value
    return lambda line: piece.cut(value(line))
