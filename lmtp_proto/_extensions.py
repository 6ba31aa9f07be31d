"""The extensions a server can offer, each switched on by being in its set of them."""

from enum import Enum
from typing import Final


class Extension(Enum):
    """An extension; the value is its keyword in the LHLO reply."""

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
    """RFC 3030 2: the BDAT command."""
    BINARYMIME = "BINARYMIME"
    """RFC 3030 3: BODY=BINARYMIME; wants CHUNKING."""
    SMTPUTF8 = "SMTPUTF8"
    """RFC 6531: addresses and header fields in UTF-8; wants 8BITMIME."""
    DSN = "DSN"
    """RFC 3461: RET, ENVID, NOTIFY and ORCPT."""
    STARTTLS = "STARTTLS"
    """RFC 3207."""
    AUTH = "AUTH"
    """RFC 4954."""
    LIMITS = "LIMITS"
    """RFC 9422: says the limits that are kept."""
    REQUIRETLS = "REQUIRETLS"
    """RFC 8689; offered under TLS alone."""
    MT_PRIORITY = "MT-PRIORITY"
    """RFC 6710."""
    DELIVERBY = "DELIVERBY"
    """RFC 2852."""
    FUTURERELEASE = "FUTURERELEASE"
    """RFC 4865."""
    RRVS = "RRVS"
    """RFC 7293."""
    IGNOREQUOTA = "IGNOREQUOTA"
    """Cyrus: RCPT may go over the quota."""
    XCLIENT = "XCLIENT"
    """Postfix: a trusted peer says whom it stands for."""
    XFORWARD = "XFORWARD"
    """Postfix: a trusted peer says where the message came from, for logs."""
    XRCPTFORWARD = "XRCPTFORWARD"
    """Dovecot: a trusted proxy hands fields of its user look-up on."""


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

# RFC 3030 3 and RFC 6531 3.1: the one means nothing without the other.
_NEEDS: Final = {
    Extension.BINARYMIME: Extension.CHUNKING,
    Extension.SMTPUTF8: Extension.EIGHTBITMIME,
}


def effective(extensions: frozenset[Extension]) -> frozenset[Extension]:
    """Those of `extensions` whose need is among them: what is offered and taken."""
    return frozenset(each for each in extensions if _NEEDS.get(each, each) in extensions)
