"""The table `[trace]`."""

from typing import Annotated, Literal

from pydantic import AfterValidator

from mailstore import DeliveredTo, TraceOptions

from ._table import About, Allowed, Table
from ._types import Flag, count


def _field_name(text: str) -> str:
    TraceOptions(original_recipient_header=text)
    return text


class TraceTable(Table):
    """The header fields that are written in front of a message."""

    return_path: Annotated[
        Flag,
        About(meaning="`Return-Path`, in place of any that the message brings along"),
    ] = True
    delivered_to: Annotated[
        Literal["final", "original", "none"],
        Allowed("final, original or none"),
        About(
            meaning="what `Delivered-To` says: the recipient of RCPT, the original recipient where"
            " one is known, or nothing",
            dovecot=("lmtp_hdr_delivery_address",),
        ),
    ] = "final"
    received: Annotated[
        Flag, About(meaning="`Received`", dovecot=("lmtp_add_received_header",))
    ] = True
    original_recipient_header: Annotated[
        str,
        AfterValidator(_field_name),
        Allowed("the name of a header field, or none"),
        About(
            meaning="the field that names the original recipient where no ORCPT does, such as"
            " `X-Original-To`; it must be one that the MTA takes care of",
            dovecot=("lda_original_recipient_header",),
        ),
    ] = ""
    hop_limit: Annotated[
        int,
        *count(0, 1 << 31),
        About(meaning="`Received` fields of a message; with more it is refused as a loop; 0: any"),
    ] = 100

    @property
    def options(self) -> TraceOptions:
        """What a store takes."""
        return TraceOptions(
            return_path=self.return_path,
            delivered_to=DeliveredTo(self.delivered_to),
            received=self.received,
            original_recipient_header=self.original_recipient_header,
            hop_limit=self.hop_limit,
        )
