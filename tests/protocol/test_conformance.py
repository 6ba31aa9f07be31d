"""What docs/conformance.toml and docs/rfc-coverage.toml demand and no dialogue can show.

A dialogue has the standard extensions, small limits and one handler; here stand those cases that
need others.
"""

from typing import Final

import pytest

from lmtp_proto import (
    STANDARD_EXTENSIONS,
    Extension,
    Handler,
    Limits,
    Mail,
    Message,
    Recipient,
    Reply,
    Session,
    Settings,
    Transaction,
)
from tests.protocol.driver import Driver

_LHLO: Final = b"LHLO client.example.org\r\n"
_MAIL: Final = b"MAIL FROM:<sender@example.net>\r\n"
_RCPT: Final = b"RCPT TO:<alice@example.org>\r\n"


class _Keeping(Handler):
    """Keeps the content of every message."""

    def __init__(self) -> None:
        self.contents: list[bytes] = []

    def deliver(self, message: Message, recipient: Recipient, /) -> Reply:
        self.contents.append(message.content)
        return Reply(250, "kept", enhanced="2.0.0")


def _session(handler: Handler, *extensions: Extension) -> Driver:
    driver = Driver(handler, Settings(extensions=STANDARD_EXTENSIONS | set(extensions)))
    driver.receive(_LHLO)
    driver.writes.clear()
    return driver


@pytest.mark.parametrize(
    "name",
    [b"odd_name", b"[127.0.0.1", b"[IPv6:zz]", b"a b c", b"-", "bücher.example".encode(), b"a..b"],
)
def test_an_odd_name_is_no_reason_to_refuse_mail(name: bytes) -> None:
    # RFC 5321 4.1.4.
    driver = Driver(_Keeping())
    driver.receive(b"LHLO " + name + b"\r\n")
    driver.writes.clear()
    driver.receive(_MAIL + _RCPT)
    assert driver.codes == [250, 250]


def test_no_default_is_below_what_clients_may_rely_on() -> None:
    limits = Limits()
    # RFC 5321 4.5.3.1.4, 4.5.3.1.7 and 4.5.3.1.8.
    assert limits.command_line >= 512
    assert limits.message_size >= 65_536
    assert limits.recipients >= 100
    # RFC 5321 4.5.3.2.7; 4.5.3.2.5 lets a client pause for three minutes.
    assert limits.command_timeout >= 300
    assert limits.content_timeout >= 180
    # A client's, RFC 5321 4.5.3.2.1 to 4.5.3.2.3 and 4.5.3.2.6.
    assert limits.reply_timeout >= 300
    assert limits.final_reply_timeout >= 600


class _Closed(Handler):
    """Takes mail from those alone who have authenticated."""

    def mail(self, session: Session, mail: Mail, /) -> Reply | None:
        if session.user is None:
            return Reply(530, "authenticate first", enhanced="5.7.0")
        return None

    def authenticate(self, session: Session, credentials: object, /) -> None:
        return None


def test_a_handler_may_ask_for_authentication() -> None:
    # RFC 4954 6.
    driver = Driver(
        _Closed(),
        Settings(
            extensions=STANDARD_EXTENSIONS | {Extension.AUTH, Extension.STARTTLS},
        ),
        tls="TLSv1.3",
    )
    driver.receive(_LHLO + _MAIL)
    driver.receive(b"NOOP\r\nRSET\r\n" + _LHLO + b"STARTTLS\r\n")
    assert driver.codes == [220, 250, 530, 250, 250, 250, 220]
    driver.receive(_LHLO + b"AUTH PLAIN AGEAYg==\r\n" + _MAIL)
    assert driver.codes[-2:] == [235, 250]


class _Quota(Handler):
    """Has room for a hundred octets."""

    def rcpt(self, transaction: Transaction, recipient: Recipient, /) -> Reply | None:
        if (transaction.mail.parameters.size or 0) > 100:
            return Reply(552, "no room for that", enhanced="5.2.2")
        return None


