"""Reads what `doveconf -n` and `doveconf -a` write.

The invariant: what was read is all there is, in its order; a text that is no output of doveconf
raises, with the line.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

_OPENING: Final = re.compile(r"([^\s={}\"]+)(?:\s+(.+?))?\s*\{")
_SETTING: Final = re.compile(r"([^\s={}\"]+)\s*=\s*(.*)")
_QUOTED: Final = re.compile(r"\"((?:[^\"\\]|\\.)*)\"|'([^']*)'")
_VERSION: Final = re.compile(r"# (\d+\.\d+\S*)")
_DEEPEST: Final = 20


class DovecotError(ValueError):
    """A text that doveconf has not written."""


@dataclass(slots=True)
class Section:
    """Settings in braces: `service lmtp { ... }` has the name `service` and the argument `lmtp`."""

    name: str = ""
    argument: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    sections: list["Section"] = field(default_factory=list)

    def find(self, name: str, argument: str | None = None) -> Iterator["Section"]:
        """The sections in it with that name and, if it is given, that argument."""
        for section in self.sections:
            if section.name == name and argument in (None, section.argument):
                yield section

    def get(self, name: str) -> str:
        """A setting; empty where it is not set. In Dovecot 2.4 that of a section `ssl_server` may
        stand there without the name in front: `cert_file` for `ssl_server_cert_file`."""
        value = self.settings.get(name)
        if value is None and self.name:
            value = self.settings.get(name.removeprefix(f"{self.name}_"))
        return value or ""

    def words(self, name: str) -> list[str]:
        """A list: in Dovecot 2.3 words in a setting, in 2.4 a section of yes and no."""
        words = self.settings.get(name, "").replace(",", " ").split()
        for section in self.find(name):
            words += [word for word, value in section.settings.items() if value == "yes"]
        return words


@dataclass(slots=True)
class Doveconf:
    """All settings, and the version of Dovecot that wrote them; empty if it does not say."""

    root: Section
    version: str


def read_doveconf(text: str) -> Doveconf:
    """The settings in the output of doveconf. Raises DovecotError."""
    root = Section()
    open_sections = [root]
    version = ""
    number = 0
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if line.startswith("#"):
            match = _VERSION.match(line)
            version = version or (match[1] if match else "")
        elif line == "}":
            open_sections.pop()
            if not open_sections:
                raise DovecotError(f"line {number}: there is a '}}' too many")
        elif match := _OPENING.fullmatch(line):
            if len(open_sections) > _DEEPEST:
                raise DovecotError(f"line {number}: this is nested too deeply")
            section = Section(match[1], _unquote(match[2] or ""))
            open_sections[-1].sections.append(section)
            open_sections.append(section)
        elif match := _SETTING.fullmatch(line):
            open_sections[-1].settings[match[1]] = _unquote(match[2])
        elif line:
            raise DovecotError(
                f"line {number}: {line[:60]!a} is no setting; write `doveconf -n` into a file and"
                " give that one"
            )
    if len(open_sections) > 1:
        raise DovecotError(f"line {number}: a '}}' is missing for {open_sections[-1].name!a}")
    if not root.settings and not root.sections:
        raise DovecotError("there are no settings in it")
    return Doveconf(root, version or root.get("dovecot_config_version"))


def _unquote(text: str) -> str:
    match = _QUOTED.fullmatch(text)
    if match is None:
        return text
    return re.sub(r"\\(.)", r"\1", match[1]) if match[1] is not None else match[2]
