"""AUTH (RFC 4954): the exchange, its mechanisms, who may use them, and what it changes."""

from base64 import b64encode
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmtp_proto import (
    STANDARD_EXTENSIONS,
    Answer,
    Credentials,
    Extension,
    Handler,
    Mechanism,
    Recipient,
    Reply,
    SaslError,
    Session,
    Settings,
    Transaction,
)
from tests.protocol.driver import Driver

_SETTINGS: Final = Settings(
    extensions=STANDARD_EXTENSIONS | {Extension.AUTH, Extension.STARTTLS},
    auth_mechanisms=("PLAIN", "LOGIN", "EXTERNAL", "ECHO"),
)
_LHLO: Final = b"LHLO client.example.org\r\n"


class Echo:
    """A mechanism of an embedder's own: it challenges until the response is what it said last."""

    def __init__(self) -> None:
        self.said = b"hello"

    def respond(self, response: bytes | None, /) -> bytes | Credentials:
        if response == self.said:
            return Credentials(mechanism="ECHO", authorization_id="e", authentication_id="echo")
        if response == b"broken":
            raise SaslError("this is no echo")
        if response == b"crash":
            raise RuntimeError("crash")
        return self.said


class Gate(Handler):
    """Lets alice in with her password, and mail from nobody else."""

    def __init__(self) -> None:
        self.judged: list[Credentials] = []
        self.users: list[str | None] = []

    def mechanism(self, session: Session, name: str, /) -> Mechanism | None:
        return Echo() if name == "ECHO" else super().mechanism(session, name)

    def authenticate(self, session: Session, credentials: Credentials, /) -> Answer[Reply | None]:
        self.judged.append(credentials)
        if credentials.password == "crash":
            raise RuntimeError("crash")
        if credentials.password in ("secret", None):
            return None
        return super().authenticate(session, credentials)

    def rcpt(self, transaction: Transaction, recipient: Recipient, /) -> None:
        self.users.append(transaction.session.user)


def _driver(tls: bool = True) -> tuple[Driver, Gate]:
    gate = Gate()
    driver = Driver(gate, _SETTINGS, tls="TLSv1.3")
    driver.receive(_LHLO)
    if tls:
        driver.receive(b"STARTTLS\r\n")
        driver.receive(_LHLO)
    driver.writes.clear()
    return driver, gate


def _b64(octets: bytes) -> bytes:
    return b64encode(octets) or b"="


def _plain(user: bytes, password: bytes, authorization: bytes = b"") -> bytes:
    return _b64(authorization + b"\0" + user + b"\0" + password)


