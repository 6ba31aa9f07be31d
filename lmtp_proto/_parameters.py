"""The parameters of MAIL and RCPT, typed, and the extensions that allow them.

A keyword that no enabled extension defines is refused with 555 (RFC 5321 4.1.1.11), a value its
extension does not allow with 501.
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from ._reply import Reply


class Extension(Enum):
    """An extension a server can offer; the value is its EHLO keyword."""

    __hash__ = object.__hash__

    PIPELINING = "PIPELINING"
    """RFC 2920; RFC 2033 5 wants it."""
    ENHANCEDSTATUSCODES = "ENHANCEDSTATUSCODES"
    """RFC 2034; RFC 2033 5 wants it."""
    EIGHTBITMIME = "8BITMIME"
    """RFC 6152; RFC 2033 5 asks for it."""
    SIZE = "SIZE"
    """RFC 1870."""
    CHUNKING = "CHUNKING"
    """RFC 3030: the BDAT command."""
    STARTTLS = "STARTTLS"
    """RFC 3207."""


STANDARD_EXTENSIONS: Final = frozenset(
    {
        Extension.PIPELINING,
        Extension.ENHANCEDSTATUSCODES,
        Extension.EIGHTBITMIME,
        Extension.SIZE,
        Extension.CHUNKING,
    }
)
"""What a server offers unless told otherwise: all that needs nothing from outside the protocol."""


class Body(Enum):
    """The BODY parameter of MAIL (RFC 6152 2)."""

    SEVENBIT = "7BIT"
    EIGHTBITMIME = "8BITMIME"


@dataclass(frozen=True, slots=True, kw_only=True)
class MailParameters:
    """What MAIL said beside the reverse-path."""

    size: int | None = None
    """SIZE: the declared size of the content in octets."""
    body: Body | None = None
    """BODY: None when not given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RcptParameters:
    """What RCPT said beside the forward-path."""


_BODIES: Final = {body.value.lower(): body for body in Body}

NO_MAIL_PARAMETERS: Final = MailParameters()
NO_RCPT_PARAMETERS: Final = RcptParameters()


class ParameterError(ValueError):
    """A parameter that cannot be taken; `reply` says why."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


# RFC 5321 4.1.2: esmtp-keyword ["=" esmtp-value], the value of any printable but "=" and SP.
_PARAMETER: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\u0080-\U0010ffff]+))?")
# RFC 1870 4: 1*20DIGIT.
_SIZE: Final = re.compile(r"[0-9]{1,20}")


def split_parameters(text: str) -> dict[str, str | None]:
    """`KEYWORD[=value]` separated by one space, keywords in upper case. Raises ParameterError."""
    found: dict[str, str | None] = {}
    for item in text.split(" "):
        match = _PARAMETER.fullmatch(item)
        if match is None:
            raise _malformed("malformed parameter")
        keyword = match[1].upper()
        if keyword in found:
            raise _malformed(f"{keyword} is given twice")
        found[keyword] = match[2]
    return found


def mail_parameters(text: str, extensions: frozenset[Extension], most: int) -> MailParameters:
    """The parameters of MAIL; `most` is the largest SIZE, in octets. Raises ParameterError."""
    size: int | None = None
    body: Body | None = None
    for keyword, value in split_parameters(text).items():
        if keyword == "SIZE" and Extension.SIZE in extensions:
            if value is None or _SIZE.fullmatch(value) is None:
                raise _malformed("SIZE is a number of octets")
            size = int(value)
            if size > most:
                raise ParameterError(
                    Reply(552, f"message size exceeds {most} octets", enhanced="5.3.4")
                )
        elif keyword == "BODY" and Extension.EIGHTBITMIME in extensions:
            try:
                body = _BODIES[(value or "").lower()]
            except KeyError:
                raise _malformed("BODY is 7BIT or 8BITMIME") from None
        else:
            raise _unknown(keyword)
    return MailParameters(size=size, body=body)


def rcpt_parameters(text: str) -> RcptParameters:
    """The parameters of RCPT. Raises ParameterError."""
    for keyword in split_parameters(text):
        raise _unknown(keyword)
    return NO_RCPT_PARAMETERS


def _malformed(text: str) -> ParameterError:
    return ParameterError(Reply(501, text, enhanced="5.5.4"))


def _unknown(keyword: str) -> ParameterError:
    return ParameterError(Reply(555, f"{keyword} is not supported", enhanced="5.5.4"))
