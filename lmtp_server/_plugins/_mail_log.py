"""The plugin `mail_log`: a log line for each message that was saved, as Dovecot's plugin has it.

The invariant: a line has the fields that were asked for, in a fixed order, and nothing that came
over the wire breaks it.
"""

import logging
import os
from collections.abc import Mapping
from typing import Final

from lmtp_proto import Reply
from lmtp_server.plugins import Delivery, hookimpl

_logger: Final = logging.getLogger("lmtp_server.mail_log")

# In the order in which they stand in a line.
_FIELDS: Final = ("box", "msgid", "size", "vsize", "from", "subject")
# Octets of a value, with the dots that say that there was more.
_MOST: Final = 80
_MORE: Final = "..."


class MailLog:
    """`fields`: some of box, msgid, size, vsize, from and subject; box, msgid and size by
    default."""

    def __init__(self, table: Mapping[str, object]) -> None:
        faults = [f"there is no {key!r}; there is fields" for key in table if key != "fields"]
        fields = table.get("fields", ["box", "msgid", "size"])
        if not isinstance(fields, list) or not set(map(str, fields)) <= set(_FIELDS):
            faults.append(f"fields: {fields!r} is not allowed; allowed are {', '.join(_FIELDS)}")
        if faults:
            raise ValueError(*faults)
        assert isinstance(fields, list)
        self._fields = [name for name in _FIELDS if name in fields]

    @hookimpl
    def lmtp_after_delivery(self, delivery: Delivery, reply: Reply) -> None:
        """Log what was saved."""
        if reply.code >= 400:
            return
        content = delivery.content
        values = {
            "box": lambda: delivery.mailbox,
            "msgid": lambda: content.text("message-id"),
            "size": lambda: str(content.size - content.lines),
            "vsize": lambda: str(content.size),
            "from": lambda: content.text("from"),
            "subject": lambda: content.text("subject"),
        }
        _logger.info(
            "lmtp(%s)<%s><%s>: save: %s",
            _printable(delivery.user),
            os.getpid(),
            delivery.transaction.id,
            ", ".join(f"{name}={_short(_printable(values[name]()))}" for name in self._fields),
        )


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


def _short(text: str) -> str:
    octets = text.encode()
    if len(octets) <= _MOST:
        return text
    return octets[: _MOST - len(_MORE)].decode("utf-8", "ignore") + _MORE
