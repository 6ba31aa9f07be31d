"""Our client and our server, joined, with random recipients, contents, moods and divisions.

Each recipient's result is the very reply that the handler gave it, or the one that has to stand in
for it, and the handler has got the content that was sent, line ends put right.
"""

import itertools
import random
import re
from collections.abc import Generator
from typing import Final, Never, TypeVar

from lmtp_proto import (
    STANDARD_EXTENSIONS,
    Address,
    Answer,
    Body,
    Effect,
    Extension,
    Handler,
    Interrupt,
    Limits,
    Mail,
    MailParameters,
    Receive,
    Recipient,
    Reply,
    Run,
    Send,
    Session,
    Settings,
    Sink,
    Submission,
    Transaction,
)
from tests.fuzz.client import random_content, random_recipients
from tests.fuzz.server import Runtime, Terms, cuts

T = TypeVar("T")

_MOST: Final = 3000
_ROOM: Final = 4
_TERMS: Final = [
    Terms(Settings(limits=Limits(message_size=_MOST, recipients=_ROOM), extensions=extensions))
    for extensions in (
        STANDARD_EXTENSIONS | {Extension.SMTPUTF8, Extension.DSN, Extension.BINARYMIME},
        STANDARD_EXTENSIONS - {Extension.CHUNKING} | {Extension.SMTPUTF8, Extension.DSN},
        STANDARD_EXTENSIONS - {Extension.PIPELINING} | {Extension.SMTPUTF8, Extension.DSN},
        frozenset({Extension.SMTPUTF8, Extension.EIGHTBITMIME, Extension.DSN}),
    )
]
_OWN_FAULT: Final = Reply(451, "internal error", enhanced="4.3.0")
_TOO_MANY: Final = Reply(452, "too many recipients", enhanced="4.5.3")
_TOO_BIG: Final = Reply(552, f"message size exceeds {_MOST} octets", enhanced="5.3.4")
_REFUSALS: Final = [
    Reply(450, "later", enhanced="4.2.1"),
    Reply(452, "full", enhanced="4.2.2"),
    Reply(550, "no", enhanced="5.1.1"),
    Reply(554, "never", "and never again", enhanced="5.7.1"),
    _OWN_FAULT,
]
_BARE_CR: Final = re.compile(rb"\r(?!\n)")
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")


class _Message:
    """A sink that keeps what it gets and what it has said."""

    def __init__(self, handler: "_Recorder") -> None:
        self._handler = handler
        self._parts: list[bytes] = []

    def write(self, data: bytes, /) -> Answer[Reply | None]:
        self._parts.append(data)
        handler = self._handler
        handler.refusal = handler.decide(0.02)
        return handler.say(handler.refusal)

    def deliver(self, recipient: Recipient, /) -> Answer[Reply]:
        handler = self._handler
        handler.content = b"".join(self._parts)
        number = len(handler.finals)
        reply = handler.decide(0.3) or Reply(250, f"delivered as number {number}")
        handler.finals.append(reply)
        return handler.say(reply)

    def close(self) -> None:
        self._handler.open_sinks -= 1


