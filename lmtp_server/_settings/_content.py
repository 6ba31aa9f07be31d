"""The table `[content]`."""

from typing import Annotated, Literal

from lmtp_proto import ContentPolicy, Treatment

from ._table import About, Allowed, Table
from ._types import count

_Treatment = Annotated[Literal["keep", "reject", "normalise"], Allowed("keep, reject or normalise")]


class ContentTable(Table):
    """Content that RFC 5321 does not allow: none of it is ever taken for the end."""

    bare_cr: Annotated[_Treatment, About(meaning="CR without LF; normalised: a space")] = "keep"
    bare_lf: Annotated[_Treatment, About(meaning="LF without CR; normalised: CRLF")] = "keep"
    nul: Annotated[_Treatment, About(meaning="the octet 0; normalised: a space")] = "keep"
    long_line: Annotated[
        Literal["keep", "reject"],
        Allowed("keep or reject"),
        About(meaning="lines of more than `line_length` octets"),
    ] = "keep"
    line_length: Annotated[
        int, *count(1000, 1 << 30), About(meaning="octets of the longest line, with its CRLF")
    ] = 1000

    @property
    def policy(self) -> ContentPolicy:
        """What a server does with it."""
        return ContentPolicy(
            bare_cr=Treatment(self.bare_cr),
            bare_lf=Treatment(self.bare_lf),
            nul=Treatment(self.nul),
            long_line=Treatment(self.long_line),
            line_length=self.line_length,
        )
