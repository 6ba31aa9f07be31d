"""`smtplib.LMTP` with its method names, and a result for every recipient.

`smtplib.LMTP` reads one reply where RFC 2033 4.2 has one for each recipient: what the others said
is lost, or taken for the answer to the next command. This class reads them all. The exceptions are
those of smtplib.

Moving from `smtplib.LMTP`:

- `sendmail()` and `send_message()` return the outcome of every recipient, not of the refused ones
  alone. Where the code was `refused = lmtp.sendmail(...)`, write
  `refused = {to: r for to, r in lmtp.sendmail(...).items() if r[0] >= 400}`. A recipient that is
  given twice has one entry, the first that refuses if one does; `results` has both.
- A recipient that is no mailbox is refused with 501 and not sent; the others are served.
- `SMTPRecipientsRefused` is raised when nobody got the message, whether RCPT refused or the reply
  to the content; its `recipients` has them all.
- A connection that breaks amid the replies raises nothing when somebody got the message: the
  recipients whose reply was lost have a 451.
- Line ends of a message in bytes become CRLF too, as those of a str do: a bare CR or LF is not
  allowed in a message (RFC 5321 2.3.8).
- `starttls()` verifies the server's certificate and name, unless its `context` does not.
- `login()` knows PLAIN and LOGIN, in UTF-8; `auth()` takes other mechanisms.
- There is no `docmd()`, `mail()`, `rcpt()` or `data()`.
"""

import copy
import email.generator
import email.message
import email.policy
import email.utils
import io
import re
import smtplib
import socket
import ssl
import time
from collections.abc import Callable, Generator, Sequence
from types import TracebackType
from typing import Final, NoReturn, Self, TypeVar

from lmtp_proto import (
    Address,
    ClientMechanism,
    Command,
    CommandParser,
    Effect,
    Extension,
    Limits,
    LocalProtocolError,
    LoginClient,
    Mail,
    MailParameters,
    Noop,
    PathError,
    PlainClient,
    Rcpt,
    Recipient,
    Reply,
    Rset,
    Submission,
    Verb,
    Vrfy,
    parse_mailbox,
)
from lmtp_sockets import THREAD, TcpAddress, UnixAddress, connect
from lmtp_transport import Channel, ClientTls

T = TypeVar("T")

LMTP_PORT: Final = 2003
"""As in smtplib."""

_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
# The options of sendmail() are read as a server that offers everything would.
_OPTIONS: Final = CommandParser(
    Limits(command_line=2**16, message_size=2**63), frozenset(Extension)
)
_CONNECT_TIMEOUT: Final = 30.0


