"""The server behind all dialogues, as README.md describes it.

What it does depends only on what the client said, so each runtime gives the same replies.
"""

import errno
import re
from collections.abc import Callable
from typing import Final

from lmtp_proto import (
    Handler,
    Limits,
    Mail,
    Recipient,
    Reply,
    Session,
    Settings,
    Transaction,
)

SETTINGS: Final = Settings(
    hostname="lmtp.example.org",
    limits=Limits(recipients=5, message_size=10_000, discard=10_000, faults=10),
)

_SHOWN: Final = 100
_UNPRINTABLE: Final = re.compile(rb"[^ -~]|\\")
_NAMED: Final = {b"\r": b"\\r", b"\n": b"\\n", b"\\": b"\\\\"}


class DialogHandler(Handler):
    """Decides by the local parts of addresses."""

    def mail(self, session: Session, mail: Mail, /) -> Reply | None:
        local_part = mail.reverse_path.local_part if mail.reverse_path is not None else ""
        if local_part.startswith("spam"):
            return Reply(550, "no mail from there", enhanced="5.7.1")
        if local_part.startswith("crash"):
            raise RuntimeError("a dialogue asked for it")
        return None

    def rcpt(self, transaction: Transaction, recipient: Recipient, /) -> Reply | None:
        local_part = recipient.address.local_part
        if local_part.startswith("no"):
            return Reply(550, "no such user", enhanced="5.1.1")
        if local_part.startswith("later"):
            return Reply(450, "try again later", enhanced="4.2.1")
        if local_part.startswith("oops"):
            raise RuntimeError("a dialogue asked for it")
        return None

    def vrfy(self, session: Session, text: str, /) -> Reply | None:
        if text == "alice":
            return Reply(250, "<alice@example.org>", enhanced="2.1.5")
        return None

    def open(self, transaction: Transaction, /) -> "DialogSink | Reply":
        sender = transaction.reverse_path
        local_part = sender.local_part if sender is not None else ""
        if local_part.startswith("closed"):
            return Reply(451, "closed for the night", enhanced="4.3.2")
        return DialogSink(local_part)


class DialogSink:
    """Holds the content and answers for it."""

    def __init__(self, sender: str) -> None:
        self._sender = sender
        self._content = bytearray()

    def write(self, data: bytes, /) -> Reply | None:
        if self._sender.startswith("nospace"):
            raise OSError(errno.ENOSPC, "a dialogue asked for it")
        if self._sender.startswith("virus"):
            return Reply(554, "unwanted content", enhanced="5.6.0")
        self._content += data
        return None

    def deliver(self, recipient: Recipient, /) -> Reply | Callable[[], Reply]:
        local_part = recipient.address.local_part
        if local_part.startswith("full"):
            return Reply(452, "mailbox full", enhanced="4.2.2")
        if local_part.startswith("reject"):
            return Reply(550, "not wanted", enhanced="5.7.1")
        if local_part.startswith("crash"):
            raise RuntimeError("a dialogue asked for it")
        if local_part.startswith("multi"):
            return Reply(250, "first", "second", enhanced="2.0.0")
        if local_part.startswith("job"):
            return self._saved
        return self._saved()

    def close(self) -> None:
        """Nothing is held beside memory."""

    def _saved(self) -> Reply:
        shown = _UNPRINTABLE.sub(_escape, bytes(self._content[:_SHOWN])).decode("ascii")
        return Reply(250, f"saved {len(self._content)}: {shown}", enhanced="2.0.0")


def _escape(match: re.Match[bytes]) -> bytes:
    octet = match[0]
    return _NAMED.get(octet) or b"\\x%02x" % octet[0]
