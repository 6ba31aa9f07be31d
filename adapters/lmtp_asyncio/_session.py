"""One connection on asyncio: the loop that performs a conversation's effects.

A callback protocol runs the conversation until it has to wait and goes on when the event loop
calls: no task, no stream and no future is made for a connection.
"""

import asyncio
import functools
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, assert_never, cast

from lmtp_proto import (
    Effect,
    GiveWay,
    HandlerError,
    Handshake,
    Interrupt,
    Log,
    Receive,
    Run,
    Send,
    Wait,
)
from lmtp_sockets import peer_name
from lmtp_transport import Reception

if TYPE_CHECKING:
    from ._server import Server

_logger = logging.getLogger("lmtp_asyncio")

# Octets that may wait for a conversation that is busy, before the peer is no longer read.
_INPUT_LIMIT = 262_144
# Octets from which on what waits is given piece by piece: joined, it would not stay in the
# processor's cache on its way to the disk.
_LARGE = 16_384
# How long a peer may take to close its side when ours is closed. Closing with unread octets
# would reset the connection and could destroy the last reply on its way.
_LINGER = 5.0


class ServerSession(asyncio.BufferedProtocol):
    """A server's end of one connection."""

    __slots__ = (
        "_address",
        "_conversation",
        "_deadline",
        "_eof",
        "_input",
        "_input_size",
        "_loop",
        "_lost",
        "_receive",
        "_reception",
        "_sending",
        "_server",
        "_timer",
        "_timer_when",
        "_transport",
        "_waiting",
        "_write_paused",
    )

    _transport: asyncio.Transport

    def __init__(
        self,
        server: "Server",
        loop: asyncio.AbstractEventLoop,
        reception: Reception,
        address: object,
    ) -> None:
        self._server = server
        self._reception = reception
        self._address = address
        self._loop = loop
        self._conversation: Generator[Effect, None, None] | None = None
        # What came while the conversation did not ask for it.
        self._input: deque[bytes] | None = None
        self._input_size = 0
        self._eof = False
        self._lost = False
        # The effect the conversation waits for: at most one of these three.
        self._receive: Receive | None = None
        self._sending = False
        self._waiting: Run | None = None
        self._write_paused = False
        # The one timer of a connection is moved when it fires, not at each deadline.
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_when = 0.0

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the conversation."""
        # uvloop's transports have the interface, not the base class.
        self._transport = cast(asyncio.Transport, transport)
        peer, client_ip = peer_name(self._address)
        self._conversation = self._reception.converse(peer, client_ip)
        self._advance()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the loop puts octets: `buffer_updated()` comes before those of another session."""
        return self._server.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """So many octets have come."""
        receive = self._receive
        if receive is not None:
            self._receive = None
            receive.outcome = self._server.read_buffer[:nbytes].tobytes()
            self._advance()
        elif self._conversation is not None:
            if self._input is None:
                self._input = deque()
            self._input.append(self._server.read_buffer[:nbytes].tobytes())
            self._input_size += nbytes
            if self._input_size >= _INPUT_LIMIT:
                self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The peer sends no more, but may still read: the transport stays open (RFC 5321 4.1.1.10
        lets it wait for its replies)."""
        self._eof = True
        if self._conversation is None:
            return False
        self._resume(b"")
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # asyncio's name
        """The peer is gone; a delivery that has begun goes on."""
        self._eof = True
        self._lost = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._server.lost(self)
        if self._sending:
            self._sending = False
            self._advance()
        else:
            self._resume(b"")

    def pause_writing(self) -> None:
        """The peer does not read: nothing more is written."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """The peer reads again."""
        self._write_paused = False
        if self._sending:
            self._sending = False
            self._advance()

    # What the server calls.

    def retire(self) -> None:
        """The server retires: say so if the conversation rests."""
        receive = self._receive
        if receive is not None and receive.resting:
            self._resume(Interrupt.STOP)

    def stop(self) -> None:
        """The server stops: say so if the conversation is waiting for the client."""
        self._resume(Interrupt.STOP)

    def cut(self) -> None:
        """End the session at once, whatever it is doing."""
        conversation = self._conversation
        if conversation is not None:
            self._guard(conversation.close)
            self._over()
        self._transport.abort()

    # The loop.

    def _resume(self, outcome: bytes | Interrupt) -> None:
        receive = self._receive
        if receive is not None:
            self._receive = None
            receive.outcome = outcome
            self._advance()

    def _advance(self) -> None:
        """Perform effects until one has to be waited for."""
        conversation = self._conversation
        if conversation is None:
            return
        transport = self._transport
        stop_flag = self._server.stop_flag
        try:
            for effect in conversation:
                # The two of every turn come first: a message is not to wait for the rest.
                if isinstance(effect, Send):
                    if not transport.is_closing():
                        transport.write(effect.data)
                        if self._write_paused:
                            self._sending = True
                            self._set_deadline(effect.deadline)
                            return
                elif isinstance(effect, Receive):
                    if self._input is None and not (self._eof or stop_flag.requested):
                        self._receive = effect
                        self._set_deadline(effect.deadline)
                        return
                    self._give(effect)
                elif self._waits_for(effect):
                    return
        except Exception:
            _logger.exception("a conversation failed")
        self._over()
        self._close()

    def _give(self, effect: Receive) -> None:
        """End a Receive with what is there already."""
        waiting = self._input
        if waiting is not None:
            if len(waiting[0]) < _LARGE:
                data = b"".join(waiting)
                waiting.clear()
            else:
                data = waiting.popleft()
            if not waiting:
                self._input = None
            effect.outcome = data
            was_paused = self._input_size >= _INPUT_LIMIT
            self._input_size -= len(data)
            if was_paused and self._input_size < _INPUT_LIMIT and not self._eof:
                self._transport.resume_reading()
        elif self._eof:
            effect.outcome = b""
        else:
            effect.outcome = Interrupt.STOP

    def _waits_for(self, effect: Run | Wait | Log | GiveWay | Handshake) -> bool:
        match effect:
            case Run():
                self._begin(effect)
            case Wait(run=run):
                if not run.done:
                    self._waiting = run
                    return True
            case Log():
                _logger.log(effect.severity.value, "%s", effect.text, exc_info=effect.error)
            case GiveWay():
                self._loop.call_soon(self._advance)
                return True
            case Handshake():
                raise RuntimeError("no layer of this session does TLS")
            case _:
                assert_never(effect)
        return False

    def _begin(self, run: Run) -> None:
        job = run.job
        if isinstance(job, Awaitable):
            future = asyncio.ensure_future(job)
            future.add_done_callback(functools.partial(self._finished, run))
        elif callable(job):
            executor = self._server.executor
            self._loop.run_in_executor(executor, job).add_done_callback(
                functools.partial(self._finished, run)
            )
        else:
            # Futures of other threads come in numbers: they share their wake-ups.
            try:
                job.add_done_callback(functools.partial(self._server.completed, self, run))
            except Exception as error:
                run.fail(error)

    def _finished(self, run: Run, future: "asyncio.Future[object]") -> None:
        if future.cancelled():
            self.job_done(run, asyncio.CancelledError)
        else:
            self.job_done(run, future.result)

    def job_done(self, run: Run, result: Callable[[], object]) -> None:
        """A job is over: `result()` gives its value or raises."""
        try:
            value = result()
        except Exception as error:
            run.fail(error)
        except asyncio.CancelledError:
            run.fail(HandlerError("the job was cancelled"))
        else:
            run.succeed(value)
        if self._waiting is run:
            self._waiting = None
            self._advance()

    def _set_deadline(self, deadline: float) -> None:
        self._deadline = deadline
        timer = self._timer
        if timer is not None:
            if self._timer_when <= deadline:
                return
            timer.cancel()
        self._timer_when = deadline
        self._timer = self._loop.call_at(deadline, self._timed_out)

    def _timed_out(self) -> None:
        self._timer = None
        waits = self._receive is not None or self._sending or self._conversation is None
        if not waits:
            return
        if self._loop.time() < self._deadline:
            self._set_deadline(self._deadline)
        elif self._receive is not None:
            self._resume(Interrupt.TIMEOUT)
        else:
            self._transport.abort()

    def _over(self) -> None:
        """The conversation has ended."""
        self._conversation = None
        self._receive = None
        self._waiting = None
        self._sending = False
        self._input = None
        self._server.over(self, closed=self._lost)

    def _close(self) -> None:
        """Let the last octets out, then close, within a deadline."""
        transport = self._transport
        if transport.is_closing():
            return
        if self._eof or self._server.stop_flag.requested or not transport.can_write_eof():
            transport.close()
        else:
            transport.write_eof()
            if self._input_size >= _INPUT_LIMIT:
                transport.resume_reading()
        self._set_deadline(self._loop.time() + _LINGER)

    def _guard(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception:
            _logger.exception("a conversation failed")
