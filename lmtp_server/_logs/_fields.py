"""Header fields as people read them in a log.

The invariant: whatever a header says, what comes out is one line of printable text, bounded in
length, and reading it takes a time that is bounded by that length.
"""

import re
from typing import Final

from ._text import printable

# RFC 2047 2: no encoded word is longer than 75 characters; some are, and no text is all of them.
_WORD: Final = re.compile(r"=\?([^?*\s]{1,40})(?:\*[^?\s]*)?\?([BbQq])\?([^?\s]{0,1000})\?=")
_BETWEEN: Final = re.compile(r"(\?=)\s+(?==\?)")


def decoded(body: bytes, limit: int) -> str:
    """The body of a field, `limit` characters at most, with its encoded words (RFC 2047) decoded;
    those that cannot be stay as they are."""
    text = body.decode("utf-8", "replace")
    if "=?" in text:
        text = _WORD.sub(_decode, _BETWEEN.sub(r"\1", text))
    return printable(text, limit)


def _decode(match: re.Match[str]) -> str:
    # Hardly any log shows them.
    from base64 import b64decode
    from quopri import decodestring

    charset, encoding, text = match[1], match[2].upper(), match[3]
    try:
        if encoding == "B":
            octets = b64decode(text + "=" * (-len(text) % 4))
        else:
            octets = decodestring(text.encode("ascii", "replace"), header=True)
        return octets.decode(charset, "replace")
    except (LookupError, ValueError):
        return match[0]