def test_a_handler_knows_the_declared_size_at_rcpt() -> None:
    # RFC 1870 6.4.
    driver = _session(_Quota())
    driver.receive(b"MAIL FROM:<> SIZE=100\r\n" + _RCPT + b"RSET\r\n")
    driver.receive(b"MAIL FROM:<> SIZE=101\r\n" + _RCPT)
    assert driver.codes == [250, 250, 250, 250, 552]


@pytest.mark.parametrize("length", [1000, 20_000, 1_000_000])
def test_a_line_of_content_may_be_long(length: int) -> None:
    # RFC 5321 4.5.3.1.6.
    handler = _Keeping()
    driver = _session(handler)
    content = b"x" * (length - 2) + b"\r\n"
    driver.receive(_MAIL + _RCPT + b"DATA\r\n" + content + b".\r\n")
    assert driver.codes == [250, 250, 354, 250]
    assert handler.contents == [content]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\r\n",
        b"\r\n\r\nbody\r\n",
        b"no header\r\n",
        b"Subject: header alone\r\n",
        b"From sender Sun Nov 22 12:00:00 2026\r\nSubject: x\r\n\r\nx\r\n",
        b"X: y\r\n" * 20_000,
        b'Content-Type: multipart/mixed; boundary="x"\r\n\r\n--x\r\n' * 200,
        b"To: " + b"a@b, " * 10_000 + b"\r\n\r\n",
        b"Received: x\r\n" * 1000,
    ],
    ids=lambda content: repr(content[:20]),
)
@pytest.mark.parametrize("chunked", [False, True])
def test_content_is_not_looked_into(content: bytes, chunked: bool) -> None:
    # RFC 5321 3.3 and 3.7.2: what it holds is no reason to refuse it.
    handler = _Keeping()
    driver = _session(handler)
    driver.receive(_MAIL + _RCPT)
    if chunked:
        driver.receive(b"BDAT %d LAST\r\n" % len(content) + content)
    else:
        driver.receive(b"DATA\r\n" + content + b".\r\n")
    assert driver.codes[-1] == 250
    assert handler.contents == [content]


_OFFERED: Final = [
    # RFC 6531 3.3, 3.4.
    (Extension.SMTPUTF8, "MAIL FROM:<jürgen@bücher.example> SMTPUTF8", 250),
    (Extension.SMTPUTF8, "MAIL FROM:<a@b> SMTPUTF8=x", 501),
    (Extension.SMTPUTF8, "MAIL FROM:<jürgen@b>", 550),
    # RFC 3030 3.
    (Extension.BINARYMIME, "MAIL FROM:<a@b> BODY=BINARYMIME", 250),
    # RFC 3461 4.
    (Extension.DSN, "MAIL FROM:<a@b> RET=FULL ENVID=QQ+2B1", 250),
    (Extension.DSN, "MAIL FROM:<a@b> RET=hdrs", 250),
    (Extension.DSN, "MAIL FROM:<a@b> RET=SOME", 501),
    (Extension.DSN, "MAIL FROM:<a@b> RET=FULL RET=FULL", 501),
    (Extension.DSN, "MAIL FROM:<a@b> ENVID=a+zz", 501),
    (Extension.DSN, "RCPT TO:<a@b> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;a+2Bb@c", 250),
    (Extension.DSN, "RCPT TO:<a@b> NOTIFY=NEVER", 250),
    (Extension.DSN, "RCPT TO:<a@b> NOTIFY=NEVER,SUCCESS", 501),
    (Extension.DSN, "RCPT TO:<a@b> NOTIFY=OFTEN", 501),
    (Extension.DSN, "RCPT TO:<a@b> ORCPT=rfc822", 501),
    (Extension.DSN, "RCPT TO:<a@b> ORCPT=rfc822;a+zz", 501),
    # RFC 4954 5.
    (Extension.AUTH, "MAIL FROM:<a@b> AUTH=<>", 250),
    (Extension.AUTH, "MAIL FROM:<a@b> AUTH=c@d", 250),
    # RFC 6710 4.
    (Extension.MT_PRIORITY, "MAIL FROM:<a@b> MT-PRIORITY=-9", 250),
    (Extension.MT_PRIORITY, "MAIL FROM:<a@b> MT-PRIORITY=9", 250),
    (Extension.MT_PRIORITY, "MAIL FROM:<a@b> MT-PRIORITY=10", 501),
    (Extension.MT_PRIORITY, "MAIL FROM:<a@b> MT-PRIORITY=x", 501),
    # RFC 7293 5.
    (Extension.RRVS, "RCPT TO:<a@b> RRVS=2014-04-03T23:01:00Z", 250),
    (Extension.RRVS, "RCPT TO:<a@b> RRVS=2014-04-03T23:01:00Z;C", 250),
    (Extension.RRVS, "RCPT TO:<a@b> RRVS=yesterday", 501),
]


