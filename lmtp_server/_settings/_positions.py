"""Where the keys of a TOML document are.

The invariant: for a document that `tomllib` reads, every key, every table and every item of an
array has a line, under the path by which it is found in what `tomllib` makes of it.
"""

import re
import tomllib
from typing import Final

Path = tuple[str | int, ...]

_SPACE: Final = re.compile(r"[ \t]*")
_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_BASIC: Final = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_LITERAL: Final = re.compile(r"'[^'\n]*'")
# Up to two quotes may stand in front of the three that end it.
_LONG_BASIC: Final = re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}', re.DOTALL)
_LONG_LITERAL: Final = re.compile(r"'''.*?'{3,5}", re.DOTALL)
_PLAIN: Final = re.compile(r"[^,\]}\n#]*")


def find_lines(text: str) -> dict[Path, int]:
    """The line, counted from 1, of each key, table and item. `text` is one that `tomllib` reads."""
    return _Scanner(text).scan()


class _Scanner:
    """Reads a document that is known to be well-formed."""

    def __init__(self, text: str) -> None:
        # As tomllib has it.
        self._text = text.replace("\r\n", "\n")
        self._at = 0
        self._line = 1
        self._counted = 0
        self._lines: dict[Path, int] = {}
        # How many tables each array of tables has.
        self._arrays: dict[Path, int] = {}

    def scan(self) -> dict[Path, int]:
        table: Path = ()
        while self._skip(_BLANK):
            if self._text.startswith("[", self._at):
                table = self._header()
            else:
                self._assignment(table)
        return self._lines

    def _skip(self, pattern: re.Pattern[str]) -> bool:
        """Go past what matches; whether there is more."""
        match = pattern.match(self._text, self._at)
        if match is not None:
            self._at = match.end()
        return self._at < len(self._text)

    def _here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def _note(self, path: Path, line: int) -> None:
        """The tables above it begin with their first key, if not with a header."""
        for end in range(1, len(path)):
            self._lines.setdefault(path[:end], line)
        self._lines[path] = line

    def _header(self) -> Path:
        line = self._here()
        is_array = self._text.startswith("[[", self._at)
        self._at += 2 if is_array else 1
        keys = self._keys()
        self._skip(_SPACE)
        self._at += 2 if is_array else 1
        path: Path = ()
        for number, key in enumerate(keys):
            path += (key,)
            if is_array and number == len(keys) - 1:
                self._lines.setdefault(path, line)
                self._arrays[path] = self._arrays.get(path, 0) + 1
            if path in self._arrays:
                path += (self._arrays[path] - 1,)
        self._note(path, line)
        return path

    def _assignment(self, table: Path) -> None:
        line = self._here()
        path = table + tuple(self._keys())
        self._note(path, line)
        self._skip(_SPACE)
        self._at += 1
        self._skip(_SPACE)
        self._value(path)

    def _keys(self) -> list[str]:
        keys = []
        while True:
            self._skip(_SPACE)
            keys.append(self._key())
            self._skip(_SPACE)
            if not self._text.startswith(".", self._at):
                return keys
            self._at += 1

    def _key(self) -> str:
        for pattern in (_BARE, _BASIC, _LITERAL):
            match = pattern.match(self._text, self._at)
            if match is not None:
                self._at = match.end()
                if pattern is _BARE:
                    return match[0]
                read: str = tomllib.loads(f"key = {match[0]}")["key"]
                return read
        raise ValueError(f"there is no key at octet {self._at}")

    def _value(self, path: Path) -> None:
        opening = self._text[self._at : self._at + 1]
        if opening == "[":
            self._array(path)
        elif opening == "{":
            self._inline_table(path)
        else:
            for pattern in (_LONG_BASIC, _LONG_LITERAL, _BASIC, _LITERAL, _PLAIN):
                match = pattern.match(self._text, self._at)
                if match is not None:
                    self._at = match.end()
                    return

    def _array(self, path: Path) -> None:
        self._at += 1
        number = 0
        while self._skip(_BLANK):
            if self._text.startswith("]", self._at):
                self._at += 1
                return
            item = (*path, number)
            self._lines[item] = self._here()
            self._value(item)
            number += 1
            self._skip(_BLANK)
            if self._text.startswith(",", self._at):
                self._at += 1

    def _inline_table(self, path: Path) -> None:
        self._at += 1
        while self._skip(_BLANK):
            if self._text.startswith("}", self._at):
                self._at += 1
                return
            self._assignment(path)
            self._skip(_BLANK)
            if self._text.startswith(",", self._at):
                self._at += 1
