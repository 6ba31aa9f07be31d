"""The attributes of XCLIENT and XFORWARD: what a trusted peer says of the client it stands for.

Every text gives a mapping of known attributes to checked values, or a ValueError.
"""

import re
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final

from ._xtext import decode_xtext

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z-]{0,31}")
_PRINTABLE: Final = re.compile(r"[^\x00-\x1f\x7f]{1,255}")
# Postfix: the value is not known, for good or for now.
_UNAVAILABLE: Final = frozenset({"[UNAVAILABLE]", "[TEMPUNAVAIL]"})


def _text(value: str) -> str:
    if _PRINTABLE.fullmatch(value) is None:
        raise ValueError("not printable, or longer than 255 characters")
    return value


def _address(value: str) -> str:
    text = value[5:] if value[:5].upper() == "IPV6:" else value
    return str(ip_address(text))


def _number(most: int) -> Callable[[str], str]:
    def check(value: str) -> str:
        if not (value.isascii() and value.isdigit() and len(value) <= 10 and int(value) <= most):
            raise ValueError(f"no number up to {most}")
        return value

    return check


def _one_of(*words: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        if value.upper() not in words:
            raise ValueError(f"none of {', '.join(words)}")
        return value.upper()

    return check


_PORT: Final = _number(65535)

XCLIENT: Final[dict[str, Callable[[str], str]]] = {
    "NAME": _text,
    "REVERSE_NAME": _text,
    "ADDR": _address,
    "PORT": _PORT,
    "PROTO": _one_of("SMTP", "ESMTP", "LMTP"),
    "HELO": _text,
    "LOGIN": _text,
    "DESTADDR": _address,
    "DESTPORT": _PORT,
    "DESTNAME": _text,
    "SESSION": _text,
    "CLIENT-TRANSPORT": _one_of("SECURED", "TRUSTED", "TLS", "INSECURE"),
    "TTL": _number(255),
    "TIMEOUT": _number(2**31 - 1),
}
"""Postfix's attributes of XCLIENT and those that Dovecot has added."""

XFORWARD: Final[dict[str, Callable[[str], str]]] = {
    "NAME": _text,
    "ADDR": _address,
    "PORT": _PORT,
    "PROTO": _text,
    "HELO": _text,
    "IDENT": _text,
    "SOURCE": _one_of("LOCAL", "REMOTE"),
}
"""Postfix's attributes of XFORWARD."""


def parse_attributes(text: str, known: dict[str, Callable[[str], str]]) -> dict[str, str | None]:
    """`NAME=xtext` separated by spaces; None for a value that is said to be unavailable.

    An attribute that is not known is left out, as Dovecot does: proxies send what they have.
    Raises ValueError.
    """
    found: dict[str, str | None] = {}
    for item in text.split(" "):
        name, equals, value = item.partition("=")
        name = name.upper()
        if not equals or not name.isascii() or _NAME.fullmatch(name.replace("_", "-")) is None:
            raise ValueError("an attribute is NAME=value")
        if name in found:
            raise ValueError(f"{name} is given twice")
        check = known.get(name)
        if check is None:
            continue
        if value.upper() in _UNAVAILABLE:
            found[name] = None
            continue
        try:
            found[name] = check(decode_xtext(value).decode())
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return found
