"""Paths and mailboxes as MAIL and RCPT carry them (RFC 5321 4.1.2, RFC 6531 3.3).

Every text gives either a value or a `PathError` that says what is wrong with it.
"""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

# RFC 5321 4.5.3.1.2. A local part has no upper limit of its own here: the same section says that
# a receiver should not impose one, and the path is bounded by the command line.
_DOMAIN_LIMIT: Final = 255
_LABEL_LIMIT: Final = 63

# RFC 6531 3.3 adds every character beyond ASCII to atext, to quoted text and to labels: the classes
# say what is left out, as a class that spans all of Unicode takes long to compile.
_ATEXT: Final = r'[^\x00-\x20()<>\[\]:;@\\,."\x7f]'
_QTEXT: Final = r'[^\x00-\x1f"\\\x7f]'
_LETTER: Final = r"[^\x00-/:-@\[-`{-\x7f]"
_LETTER_OR_HYPHEN: Final = r"[^\x00-,./:-@\[-`{-\x7f]"

_DOT_STRING: Final = re.compile(rf"{_ATEXT}+(?:\.{_ATEXT}+)*")
_QUOTED: Final = re.compile(rf'"((?:{_QTEXT}|\\[ -~])*)"')
_U_LABEL: Final = rf"{_LETTER}(?:{_LETTER_OR_HYPHEN}*{_LETTER})?"
_DOMAIN: Final = re.compile(rf"{_U_LABEL}(?:\.{_U_LABEL})*")
_FULL_STOPS: Final = re.compile("[\u3002\uff0e\uff61]")
_LITERAL: Final = re.compile(r"\[([!-Z^-~]+)\]")
_GENERAL_LITERAL: Final = re.compile(r"[A-Za-z0-9\-]*[A-Za-z0-9]:[!-Z^-~]+")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_QUOTED_PAIR: Final = re.compile(r"\\(.)")
_MUST_ESCAPE: Final = re.compile(r'(["\\])')


class PathError(ValueError):
    """What is wrong with a path, for the text of a reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathRules:
    """What a server takes in MAIL and RCPT beyond RFC 5321 4.1.2; nothing, as it stands."""

    whitespace_before_path: bool = False
    """Spaces between the colon and the path, as Dovecot's workaround `whitespace-before-path`."""
    mailbox_for_path: bool = False
    """A mailbox without angle brackets, as Dovecot's workaround `mailbox-for-path`."""
    missing_domain: bool = False
    """Senders and recipients without a domain, as Dovecot takes them."""


STRICT: Final = PathRules()


@dataclass(frozen=True, slots=True)
class Address:
    r"""A mailbox.

    `local_part` is its meaning: quotes and quoted pairs are resolved, so `"a\ b"@d` and `"a b"@d`
    are equal. `domain` is as it was written, `""` where there is none (only `<Postmaster>` and,
    where a server takes it, a sender), with its brackets when it is an address literal.
    `str()` gives the mailbox back as it goes on the wire, quoted where it must be. Raises PathError
    for what no path could carry.
    """

    local_part: str
    domain: str
    _text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        local_part = self.local_part
        if _CONTROL.search(local_part):
            raise PathError("the local part has a control character")
        if self.domain:
            _check_domain(self.domain)
        if _DOT_STRING.fullmatch(local_part) is None:
            local_part = '"' + _MUST_ESCAPE.sub(r"\\\1", local_part) + '"'
        text = f"{local_part}@{self.domain}" if self.domain else local_part
        # The way a frozen dataclass sets a derived field.
        object.__setattr__(self, "_text", text)

    def __str__(self) -> str:
        return self._text


def scan_path(text: str, start: int) -> tuple[Address | None, int]:
    """Read the path that begins at `text[start]`: `(address, end)`; None is the null path `<>`.

    A source route is read over (RFC 5321 3.6.1, appendix C). Raises PathError.
    """
    if not text.startswith("<", start):
        raise PathError("a path begins with '<'")
    end = text.find(">", start)
    quote = text.find('"', start)
    if quote >= 0 and (end < 0 or quote < end):
        end = _end_behind_quotes(text, start)
    if end < 0:
        raise PathError("a path ends with '>'")
    return parse_path(text[start + 1 : end]), end + 1


def scan_mailbox(text: str, start: int) -> tuple[Address, int]:
    """Read the mailbox without brackets that begins at `text[start]`: `(address, end)`.

    A space ends it. Raises PathError.
    """
    quoted = _QUOTED.match(text, start)
    end = text.find(" ", quoted.end() if quoted else start)
    if end < 0:
        end = len(text)
    return parse_mailbox(text[start:end]), end


