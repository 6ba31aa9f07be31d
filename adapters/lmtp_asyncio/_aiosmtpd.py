"""Handlers that were written for aiosmtpd, run as they are.

Each accepted recipient gets one reply, whatever the hook says: RFC 2033 4.2 is not the handler's to
keep. Nothing of aiosmtpd is imported.
"""

import asyncio
import inspect
import logging
import re
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any, Final, NamedTuple

from lmtp_proto import (
    Answer,
    Credentials,
    Handler,
    HandlerError,
    Mail,
    Recipient,
    Reply,
    Session,
    Sink,
    Transaction,
)

_logger = logging.getLogger("lmtp_asyncio")

_OK: Final = Reply(250, "OK", enhanced="2.0.0")
_NO_RECIPIENTS: Final = Reply(503, "no valid recipients", enhanced="5.5.1")
_AUTH_REQUIRED: Final = Reply(530, "authentication required", enhanced="5.7.0")
_AUTH_FAILED: Final = Reply(535, "authentication failed", enhanced="5.7.8")
_INSECURE: Final = Reply(554, "refused due to lack of security", enhanced="5.7.0")

# What decides who may send, or takes the mail, and cannot be called: it must not be passed over.
_IMPOSSIBLE: Final = ("handle_AUTH", "handle_PROXY")
_NEVER_CALLED: Final = ("handle_NOOP", "handle_QUIT", "handle_RSET")

_LINE_END: Final = re.compile(r"\r\n|\r|\n")
_STATUS: Final = re.compile(r"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
_ENHANCED: Final = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: |$)")

_Hook = Callable[..., Any]