class LMTP:
    """A client in the manner of `smtplib.LMTP`; see the module for what differs.

    `host` is a name or an address, with `:port` behind it or not, or the path of a UNIX socket if
    it begins with `/`; left out, `connect()` is the caller's. `local_hostname` is said in LHLO.
    `timeout` bounds connecting, each write and each wait for a reply, in seconds; left out, those
    of `Limits` hold. Raises OSError where connecting fails, `smtplib.SMTPConnectError` where the
    greeting refuses.
    """

    def __init__(
        self,
        host: str = "",
        port: int = LMTP_PORT,
        local_hostname: str | None = None,
        timeout: float | None = None,
    ) -> None:
        self.local_hostname = local_hostname or socket.gethostname()
        self.timeout = timeout
        self.esmtp_features: dict[str, str] = {}
        """What the server offers: keyword in lower case to its parameters."""
        self.results: list[tuple[str, int, bytes]] = []
        """Of the last message: address, code and text for each recipient given, in order."""
        self._port = port
        # The name that a certificate has to be for.
        self._host: str | None = None
        self._channel: Channel | None = None
        self._tls = ClientTls(time.monotonic)
        self._submission: Submission | None = None
        self._greeted = False
        if host:
            code, text = self.connect(host, port)
            if code != 220:
                self.close()
                raise smtplib.SMTPConnectError(code, text)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._submission is not None:
                self.quit()
        except smtplib.SMTPServerDisconnected:
            pass
        finally:
            self.close()

    def connect(self, host: str = "localhost", port: int = 0) -> tuple[int, bytes]:
        """Connect: the code and text of the greeting. Raises OSError."""
        self.close()
        limits = Limits()
        if self.timeout is not None:
            limits = Limits(
                write_timeout=self.timeout,
                reply_timeout=self.timeout,
                final_reply_timeout=self.timeout,
            )
        place = _address(host, port or self._port)
        self._host = place.host if isinstance(place, TcpAddress) else None
        self._channel = Channel(connect(place, self.timeout or _CONNECT_TIMEOUT), THREAD)
        self._tls = ClientTls(time.monotonic)
        self._submission = Submission(self.local_hostname, clock=time.monotonic, limits=limits)
        code, text = self._reply(lambda submission: submission.read_greeting())
        if code >= 400:
            self.close()
        return code, text

    def lhlo(self, name: str = "") -> tuple[int, bytes]:
        """Say LHLO as `name`, by default `local_hostname`: the code and text of the reply."""
        submission = self._submission
        code, text = self._reply(lambda submission: submission.hello(name or None))
        if submission is not None and code < 400:
            self._greeted = True
            self.esmtp_features = {
                keyword.lower(): words for keyword, words in submission.keywords.items()
            }
        return code, text

    ehlo = lhlo

    def ehlo_or_helo_if_needed(self) -> None:
        """Say LHLO unless it was said. Raises `smtplib.SMTPHeloError` when it is refused."""
        if not self._greeted:
            code, text = self.lhlo()
            if not self._greeted:
                raise smtplib.SMTPHeloError(code, text)

    def has_extn(self, opt: str) -> bool:
        """Whether the server offers the extension with this keyword."""
        return opt.lower() in self.esmtp_features

    def starttls(self, *, context: ssl.SSLContext | None = None) -> tuple[int, bytes]:
        """Go on under TLS: code and text of the reply to STARTTLS.

        LHLO is said anew by whatever needs it. `context` None trusts the system's certificates.
        Raises `smtplib.SMTPNotSupportedError` when STARTTLS is not offered,
        `smtplib.SMTPResponseException` when the server refuses, and ssl.SSLError or TimeoutError
        when the handshake fails, which closes the connection. Raises ValueError where `context`
        verifies a name and there is none, as on a UNIX socket.
        """
        self.ehlo_or_helo_if_needed()
        if not self.has_extn("starttls"):
            raise smtplib.SMTPNotSupportedError("the server does not offer STARTTLS")
        self._tls.prepare(context, self._host)
        code, text = self._reply(lambda submission: submission.begin_tls())
        if code >= 400:
            raise smtplib.SMTPResponseException(code, text)
        self._greeted = False
        self.esmtp_features = {}
        return code, text

    def login(
        self, user: str, password: str, *, initial_response_ok: bool = True
    ) -> tuple[int, bytes]:
        """Prove who the client is by PLAIN or LOGIN, which show the password to whoever listens:
        code and text of the reply.

        `initial_response_ok` is there for `smtplib`'s sake: LOGIN never has one, PLAIN always.
        Raises ValueError for text that they cannot carry, `smtplib.SMTPNotSupportedError` when AUTH
        is not offered, `smtplib.SMTPException` when it is with neither of the two,
        `smtplib.SMTPAuthenticationError` when the server does not believe it.
        """
        self.ehlo_or_helo_if_needed()
        if not self.has_extn("auth"):
            raise smtplib.SMTPNotSupportedError("the server does not offer AUTH")
        refused: smtplib.SMTPAuthenticationError | None = None
        for mechanism in (PlainClient(user, password), LoginClient(user, password)):
            if mechanism.name in self._mechanisms():
                try:
                    return self._authenticate(mechanism)
                except smtplib.SMTPAuthenticationError as error:
                    refused = error
        raise refused or smtplib.SMTPException("the server offers neither AUTH PLAIN nor LOGIN")

    def auth(
        self,
        mechanism: str,
        authobject: Callable[..., str | None],
        *,
        initial_response_ok: bool = True,
    ) -> tuple[int, bytes]:
        """Prove who the client is by `mechanism`: code and text of the reply.

        `authobject()` gives the initial response, or None; `authobject(challenge)`, called with
        bytes, gives the response to a challenge, None to give up. Raises
        `smtplib.SMTPNotSupportedError` when the mechanism is not offered,
        `smtplib.SMTPAuthenticationError` when the server does not believe it.
        """
        self.ehlo_or_helo_if_needed()
        if mechanism.upper() not in self._mechanisms():
            raise smtplib.SMTPNotSupportedError(f"the server does not offer AUTH {mechanism}")
        return self._authenticate(_Mechanism(mechanism, authobject, initial_response_ok))

    def _mechanisms(self) -> list[str]:
        return self.esmtp_features.get("auth", "").upper().split()

    def _authenticate(self, mechanism: ClientMechanism) -> tuple[int, bytes]:
        code, text = self._reply(lambda submission: submission.authenticate(mechanism))
        # As smtplib has it: 503 says that it was believed before.
        if code not in (235, 503):
            raise smtplib.SMTPAuthenticationError(code, text)
        return code, text

    def noop(self) -> tuple[int, bytes]:
        """Say NOOP: code and text of the reply."""
        return self._say(Noop())

    def rset(self) -> tuple[int, bytes]:
        """Say RSET: code and text of the reply."""
        return self._say(Rset())

    def verify(self, address: str) -> tuple[int, bytes]:
        """Say VRFY: code and text of the reply."""
        return self._say(Vrfy(text=_bare(address)))

    vrfy = verify

    def sendmail(
        self,
        from_addr: str,
        to_addrs: str | Sequence[str],
        msg: bytes | str,
        mail_options: Sequence[str] = (),
        rcpt_options: Sequence[str] = (),
    ) -> dict[str, tuple[int, bytes]]:
        """Send one message: code and text for every recipient.

        `msg` is octets, or ASCII text; `mail_options` and `rcpt_options` are parameters such as
        `"BODY=8BITMIME"` and `"NOTIFY=NEVER"`. The session can be used again afterwards, unless
        the connection broke.

        Raises what `smtplib.SMTP.sendmail()` raises: `SMTPHeloError`, `SMTPSenderRefused`,
        `SMTPDataError` when the content was not wanted, `SMTPRecipientsRefused` when nobody got
        the message, `SMTPServerDisconnected` when the server has said nothing of any recipient, and
        `SMTPNotSupportedError` for an option or address that the server does not take.
        """
        self.ehlo_or_helo_if_needed()
        to_addrs = [to_addrs] if isinstance(to_addrs, str) else list(to_addrs)
        content = _LINE_END.sub(b"\r\n", msg.encode("ascii") if isinstance(msg, str) else msg)
        parameters = _mail_options(mail_options)
        reverse_path = _sender(from_addr)
        recipients = [_recipient(text, rcpt_options) for text in to_addrs]
        pieces = iter((content, b""))
        try:
            sent = self._hold(
                lambda submission: submission.submit(
                    reverse_path,
                    [each for each in recipients if isinstance(each, Recipient)],
                    lambda: next(pieces, b""),
                    size=len(content),
                    parameters=parameters,
                )
            )
        except LocalProtocolError as error:
            raise smtplib.SMTPNotSupportedError(str(error)) from error
        found = {result.recipient: result for result in sent}
        verbs = set()
        outcome: dict[str, tuple[int, bytes]] = {}
        self.results = []
        for text, each in zip(to_addrs, recipients, strict=True):
            if isinstance(each, Recipient):
                verbs.add(found[each].verb)
                code, words = _pair(found[each].reply)
            else:
                verbs.add(Verb.RCPT)
                code, words = _pair(each)
            self.results.append((text, code, words))
            # Of duplicates the first that refuses counts.
            if text not in outcome or outcome[text][0] < 400:
                outcome[text] = code, words
        if not any(code < 400 for _, code, _ in self.results):
            _raise(from_addr, outcome, verbs)
        return outcome

    def send_message(
        self,
        msg: email.message.Message,
        from_addr: str | None = None,
        to_addrs: str | Sequence[str] | None = None,
        mail_options: Sequence[str] = (),
        rcpt_options: Sequence[str] = (),
    ) -> dict[str, tuple[int, bytes]]:
        """Send `msg` as `sendmail()` does, without its Bcc fields.

        Sender and recipients that are not given are those of its header fields (the Resent- ones
        where it was resent). Raises ValueError for a message that was resent more than once.
        """
        self.ehlo_or_helo_if_needed()
        resent = msg.get_all("Resent-Date")
        if resent is not None and len(resent) > 1:
            raise ValueError("the message has more than one block of Resent- fields")
        prefix = "" if resent is None else "Resent-"
        if from_addr is None:
            # RFC 5322 3.6.2: who sent it, if that is not the author.
            senders = _addresses(msg, f"{prefix}Sender") or _addresses(msg, f"{prefix}From")
            from_addr = senders[0] if senders else ""
        if to_addrs is None:
            to_addrs = _addresses(msg, *(f"{prefix}{name}" for name in ("To", "Bcc", "Cc")))
        elif isinstance(to_addrs, str):
            to_addrs = [to_addrs]
        shown = copy.copy(msg)
        del shown["Bcc"]
        del shown["Resent-Bcc"]
        buffer = io.BytesIO()
        generator = email.generator.BytesGenerator(buffer)
        if not "".join([from_addr, *to_addrs]).isascii():
            generator = email.generator.BytesGenerator(buffer, policy=email.policy.SMTPUTF8)
            mail_options = [*mail_options, "SMTPUTF8", "BODY=8BITMIME"]
        generator.flatten(shown, linesep="\r\n")
        return self.sendmail(from_addr, to_addrs, buffer.getvalue(), mail_options, rcpt_options)

    def quit(self) -> tuple[int, bytes]:
        """Say QUIT and close: code and text of the reply."""
        try:
            return self._reply(lambda submission: submission.close())
        finally:
            self.close()

    def close(self) -> None:
        """Close the connection, without QUIT."""
        channel, self._channel, self._submission = self._channel, None, None
        self._greeted = False
        self.esmtp_features = {}
        if channel is not None:
            channel.cut()
            channel.close()

    def _say(self, command: Command) -> tuple[int, bytes]:
        return self._reply(lambda submission: submission.say(command))

    def _reply(
        self, begin: Callable[[Submission], Generator[Effect, None, Reply]]
    ) -> tuple[int, bytes]:
        """The reply that a conversation leads to, as a pair.

        Raises ValueError for text that no command can carry, SMTPServerDisconnected where the
        server did not answer.
        """
        try:
            reply = self._hold(begin)
        except LocalProtocolError as error:
            raise ValueError(str(error)) from error
        if self._submission is None and reply.code not in (221, 421):
            raise smtplib.SMTPServerDisconnected(str(reply))
        return _pair(reply)

    def _hold(self, begin: Callable[[Submission], Generator[Effect, None, T]]) -> T:
        """Hold a conversation, and close the connection if it was the last."""
        channel, submission = self._channel, self._submission
        if channel is None or submission is None:
            raise smtplib.SMTPServerDisconnected("please run connect() first")
        try:
            return channel.hold(self._tls.over(begin(submission)))
        finally:
            if submission.over:
                self.close()


