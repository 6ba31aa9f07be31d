"""The kinds of values that settings have.

The invariant: each kind says what is allowed, takes nothing else, and can be written so that it is
read as the same value again.
"""

import os
import re
import socket
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, PlainValidator

from lmtp_server._users import MailTemplate
from lmtp_sockets import TcpAddress, parse_address

from ._table import Allowed

# Names that RFC 5321 4.1.2 allows, and the underscores that hosts have nevertheless.
_HOSTNAME: Final = r"^[A-Za-z0-9_]([A-Za-z0-9._\-]{0,253}[A-Za-z0-9_])?$"
_SMTP_PORT: Final = 25

_SIZE: Final = re.compile(r"([0-9]{1,18}) ?(?:([BKMGT])B?)?", re.ASCII | re.IGNORECASE)
_UNITS: Final = {"B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_TIME: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?([a-z]*)", re.ASCII)
_SECONDS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_LONGER_UNITS: Final = {
    **dict.fromkeys(("sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), "m"),
    **dict.fromkeys(("hour", "hours"), "h"),
    **dict.fromkeys(("day", "days"), "d"),
    **dict.fromkeys(("week", "weeks"), "w"),
}
_MODE: Final = re.compile(r"0?o?[0-7]{3,4}", re.ASCII)

Flag = Annotated[bool, Allowed("true or false")]
Hostname = Annotated[str, Field(pattern=_HOSTNAME), Allowed("the name of a host")]


def own_name() -> str:
    """The name of this machine, if it can be that of a server."""
    name = socket.gethostname()
    return name if re.fullmatch(_HOSTNAME, name) else "localhost"


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"{text!a} has a character that is not printable")
    return text


Text = Annotated[str, AfterValidator(_printable), Allowed("a text on one line")]


def _ascii(text: str) -> str:
    if not text.isascii():
        raise ValueError(f"{text!a} is not ASCII, as replies have to be")
    return _printable(text)


ReplyText = Annotated[str, AfterValidator(_ascii), Allowed("a text of printable ASCII")]


def _path(text: str) -> str:
    if not text:
        raise ValueError("'' is no path")
    return _printable(text)


Path = Annotated[str, AfterValidator(_path), Allowed("a path")]


def _template(value: object) -> MailTemplate:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    try:
        return MailTemplate(value)
    except ValueError as error:
        raise ValueError(
            f"{value!r}: {error}; allowed is a path with {{user}} and perhaps {{domain}} behind"
            " its first directory, or one in the user's home such as ~/Maildir"
        ) from None


Template = Annotated[
    MailTemplate,
    PlainValidator(_template),
    Allowed("a path with {user}, {domain} or Dovecot's variables, or one that begins with ~/"),
]


def _address(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text: write HOST:PORT, [IPV6]:PORT or unix:PATH")
    if value == "systemd" or (value.startswith("systemd:") and value.isprintable()):
        return value
    address = parse_address(value)
    if isinstance(address, TcpAddress) and address.port == _SMTP_PORT:
        raise ValueError(f"{value!r}: port 25 is for SMTP, not for LMTP (RFC 2033 5): take another")
    return str(address)


Address = Annotated[
    str,
    PlainValidator(_address),
    Allowed("HOST:PORT, [IPV6]:PORT, unix:PATH, systemd or systemd:NAME"),
]


class Network:
    """A network, or one address. Raises ValueError for a text that is none."""

    __slots__ = ("value",)

    def __init__(self, text: str) -> None:
        self.value: IPv4Network | IPv6Network = ip_network(text)

    def __str__(self) -> str:
        return str(self.value)


def _network(value: object) -> Network:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text: write it as '192.0.2.0/24'")
    try:
        return Network(value)
    except ValueError as error:
        raise ValueError(f"{value!r} is no network: {error}") from None


Networks = Annotated[
    list[Annotated[Network, PlainValidator(_network)]],
    Allowed("a list of networks such as '192.0.2.0/24' and addresses"),
]


def _size(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str):
        match = _SIZE.fullmatch(value)
        if match is not None:
            return int(match[1]) * _UNITS[(match[2] or "B").upper()]
    raise ValueError(
        f"{value!r} is not allowed; allowed is a number of octets, or a text with the unit K, M, G"
        " or T such as '50M'"
    )


Size = Annotated[int, PlainValidator(_size), Allowed("octets, or a text such as '50M'")]


def _octets(value: object) -> int:
    size = _size(value)
    if not size:
        raise ValueError(f"{value!r} is not allowed; allowed are octets, 1 at least")
    return size


Octets = Annotated[int, PlainValidator(_octets), Allowed("octets, or a text such as '50M'")]


def _read_seconds(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    unit = _SECONDS.get(_LONGER_UNITS.get(match[2], match[2]))
    return None if unit is None else float(match[1]) * unit


def _seconds(least: float, most: float) -> Any:
    """A validator and what it allows."""
    allowed = f"seconds from {least:g} to {most:g}, or a text such as '5m' or '1h'"

    def read(value: object) -> float:
        seconds = _read_seconds(value)
        # A number that is none is in no range.
        if seconds is None or not least <= seconds <= most:
            raise ValueError(f"{value!r} is not allowed; allowed are {allowed}")
        return seconds

    return PlainValidator(read), Allowed(allowed)


_any_time, _any_time_allowed = _seconds(0, 86400)
_some_time, _some_time_allowed = _seconds(1, 604800)
Seconds = Annotated[float, _any_time, _any_time_allowed]
Timeout = Annotated[float, _some_time, _some_time_allowed]


def _account(what: Literal["user", "group"]) -> Callable[[object], str]:
    def read(value: object) -> str:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32:
            return str(value)
        if isinstance(value, str) and value and value.isprintable() and ":" not in value:
            return value
        raise ValueError(f"{value!r} is not allowed; allowed is a {what}, by name or number")

    return read


User = Annotated[str, PlainValidator(_account("user")), Allowed("a user, by name or number")]
Group = Annotated[str, PlainValidator(_account("group")), Allowed("a group, by name or number")]


class Mode(int):
    """The permissions of a file; as text in octal."""

    def __str__(self) -> str:
        return f"{int(self):04o}"


def _mode(value: object) -> Mode:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 0o777:
        return Mode(value)
    if isinstance(value, str) and _MODE.fullmatch(value) is not None:
        mode = int(value.removeprefix("0o"), 8)
        if mode <= 0o777:
            return Mode(mode)
    raise ValueError(
        f"{value!r} is not allowed; allowed is a text of octal digits such as '0660', or 0o660"
    )


FileMode = Annotated[Mode, PlainValidator(_mode), Allowed("octal digits such as '0660'")]


def count(least: int, most: int, what: str = "a whole number") -> Any:
    """The metadata of whole numbers from `least` to `most`."""
    return Field(ge=least, le=most), Allowed(f"{what} from {least} to {most}")


class Secret:
    """A text that is not shown. `source` is what stands in its place, if it came from a file."""

    __slots__ = ("_text", "source")

    def __init__(self, text: str, source: dict[str, str] | None = None) -> None:
        self._text = text
        self.source = source

    def reveal(self) -> str:
        """The text."""
        return self._text

    def __repr__(self) -> str:
        return "Secret()"


_SECRET: Final = "a text, { file = PATH }, or { credential = NAME } for a credential of systemd"


def _secret(value: object) -> Secret:
    if isinstance(value, str):
        return Secret(value)
    if isinstance(value, dict) and len(value) == 1:
        ((kind, name),) = value.items()
        if isinstance(name, str) and name:
            if kind == "file":
                return Secret(_read_secret(name), {kind: name})
            if kind == "credential":
                return Secret(_read_secret(_credential(name)), {kind: name})
    # What was given may be the secret: it is not repeated.
    raise ValueError(f"this is not allowed; allowed is {_SECRET}")


def _is_reference(value: object) -> bool:
    return (
        isinstance(value, dict) and len(value) == 1 and not {"file", "credential"}.isdisjoint(value)
    )


def concealed(table: dict[str, Any]) -> dict[str, Any]:
    """A table of which nobody here knows what is in it: texts, at any depth, may be secrets, and a
    reference to one is what it refers to. Raises ValueError."""
    return {key: _concealed_below(key, item) for key, item in table.items()}


def _concealed_below(key: str, value: object) -> object:
    try:
        return _concealed(value)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _concealed(value: object) -> object:
    if isinstance(value, str) or _is_reference(value):
        return _secret(value)
    if isinstance(value, dict):
        return concealed(value)
    if isinstance(value, list):
        return [_concealed(item) for item in value]
    return value


def revealed(value: object) -> Any:
    """What was concealed, with its texts."""
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, dict):
        return {key: revealed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [revealed(item) for item in value]
    return value


def _credential(name: str) -> str:
    # systemd.exec(5), LoadCredential=.
    directory = os.environ.get("CREDENTIALS_DIRECTORY", "")
    if "/" in name or name in {".", ".."}:
        raise ValueError(f"{name!r} is no name of a credential: it has no '/'")
    if not directory:
        raise ValueError(
            f"there is no credential {name!r}: $CREDENTIALS_DIRECTORY is not set, which systemd"
            " does for LoadCredential="
        )
    return os.path.join(directory, name)


def _read_secret(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(1 << 16)
    except OSError as error:
        raise ValueError(f"cannot read {path!r}: {error.strerror}") from None
    except ValueError:
        raise ValueError(f"cannot read {path!r}: it is no text in UTF-8") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text or "\n" in text:
        raise ValueError(f"{path!r} does not hold one line of text")
    return text


SecretText = Annotated[Secret, PlainValidator(_secret), Allowed(_SECRET)]
