"""Where a client may stand when it vanishes or falls silent, and how it gets there.

STANDINGS has every state of the protocol that a session has while a client is there, what comes
before a session (the PROXY header, TLS), and each moment at which the client is owed an answer that
a handler has not given yet.
"""

import asyncio
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

import trustme

from lmtp_proto import (
    STANDARD_EXTENSIONS,
    Answer,
    Extension,
    Handler,
    Limits,
    Mail,
    Recipient,
    Reply,
    Session,
    Settings,
    Sink,
    State,
    Transaction,
)
from lmtp_transport import Listener, ServerTls
from tests.adapters.harness import PATIENCE, SAVED, Client

_AUTHORITY: Final = trustme.CA()
_CLIENT: Final = ssl.create_default_context()
_AUTHORITY.configure_trust(_CLIENT)

PROXIED: Final = "192.0.2.7:4711"
"""How the log names a client behind the proxy."""

_LHLO: Final = b"LHLO client.example\r\n"
_MAIL: Final = _LHLO + b"MAIL FROM:<a@example.org>\r\n"
_RCPT: Final = _MAIL + b"RCPT TO:<b@example.org>\r\n"
_THREE: Final = _RCPT + b"RCPT TO:<c@example.org>\r\nRCPT TO:<d@example.org>\r\n"


class Door(IntEnum):
    """A listener of `listeners()`, by its number."""

    PLAIN = 0
    STARTTLS = 1
    TLS = 2
    PROXY = 3


def server_tls(folder: Path) -> ServerTls:
    """A certificate that `start_tls()` trusts, in a file in `folder`."""
    certificate = folder / "server.pem"
    issued = _AUTHORITY.issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(certificate)
    return ServerTls(certificate)


def listeners(folder: Path) -> list[Listener]:
    """One listener for each door; the certificate is in `folder`."""
    tls = server_tls(folder)
    return [
        Listener("127.0.0.1:0"),
        Listener("127.0.0.1:0", tls),
        Listener("127.0.0.1:0", tls, implicit_tls=True),
        Listener("127.0.0.1:0", proxies=[ip_network("127.0.0.0/8")]),
    ]


def settings(limits: Limits | None = None) -> Settings:
    """What makes every state possible."""
    return Settings(
        limits=limits or Limits(),
        extensions=STANDARD_EXTENSIONS | {Extension.AUTH},
        auth_mechanisms=("EXTERNAL",),
    )


def start_tls(client: Client) -> Client:
    """Do the handshake."""
    return client.start_tls(_CLIENT)


def hello() -> bytes:
    """What a client says first in a handshake."""
    sent = ssl.MemoryBIO()
    try:
        _CLIENT.wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost").do_handshake()
    except ssl.SSLWantReadError:
        pass
    return sent.read()


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One place to stand."""

    name: str
    state: State | None
    """The session's; None before there is one."""
    reach: Callable[[Client], None]
    """Leads a client there that has just connected at `door`."""
    door: Door = Door.PLAIN
    held: str | None = None
    """The method of the handler whose answer the client waits for."""
    owed: tuple[bytes, ...] = ()
    """How the replies begin that come when that answer is given."""
    refused: bool = False
    """Whether the handler must not let the client in."""
    told: bool = True
    """Whether a client that falls silent there can be told so."""
    sinks: int = 0
    """How many sinks have been opened."""


def _raw(octets: bytes) -> Callable[[Client], None]:
    """Say that, and wait for nothing."""
    return lambda client: client.send(octets)


def _say(octets: bytes, *replies: bytes, then: bytes = b"") -> Callable[[Client], None]:
    """Read the greeting, say that, read the replies to it; `then` is answered by nothing."""

    def reach(client: Client) -> None:
        client.greeted()
        client.send(octets)
        client.expect(*replies)
        client.send(then)

    return reach


def _over_tls(reach: Callable[[Client], None]) -> Callable[[Client], None]:
    return lambda client: reach(start_tls(client))


