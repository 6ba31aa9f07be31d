"""The limits that a server says it keeps, as a client reads them (RFC 9422)."""

import re
from typing import Final, NamedTuple

# RFC 9422 5.1 to 5.3: no 0, six digits at most.
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,5}")


class OfferedLimits(NamedTuple):
    """What a server takes; None where it does not say."""

    transactions: int | None = None
    """MAILMAX: MAIL commands of a session, refused ones too (RFC 9422 5.1)."""
    recipients: int | None = None
    """RCPTMAX: RCPT commands of a transaction (RFC 9422 5.2)."""
    domains: int | None = None
    """RCPTDOMAINMAX: different domains in all RCPT commands of a session (RFC 9422 5.3)."""


def read_limits(words: str) -> OfferedLimits:
    """What the words behind LIMITS say; those that are unknown or malformed are ignored.

    Of a limit that is given twice the smaller one counts.
    """
    found: dict[str, int] = {}
    for word in words.split():
        name, _, value = word.upper().partition("=")
        if _NUMBER.fullmatch(value) is not None:
            found[name] = min(int(value), found.get(name, int(value)))
    return OfferedLimits(
        transactions=found.get("MAILMAX"),
        recipients=found.get("RCPTMAX"),
        domains=found.get("RCPTDOMAINMAX"),
    )
