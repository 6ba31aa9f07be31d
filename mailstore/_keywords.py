"""Dovecot's file `dovecot-keywords`: what the letters a to z in the names of messages mean.

The invariant: a letter never comes to mean another keyword, whoever adds keywords at the same time:
all do so under the lock of the mailbox's `dovecot-uidlist`, as Dovecot wants it.
"""

import logging
import os
import re
import string
import time
from collections.abc import Iterable, Mapping
from typing import Final

from ._control_file import read_control_file
from ._dotlock import dotlock
from ._files import write_all
from ._permissions import Permissions

_logger: Final = logging.getLogger("mailstore")

KEYWORDS: Final = "dovecot-keywords"
_UIDLIST: Final = "dovecot-uidlist"
# Dovecot's: seconds without a change after which a lock counts for nothing.
_STALE: Final = 120.0

_LETTERS: Final = string.ascii_lowercase
# As atoi(3) reads it: blanks, a sign, digits, and 0 if there are none.
_NUMBER: Final = re.compile(rb"[\t-\r ]*([+-]?)0*([0-9]*)")

# RFC 3501: an atom.
_KEYWORD: Final = re.compile(r"[!#$&'+-\[^-z|-~]+")
# Dovecot's mail_max_keyword_length.
_LENGTH_LIMIT: Final = 50


def check_keyword(keyword: str) -> None:
    """Raise ValueError for what Dovecot takes for no keyword."""
    if len(keyword) > _LENGTH_LIMIT or _KEYWORD.fullmatch(keyword) is None:
        raise ValueError(
            f"{keyword!a} is no keyword: 1 to {_LENGTH_LIMIT} printable ASCII characters without"
            ' blanks and ( ) { % * " \\ ]'
        )


def parse_keywords(content: bytes) -> dict[int, bytes]:
    """The keywords by their number, from 0 for the letter a; read as Dovecot does."""
    keywords: dict[int, bytes] = {}
    # What has no line end was not written whole.
    for line in content.split(b"\n")[:-1]:
        # Lines end in CRLF where people have edited them.
        number, blank, name = line.removesuffix(b"\r").partition(b" ")
        if not blank or not name:
            continue
        index = _number(number)
        if 0 <= index < len(_LETTERS):
            keywords[index] = name
    return keywords


def _number(text: bytes) -> int:
    match = _NUMBER.match(text)
    if match is None or not match[2]:
        return 0
    # What has more digits than any number of a keyword may have too many for int().
    return int(match[1] + match[2][:3])


def format_keywords(keywords: Mapping[int, bytes]) -> bytes:
    """The file that has these keywords."""
    return b"".join(b"%d %b\n" % item for item in sorted(keywords.items()))


def assign(keywords: dict[int, bytes], names: Iterable[str]) -> tuple[str, bool]:
    """The letters of `names`, sorted, and whether some are new; these are added to `keywords`.

    Keywords that differ in case are the same. One for which there is no letter left is left out.
    """
    letters = set()
    changed = False
    for name in names:
        wanted = name.encode("ascii")
        index = next((i for i, k in sorted(keywords.items()) if k.lower() == wanted.lower()), None)
        if index is None:
            index = next((i for i in range(len(_LETTERS)) if i not in keywords), None)
            if index is None:
                _logger.warning("no letter is left for the keyword %a: it is left out", name)
                continue
            keywords[index] = wanted
            changed = True
        letters.add(_LETTERS[index])
    return "".join(sorted(letters)), changed


def letters_of(
    mailbox: int, names: Iterable[str], *, permissions: Permissions, timeout: float
) -> str:
    """The letters of the keywords `names` in the directory `mailbox`, a descriptor, sorted.

    New ones are written, durably. Raises ControlFileError for a file that is none and OSError;
    TimeoutError if somebody has held the mailbox's lock for `timeout` seconds.
    """
    names = list(names)
    # No letter is taken away again, so what is known needs no lock.
    letters, changed = assign(_read(mailbox)[0], names)
    if not changed:
        return letters
    with dotlock(
        mailbox, _UIDLIST, permissions=permissions, timeout=timeout, stale=_STALE, named=True
    ):
        keywords, modified = _read(mailbox)
        letters, changed = assign(keywords, names)
        if changed:
            _write(mailbox, format_keywords(keywords), modified, permissions)
    return letters


def _read(mailbox: int) -> tuple[dict[int, bytes], float]:
    """The keywords, and when they were written."""
    found = read_control_file(mailbox, KEYWORDS)
    if found is None:
        return {}, 0.0
    content, status = found
    return parse_keywords(content), status.st_mtime


def _write(mailbox: int, content: bytes, modified: float, permissions: Permissions) -> None:
    # Who holds the lock of the list has this one, too: one that is there was left behind.
    try:
        os.unlink(KEYWORDS + ".lock", dir_fd=mailbox)
    except FileNotFoundError:
        pass
    with dotlock(mailbox, KEYWORDS, permissions=permissions, timeout=0, stale=_STALE) as lock:
        write_all(lock.descriptor, content)
        now = time.time()
        if int(now) <= modified:
            # Dovecot reads the file again when the second of its modification is another.
            os.utime(lock.descriptor, (now, int(modified) + 1))
        lock.replace()
