"""Delivery reports on their way from an agent to its worker.

The invariant: what an agent says is a report or nothing; no field is longer than a report's is.
"""

from typing import Final

from mailstore import DeliveryReport, HeaderFields

from ._packets import Packet, PacketError

# Octets of a field: those of `mailstore`, and a file's name.
_LONGEST: Final = 1024
_MOST: Final = 1 << 62


def write_report(report: DeliveryReport) -> dict[str, object]:
    """The report as fields of a packet, without who the user is, which the worker knows."""
    return {
        "mailbox": report.mailbox,
        "stored": report.error is None,
        "storage_id": report.storage_id,
        "size": report.size,
        "virtual_size": report.virtual_size,
        "microseconds": round(report.seconds * 1_000_000),
        # Octets, one a character.
        "fields": [field.decode("latin-1") for field in report.fields],
    }


def read_report(fields: object, user: str) -> DeliveryReport | None:
    """The report on the mail of `user`; None for what is none."""
    if not isinstance(fields, dict):
        return None
    packet = Packet(fields, b"", -1)
    try:
        header = HeaderFields(
            *(text.encode("latin-1")[:_LONGEST] for text in packet.texts("fields"))
        )
        return DeliveryReport(
            user=user,
            mailbox=packet.text("mailbox")[:_LONGEST],
            error=None if fields.get("stored") is True else _NotStoredError(),
            storage_id=packet.text("storage_id")[:_LONGEST],
            size=min(packet.number("size"), _MOST),
            virtual_size=min(packet.number("virtual_size"), _MOST),
            seconds=min(packet.number("microseconds"), _MOST) / 1_000_000,
            fields=header,
        )
    except (PacketError, TypeError, UnicodeEncodeError):
        return None


class _NotStoredError(Exception):
    """The agent has not stored it; its reply says why."""