def test_plain_in_one_line() -> None:
    driver, gate = _driver()
    driver.receive(b"auth plain " + _plain(b"alice", b"secret", b"bob") + b"\r\n")
    assert driver.output == b"235 2.7.0 authenticated\r\n"
    assert gate.judged == [
        Credentials(
            mechanism="PLAIN", authorization_id="bob", authentication_id="alice", password="secret"
        )
    ]
    driver.receive(b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\n")
    assert gate.users == ["bob"]


def test_plain_asked_for_its_response() -> None:
    driver, _ = _driver()
    driver.receive(b"AUTH PLAIN\r\n")
    assert driver.output == b"334 \r\n"
    driver.receive(_plain(b"alice", b"secret") + b"\r\nNOOP\r\n")
    assert driver.codes == [334, 235, 250]
    assert driver.session.user == "alice"


@pytest.mark.parametrize("initial", [False, True])
def test_login(initial: bool) -> None:
    driver, gate = _driver()
    if initial:
        driver.receive(b"AUTH LOGIN " + _b64(b"alice") + b"\r\n")
    else:
        driver.receive(b"AUTH LOGIN\r\n")
        assert driver.output == b"334 " + _b64(b"Username:") + b"\r\n"
        driver.writes.clear()
        driver.receive(_b64(b"alice") + b"\r\n")
    assert driver.output == b"334 " + _b64(b"Password:") + b"\r\n"
    driver.receive(_b64(b"secret") + b"\r\n")
    assert driver.codes == [334, 235]
    assert gate.judged[0].authentication_id == "alice"


@pytest.mark.parametrize(("response", "user"), [(b"=", ""), (_b64(b"carol"), "carol")])
def test_external(response: bytes, user: str) -> None:
    driver, gate = _driver(tls=False)
    driver.receive(b"AUTH EXTERNAL " + response + b"\r\n")
    assert driver.codes == [235]
    assert gate.judged[0].authorization_id == user
    assert gate.judged[0].password is None


def test_external_asked_for_its_response() -> None:
    driver, gate = _driver(tls=False)
    driver.receive(b"AUTH EXTERNAL\r\n" + _b64(b"carol") + b"\r\n")
    assert driver.codes == [334, 235]
    assert gate.judged[0].authorization_id == "carol"


def test_what_is_offered_and_nobody_knows() -> None:
    settings = replace(_SETTINGS, auth_mechanisms=("SCRAM-SHA-256",))
    driver = Driver(Gate(), settings)
    driver.receive(_LHLO + b"AUTH SCRAM-SHA-256 =\r\nNOOP\r\n")
    assert driver.codes == [220, 250, 504, 250]


def test_a_mechanism_of_the_handlers() -> None:
    driver, _ = _driver(tls=False)
    driver.receive(b"AUTH ECHO\r\n")
    for _ in range(3):
        driver.receive(_b64(b"no") + b"\r\n")
    driver.receive(_b64(b"hello") + b"\r\n")
    assert driver.codes == [334, 334, 334, 334, 235]
    assert driver.session.user == "e"


@pytest.mark.parametrize(
    ("octets", "codes"),
    [
        (b"AUTH\r\n", [501]),
        (b"AUTH \xc3\xa4\r\n", [501]),
        (b"AUTH NTLM\r\n", [504]),
        (b"AUTH PLAIN !!!!\r\n", [501]),
        (b"AUTH PLAIN " + _b64(b"no nul") + b"\r\n", [501]),
        (b"AUTH PLAIN " + _b64(b"\0\xff\0x") + b"\r\n", [501]),
        (b"AUTH PLAIN " + _plain(b"alice", b"wrong") + b"\r\n", [535]),
        (b"AUTH PLAIN " + _plain(b"alice", b"crash") + b"\r\n", [451]),
        (b"AUTH PLAIN\r\n*\r\n", [334, 501]),
        (b"AUTH LOGIN =\r\n", [501]),
        (b"AUTH LOGIN " + _b64(b"a\0b") + b"\r\n", [501]),
        (b"AUTH EXTERNAL " + _b64(b"a\0b") + b"\r\n", [501]),
        (b"AUTH PLAIN\r\nnot base64\r\n", [334, 501]),
        (b"AUTH PLAIN\r\n" + b"A" * 13_000 + b"\r\n", [334, 500]),
        (b"AUTH LOGIN\r\n" + _b64(b"alice") + b"\r\n" + _b64(b"no") + b"\r\n", [334, 334, 535]),
        (b"AUTH ECHO " + _b64(b"broken") + b"\r\n", [501]),
        (b"AUTH ECHO " + _b64(b"crash") + b"\r\n", [451]),
        (b"AUTH ECHO\r\n" + _b64(b"crash") + b"\r\n", [334, 451]),
    ],
)
def test_what_fails_leaves_the_session_as_it_was(octets: bytes, codes: list[int]) -> None:
    driver, _ = _driver()
    driver.receive(octets)
    assert driver.codes == codes
    assert driver.session.user is None
    driver.receive(b"AUTH PLAIN " + _plain(b"alice", b"secret") + b"\r\n")
    assert driver.codes == [*codes, 235]


def test_a_line_of_the_exchange_is_never_a_command() -> None:
    driver, _ = _driver()
    driver.receive(b"AUTH PLAIN\r\nQUIT\r\nNOOP\r\n")
    # "QUIT" is base64 of three octets, which are no PLAIN response.
    assert driver.codes == [334, 501, 250]


def test_a_response_may_be_long() -> None:
    driver, _ = _driver()
    driver.receive(b"AUTH PLAIN\r\n" + _plain(b"alice", b"x" * 9000) + b"\r\n")
    assert driver.codes == [334, 535]


def test_once_is_enough() -> None:
    driver, _ = _driver()
    again = b"AUTH PLAIN " + _plain(b"alice", b"secret") + b"\r\n"
    driver.receive(again + again)
    assert driver.codes == [235, 503]


def test_not_in_a_transaction_nor_before_lhlo() -> None:
    driver, _ = _driver()
    driver.receive(b"MAIL FROM:<>\r\nAUTH EXTERNAL =\r\n")
    assert driver.codes == [250, 503]
    early = Driver(Gate(), _SETTINGS)
    early.receive(b"AUTH EXTERNAL =\r\n")
    assert early.codes == [220, 503]


def test_no_password_in_the_clear() -> None:
    driver, gate = _driver(tls=False)
    driver.receive(_LHLO)
    assert b" EXTERNAL ECHO\r\n" in driver.output
    assert b"PLAIN" not in driver.output
    driver.writes.clear()
    driver.receive(b"AUTH PLAIN " + _plain(b"alice", b"secret") + b"\r\n")
    assert driver.output.startswith(b"538 5.7.11 ")
    assert gate.judged == []


def test_on_a_unix_socket_nobody_listens() -> None:
    driver, _ = _driver(tls=False)
    driver.session.client_ip = None
    driver.receive(_LHLO + b"AUTH PLAIN " + _plain(b"alice", b"secret") + b"\r\n")
    assert b"AUTH PLAIN LOGIN EXTERNAL ECHO\r\n" in driver.output
    assert driver.codes[-1] == 235


def test_a_handshake_forgets_who_the_client_was() -> None:
    driver, _ = _driver(tls=False)
    driver.receive(b"AUTH EXTERNAL " + _b64(b"carol") + b"\r\nSTARTTLS\r\n")
    driver.receive(_LHLO + b"AUTH EXTERNAL =\r\n")
    assert driver.codes[-1] == 235


def test_not_offered() -> None:
    driver = Driver(Gate())
    driver.receive(_LHLO + b"AUTH PLAIN =\r\n")
    assert driver.codes == [220, 250, 502]
    assert b"AUTH" not in driver.output


def test_a_password_is_not_shown() -> None:
    driver, gate = _driver()
    driver.receive(b"AUTH PLAIN " + _plain(b"alice", b"wrong") + b"\r\n")
    driver.receive(b"AUTH PLAIN\r\n!" + _plain(b"alice", b"secret") + b"\r\n")
    shown = repr(gate.judged) + "".join(log.text for log in driver.logs)
    assert "wrong" not in shown
    assert _plain(b"alice", b"secret").decode() not in shown
    assert any("alice" in log.text for log in driver.logs)


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_any_exchange_comes_to_an_end(responses: list[bytes]) -> None:
    driver, _ = _driver()
    for name in (b"PLAIN", b"LOGIN", b"ECHO"):
        driver.receive(b"AUTH " + name + b"\r\n")
        for response in responses:
            driver.receive(b64encode(response) + b"\r\n")
        driver.receive(b"*\r\n")
        driver.writes.clear()
        driver.receive(b"NOOP\r\n")
        # Whatever was said, the session has gone on, or has counted too many faults.
        assert driver.codes in ([250], [421])
        if driver.closed:
            break
