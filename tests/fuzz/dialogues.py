"""Random dialogues: pieces of the protocol, put together, mutated and cut at random.

Whatever comes in, the conversation raises nothing, writes well-formed reply lines, holds no more
than a line while it waits, and answers each message once for each accepted recipient.
"""

import random
import re
from typing import Final

from lmtp_proto import (
    Answer,
    Credentials,
    Extension,
    Handler,
    Interrupt,
    Limits,
    Message,
    Receive,
    Recipient,
    Reply,
    Session,
    Settings,
    Transaction,
)
from tests.protocol.driver import Driver

_PIECES: Final = [
    b"LHLO client.example.org\r\n",
    b"lhlo [127.0.0.1]\r\n",
    b"EHLO x\r\n",
    b"MAIL FROM:<>\r\n",
    b"MAIL FROM:<a@b> SIZE=5 BODY=8BITMIME\r\n",
    b"MAIL FROM:<a@b> BODY=BINARYMIME RET=HDRS ENVID=x+2By\r\n",
    b"MAIL FROM:<\xc3\xbc@b> SMTPUTF8 MT-PRIORITY=-3 BY=120;R HOLDFOR=9\r\n",
    b"RCPT TO:<alice@example.org>\r\n",
    b'RCPT TO:<"a b"@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a@b\r\n',
    b"RCPT TO:<crash@example.org>\r\n",
    b"RCPT TO:<no@example.org>\r\n",
    b"RCPT TO:<@a,@b:c@[IPv6:::1]>\r\n",
    b"DATA\r\n",
    b"hello\r\n..dot\r\n",
    b".\r\n",
    b"\r\n.\r\n",
    b"\n.\n",
    b"BDAT 5\r\nhello",
    b"BDAT 3 LAST\r\nabc",
    b"BDAT 0 LAST\r\n",
    b"BDAT 99999999999999999999\r\n",
    b"BDAT 2000\r\n" + b"x" * 2000,
    b"RSET\r\n",
    b"NOOP\r\n",
    b"VRFY alice\r\n",
    b"HELP\r\n",
    b"QUIT\r\n",
    b"STARTTLS\r\n",
    b"AUTH PLAIN AGEAYg==\r\n",
    b"AUTH LOGIN\r\n",
    b"YQ==\r\n",
    b"*\r\n",
    b"XCLIENT ADDR=192.0.2.9 LOGIN=x\r\n",
    b"XFORWARD NAME=x ADDR=[UNAVAILABLE]\r\n",
    b"GET / HTTP/1.1\r\n",
    b"\x16\x03\x01\x00",
    b"x" * 5000,
    b"\x00\r\n",
    b"\r",
    b"\n",
]
# RFC 5321 4.2 and 4.5.3.1.5.
_REPLY_LINE: Final = re.compile(rb"[2-5][0-9]{2}[ -][ -~]{0,506}")
_SETTINGS: Final = Settings(
    limits=Limits(recipients=4, message_size=1000, discard=3000, faults=6, transactions=9),
    extensions=frozenset(Extension),
    auth_mechanisms=("PLAIN", "LOGIN", "EXTERNAL"),
)


class _Moody(Handler):
    """Accepts, refuses and fails, as the local part says or chance has it."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.delivered = 0

    def trusts(self, session: Session, /) -> bool:
        return self._chance.random() < 0.8

    def authenticate(self, session: Session, credentials: Credentials, /) -> Answer[Reply | None]:
        return None if self._chance.random() < 0.5 else Reply(535, "no", enhanced="5.7.8")

    def rcpt(self, transaction: Transaction, recipient: Recipient, /) -> Answer[Reply | None]:
        if recipient.address.local_part == "no":
            return Reply(550, "no", enhanced="5.1.1")
        return (lambda: None) if self._chance.random() < 0.1 else None

    def deliver(self, message: Message, recipient: Recipient, /) -> Answer[Reply]:
        self.delivered += 1
        if recipient.address.local_part == "crash":
            raise RuntimeError("crash")
        if self._chance.random() < 0.3:
            return lambda: Reply(452, "full", enhanced="4.2.2")
        return Reply(250, "ok")


def dialogue(chance: random.Random) -> bytes:
    """The octets of one client."""
    octets = bytearray(_PIECES[0] if chance.random() < 0.9 else b"")
    for _ in range(chance.randrange(1, 14)):
        octets += chance.choice(_PIECES)
    for _ in range(chance.choice((0, 0, 1, 3))):
        place = chance.randrange(len(octets))
        match chance.randrange(3):
            case 0:
                octets[place] = chance.randrange(256)
            case 1:
                del octets[place : place + chance.randrange(1, 9)]
            case _:
                octets[place:place] = chance.choice(_PIECES)
        if not octets:
            return b"\r\n"
    return bytes(octets)


def hold(octets: bytes, chance: random.Random) -> int:
    """Hold one conversation over `octets`, cut at random; the number of replies. Raises
    AssertionError for what must not be."""
    handler = _Moody(chance)
    driver = Driver(handler, _SETTINGS, tls="TLSv1.3")
    position = 0
    most = chance.choice((1, 7, 100, 10_000))
    while position < len(octets) and not driver.closed:
        piece = octets[position : position + chance.randrange(1, most + 1)]
        position += len(piece)
        driver.receive(piece)
    if not driver.closed:
        if chance.random() < 0.5:
            driver.eof()
        else:
            driver.interrupt(chance.choice(list(Interrupt)))
    assert driver.closed, "the session does not end"
    assert not isinstance(driver.blocked, Receive)
    for line in driver.output.split(b"\r\n")[:-1]:
        assert _REPLY_LINE.fullmatch(line), line
    assert driver.output.endswith(b"\r\n")
    return len(driver.codes)
