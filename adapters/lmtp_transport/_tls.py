"""TLS as a layer around a conversation: its effects go in, those of the encrypted octets come out.

The runtime performs the layer's effects as it would the conversation's own, so TLS is the same on
every runtime, and what a conversation is read or written while it lasts is bounded as without it.
"""

import ssl
from collections.abc import Callable, Generator
from typing import Final, TypeVar

from lmtp_proto import Effect, Handshake, Receive, Send

T = TypeVar("T")

# A TLS record has no more octets (RFC 8446 5.1).
_RECORD: Final = 16_384
# Seconds for the peer to read that nothing more comes.
_LEAVE: Final = 5.0


class TlsLayer:
    """One side's TLS over one connection; in the clear until a `Handshake` has succeeded.

    `clock` gives seconds that never go back. `server_hostname` is a client's: whom the certificate
    is to be for. Raises ValueError where `context` is to verify a name and there is none.
    """

    __slots__ = (
        "_clock",
        "_context",
        "_ended",
        "_object",
        "_received",
        "_sent",
        "_server_hostname",
        "_server_side",
    )

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        clock: Callable[[], float],
        server_hostname: str | None = None,
    ) -> None:
        # Without a socket ssl does not look at it, and would verify no name at all.
        if not server_side and context.check_hostname and not server_hostname:
            raise ValueError("server_hostname is needed: the context verifies the server's name")
        self._context = context
        self._server_side = server_side
        self._server_hostname = server_hostname
        self._clock = clock
        self._received = ssl.MemoryBIO()
        self._sent = ssl.MemoryBIO()
        self._object: ssl.SSLObject | None = None
        # The peer sends no more.
        self._ended = False

    @property
    def active(self) -> bool:
        """Whether octets are encrypted now."""
        return self._object is not None

    def over(self, conversation: Generator[Effect, None, T]) -> Generator[Effect, None, T]:
        """Hold `conversation` over this layer: its result."""
        receive, send = Receive(), Send()
        try:
            while True:
                try:
                    effect = next(conversation)
                except StopIteration as stop:
                    result: T = stop.value
                    return result
                if isinstance(effect, Handshake):
                    yield from self.shake_hands(effect)
                elif self._object is None:
                    yield effect
                elif isinstance(effect, Send):
                    send.data = self._encrypted(effect.data)
                    send.deadline = effect.deadline
                    yield send
                    send.data = b""
                elif isinstance(effect, Receive):
                    yield from self._read(effect, receive)
                else:
                    yield effect
        finally:
            conversation.close()

    def feed(self, octets: bytes) -> None:
        """Take octets that were read before this layer was there."""
        self._received.write(octets)

    def shake_hands(self, effect: Handshake) -> Generator[Effect, None, None]:
        """Perform `effect`: `outcome` and `certificate` when it has succeeded, else `error`."""
        tls = self._context.wrap_bio(
            self._received,
            self._sent,
            server_side=self._server_side,
            server_hostname=self._server_hostname,
        )
        receive = Receive()
        receive.deadline = effect.deadline
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                effect.error = error
            yield from self._flush(effect.deadline)
            if effect.error is not None:
                return
            if (protocol := tls.version()) is not None and (cipher := tls.cipher()) is not None:
                break
            yield receive
            match receive.outcome:
                case b"":
                    effect.error = ConnectionError("the peer has closed the connection")
                    return
                case bytes() as octets:
                    self._received.write(octets)
                case interrupt:
                    effect.error = TimeoutError(interrupt.value)
                    return
        self._object = tls
        effect.outcome = f"{protocol} {cipher[0]}"
        effect.certificate = tls.getpeercert() or None

    def leave(self) -> Generator[Effect, None, None]:
        """Tell the peer that nothing more comes (RFC 8446 6.1), so that it knows the end from a
        cut."""
        if self._object is None:
            return
        try:
            self._object.unwrap()
        except ssl.SSLError:
            # The peer's own leave is not waited for.
            pass
        yield from self._flush(self._clock() + _LEAVE)

    def _read(self, effect: Receive, receive: Receive) -> Generator[Effect, None, None]:
        while True:
            octets = self._decrypted()
            if self._sent.pending:
                # TLS has an answer of its own.
                yield from self._flush(effect.deadline)
            if octets or self._ended:
                effect.outcome = octets
                return
            receive.deadline = effect.deadline
            receive.resting = effect.resting
            yield receive
            outcome = receive.outcome
            receive.outcome = b""
            if not isinstance(outcome, bytes):
                effect.outcome = outcome
                return
            if outcome:
                self._received.write(outcome)
            else:
                # OpenSSL is not told: to it an end without leave is a fault, behind which nothing
                # could be written any more. That a content was cut, the protocol sees by itself.
                self._ended = True

    def _decrypted(self) -> bytes:
        """All octets that can be read; `_ended` tells whether more can come."""
        tls = self._object
        assert tls is not None
        parts = []
        try:
            while not self._ended:
                part = tls.read(_RECORD)
                parts.append(part)
                self._ended = not part
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            # What is no TLS, or was changed on its way.
            self._ended = True
        return b"".join(parts)

    def _encrypted(self, octets: bytes) -> bytes:
        tls = self._object
        assert tls is not None
        rest = memoryview(octets)
        try:
            while rest:
                rest = rest[tls.write(rest) :]
        except ssl.SSLError:
            # The peer is gone.
            pass
        return self._sent.read()

    def _flush(self, deadline: float) -> Generator[Effect, None, None]:
        if self._sent.pending:
            send = Send()
            send.data = self._sent.read()
            send.deadline = deadline
            yield send
