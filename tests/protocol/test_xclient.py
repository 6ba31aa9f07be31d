"""XCLIENT and XFORWARD: what trusted peers say of others, and others may not."""

from typing import Final

import pytest

from lmtp_proto import STANDARD_EXTENSIONS, Extension, Handler, Limits, Session, Settings
from tests.protocol.driver import Driver

_SETTINGS: Final = Settings(
    extensions=STANDARD_EXTENSIONS | {Extension.XCLIENT, Extension.XFORWARD, Extension.LIMITS},
    limits=Limits(transactions=2, recipients=5),
)
_LHLO: Final = b"LHLO client.example.org\r\n"


class Trusting(Handler):
    def trusts(self, session: Session, /) -> bool:
        return session.client_ip == "192.0.2.1"


def _driver(handler: Handler | None = None) -> Driver:
    driver = Driver(handler or Trusting(), _SETTINGS)
    driver.receive(_LHLO)
    return driver


def test_the_session_begins_anew_for_another() -> None:
    driver = _driver()
    assert b"XCLIENT NAME REVERSE_NAME ADDR PORT PROTO HELO LOGIN DESTADDR" in driver.output
    driver.writes.clear()
    driver.receive(
        b"XCLIENT ADDR=IPV6:2001:db8::7 PORT=4242 HELO=mta+2Eexample LOGIN=alice "
        b"NAME=[UNAVAILABLE] SESSION=abc+20def TTL=4 UNKNOWN=x\r\nMAIL FROM:<>\r\n"
    )
    assert driver.output.startswith(b"220 localhost ")
    # RFC 5321 4.1.4: LHLO is needed anew.
    assert driver.codes == [220, 503]
    session = driver.session
    assert (session.client_ip, session.peer) == ("2001:db8::7", "[2001:db8::7]:4242")
    assert (session.user, session.lhlo_domain, session.id) == ("alice", "mta.example", "abc_def")
    assert session.xclient["NAME"] is None
    assert "UNKNOWN" not in session.xclient
    assert session.xclient["TTL"] == "4"
    driver.receive(_LHLO + b"MAIL FROM:<>\r\n")
    assert driver.codes == [220, 503, 250, 250]


def test_trust_is_that_of_the_real_peer() -> None:
    driver = _driver()
    driver.receive(b"XCLIENT ADDR=203.0.113.9\r\nXCLIENT ADDR=203.0.113.10\r\n")
    assert driver.codes[-2:] == [220, 220]
    assert driver.session.client_ip == "203.0.113.10"


def test_others_are_not_believed() -> None:
    driver = _driver(Handler())
    assert b"XCLIENT" not in driver.output
    assert b"XFORWARD" not in driver.output
    driver.receive(b"XCLIENT ADDR=203.0.113.9\r\nXFORWARD ADDR=203.0.113.9\r\n")
    assert driver.codes[-2:] == [550, 550]
    assert driver.session.client_ip == "192.0.2.1"


@pytest.mark.parametrize(
    "text",
    [
        "ADDR",
        "ADDR=",
        "ADDR=300.1.1.1",
        "ADDR=1.2.3.4 ADDR=1.2.3.4",
        "PORT=65536",
        "PORT=-1",
        "PORT=1x",
        "PROTO=HTTP",
        "HELO=a+0D+0Ab",
        "HELO=a+ZZ",
        "=x",
        "1A=x",
        "ADDR=1.2.3.4  PORT=1",
    ],
)
def test_malformed_attributes(text: str) -> None:
    driver = _driver()
    driver.receive(f"XCLIENT {text}\r\nNOOP\r\n".encode())
    assert driver.codes[-2:] == [501, 250]
    assert driver.session.xclient == {}


def test_not_in_a_transaction() -> None:
    driver = _driver()
    driver.receive(b"MAIL FROM:<>\r\nXCLIENT ADDR=1.2.3.4\r\nXFORWARD ADDR=1.2.3.4\r\n")
    assert driver.codes[-3:] == [250, 503, 503]


def test_what_is_not_said_stays_as_it_is() -> None:
    driver = _driver()
    driver.receive(b"XCLIENT ADDR=203.0.113.9 LOGIN=alice\r\nXCLIENT NAME=x\r\n")
    assert driver.codes[-2:] == [220, 220]
    assert (driver.session.client_ip, driver.session.user) == ("203.0.113.9", "alice")
    assert driver.session.xclient == {"ADDR": "203.0.113.9", "LOGIN": "alice", "NAME": "x"}


@pytest.mark.parametrize(("handler", "codes"), [(Trusting(), [250, 250]), (Handler(), [550, 250])])
def test_xrcptforward_is_for_trusted_peers(handler: Handler, codes: list[int]) -> None:
    settings = Settings(extensions=STANDARD_EXTENSIONS | {Extension.XRCPTFORWARD})
    driver = Driver(handler, settings)
    driver.receive(_LHLO)
    assert (b"XRCPTFORWARD" in driver.output) == (codes[0] == 250)
    driver.receive(b"MAIL FROM:<>\r\nRCPT TO:<a@b> XRCPTFORWARD=x+3Dy\r\nRCPT TO:<a@b>\r\n")
    assert driver.codes[-2:] == codes


def test_xforward_is_for_logs() -> None:
    driver = _driver()
    driver.receive(b"XFORWARD NAME=mail.example ADDR=203.0.113.9 SOURCE=REMOTE IDENT=4BX\r\n")
    assert driver.codes[-1] == 250
    assert driver.session.xforward == {
        "NAME": "mail.example",
        "ADDR": "203.0.113.9",
        "SOURCE": "REMOTE",
        "IDENT": "4BX",
    }
    assert driver.session.client_ip == "192.0.2.1"


def test_offered_limits_are_kept() -> None:
    # RFC 9422 4.
    driver = _driver()
    assert b"LIMITS MAILMAX=2 RCPTMAX=5\r\n" in driver.output
    driver.receive(b"MAIL FROM:<>\r\n" + b"RCPT TO:<a@b>\r\n" * 6 + b"RSET\r\n")
    assert driver.codes[-8:] == [250] * 6 + [452, 250]
    driver.receive(b"MAIL FROM:<>\r\nRSET\r\nMAIL FROM:<>\r\n")
    assert driver.codes[-3:] == [250, 250, 421]
    assert driver.closed
