"""A settings file that is being made of Dovecot's settings.

The invariant: each setting that was taken over has a comment that says where from, and each that
was looked at is known.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lmtp_server._users import Text

from ._doveconf import Doveconf, Section
from ._toml import toml_key, toml_value


@dataclass(slots=True)
class DraftTable:
    """The lines of a table."""

    lines: list[str] = field(default_factory=list)

    def set(self, key: str, value: object, origin: str) -> None:
        """Set a key, with a comment that says what it was in Dovecot."""
        self.comment(origin)
        self.lines.append(f"{toml_key(key)} = {toml_value(value)}")

    def comment(self, text: str) -> None:
        """Add a comment."""
        self.lines.append(f"# {_printable(text)}")


class Draft:
    """The tables to write, and notes about what is not in them."""

    def __init__(self, conf: Doveconf) -> None:
        self.root = conf.root
        self.notes: list[str] = []
        self.seen: set[str] = set()
        """Settings of Dovecot's that need not be told of any more."""
        self.settings = dict(conf.root.settings)
        """What holds for LMTP: its own settings count more than those for all."""
        for section in conf.root.find("protocol", "lmtp"):
            self.settings |= section.settings
        self.service = next(conf.root.find("service", "lmtp"), Section("service", "lmtp"))
        self.has_certificate = False
        self.top = DraftTable()
        self._tables: list[tuple[str, DraftTable]] = [("", self.top)]

    def table(self, name: str) -> DraftTable:
        """The table with that header, which is made if there is none; `[[...]]` is always made."""
        for known, table in self._tables:
            if known == name and not name.startswith("[["):
                return table
        table = DraftTable()
        self.add(name, table)
        return table

    def add(self, name: str, table: DraftTable) -> None:
        """Put a table behind the others."""
        self._tables.append((name, table))

    def note(self, name: str, text: str) -> None:
        """Say what was not taken over, and what to do."""
        self.notes.append(_printable(f"{name}: {text}"))

    def take(self, name: str) -> str:
        """A setting of Dovecot's, empty where it is not set."""
        self.seen.add(name)
        return self.settings.get(name, "")

    def with_variables(self, name: str, value: str) -> str | None:
        """`value`, if its variables are known here; else there is a note."""
        try:
            Text(value)
        except ValueError as error:
            self.note(name, f"{value!r} cannot be taken over: {error}")
            return None
        return value

    def texts(self, name: str, fields: Mapping[str, str]) -> dict[str, str]:
        """Those of the fields whose variables are known here."""
        return {
            key: value
            for key, value in fields.items()
            if self.with_variables(f"{name}: {key}", value) is not None
        }

    def toml(self) -> str:
        """The settings file."""
        lines: list[str] = []
        for name, table in self._tables:
            if name:
                lines += ["", name]
            lines += table.lines
        return "\n".join([*lines, ""])


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
