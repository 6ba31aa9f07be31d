"""A server's session for runtimes that wait in place: the loop that performs its effects.

Who waits, how and where jobs run is the runtime's; what an effect means is not.
"""

import logging
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Generator
from typing import ClassVar, Final, assert_never

from lmtp_proto import (
    Effect,
    GiveWay,
    Handshake,
    Interrupt,
    Log,
    Pending,
    Receive,
    Run,
    Send,
    Wait,
)
from lmtp_sockets import Stream

# Seconds after which a session that rests looks whether the server retires.
_REST: Final = 2.0


class SocketSession(ABC):
    """A server's end of one connection, whose socket is this object's to close."""

    logger: ClassVar[logging.Logger]
    """The runtime's."""
    stream: ClassVar[type[Stream]] = Stream
    """How the runtime reads."""

    def __init__(
        self, sock: socket.socket, peer: str, conversation: Generator[Effect, None, None]
    ) -> None:
        self._sock = sock
        self._peer = peer
        self._conversation = conversation
        self._stream = self.stream(sock, self._wait)
        self._is_cut = False
        self._is_retiring = False

    def retire(self) -> None:
        """The server retires: a session that rests ends soon. From any thread."""
        self._is_retiring = True

    def stop(self) -> None:
        """The server stops: a session that waits for its client is woken."""
        self._stream.stop()

    def cut(self) -> None:
        """End the session wherever it waits."""
        self._is_cut = True
        self._stream.cut()

    @abstractmethod
    def _wait(self, writing: bool, deadline: float) -> bool:
        """As `Stream` wants it."""

    @abstractmethod
    def _give_way(self) -> None:
        """Let the sessions beside this one have their turn."""

    @abstractmethod
    def _begin(self, run: Run) -> None:
        """Begin a job."""

    @abstractmethod
    def _finish(self, run: Run) -> None:
        """Wait for a job, or until the session is cut."""

    @abstractmethod
    def _completed(self, run: Run) -> None:
        """The future that `_follow()` was given is done; in the thread that has completed it."""

    def _hold(self) -> None:
        """Hold the whole conversation; where it fails, that is logged."""
        conversation = self._conversation
        try:
            try:
                for effect in conversation:
                    self._perform(effect)
                    if self._is_cut:
                        break
            finally:
                conversation.close()
        except Exception:
            self.logger.exception("%s: the conversation failed", self._peer)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Receive():
                if effect.resting:
                    effect.outcome = self._receive_resting(effect.deadline)
                else:
                    octets = self._stream.receive(effect.deadline)
                    effect.outcome = Interrupt.TIMEOUT if octets is None else octets
            case Send():
                self._stream.send(effect.data, effect.deadline)
            case Run():
                self._begin(effect)
            case Wait(run=run):
                self._finish(run)
            case Log():
                self.logger.log(effect.severity.value, "%s", effect.text, exc_info=effect.error)
            case GiveWay():
                self._give_way()
            case Handshake():
                raise RuntimeError("no layer of this session does TLS")
            case _:
                assert_never(effect)

    def _receive_resting(self, deadline: float) -> bytes | Interrupt:
        """Wait a while at a time: what comes is read whatever the server does, for the client may
        have begun a transaction before it could know."""
        while True:
            until = min(deadline, time.monotonic() + _REST)
            octets = self._stream.receive(until)
            if octets is not None:
                return octets
            if self._is_retiring:
                return Interrupt.STOP
            if until == deadline:
                return Interrupt.TIMEOUT

    def _follow(self, run: Run, future: Pending[object]) -> None:
        """Have `_completed(run)` called when a future is done."""

        def done(_: object) -> None:
            self._completed(run)

        try:
            future.add_done_callback(done)
        except Exception as error:
            run.fail(error)