class AiosmtpdHandler(Handler):
    """Runs `handler`, an object with the hooks of an aiosmtpd handler, in an `lmtp_asyncio` server.

    Called are `handle_MAIL`, `handle_RCPT`, `handle_DATA`, `handle_VRFY`, `handle_exception`,
    `handle_EHLO` and `handle_STARTTLS`; each may be a coroutine function or not. What they do with
    the envelope counts as it does in aiosmtpd: a hook has to set `mail_from` and to append to
    `rcpt_tos` by itself. `handle_DATA` is called once a message; its status becomes the reply to
    every recipient. Several statuses joined by line ends become the replies to the recipients in
    RCPT order, if there is one for each.

    The null reverse-path is `"<>"`. `hostname` is that of `server`. `decode_data` makes
    `envelope.content` text (UTF-8, with surrogates for what is none). `authenticator` or
    `auth_callback` judge PLAIN and LOGIN as in aiosmtpd, where the settings have the extension
    AUTH; with `auth_required` MAIL is refused before.

    Otherwise than in aiosmtpd:

    - `handle_STARTTLS` is called at the LHLO behind the handshake, which a refusal answers.
    - The keywords of the LHLO reply are the settings' to choose: of what `handle_EHLO` answers only
      a refusal counts.
    - `handle_NOOP`, `handle_QUIT` and `handle_RSET` are not called, which is logged.
    - `handle_AUTH`, `handle_PROXY`, `auth_*` methods and `process_message` cannot be called: a
      handler that has one raises ValueError here.
    - `server` is no protocol: it has `hostname`, `loop`, `session`, `envelope` and `event_handler`.
    - `session.peer` is the client that a PROXY header names; `session.ssl` has `peercert` alone.
    - `mail_options` has SIZE, BODY and SMTPUTF8, `rcpt_options` is empty.
    - Without `handle_exception` a hook that raises is answered `451 4.3.0`, not 500.
    """

    def __init__(
        self,
        handler: object,
        *,
        hostname: str = "localhost",
        decode_data: bool = False,
        authenticator: Callable[..., Any] | None = None,
        auth_callback: Callable[[str, bytes, bytes], bool] | None = None,
        auth_required: bool = False,
    ) -> None:
        _check(handler)
        self._handler = handler
        self._hostname = hostname
        self._decode_data = decode_data
        self._authenticator = authenticator
        self._auth_callback = auth_callback
        self._auth_required = auth_required
        self._hooks: dict[str, _Hook] = {
            name.removeprefix("handle_"): getattr(handler, name)
            for name in dir(handler)
            if name.startswith("handle_")
        }
        self._clients: dict[Session, _Client] = {}

    def connect(self, session: Session, /) -> Answer[Reply | None]:
        """Begin with what aiosmtpd calls session, envelope and server."""
        self._clients[session] = _Client(_Server(self._hostname, self._handler), session)
        return None

    def disconnect(self, session: Session, /) -> None:
        """Forget them."""
        self._clients.pop(session, None)

    def lhlo(self, session: Session, domain: str, /) -> Answer[Reply | None]:
        """`handle_EHLO`, behind `handle_STARTTLS` where that is due."""
        return self._lhlo(self._client(session), domain)

    async def _lhlo(self, client: "_Client", domain: str) -> Reply | None:
        hook = self._hooks.get("STARTTLS")
        # What handle_exception() says of a failure is no yes.
        if (
            client.is_tls_new
            and hook is not None
            and not await _awaited(hook(client.server, client.session, client.envelope))
        ):
            return _INSECURE
        client.is_tls_new = False
        client.session.extended_smtp = True
        hook = self._hooks.get("EHLO")
        if hook is not None:
            responses = [f"250-{self._hostname}", "250 HELP"]
            # The deprecated form takes no responses and gives one line.
            arguments = (
                [domain, responses] if len(inspect.signature(hook).parameters) > 4 else [domain]
            )
            status = await self._call("EHLO", client, *arguments)
            lines = "\n".join(status) if isinstance(status, list) else status
            for reply in _replies("handle_EHLO", lines):
                if not reply.accepted:
                    return reply
        client.session.host_name = domain
        client.new_envelope()
        return None

    def authenticate(self, session: Session, credentials: Credentials, /) -> Answer[Reply | None]:
        """Ask `authenticator` or `auth_callback`."""
        return self._authenticate(self._client(session), credentials)

    async def _authenticate(self, client: "_Client", credentials: Credentials) -> Reply | None:
        acts_for_another = credentials.authorization_id not in ("", credentials.authentication_id)
        if credentials.password is None or acts_for_another:
            # aiosmtpd knows neither.
            return _AUTH_FAILED
        login = LoginPassword(credentials.authentication_id.encode(), credentials.password.encode())
        message: object = None
        data: object = login
        if self._authenticator is not None:
            result = self._authenticator(
                client.server, client.session, client.envelope, credentials.mechanism, login
            )
            accepted, message, data = result.success, result.message, result.auth_data
        elif self._auth_callback is not None:
            accepted = self._auth_callback(credentials.mechanism, *login)
        else:
            accepted = False
        if not accepted or isinstance(accepted, Awaitable):
            return _AUTH_FAILED if message is None else _one("authenticator", message)
        client.session.authenticated = True
        client.session.auth_data = data
        client.session.login_data = getattr(data, "login", None)
        return None if message is None else _one("authenticator", message)

    def mail(self, session: Session, mail: Mail, /) -> Answer[Reply | None]:
        """`handle_MAIL`."""
        client = self._client(session)
        if self._auth_required and not client.session.authenticated:
            return _AUTH_REQUIRED
        return self._mail(client, mail)

    async def _mail(self, client: "_Client", mail: Mail) -> Reply | None:
        envelope = client.begin_envelope()
        envelope.smtp_utf8 = mail.parameters.smtputf8
        # As aiosmtpd has the null reverse-path.
        address = "<>" if mail.reverse_path is None else str(mail.reverse_path)
        options = _mail_options(mail)
        status = await self._call("MAIL", client, address, options)
        if _is_missing(status):
            envelope.mail_from = address
            envelope.mail_options.extend(options)
            return None
        return _one("handle_MAIL", status)

    def rcpt(self, transaction: Transaction, recipient: Recipient, /) -> Answer[Reply | None]:
        """`handle_RCPT`."""
        client = self._client(transaction.session)
        if "RCPT" in self._hooks:
            return self._rcpt(client, recipient)
        client.envelope.rcpt_tos.append(str(recipient))
        return None

    async def _rcpt(self, client: "_Client", recipient: Recipient) -> Reply | None:
        address = str(recipient)
        status = await self._call("RCPT", client, address, [])
        if _is_missing(status):
            client.envelope.rcpt_tos.append(address)
            return None
        return _one("handle_RCPT", status)

    def vrfy(self, session: Session, text: str, /) -> Answer[Reply | None]:
        """`handle_VRFY`."""
        if "VRFY" not in self._hooks:
            return None
        return self._vrfy(self._client(session), text)

    async def _vrfy(self, client: "_Client", text: str) -> Reply | None:
        if client.is_tls_new and "STARTTLS" in self._hooks:
            # LHLO is still to come, and with it what the hook says of the handshake.
            return _INSECURE
        status = await self._call("VRFY", client, text.removeprefix("<").removesuffix(">"))
        return None if _is_missing(status) else _one("handle_VRFY", status)

    def open(self, transaction: Transaction, /) -> Answer[Sink | Reply]:
        """Collect the content, for `handle_DATA`."""
        client = self._client(transaction.session)
        # The hooks may have taken recipients without keeping them; aiosmtpd goes by what they kept.
        if not client.envelope.rcpt_tos:
            return _NO_RECIPIENTS
        return _Content(self, client, transaction)

    async def data(self, client: "_Client", content: bytes, recipients: int) -> list[Reply]:
        """`handle_DATA`: one reply for each of so many recipients."""
        envelope = client.envelope
        envelope.original_content = content
        envelope.content = (
            content.decode("utf-8", "surrogateescape") if self._decode_data else content
        )
        try:
            status = await self._call("DATA", client)
        finally:
            client.new_envelope()
        replies = [_OK] if _is_missing(status) else _replies("handle_DATA", status)
        if len(replies) == recipients:
            return replies
        if len({reply.code // 100 for reply in replies}) > 1:
            raise HandlerError(
                f"handle_DATA() answered {len(replies)} statuses for {recipients} recipients: "
                "one for all or one for each is awaited"
            )
        return replies[:1] * recipients

    async def _call(self, name: str, client: "_Client", *arguments: object) -> object:
        """What a hook says; MISSING where there is none."""
        hook = self._hooks.get(name)
        if hook is None:
            return _Missing.MISSING
        try:
            return await _awaited(hook(client.server, client.session, client.envelope, *arguments))
        except Exception as error:
            on_exception = self._hooks.get("exception")
            if on_exception is None:
                raise
            return await _awaited(on_exception(error))

    def _client(self, session: Session) -> "_Client":
        client = self._clients[session]
        if session.tls != client.tls:
            # RFC 3207 4.2: nothing said in the clear counts.
            client.begin_anew(session)
        return client


class LoginPassword(NamedTuple):
    """What a client gave for AUTH, as an `authenticator` is given it."""

    login: bytes
    password: bytes


class _Missing(Enum):
    MISSING = "there is no such hook"


class _Envelope:
    """The attributes of aiosmtpd's."""

    def __init__(self) -> None:
        self.mail_from: str | None = None
        self.mail_options: list[str] = []
        self.smtp_utf8 = False
        self.content: bytes | str | None = None
        self.original_content: bytes | None = None
        self.rcpt_tos: list[str] = []
        self.rcpt_options: list[str] = []


class _AiosmtpdSession:
    """The attributes of aiosmtpd's."""

    def __init__(self, session: Session, loop: asyncio.AbstractEventLoop) -> None:
        self.peer = _peer(session)
        self.ssl = None if session.tls is None else {"peercert": session.certificate}
        self.host_name: str | None = None
        self.extended_smtp = False
        self.loop = loop
        self.proxy_data = None
        self.login_data: object = None
        self.auth_data: object = None
        self.authenticated: bool | None = None


class _Server:
    """What hooks are given in place of aiosmtpd's protocol object."""

    def __init__(self, hostname: str, handler: object) -> None:
        self.hostname = hostname
        self.event_handler = handler
        self.loop = asyncio.get_running_loop()
        self.session: _AiosmtpdSession | None = None
        self.envelope: _Envelope | None = None

    async def push(self, status: object) -> None:
        """A hook may answer by what it returns, and not beside it."""
        raise HandlerError("server.push() cannot be used here: return the status from the hook")


class _Client:
    """One connection, in aiosmtpd's terms."""

    def __init__(self, server: _Server, session: Session) -> None:
        self.server = server
        self.begin_anew(session)
        # TLS from the first octet is no STARTTLS.
        self.is_tls_new = False

    def begin_anew(self, session: Session) -> None:
        """As at the beginning, and behind STARTTLS."""
        self.tls = session.tls
        self.is_tls_new = True
        self.session = self.server.session = _AiosmtpdSession(session, self.server.loop)
        self.new_envelope()

    def new_envelope(self) -> None:
        """Behind LHLO and a message."""
        self.envelope = self.server.envelope = _Envelope()
        self._is_begun = False

    def begin_envelope(self) -> _Envelope:
        """The envelope of a transaction: another than that of one that was dropped."""
        if self._is_begun:
            self.new_envelope()
        self._is_begun = True
        return self.envelope


class _Content:
    """Collects a message; handles it once for all its recipients."""

    def __init__(self, shim: AiosmtpdHandler, client: _Client, transaction: Transaction) -> None:
        self._shim = shim
        self._client = client
        self._transaction = transaction
        self._parts: list[bytes] = []
        self._handling: asyncio.Task[list[Reply]] | None = None
        self._told = 0

    def write(self, data: bytes, /) -> None:
        self._parts.append(data)

    def deliver(self, recipient: Recipient, /) -> Answer[Reply]:
        handling = self._handling
        if handling is None:
            content = b"".join(self._parts)
            self._parts.clear()
            recipients = len(self._transaction.recipients)
            handling = asyncio.ensure_future(self._shim.data(self._client, content, recipients))
            self._handling = handling
        number = self._told
        self._told += 1
        return _reply(handling, number)

    def close(self) -> None:
        self._parts.clear()


async def _reply(handling: "asyncio.Task[list[Reply]]", number: int) -> Reply:
    """The reply to one of the recipients; whoever waits for it no more does not end the others'."""
    return (await asyncio.shield(handling))[number]


def _check(handler: object) -> None:
    """Raise ValueError for what cannot be run with everything that it decides."""
    if isinstance(handler, type):
        raise ValueError(f"{handler.__name__} is a class: make a handler of it")
    name = type(handler).__name__
    impossible = [hook for hook in _IMPOSSIBLE if hasattr(handler, hook)]
    impossible += [hook for hook in dir(handler) if hook.startswith("auth_")]
    if hasattr(handler, "process_message") and not hasattr(handler, "handle_DATA"):
        impossible.append("process_message")
    if impossible:
        raise ValueError(
            f"{name} has {', '.join(impossible)}, which an LMTP server cannot call: see the "
            "documentation of AiosmtpdHandler for what takes its place"
        )
    idle = [hook for hook in _NEVER_CALLED if hasattr(handler, hook)]
    if idle:
        _logger.warning("%s of %s will not be called", ", ".join(idle), name)


def _mail_options(mail: Mail) -> list[str]:
    parameters = mail.parameters
    options = []
    if parameters.size is not None:
        options.append(f"SIZE={parameters.size}")
    if parameters.body is not None:
        options.append(f"BODY={parameters.body.value}")
    if parameters.smtputf8:
        options.append("SMTPUTF8")
    return options


def _peer(session: Session) -> tuple[object, ...] | str:
    """The address as a socket has it: `(host, port)`, four items for IPv6, `""` for UNIX."""
    if session.client_ip is None:
        return ""
    host, _, port = session.peer.rpartition(":")
    if host.startswith("["):
        return (host[1:-1], int(port), 0, 0)
    return (host, int(port))


async def _awaited(answer: Any) -> Any:
    return await answer if isinstance(answer, Awaitable) else answer


def _is_missing(status: object) -> bool:
    """aiosmtpd's own MISSING says the same as ours: do what is done without the hook."""
    return isinstance(status, Enum) and status.name == "MISSING"


def _one(hook: str, status: object) -> Reply:
    """The one reply that a status is. Raises HandlerError."""
    replies = _replies(hook, status)
    if len(replies) > 1:
        raise HandlerError(f"{hook}() answered {len(replies)} statuses: one is awaited")
    return replies[0]


def _replies(hook: str, status: object) -> list[Reply]:
    """The replies that a status is, as aiosmtpd would write it. Raises HandlerError."""
    if isinstance(status, bytes | bytearray):
        status = status.decode("utf-8", "replace")
    if not isinstance(status, str):
        raise HandlerError(f"{hook}() answered a {type(status).__name__}: a status is awaited")
    replies = []
    texts: list[str] = []
    code = ""
    enhanced: str | None = None
    for line in _LINE_END.split(status.rstrip("\r\n")):
        match = _STATUS.fullmatch(line)
        if match is None:
            raise HandlerError(f"{hook}() answered {line[:100]!a}: '250 text' is awaited")
        if texts and match[1] != code:
            raise HandlerError(f"{hook}() answered {code} and {match[1]} in one status")
        code, separator, text = match[1], match[2], match[3] or ""
        found = _ENHANCED.match(text)
        if found is not None and found[1][0] == code[0]:
            enhanced = enhanced or found[1]
            text = text[found.end() :]
        texts.append(text)
        if separator != "-":
            replies.append(Reply(int(code), *texts, enhanced=enhanced))
            texts, enhanced = [], None
    if texts:
        raise HandlerError(f"{hook}() answered a status without its last line")
    return replies
