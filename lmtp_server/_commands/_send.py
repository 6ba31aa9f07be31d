"""The command `send`: delivers one message and says what became of each copy.

The invariant: every recipient has one line on standard output, in the order given, and the exit
code is that of the worst of them.
"""

import os
import re
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final, TypeVar

from lmtp_blocking import Client
from lmtp_proto import (
    Address,
    Body,
    PathError,
    Recipient,
    RemoteProtocolError,
    Reply,
    Result,
    parse_mailbox,
)
from lmtp_sockets import parse_address

T = TypeVar("T")

# Octets read from the message at a time.
_BLOCK: Final = 65536
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")


class InputError(Exception):
    """The message cannot be read; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """Where a message goes, from whom and to whom. `reverse_path` None is the null one."""

    to: str
    reverse_path: Address | None
    recipients: Sequence[Recipient]


def read_envelope(
    to: str, sender: str, recipients: Sequence[str], faults: list[str]
) -> Envelope | None:
    """The envelope that the flags describe; None where one is wrong, with a line in `faults`."""
    _check("--to", to, parse_address, faults)
    reverse_path = _check("--from", sender, _reverse_path, faults)
    mailboxes = [_check("--rcpt", recipient, _mailbox, faults) for recipient in recipients]
    if faults:
        return None
    return Envelope(
        to=to,
        reverse_path=reverse_path,
        recipients=[Recipient(address=mailbox) for mailbox in mailboxes if mailbox is not None],
    )


def _check(flag: str, text: str, read: Callable[[str], T], faults: list[str]) -> T | None:
    try:
        return read(text)
    except PathError as error:
        faults.append(f"{flag}: {text!r}: {error}; allowed is a mailbox such as me@example.org")
    except ValueError as error:
        faults.append(f"{flag}: {error}")
    return None


def _reverse_path(text: str) -> Address | None:
    return None if text in {"", "<>"} else _mailbox(text)


def _mailbox(text: str) -> Address:
    if not text.isascii():
        raise PathError("it is not ASCII")
    return parse_mailbox(text)


def send(envelope: Envelope, path: str) -> int:
    """Send the message in the file `path` (`-` is standard input); the exit code.

    Raises InputError.
    """
    try:
        file = sys.stdin.buffer if path == "-" else open(path, "rb")  # noqa: SIM115  # closed below
    except OSError as error:
        raise InputError(f"cannot read {path!r}: {error.strerror}") from error
    with file:
        results, failure = _submit(envelope, _content(file, path))
    for result in results:
        sys.stdout.write(f"{result.recipient}: {_on_one_line(result.reply)}\n")
    if failure is not None:
        sys.stderr.write(
            f"lmtp-server: {envelope.to} broke the protocol: {_printable(str(failure))}\n"
        )
        return os.EX_PROTOCOL
    return _exit_code(results)


def _submit(
    envelope: Envelope, content: Iterator[bytes]
) -> tuple[list[Result], RemoteProtocolError | None]:
    try:
        client = Client(envelope.to, domain=socket.gethostname())
    except OSError as error:
        # RFC 3463 4.4.1: no answer from host.
        reply = Reply(451, f"cannot connect: {error.strerror or error}", enhanced="4.4.1")
        return [Result(recipient=each, reply=reply) for each in envelope.recipients], None
    with client:
        results = client.submit(
            envelope.reverse_path, envelope.recipients, content, body=Body.EIGHTBITMIME
        )
    return results, client.failure


def _content(file: BinaryIO, path: str) -> Iterator[bytes]:
    """The octets of a local text with each line end as CRLF. Raises InputError."""
    held = b""
    while True:
        try:
            block = file.read(_BLOCK)
        except OSError as error:
            raise InputError(f"cannot read {path!r}: {error.strerror}") from error
        if not block:
            break
        block = held + block
        # The LF of a CRLF may be in the next block.
        held = b"\r" if block.endswith(b"\r") else b""
        yield _BARE_LF.sub(b"\r\n", block.removesuffix(held))
    yield held


def _on_one_line(reply: Reply) -> str:
    words = [str(reply.code), reply.enhanced, *reply.lines]
    return _printable(" ".join(word for word in words if word))


def _printable(text: str) -> str:
    """`text` with nothing that a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _exit_code(results: Sequence[Result]) -> int:
    """Failures for now come first: they are a reason to try again, those for good are none."""
    codes = [result.reply.code for result in results]
    if any(400 <= code < 500 for code in codes):
        return os.EX_TEMPFAIL
    if any(code >= 500 for code in codes):
        return os.EX_UNAVAILABLE
    return os.EX_OK