def _behind_proxy(client: Client) -> None:
    client.send(b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 24\r\n")
    client.greeted()


def _sent_away(client: Client) -> None:
    client.expect(b"554 ")


_OK: Final = b"250 "
_READY: Final = _say(_LHLO, _OK)
_IN_CONTENT: Final = _say(_RCPT + b"DATA\r\nSubject: half", _OK, _OK, _OK, b"354 ")
_DELIVERING: Final = _say(_THREE + b"DATA\r\nx\r\n.\r\n", *[_OK] * 5, b"354 ")

STANDINGS: Final = (
    Standing(
        name="greeting owed",
        state=State.CONNECTED,
        reach=_raw(b""),
        held="connect",
        owed=(b"220 ",),
    ),
    Standing(name="refused", state=State.REFUSED, reach=_sent_away, refused=True),
    Standing(name="greeted", state=State.GREETED, reach=_say(b"")),
    Standing(name="half a command", state=State.GREETED, reach=_say(b"LHLO client.exam")),
    Standing(name="ready", state=State.READY, reach=_READY),
    Standing(name="mail", state=State.MAIL, reach=_say(_MAIL, _OK, _OK)),
    Standing(name="rcpt", state=State.RCPT, reach=_say(_RCPT, _OK, _OK, _OK)),
    Standing(name="data", state=State.DATA, reach=_IN_CONTENT, sinks=1),
    Standing(
        name="mid chunk",
        state=State.RCPT,
        reach=_say(_RCPT, _OK, _OK, _OK, then=b"BDAT 10\r\nx"),
        sinks=1,
    ),
    Standing(
        name="chunk",
        state=State.CHUNK,
        reach=_say(_RCPT + b"BDAT 3\r\nx\r\n", _OK, _OK, _OK, _OK),
        sinks=1,
    ),
    Standing(
        name="mid last chunk",
        state=State.CHUNK,
        reach=_say(_RCPT + b"BDAT 3\r\nx\r\n", _OK, _OK, _OK, _OK, then=b"BDAT 3 LAST\r\ny"),
        sinks=1,
    ),
    Standing(
        name="broken",
        state=State.BROKEN,
        reach=_say(_MAIL + b"BDAT 3\r\nx\r\n", _OK, _OK, b"503 "),
    ),
    Standing(
        name="status",
        state=State.STATUS,
        reach=_DELIVERING,
        held="deliver",
        owed=(_OK, _OK, _OK),
        sinks=1,
    ),
    Standing(
        name="exchange",
        state=State.EXCHANGE,
        reach=_say(_LHLO + b"AUTH EXTERNAL\r\n", _OK, b"334 "),
    ),
    # Answers that the handler owes.
    Standing(
        name="mail owed",
        state=State.READY,
        reach=_say(_LHLO, _OK, then=_MAIL.removeprefix(_LHLO)),
        held="mail",
        owed=(_OK,),
    ),
    Standing(
        name="rcpt owed",
        state=State.MAIL,
        reach=_say(_MAIL, _OK, _OK, then=_RCPT.removeprefix(_MAIL)),
        held="rcpt",
        owed=(_OK,),
    ),
    Standing(
        name="sink owed",
        state=State.RCPT,
        reach=_say(_RCPT, _OK, _OK, _OK, then=b"DATA\r\n"),
        held="open",
        owed=(b"354 ",),
        sinks=1,
    ),
    Standing(
        name="store owed",
        state=State.DATA,
        reach=_say(_RCPT + b"DATA\r\n", _OK, _OK, _OK, b"354 ", then=b"x\r\n"),
        held="write",
        sinks=1,
    ),
    # TLS, before and after the handshake.
    Standing(
        name="starttls",
        state=State.TLS,
        reach=_say(_LHLO + b"STARTTLS\r\n", _OK, b"220 "),
        door=Door.STARTTLS,
        told=False,
    ),
    Standing(
        name="starttls begun",
        state=State.TLS,
        reach=_say(_LHLO + b"STARTTLS\r\n", _OK, b"220 ", then=hello()[:100]),
        door=Door.STARTTLS,
        told=False,
    ),
    Standing(name="tls", state=None, reach=_raw(b""), door=Door.TLS, told=False),
    Standing(name="tls begun", state=None, reach=_raw(hello()[:100]), door=Door.TLS, told=False),
    Standing(name="tls hello said", state=None, reach=_raw(hello()), door=Door.TLS, told=False),
    Standing(name="ready over tls", state=State.READY, reach=_over_tls(_READY), door=Door.TLS),
    Standing(
        name="data over tls",
        state=State.DATA,
        reach=_over_tls(_IN_CONTENT),
        door=Door.TLS,
        sinks=1,
    ),
    Standing(
        name="status over tls",
        state=State.STATUS,
        reach=_over_tls(_DELIVERING),
        door=Door.TLS,
        held="deliver",
        owed=(_OK, _OK, _OK),
        sinks=1,
    ),
    # The PROXY header.
    Standing(name="proxy", state=None, reach=_raw(b""), door=Door.PROXY, told=False),
    Standing(
        name="half a proxy header",
        state=None,
        reach=_raw(b"PROXY TCP4 192.0.2"),
        door=Door.PROXY,
        told=False,
    ),
    Standing(
        name="greeted behind a proxy",
        state=State.GREETED,
        reach=_behind_proxy,
        door=Door.PROXY,
    ),
)


class Watched(Handler):
    """Counts what begins and ends, and leaves clients waiting where it is told to.

    An answer that is held is a future; of several deliveries the first is one, the second is a
    callable and the third a coroutine on runtimes that take it, else a callable as well.
    """

    def __init__(self, runtime: str) -> None:
        self._takes_coroutines = runtime in ("asyncio", "uvloop")
        self.connected: list[str] = []
        """Ids of sessions."""
        self.disconnected: list[str] = []
        self.sinks: list[WatchedSink] = []
        self.held: str | None = None
        self.refuses = False
        self.asked = threading.Semaphore(0)
        """Released when a client is left waiting."""
        self.over = threading.Semaphore(0)
        """Released when a session is over."""
        self.delivered = threading.Semaphore(0)
        """Released when a callable or a coroutine that was held has come to its end."""
        self._pending: list[tuple[Future[Any], object]] = []
        self._go_on = threading.Event()

    def stand(self, standing: Standing | None) -> None:
        """Treat the clients to come as `standing` wants it, or (None) as any."""
        self.held = standing.held if standing else None
        self.refuses = standing is not None and standing.refused

    def go_on(self) -> None:
        """Give all answers that are held."""
        self._go_on.set()
        while self._pending:
            future, value = self._pending.pop()
            # Raises when somebody has cancelled it.
            future.set_result(value)

    def answer(self, hook: str, value: Any = None) -> Any:
        """`value`, now or later."""
        if self.held != hook:
            return value
        future = self._hold(value)
        self.asked.release()
        return future

    def _hold(self, value: object) -> Future[Any]:
        future: Future[Any] = Future()
        self._pending.append((future, value))
        return future

    def job(self, number: int) -> Answer[Reply]:
        """A delivery that is held."""
        if number > 2 and self._takes_coroutines:
            return self._coroutine(self._hold(None))
        return self._callable

    def _callable(self) -> Reply:
        assert self._go_on.wait(PATIENCE)
        self.delivered.release()
        return SAVED

    async def _coroutine(self, go_on: Future[None]) -> Reply:
        await asyncio.wrap_future(go_on)
        self.delivered.release()
        return SAVED

    def connect(self, session: Session, /) -> Answer[Reply | None]:
        self.connected.append(session.id)
        if self.refuses:
            return Reply(554, "not you", enhanced="5.7.1")
        answer: Answer[Reply | None] = self.answer("connect")
        return answer

    def mail(self, session: Session, mail: Mail, /) -> Answer[Reply | None]:
        answer: Answer[Reply | None] = self.answer("mail")
        return answer

    def rcpt(self, transaction: Transaction, recipient: Recipient, /) -> Answer[Reply | None]:
        answer: Answer[Reply | None] = self.answer("rcpt")
        return answer

    def open(self, transaction: Transaction, /) -> Answer[Sink | Reply]:
        sink = WatchedSink(self)
        self.sinks.append(sink)
        answer: Answer[Sink | Reply] = self.answer("open", sink)
        return answer

    def disconnect(self, session: Session, /) -> None:
        self.disconnected.append(session.id)
        self.over.release()


class WatchedSink:
    """Counts its deliveries and how often it is closed."""

    def __init__(self, handler: Watched) -> None:
        self._handler = handler
        self._deliveries = 0
        self.closed = 0

    def write(self, data: bytes, /) -> Answer[Reply | None]:
        answer: Answer[Reply | None] = self._handler.answer("write")
        return answer

    def deliver(self, recipient: Recipient, /) -> Answer[Reply]:
        self._deliveries += 1
        if self._handler.held == "deliver" and self._deliveries > 1:
            return self._handler.job(self._deliveries)
        answer: Answer[Reply] = self._handler.answer("deliver", SAVED)
        return answer

    def close(self) -> None:
        self.closed += 1
