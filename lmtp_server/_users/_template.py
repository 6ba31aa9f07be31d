"""The template of the Maildirs' paths.

The invariant: whatever is put into it, the result lies below `root`, as many levels down as the
template has components behind it, and two pairs of user and domain that differ in a field of the
template never have the same path.
"""

import os
import re
from pathlib import PurePosixPath
from typing import Final, NewType

PathName = NewType("PathName", str)
"""A text that is safe as a component of a path and as a part of one."""

# No "/" and no NUL, which file systems forbid; nothing that a shell or a terminal would take for
# more than a letter, because people look at these directories. "+" stays for those who use no
# recipient delimiter, "=" for rewritten senders (SRS, VERP), "'" for names.
_PATH_NAME: Final = re.compile(r"[A-Za-z0-9_+='\-][A-Za-z0-9._+='\-]*")
_IN_PATH_NAME: Final = re.compile(r"[A-Za-z0-9._+='\-]")
# NAME_MAX of every file system that holds mail.
_COMPONENT_LIMIT: Final = 255

_FIELD: Final = re.compile(r"\{(user|domain)\}")
_BRACE: Final = re.compile(r"[{}]")


def path_name(text: str) -> PathName:
    """`text`, checked. Raises ValueError that says what is wrong with it."""
    if not text:
        raise ValueError("it is empty")
    if _PATH_NAME.fullmatch(text) is None:
        if text.startswith("."):
            raise ValueError("it begins with a dot")
        raise ValueError("it has a character that is not allowed here")
    return PathName(text)


class MailTemplate:
    """A path such as `./mail/{domain}/{user}`.

    `root` is the absolute path of the directory in front of the first component with a field.
    Raises ValueError for a text that is no template.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        if not text.isprintable():
            raise ValueError("it has a character that is not printable")
        components = [part for part in text.split("/") if part not in {"", "."}]
        fixed = 0
        while fixed < len(components) and _BRACE.search(components[fixed]) is None:
            fixed += 1
        # Each is a row of literals at even places and names of fields at odd places.
        self._components = [_FIELD.split(part) for part in components[fixed:]]
        fields = [name for pieces in self._components for name in pieces[1::2]]
        if "user" not in fields:
            raise ValueError("{user} is not in it: all users would share one Maildir")
        for pieces in self._components:
            _check(pieces)
        self.root = os.path.abspath(
            ("/" if text.startswith("/") else "") + "/".join(components[:fixed])
        )
        if self.root == "/":
            raise ValueError("there is no directory in front of the first field")
        self.needs_domain = "domain" in fields

    def __str__(self) -> str:
        return self._text

    def expand(self, *, user: PathName, domain: PathName | None) -> PurePosixPath:
        """The path for this user, relative to `root`.

        `domain` may be None only if the template does not need it. Raises ValueError where a
        component becomes too long for a file system.
        """
        path = []
        for pieces in self._components:
            component = pieces[0]
            for name, literal in zip(pieces[1::2], pieces[2::2], strict=True):
                value = user if name == "user" else domain
                if value is None:
                    raise ValueError("it has no domain")
                component += value + literal
            if len(os.fsencode(component)) > _COMPONENT_LIMIT:
                raise ValueError("it is too long")
            path.append(component)
        return PurePosixPath(*path)


def _check(pieces: list[str]) -> None:
    """Raise ValueError if a component is none, or leaves open where one field ends."""
    literals = pieces[0::2]
    if any(_BRACE.search(literal) for literal in literals):
        raise ValueError("only {user} and {domain} may stand in braces")
    if pieces == [".."]:
        raise ValueError("'..' stands behind a field")
    # "{user}{domain}" would give "ab" + "c.org" and "a" + "bc.org" the same Maildir.
    for literal in literals[1:-1]:
        if _IN_PATH_NAME.sub("", literal) == "":
            raise ValueError("two fields need '@' or '/' between them")
