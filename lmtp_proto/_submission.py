"""The client's conversation: hands a message to a server and gathers each recipient's reply.

Generators of effects, as the server's conversation is, so that a client runs on every runtime. A
recipient always gets a reply: where the server gave none, a 4xx says why (RFC 3463 4.4.2, 4.4.1).
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Final

from ._address import Address
from ._client import ClientConnection, ClientEvent, RecipientReplied, Replied
from ._effects import Effect, Receive, Run, Send, Wait, is_job
from ._errors import RemoteProtocolError
from ._events import (
    Command,
    ConnectionClosed,
    Data,
    Lhlo,
    Mail,
    Quit,
    Rcpt,
    Recipient,
    Rset,
    Signal,
)
from ._handler import Answer
from ._limits import Limits
from ._parameters import Body, MailParameters
from ._reply import Reply
from ._state import State

_LOST: Final = Reply(451, "the connection was lost", enhanced="4.4.2")
_TIMED_OUT: Final = Reply(451, "the server did not answer in time", enhanced="4.4.2")
_NOT_UNDERSTOOD: Final = Reply(451, "the server broke the protocol", enhanced="4.5.0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How it went for one recipient: the server's reply, or a 4xx where it gave none."""

    recipient: Recipient
    reply: Reply


class Submission:
    """A client's conversation over one connection: `open()`, any number of `submit()`, `close()`.

    Each is a generator of effects that the runtime performs to its end. `failure` tells what ended
    the session early: a RemoteProtocolError, or None while all is well or the connection was lost.
    """

    __slots__ = (
        "_clock",
        "_connection",
        "_domain",
        "_ended",
        "_final",
        "_limits",
        "_receive",
        "_send",
        "failure",
    )

    def __init__(
        self,
        domain: str,
        *,
        clock: Callable[[], float],
        limits: Limits | None = None,
    ) -> None:
        """`domain` is the client's name for LHLO. `clock` gives seconds that never go back."""
        self._limits = limits or Limits()
        self._connection = ClientConnection(limits=self._limits)
        self._domain = domain
        self._clock = clock
        # Why no more can be said: the reply for whoever has none.
        self._ended: Reply | None = None
        self._final: dict[Recipient, Reply] = {}
        self._receive = Receive()
        self._send = Send()
        self.failure: RemoteProtocolError | None = None

    @property
    def keywords(self) -> dict[str, str]:
        """What the server offers: keyword in upper case to its parameters."""
        return self._connection.keywords

    def open(self) -> Generator[Effect, None, Reply]:
        """Read the greeting and say LHLO; the reply that decided, positive if all is well."""
        greeting = yield from self._await_reply(None)
        if not greeting.accepted:
            return self._end(greeting)
        reply = yield from self._say(Lhlo(domain=self._domain))
        return reply if reply.accepted else self._end(reply)

    def submit(
        self,
        reverse_path: Address | None,
        recipients: Sequence[Recipient],
        read: Callable[[], Answer[bytes]],
        *,
        size: int | None = None,
        body: Body | None = None,
    ) -> Generator[Effect, None, list[Result]]:
        """Send one message; a result for each recipient, in the order given.

        `read()` gives the next octets of the content, `b""` at its end; its lines end in CRLF.
        `size` and `body` are declared where the server offers SIZE and 8BITMIME. Raises what
        `read()` raises; the message is then incomplete, and the connection can only be closed.
        """
        self._final = {}
        if self._ended is None:
            yield from self._transact(
                Mail(
                    reverse_path=reverse_path,
                    parameters=MailParameters(
                        size=size if "SIZE" in self.keywords else None,
                        body=body if "8BITMIME" in self.keywords else None,
                    ),
                ),
                recipients,
                read,
            )
        rest = self._ended or _LOST
        return [
            Result(recipient=recipient, reply=self._final.get(recipient, rest))
            for recipient in recipients
        ]

    def close(self) -> Generator[Effect, None, None]:
        """Say QUIT and wait for the server's leave."""
        if self._ended is None:
            yield from self._say(Quit())
            self._ended = _LOST

    def _transact(
        self, mail: Mail, recipients: Sequence[Recipient], read: Callable[[], Answer[bytes]]
    ) -> Generator[Effect, None, None]:
        connection = self._connection
        commands: list[Command] = [mail, *(Rcpt(recipient=r) for r in recipients), Data()]
        # One flight where it may be, in windows that cannot fill both sides' buffers.
        window = self._limits.window if "PIPELINING" in self.keywords else 1
        start_of_content: Reply | None = None
        for first in range(0, len(commands), window):
            flight = commands[first : first + window]
            if flight == [Data()] and not connection.accepted:
                break
            yield from self._write(b"".join(map(connection.send, flight)))
            for command in flight:
                reply = yield from self._await_reply(command)
                if self._ended is not None:
                    return
                if isinstance(command, Mail) and not reply.accepted:
                    self._final = dict.fromkeys(recipients, reply)
                elif isinstance(command, Rcpt) and not reply.accepted:
                    self._final.setdefault(command.recipient, reply)
                elif isinstance(command, Data):
                    start_of_content = reply
            if connection.state is State.READY:
                return
        if start_of_content is None or not start_of_content.accepted:
            for recipient in connection.accepted:
                self._final[recipient] = start_of_content or _LOST
            yield from self._say(Rset())
            return
        yield from self._send_content(read)
        while connection.owed and self._ended is None:
            event = yield from self._await_event(self._limits.final_reply_timeout)
            if isinstance(event, RecipientReplied):
                self._final[event.recipient] = event.reply

    def _send_content(self, read: Callable[[], Answer[bytes]]) -> Generator[Effect, None, None]:
        connection = self._connection
        while True:
            answer: object = read()
            if is_job(answer):
                run = Run(answer)
                yield run
                if not run.done:
                    yield Wait(run)
                answer = run.outcome()
            if not isinstance(answer, bytes):
                raise TypeError(f"read() gave {answer!r}: octets are awaited")
            if not answer:
                break
            yield from self._write(connection.send_content(answer))
        yield from self._write(connection.end_content())

    def _say(self, command: Command) -> Generator[Effect, None, Reply]:
        yield from self._write(self._connection.send(command))
        return (yield from self._await_reply(command))

    def _write(self, octets: bytes) -> Generator[Effect, None, None]:
        if octets:
            self._send.data = octets
            self._send.deadline = self._clock() + self._limits.write_timeout
            yield self._send

    def _await_reply(self, command: Command | None) -> Generator[Effect, None, Reply]:
        """The reply to `command`, or what stands in for it when the session has ended."""
        event = yield from self._await_event(self._limits.reply_timeout)
        if isinstance(event, Replied):
            if event.reply.code == 421:
                return self._end(event.reply)
            return event.reply
        return self._ended or self._end(_LOST)

    def _await_event(self, timeout: float) -> Generator[Effect, None, ClientEvent | None]:
        """The next event, None when the session has ended."""
        connection = self._connection
        receive = self._receive
        receive.deadline = self._clock() + timeout
        while self._ended is None:
            try:
                event = connection.next_event()
            except RemoteProtocolError as error:
                self.failure = error
                self._end(_NOT_UNDERSTOOD)
                break
            if isinstance(event, ConnectionClosed):
                self._end(_LOST)
                break
            if not isinstance(event, Signal):
                return event
            yield receive
            if not isinstance(receive.outcome, bytes):
                self._end(_TIMED_OUT)
            elif receive.outcome:
                connection.receive_data(receive.outcome)
            else:
                connection.receive_eof()
        return None

    def _end(self, reply: Reply) -> Reply:
        self._ended = reply
        return reply
