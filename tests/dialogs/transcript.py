"""The format of the dialogues, as README.md describes it.

Reading one gives turns: what the client writes at once, then what the server must say to it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent

_ESCAPE: Final = re.compile(r"\\(x[0-9A-Fa-f]{2}|.)")
_PLAIN: Final = {"r": "\r", "n": "\n", "t": "\t", "\\": "\\"}
_REPEATED: Final = re.compile(r"C\*([0-9]+) (.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Expected:
    """One line of the server: `text` is all of it, or its beginning."""

    text: bytes
    whole: bool

    def matches(self, line: bytes) -> bool:
        """Whether `line`, without its CRLF, is the line awaited."""
        return line == self.text if self.whole else line.startswith(self.text)


@dataclass(slots=True)
class Turn:
    """What the client writes at once, and what the server says then."""

    sent: bytes = b""
    half_close: bool = False
    """Whether the client sends no more after this."""
    expected: list[Expected] = field(default_factory=list)
    closed: bool = False
    """Whether the server closes after this."""


@dataclass(frozen=True, slots=True)
class Dialog:
    """One file."""

    name: str
    turns: list[Turn]

    @property
    def sent(self) -> bytes:
        """All that the client sends."""
        return b"".join(turn.sent for turn in self.turns)

    @property
    def expected(self) -> list[Expected]:
        """All that the server says."""
        return [line for turn in self.turns for line in turn.expected]


def mismatch(expected: list[Expected], output: bytes) -> str | None:
    """What is wrong with `output`, the octets of a server; None when it is as expected."""
    lines = output.split(b"\r\n")
    if lines.pop() != b"":
        return f"the last line has no CRLF: {output[-80:]!r}"
    for number, (awaited, line) in enumerate(zip(expected, lines, strict=False), 1):
        if not awaited.matches(line):
            return f"line {number} is {line!r}, awaited was {awaited.text!r}"
    if len(lines) > len(expected):
        return f"a line too many: {lines[len(expected)]!r}"
    if len(lines) < len(expected):
        return f"no more lines, awaited was {expected[len(lines)].text!r}"
    return None


def parse(name: str, text: str) -> Dialog:
    """Read a dialogue. Raises ValueError for a line that the format does not know."""
    turns = [Turn()]
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        turn = turns[-1]
        if turn.closed:
            raise ValueError(f"{name}:{number}: the server has closed already")
        kind, rest = line[:2], line[3:]
        if kind in ("C:", "C!", "C*", "C$"):
            if turn.half_close:
                raise ValueError(f"{name}:{number}: the client has closed already")
            if turn.expected:
                turn = Turn()
                turns.append(turn)
            if kind == "C$":
                turn.half_close = True
            else:
                turn.sent += _octets(name, number, line)
        elif kind in ("S:", "S="):
            turn.expected.append(Expected(rest.encode(), kind == "S="))
        elif line == "S$":
            turn.closed = True
        else:
            raise ValueError(f"{name}:{number}: not a line of a dialogue: {line!r}")
    if not turns[-1].closed:
        if not turns[-1].half_close:
            # What was answered before is one turn, the end is another.
            turns.append(Turn(half_close=True))
        turns[-1].closed = True
    return Dialog(name, turns)


def _octets(name: str, number: int, line: str) -> bytes:
    if line.startswith("C:"):
        return f"{line[3:]}\r\n".encode()
    if line.startswith("C!"):
        return _unescape(line[3:])
    match = _REPEATED.fullmatch(line)
    if match is None:
        raise ValueError(f"{name}:{number}: 'C*N text' is awaited, not {line!r}")
    return _unescape(match[2]) * int(match[1])


def _unescape(text: str) -> bytes:
    def resolve(match: re.Match[str]) -> str:
        code = match[1]
        return chr(int(code[1:], 16)) if len(code) == 3 else _PLAIN[code]

    # Characters stand for octets: \xNN gives one octet each.
    return _ESCAPE.sub(resolve, text).encode("latin-1")


def load(path: Path) -> Dialog:
    """Read a file."""
    return parse(path.stem, path.read_text(encoding="utf-8"))


def dialogs() -> Iterator[Dialog]:
    """All dialogues, by name."""
    for path in sorted(FOLDER.glob("*.lmtp")):
        yield load(path)