def _say(driver: Driver, line: str) -> int:
    if line.startswith("RCPT"):
        driver.receive(b"MAIL FROM:<>\r\n")
    driver.receive(line.encode() + b"\r\n")
    return driver.codes[-1]


@pytest.mark.parametrize(("extension", "line", "code"), _OFFERED)
def test_a_parameter_that_is_offered(extension: Extension, line: str, code: int) -> None:
    assert _say(_session(_Keeping(), extension), line) == code


@pytest.mark.parametrize(
    "parameter",
    [
        "MAIL SMTPUTF8",
        "MAIL RET=FULL",
        "MAIL ENVID=x",
        "MAIL AUTH=<>",
        "MAIL REQUIRETLS",
        "MAIL MT-PRIORITY=1",
        "MAIL HOLDFOR=60",
        "MAIL HOLDUNTIL=2027-01-01T00:00:00Z",
        "MAIL BY=120;R",
        "RCPT NOTIFY=NEVER",
        "RCPT ORCPT=rfc822;a@b",
        "RCPT RRVS=2014-04-03T23:01:00Z",
    ],
)
def test_a_parameter_that_is_not_offered(parameter: str) -> None:
    # RFC 5321 4.1.1.11.
    verb, _, text = parameter.partition(" ")
    path = "MAIL FROM:<a@b>" if verb == "MAIL" else "RCPT TO:<a@b>"
    assert _say(_session(_Keeping()), f"{path} {text}") == 555


def test_requiretls_is_for_tls() -> None:
    # RFC 8689 4.
    driver = Driver(
        _Keeping(),
        Settings(extensions=STANDARD_EXTENSIONS | {Extension.REQUIRETLS, Extension.STARTTLS}),
        tls="TLSv1.3",
    )
    driver.receive(_LHLO)
    assert b"REQUIRETLS" not in driver.output
    assert _say(driver, "MAIL FROM:<a@b> REQUIRETLS") == 555
    driver.receive(b"STARTTLS\r\n")
    driver.receive(_LHLO)
    assert b"REQUIRETLS" in driver.output
    assert _say(driver, "MAIL FROM:<a@b> REQUIRETLS") == 250


def test_binary_content_comes_by_bdat_alone() -> None:
    # RFC 3030 3.
    handler = _Keeping()
    driver = _session(handler, Extension.BINARYMIME)
    driver.receive(b"MAIL FROM:<a@b> BODY=BINARYMIME\r\n" + _RCPT + b"DATA\r\n")
    assert driver.codes == [250, 250, 503]
    octets = bytes(range(256)) + b"\r\n.\r\n\r\r\n\n"
    driver.receive(b"BDAT %d LAST\r\n" % len(octets) + octets)
    assert driver.codes[-1] == 250
    assert handler.contents == [octets]


def test_starttls_is_not_offered_under_tls() -> None:
    # RFC 3207 4.2.
    driver = Driver(
        _Keeping(), Settings(extensions=STANDARD_EXTENSIONS | {Extension.STARTTLS}), tls="TLSv1.3"
    )
    driver.receive(_LHLO)
    assert b"250 STARTTLS\r\n" in driver.output
    driver.receive(b"STARTTLS\r\n")
    driver.writes.clear()
    driver.receive(_LHLO + b"STARTTLS\r\n")
    assert b"STARTTLS" not in driver.output
    assert driver.codes == [250, 503]
