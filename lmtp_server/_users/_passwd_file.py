"""Users from files like /etc/passwd, in Dovecot's format.

    user:password:uid:gid:gecos:home:shell:extra fields

The invariant: a line that cannot be read is one line in the log and leaves the others alone; the
user whom it names is a failure, never someone who does not exist.
"""

import grp
import logging
import pwd
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Final

from ._changing_file import ChangingFile
from ._entry import DirectoryError, Fields, NotFound
from ._variables import Names, Text, read_variables

_logger: Final = logging.getLogger("lmtp_server")

# Octets of a line; a longer one is broken.
_LONGEST_LINE: Final = 16 * 1024
# Broken lines told one by one; the rest is told as a number.
_TOLD: Final = 20
# Files kept, where the path has variables.
_KEPT: Final = 64

_NUMBER: Final = re.compile(r"[0-9]+", re.ASCII)
_USERDB: Final = "userdb_"
# The other extra fields are those of a password database. Of these, some say where mail goes.
_ROUTING: Final = frozenset(
    {
        *("user", "proxy", "proxy_maybe", "proxy_timeout", "proxy_not_trusted", "host", "hostip"),
        *("port", "protocol", "destuser", "ssl", "starttls", "source_ip", "nologin", "reason"),
    }
)


class PasswdFile:
    """The users in the file at `path`, which is read again when it has changed (a `Driver`).

    `path` may have the variables `%d`, `%n` and so on: then there is a file for each domain, say;
    one that is missing has no users. `username_format` is what of the user's name a line begins
    with, all of it by default. Raises ValueError for what is no text with variables.
    """

    constant: Final = False

    def __init__(self, path: str, *, username_format: str = "%u") -> None:
        self._path = Text(path)
        self._by_name = any(not isinstance(piece, str) for piece in read_variables(path))
        self._username = Text(username_format)
        self._lock = threading.Lock()
        # Those used longest ago come first.
        self._files: OrderedDict[str, ChangingFile[_Users]] = OrderedDict()

    def recall(self, user: str, /) -> Fields | NotFound | None:
        """What the file says, unless it has to be read first. Raises DirectoryError."""
        names = Names.of(user)
        try:
            file = self._file(names)
            users = None if file is None else file.unchanged()
        except DirectoryError:
            # Whether the file is missing takes a second look.
            return None
        if file is None:
            return NotFound(user)
        return None if users is None else users.find(user, self._key(names), names)

    def lookup(self, user: str, /) -> Fields | NotFound:
        """What the file says. Raises DirectoryError."""
        names = Names.of(user)
        file = self._file(names)
        if file is None:
            return NotFound(user)
        try:
            users = file.get()
        except DirectoryError as error:
            if self._by_name and isinstance(error.__cause__, FileNotFoundError):
                return NotFound(user)
            raise
        return users.find(user, self._key(names), names)

    def _key(self, names: Names) -> str:
        try:
            return self._username.expand(names)
        except ValueError:
            # It has no domain, and a line begins with one.
            return ""

    def _file(self, names: Names) -> "ChangingFile[_Users] | None":
        """The file for the user; None if there can be none."""
        try:
            if self._by_name:
                names.check()
            path = self._path.expand(names)
        except ValueError:
            return None
        with self._lock:
            file = self._files.get(path)
            if file is None:
                file = self._files[path] = ChangingFile(path, partial(_read, path))
                if len(self._files) > _KEPT:
                    self._files.popitem(last=False)
            elif self._by_name:
                self._files.move_to_end(path)
            return file


class _Users:
    """The lines of one version of a file, by user. Fields are told apart only when asked for: most
    users get no mail before the file changes again."""

    __slots__ = ("_broken", "_ids", "_lines")

    def __init__(self, lines: dict[str, str], broken: dict[str, str], ids: "_Ids") -> None:
        self._lines = lines
        self._broken = broken
        self._ids = ids

    def find(self, user: str, key: str, names: Names) -> Fields | NotFound:
        line = self._lines.get(key)
        if line is None:
            if key in self._broken:
                raise DirectoryError(f"the line of this user is broken: {self._broken[key]}")
            return NotFound(user)
        try:
            fields = _fields(line, names, self._ids)
        except ValueError as error:
            raise DirectoryError(f"the line of this user is broken: {error}") from None
        # A line for passwords alone is none for mail.
        return NotFound(user) if fields is None else fields