class _Mechanism:
    """A mechanism in the manner of `smtplib.SMTP.auth()`."""

    def __init__(
        self, name: str, authobject: Callable[..., str | None], initial_response: bool
    ) -> None:
        self.name = name
        self._authobject = authobject
        self._initial_response = initial_response

    def respond(self, challenge: bytes | None, /) -> bytes | None:
        if challenge is not None:
            response = self._authobject(challenge)
        else:
            response = self._authobject() if self._initial_response else None
        return None if response is None else response.encode()


def _address(host: str, port: int) -> TcpAddress | UnixAddress:
    if host.startswith("/"):
        return UnixAddress(host)
    name, colon, number = host.rpartition(":")
    # As smtplib has it: an address of IPv6 has more than one colon.
    if colon and number.isdigit() and ":" not in name:
        return TcpAddress(name, int(number))
    return TcpAddress(host, port)


def _pair(reply: Reply) -> tuple[int, bytes]:
    """Code and text as smtplib gives them: the enhanced status code is part of the text."""
    lines = [f"{reply.enhanced} {line}".strip() for line in reply.lines]
    return reply.code, "\n".join(lines).encode()


def _bare(text: str) -> str:
    """What stands in the brackets behind a name, or the text itself."""
    return text[text.rfind("<") + 1 : -1] if text.endswith(">") else text


