"""The table `[content]`."""

from typing import Annotated, Literal

from ._table import About, Allowed, Table
from ._types import count

_Treatment = Annotated[Literal["keep", "reject", "normalise"], Allowed("keep, reject or normalise")]


class ContentTable(Table):
    """What happens to content that RFC 5321 does not allow. None of it is ever taken for the end."""

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