class _Ids:
    """The numbers of users and groups that a file names by name, looked up when it is read."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[bool, str], str | None] = {}

    def uid(self, text: str) -> str:
        return self._number(text, group=False)

    def gid(self, text: str) -> str:
        return self._number(text, group=True)

    def _number(self, text: str, *, group: bool) -> str:
        """The number as text. Raises ValueError."""
        if not text or _NUMBER.fullmatch(text):
            return text
        key = group, text
        if key not in self._numbers:
            find: Callable[[str], int] = _gid_of if group else _uid_of
            try:
                self._numbers[key] = str(find(text))
            except (KeyError, OSError):
                self._numbers[key] = None
        number = self._numbers[key]
        if number is None:
            raise ValueError(f"there is no {'group' if group else 'user'} {text!a} on this system")
        return number


def _uid_of(name: str) -> int:
    return pwd.getpwnam(name).pw_uid


def _gid_of(name: str) -> int:
    return grp.getgrnam(name).gr_gid


def _read(path: str, octets: bytes) -> _Users:
    lines: dict[str, str] = {}
    broken: dict[str, str] = {}
    ids = _Ids()
    faults = 0
    for number, octets_of_line in enumerate(octets.split(b"\n"), 1):
        # An empty line, one without a user, a comment.
        if not octets_of_line or octets_of_line[0] in b":#\r":
            continue
        line = octets_of_line[:_LONGEST_LINE].decode("utf-8", "backslashreplace").rstrip("\r")
        user = line.partition(":")[0]
        try:
            _check(line, len(octets_of_line), user in lines, ids)
        except ValueError as error:
            faults += 1
            if faults <= _TOLD:
                _logger.error("%a, line %d, user %a: %s", path, number, user[:256], error)
            # Of two lines for one user the first counts.
            if user not in lines:
                broken.setdefault(user, str(error))
            continue
        lines[user] = line
        broken.pop(user, None)
    if faults > _TOLD:
        _logger.error("%a: %d more lines are broken", path, faults - _TOLD)
    return _Users(lines, broken, ids)


def _check(line: str, size: int, known: bool, ids: _Ids) -> None:
    """Raise ValueError if nothing can be made of the line."""
    if size > _LONGEST_LINE:
        raise ValueError(f"it has more than {_LONGEST_LINE} octets")
    if known:
        raise ValueError("this user has a line already, which counts")
    if not line.isprintable():
        # Blanks other than SP between extra fields may be tabs.
        for character in line.replace("\t", ""):
            if not character.isprintable():
                raise ValueError(f"it has the character {character!a} in it")
    parts = line.split(":", 4)
    if len(parts) > 3:
        for text, number in ((parts[2], ids.uid), (parts[3], ids.gid)):
            if text and number(text).strip("0") == "":
                raise ValueError("its UID or GID is 0: no mail is delivered as root")


def _fields(line: str, names: Names, ids: _Ids) -> Fields | None:
    """The fields of a user's line, None for a line that is not for mail. Raises ValueError."""
    parts = line.split(":", 7)
    if len(parts) < 4:
        return None
    parts += [""] * (8 - len(parts))
    _, _, uid, gid, _, home, _, extra = parts
    fields = {"uid": ids.uid(uid), "gid": ids.gid(gid), "home": home}
    if extra.startswith(":"):
        # An old format of Dovecot's, with the location of the mail behind an empty field.
        extra = f"userdb_mail={extra[1:]}"
    names = Names(local=names.local, domain=names.domain, home=home or None)
    for word in extra.split():
        key, equals, value = word.partition("=")
        in_userdb = key.startswith(_USERDB)
        key = key.removeprefix(_USERDB)
        if in_userdb or key in _ROUTING:
            if key in {"uid", "gid"}:
                value = ids.uid(value) if key == "uid" else ids.gid(value)
            elif key not in {"mail", "home"}:
                value = Text(value, own=False).expand(names)
            fields[key] = value if equals else "yes"
    return {key: value for key, value in fields.items() if value}