def _mailbox(text: str) -> Address:
    return parse_mailbox(_bare(text))


def _sender(text: str) -> Address | None:
    if text in ("", "<>"):
        return None
    try:
        return _mailbox(text)
    except PathError as error:
        raise smtplib.SMTPSenderRefused(501, f"5.1.7 {error}".encode(), text) from error


def _recipient(text: str, options: Sequence[str]) -> Recipient | Reply:
    """A recipient of its own, or why there is none."""
    try:
        address = _mailbox(text)
    except PathError as error:
        return Reply(501, str(error), enhanced="5.1.3")
    if not options:
        return Recipient(address=address)
    command = _option("RCPT TO:<postmaster>", options)
    assert isinstance(command, Rcpt)
    return Recipient(address=address, parameters=command.recipient.parameters)


def _mail_options(options: Sequence[str]) -> MailParameters:
    if not options:
        return MailParameters()
    command = _option("MAIL FROM:<>", options)
    assert isinstance(command, Mail)
    return command.parameters


def _option(line: str, options: Sequence[str]) -> Command:
    try:
        return _OPTIONS.parse(" ".join([line, *options]).encode())[1]
    except ValueError as error:
        raise smtplib.SMTPNotSupportedError(str(error)) from error


def _addresses(msg: email.message.Message, *names: str) -> list[str]:
    fields = [str(field) for name in names for field in msg.get_all(name, [])]
    return [address for _, address in email.utils.getaddresses(fields) if address]


def _raise(
    from_addr: str, outcome: dict[str, tuple[int, bytes]], verbs: set[Verb | None]
) -> NoReturn:
    """Raise what smtplib does for a message that nobody got. `verbs`: what was answered."""
    code, text = next(iter(outcome.values()), (0, b""))
    if verbs == {None}:
        raise smtplib.SMTPServerDisconnected(f"{code} {text.decode()}")
    if verbs == {Verb.MAIL}:
        raise smtplib.SMTPSenderRefused(code, text, from_addr)
    if verbs and verbs <= {Verb.DATA, Verb.BDAT}:
        raise smtplib.SMTPDataError(code, text)
    raise smtplib.SMTPRecipientsRefused(outcome)