def _end_behind_quotes(text: str, start: int) -> int:
    """Where the ">" stands that is not within a quoted string; -1 if nowhere."""
    quoted = False
    position = start
    while position < len(text):
        character = text[position]
        if quoted and character == "\\":
            position += 1
        elif character == '"':
            quoted = not quoted
        elif character == ">" and not quoted:
            return position
        position += 1
    return -1


# Senders and recipients come back: a look-up is a fifth of a parse. Failures are not kept.
@lru_cache(maxsize=1024)
def parse_path(text: str) -> Address | None:
    """The path between the angle brackets; None for the null path. Raises PathError."""
    if not text:
        return None
    if text.startswith("@"):
        route, colon, text = text.partition(":")
        if not colon:
            raise PathError("a source route ends with ':'")
        for hop in route.split(","):
            if not hop.startswith("@"):
                raise PathError("each hop of a source route begins with '@'")
            _check_domain(hop[1:])
    return parse_mailbox(text)


def parse_mailbox(text: str) -> Address:
    """A mailbox without brackets, its domain optional. Raises PathError."""
    if text.startswith('"'):
        match = _QUOTED.match(text)
        if match is None:
            raise PathError("the quoted local part is malformed")
        local_part = _QUOTED_PAIR.sub(r"\1", match[1])
        end = match.end()
    else:
        match = _DOT_STRING.match(text)
        if match is None:
            raise PathError("the local part is malformed")
        local_part = match[0]
        end = match.end()
    if end == len(text):
        return Address(local_part, "")
    if text[end] != "@":
        raise PathError("the local part is malformed")
    if end + 1 == len(text):
        raise PathError("the domain is missing")
    return Address(local_part, text[end + 1 :])


def _check_domain(domain: str) -> None:
    """Raise PathError unless `domain` is a domain name or an address literal."""
    if domain.startswith("["):
        _check_literal(domain)
        return
    if domain.isascii():
        labels = domain.split(".")
    else:
        if _FULL_STOPS.search(domain):
            raise PathError("the domain is malformed")
        labels = [_a_label(label) for label in domain.split(".")]
    if sum(map(len, labels)) + len(labels) - 1 > _DOMAIN_LIMIT:
        raise PathError(f"the domain is longer than {_DOMAIN_LIMIT} octets")
    if _DOMAIN.fullmatch(domain) is None or _CONTROL.search(domain):
        raise PathError("the domain is malformed")
    if any(len(label) > _LABEL_LIMIT for label in labels):
        raise PathError(f"a label of the domain is longer than {_LABEL_LIMIT} octets")


def _a_label(label: str) -> str:
    """The label as DNS has it (RFC 5890 2.3.2.1), not mapped in any way; for its length.

    A label that is too long as it stands comes back so: its A-label is longer still.
    """
    if label.isascii() or len(label) > _LABEL_LIMIT:
        return label
    return f"xn--{label.encode('punycode').decode()}"


def _check_literal(domain: str) -> None:
    """RFC 5321 4.1.3: `[192.0.2.1]`, `[IPv6:2001:db8::1]` or `[tag:content]`."""
    match = _LITERAL.fullmatch(domain)
    if match is None:
        raise PathError("the address literal is malformed")
    literal = match[1]
    try:
        if literal[:5].upper() == "IPV6:":
            # A zone is not of the grammar, though ipaddress takes one.
            if IPv6Address(literal[5:]).scope_id is not None:
                raise PathError("the address literal has a zone")
        elif _GENERAL_LITERAL.fullmatch(literal) is None:
            IPv4Address(literal)
    except ValueError as error:
        raise PathError("the address literal is malformed") from error


class Detail(NamedTuple):
    """A local part, split."""

    user: str
    detail: str | None
    """None when there is no delimiter; `""` when nothing follows it."""
    delimiter: str
    """The character between them, `""` when there is none."""


def split_detail(local_part: str, delimiters: str) -> Detail:
    """Split an unquoted local part at the first of the characters `delimiters` (RFC 5233 4).

    As Dovecot's `recipient_delimiter`: all that follows is the detail, further delimiters
    included, and a local part that begins with a delimiter is not split.
    """
    for position, character in enumerate(local_part):
        if character in delimiters:
            if position == 0:
                break
            return Detail(local_part[:position], local_part[position + 1 :], character)
    return Detail(local_part, None, "")
