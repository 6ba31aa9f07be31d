"""The encodings that parameter values are wrapped in: xtext, unitext and tab-escaping.

Each `decode_` takes any text and gives a value or a ValueError; each `encode_` is undone by its
`decode_`, and what it gives is printable ASCII without "=" and space.
"""

import re
from collections.abc import Mapping
from typing import Final

# RFC 3461 4: xchar is any of "!" to "~" but "+" and "=". RFC 3461 wants capitals in hexchar; others
# write small letters too.
_XTEXT: Final = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-Fa-f]{2})*")
_HEXCHAR: Final = re.compile(rb"\+(..)")
_NOT_XCHAR: Final = re.compile(rb"[^!-*,-<>-~]")

# RFC 6533 3: QUCHAR is an xchar other than "\", or any character beyond ASCII.
_UNITEXT: Final = re.compile(
    r"(?:[^\x00-\x20+=\\\x7f]|\\x\{(?:10|[0-9A-Fa-f])?[0-9A-Fa-f]{1,4}\})*"
)
_EMBEDDED: Final = re.compile(r"\\x\{([0-9A-Fa-f]+)\}")
_NOT_QCHAR: Final = re.compile(r"[^!-*,-<>-\[\]-~]")
# RFC 6533 3, HEXPOINT: those ASCII characters that cannot stand for themselves; it lists control
# characters too, but no mailbox has one.
_EMBEDDED_ASCII: Final = frozenset(" +=\\")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")

# Dovecot's str_tabescape(): the octet behind 0x01 says which was meant.
_ESCAPES: Final = {"\0": "0", "\x01": "1", "\t": "t", "\r": "r", "\n": "n"}
_ESCAPED: Final = {letter: character for character, letter in _ESCAPES.items()}
_MUST_ESCAPE: Final = re.compile(r"[\x00\x01\t\r\n]")
_ESCAPE: Final = re.compile(r"\x01(.?)", re.DOTALL)


def decode_xtext(text: str) -> bytes:
    """The octets that xtext stands for (RFC 3461 4). Raises ValueError."""
    if _XTEXT.fullmatch(text) is None:
        raise ValueError("not xtext")
    return _HEXCHAR.sub(lambda match: bytes((int(match[1], 16),)), text.encode())


def encode_xtext(octets: bytes) -> str:
    """`octets` as xtext (RFC 3461 4)."""
    return _NOT_XCHAR.sub(lambda match: b"+%02X" % ord(match[0]), octets).decode()


def decode_unitext(text: str) -> str:
    r"""The text that utf-8-addr-xtext or utf-8-addr-unitext stands for (RFC 6533 3).

    `\x{HEX}` is a character; other characters beyond ASCII, which only the latter has, stand for
    themselves. Raises ValueError.
    """
    if _UNITEXT.fullmatch(text) is None:
        raise ValueError("not unitext")
    decoded = _EMBEDDED.sub(_embedded, text)
    if _CONTROL.search(decoded):
        raise ValueError("a control character")
    return decoded


def _embedded(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    if character.isascii() and character not in _EMBEDDED_ASCII:
        raise ValueError(f"{match[0]} needs no escape")
    if 0xD800 <= ord(character) <= 0xDFFF:
        raise ValueError(f"{match[0]} is no character")
    return character


def encode_unitext(text: str) -> str:
    """`text`, without control characters, as utf-8-addr-xtext, which is ASCII (RFC 6533 3)."""
    return _NOT_QCHAR.sub(lambda match: f"\\x{{{ord(match[0]):02X}}}", text)


def decode_fields(text: str) -> dict[str, str]:
    """The fields of `key=value` items, tab-escaped and with tabs between, in UTF-8 and xtext.

    An item without "=" is a key with the value `""`, as Dovecot takes it. Raises ValueError.
    """
    fields = {}
    for item in decode_xtext(text).decode().split("\t"):
        key, _, value = _ESCAPE.sub(lambda match: _unescape(match[1]), item).partition("=")
        if not key:
            raise ValueError("a field without a key")
        fields[key] = value
    return fields


def _unescape(letter: str) -> str:
    if letter not in _ESCAPED:
        raise ValueError("not tab-escaped")
    return _ESCAPED[letter]


def encode_fields(fields: Mapping[str, str]) -> str:
    """What `decode_fields()` reads. Raises ValueError for a key that has "=" in it."""
    if any("=" in key for key in fields):
        raise ValueError("a key with '=' in it")
    items = (
        _MUST_ESCAPE.sub(lambda match: "\x01" + _ESCAPES[match[0]], f"{key}={value}")
        for key, value in fields.items()
    )
    return encode_xtext("\t".join(items).encode())