class _Recorder(Handler):
    """Decides as chance has it, and keeps what it has decided of a transaction."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.open_sinks = 0
        self.begin()

    def begin(self) -> None:
        """Forget the transaction before."""
        self.refusal: Reply | None = None
        """The answer to MAIL, DATA or the content, where that was a refusal."""
        self.rcpts: list[Reply | None] = []
        self.finals: list[Reply] = []
        self.content: bytes | None = None

    def decide(self, refusals: float) -> Reply | None:
        """None mostly, a refusal with this chance."""
        if self._chance.random() >= refusals:
            return None
        return self._chance.choice(_REFUSALS)

    def say(self, reply: T) -> Answer[T]:
        """The reply at once, as a job, or by failing where that says the same."""
        roll = self._chance.random()
        if roll < 0.7:
            return reply
        if reply != _OWN_FAULT:
            return lambda: reply
        if roll < 0.85:
            raise RuntimeError("crash")
        return self._crash

    def _crash(self) -> Never:
        raise RuntimeError("crash in a job")

    def mail(self, session: Session, mail: Mail, /) -> Answer[Reply | None]:
        self.refusal = self.decide(0.05)
        return self.say(self.refusal)

    def rcpt(self, transaction: Transaction, recipient: Recipient, /) -> Answer[Reply | None]:
        self.rcpts.append(self.decide(0.2))
        return self.say(self.rcpts[-1])

    def open(self, transaction: Transaction, /) -> Answer[Sink | Reply]:
        self.refusal = self.decide(0.05)
        if self.refusal is not None:
            return self.say(self.refusal)
        self.open_sinks += 1
        return self.say(_Message(self))

    def awaited(self, recipients: int) -> list[Reply]:
        """What each recipient has to be told, by what was decided."""
        if self.refusal is not None and not self.rcpts:
            return [self.refusal] * recipients
        rcpts = iter(self.rcpts)
        finals = iter(self.finals)
        replies = []
        room = _ROOM
        for _ in range(recipients):
            if not room:
                replies.append(_TOO_MANY)
                continue
            reply = next(rcpts)
            if reply is None:
                room -= 1
                reply = self.refusal or next(finals, _TOO_BIG)
            replies.append(reply)
        return replies


class _Client:
    """A client whose octets go to a server of ours and back, in pieces."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.handler = _Recorder(chance)
        self.terms = chance.choice(_TERMS)
        self.server = Runtime(self.handler, self.terms, chance)
        self.chunk_size = chance.choice((0, 100, 262_144))
        self.submission = Submission(
            "client.example.org",
            clock=lambda: 0.0,
            limits=Limits(window=chance.choice((1, 3, 100))),
            chunk_size=self.chunk_size,
        )

    def perform(self, conversation: Generator[Effect, None, T]) -> T:
        """What the conversation returns."""
        while True:
            try:
                effect = next(conversation)
            except StopIteration as end:
                value: T = end.value
                return value
            if isinstance(effect, Send):
                self._hear(effect.data)
            elif isinstance(effect, Receive):
                effect.outcome = self._read(wait=effect.deadline > 0.0)
            elif isinstance(effect, Run):
                effect.run()

    def _hear(self, octets: bytes) -> None:
        ends = [len(octets)] if self.chance.random() < 0.6 else cuts(len(octets), self.chance)
        for start, end in itertools.pairwise([0, *ends]):
            self.server.receive(octets[start:end])

    def _read(self, *, wait: bool) -> bytes | Interrupt:
        octets = b"".join(self.server.writes)
        self.server.writes.clear()
        if not octets:
            assert not wait, "both sides wait"
            return Interrupt.TIMEOUT
        size = len(octets)
        if self.chance.random() < 0.3:
            size = self.chance.randrange(1, size + 1)
        if octets[size:]:
            self.server.writes.append(octets[size:])
        return octets[:size]

    def run(self) -> int:
        """Hold the whole session; the number of results."""
        chance = self.chance
        assert self.perform(self.submission.open()).accepted
        results = sum(self._submit() for _ in range(chance.choice((1, 2, 3))))
        assert self.perform(self.submission.close()).code == 221
        assert self.submission.failure is None
        assert self.server.closed
        assert self.handler.open_sinks == 0
        return results

    def _submit(self) -> int:
        chance = self.chance
        handler = self.handler
        handler.begin()
        recipients = random_recipients(chance)
        pieces = random_content(chance)
        raw = b"".join(pieces)
        chunked = self.chunk_size > 0 and "CHUNKING" in self.submission.keywords
        bodies = [None, Body.EIGHTBITMIME]
        if chunked and "BINARYMIME" in self.submission.keywords:
            bodies.append(Body.BINARYMIME)
        body = chance.choice(bodies)
        size = chance.choice((None, len(raw)))
        rest = itertools.chain(filter(None, pieces), itertools.repeat(b""))
        results = self.perform(
            self.submission.submit(
                Address("sender", "example.net"),
                recipients,
                lambda: next(rest),
                size=size,
                body=body,
                parameters=MailParameters(
                    smtputf8=not all(str(each).isascii() for each in recipients)
                ),
            )
        )
        assert self.submission.usable
        assert [result.recipient for result in results] == recipients
        replies = [result.reply for result in results]
        if size is not None and size > _MOST and "SIZE" in self.submission.keywords:
            assert replies == [_TOO_BIG] * len(recipients)
            return len(results)
        assert replies == handler.awaited(len(recipients))
        content = raw if body is Body.BINARYMIME else _as_text(raw)
        if not chunked and content and not content.endswith(b"\r\n"):
            content += b"\r\n"
        if handler.content is not None:
            assert handler.content == content, f"{raw!r} came as {handler.content!r}"
        elif handler.refusal is None and None in handler.rcpts:
            assert len(content) > _MOST, "a content was not delivered"
        return len(results)


def _as_text(content: bytes) -> bytes:
    """The content as it is sent by default (RFC 5321 2.3.8)."""
    return _BARE_LF.sub(b"\r\n", _BARE_CR.sub(b" ", content))


def hold(chance: random.Random) -> int:
    """Hold one session between the two; the number of results. Raises AssertionError for what must
    not be."""
    return _Client(chance).run()
