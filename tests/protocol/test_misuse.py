"""Whatever a handler gives wrongly is named in the log and answered; the session goes on."""

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, Final

import pytest

from lmtp_proto import (
    STANDARD_EXTENSIONS,
    Credentials,
    Extension,
    Handler,
    HandlerError,
    Log,
    MemorySink,
    Recipient,
    RecipientReply,
    Reply,
    Session,
    Settings,
    Severity,
    Transaction,
    Wait,
    parse_mailbox,
)
from tests.protocol.driver import Driver

_SETTINGS: Final = Settings(
    extensions=STANDARD_EXTENSIONS | {Extension.AUTH}, auth_mechanisms=("PLAIN", "OWN")
)
_OK: Final = Reply(250, "ok")


class _Wrong(Handler):
    """Does everything right but for one method, which gives what `make()` makes."""

    def __init__(self, method: str, make: Callable[[], object]) -> None:
        self._method = method
        self._make = make
        self.disconnected = 0

    def give(self, method: str, right: object) -> Any:
        return self._make() if method == self._method else right

    def trusts(self, session: Session, /) -> Any:
        return self.give("trusts", False)

    def connect(self, session: Session, /) -> Any:
        return self.give("connect", None)

    def mechanism(self, session: Session, name: str, /) -> Any:
        return self.give("mechanism", _Mechanism(self))

    def authenticate(self, session: Session, credentials: Credentials, /) -> Any:
        return self.give("authenticate", None)

    def mail(self, session: Session, mail: object, /) -> Any:
        return self.give("mail", None)

    def lhlo(self, session: Session, domain: str, /) -> Any:
        return self.give("lhlo", None)

    def rcpt(self, transaction: Transaction, recipient: Recipient, /) -> Any:
        if recipient.address.local_part == "right":
            return None
        return self.give("rcpt", None)

    def vrfy(self, session: Session, text: str, /) -> Any:
        return self.give("vrfy", None)

    def open(self, transaction: Transaction, /) -> Any:
        return self.give("open", _Sink(self))

    def disconnect(self, session: Session, /) -> Any:
        self.disconnected += 1
        return self.give("disconnect", None)


class _Mechanism:
    def __init__(self, handler: _Wrong) -> None:
        self._handler = handler

    def respond(self, response: bytes | None, /) -> Any:
        credentials = Credentials(mechanism="OWN", authorization_id="", authentication_id="a")
        return self._handler.give("respond", credentials)


class _Sink:
    def __init__(self, handler: _Wrong) -> None:
        self._handler = handler

    def write(self, data: bytes, /) -> Any:
        return self._handler.give("write", None)

    def deliver(self, recipient: Recipient, /) -> Any:
        if recipient.address.local_part == "right":
            return _OK
        return self._handler.give("deliver", _OK)

    def close(self) -> Any:
        return self._handler.give("close", None)


class _Unspeakable:
    """Can neither be described nor asked for anything."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")

    def __getattr__(self, name: str) -> object:
        raise RuntimeError("no attributes")


async def _coroutine() -> Reply:
    return _OK


def _settled(settle: Callable[["Future[object]"], object]) -> "Future[object]":
    future: Future[object] = Future()
    settle(future)
    return future


_STRANGER: Final = Recipient(address=parse_mailbox("stranger@example.org"))

# What no method may give.
_NONSENSE: Final[dict[str, Callable[[], object]]] = {
    "text": lambda: "250 ok",
    "octets": lambda: b"250 ok",
    "a number": lambda: 250,
    "two statuses": lambda: [_OK, _OK],
    "a status for somebody else": lambda: RecipientReply(recipient=_STRANGER, reply=_OK),
    "an unspeakable thing": _Unspeakable,
    "a job that gives a job": lambda: lambda: lambda: _OK,
    "a job that gives text": lambda: lambda: "250 ok",
    "a job that gives a coroutine": lambda: _coroutine,
    "a future with text": lambda: _settled(lambda future: future.set_result("250 ok")),
    "a future with a future": lambda: _settled(lambda future: future.set_result(Future())),
    "a class": lambda: Session,
    "an awaitable, which this runtime does not take": _coroutine,
}
_FAILED: Final[dict[str, Callable[[], object]]] = {
    "a future that fails": lambda: _settled(lambda f: f.set_exception(RuntimeError("x"))),
    "a future that ends the process": lambda: _settled(lambda f: f.set_exception(SystemExit())),
    "a future that is cancelled": lambda: _settled(lambda future: future.cancel()),
}


def _replies(*codes: int) -> dict[str, Callable[[], object]]:
    return {str(code): partial(Reply, code, "x") for code in codes}


# The methods whose answers are awaited, with the codes that do not fit.
_UNFIT: Final[dict[str, dict[str, Callable[[], object]]]] = {
    "connect": _replies(250, 354, 221, 550),
    "lhlo": _replies(354, 334, 220, 221, 251),
    "mail": _replies(354, 334, 220, 221),
    "rcpt": _replies(354, 334, 220, 221),
    "vrfy": _replies(354, 220, 221),
    "open": {**_replies(250, 354), "None": lambda: None},
    "write": _replies(250, 354),
    "deliver": {**_replies(200, 220, 221, 334, 354), "None": lambda: None},
    "authenticate": _replies(250, 334, 354),
}
# These answer at once.
_AT_ONCE: Final = ("trusts", "mechanism", "respond")
_WRONG: Final = [
    *(
        pytest.param(method, make, id=f"{method} gives {what}")
        for method, unfit in _UNFIT.items()
        for what, make in {**_NONSENSE, **_FAILED, **unfit}.items()
    ),
    *(
        pytest.param(method, make, id=f"{method} gives {what}")
        for method in _AT_ONCE
        for what, make in {**_NONSENSE, **_FAILED}.items()
        # Octets are a challenge.
        if (method, what) != ("respond", "octets")
    ),
]

# What the client reads with one method at fault: see _play().
_RIGHT: Final = [220, 250, 235, 250, 250, 250, 252, 354, 250, 250, 250]
_READ: Final = {
    "trusts": [421],
    "connect": [421],
    "mechanism": [220, 250, 451, 250, 250, 250, 252, 354, 250, 250, 250],
    "respond": [220, 250, 451, 250, 250, 250, 252, 354, 250, 250, 250],
    "authenticate": [220, 250, 451, 250, 250, 250, 252, 354, 250, 250, 250],
    "lhlo": [220, 451, 503, 503, 503, 503, 252, 503],
    "mail": [220, 250, 235, 451, 503, 503, 252, 503],
    "rcpt": [220, 250, 235, 250, 451, 250, 252, 354, 250, 250],
    "vrfy": [220, 250, 235, 250, 250, 250, 451, 354, 250, 250, 250],
    "open": [220, 250, 235, 250, 250, 250, 252, 451],
    "write": [220, 250, 235, 250, 250, 250, 252, 354, 451, 451, 250],
    "deliver": [220, 250, 235, 250, 250, 250, 252, 354, 451, 250, 250],
}


def _play(handler: Handler) -> Driver:
    driver = Driver(handler, _SETTINGS)
    # Where nobody listens, AUTH is offered without TLS.
    driver.session.client_ip = None
    for octets in (
        b"LHLO client.example.org\r\nAUTH OWN AA==\r\n",
        b"MAIL FROM:<>\r\nRCPT TO:<wrong@example.org>\r\nRCPT TO:<right@example.org>\r\n",
        b"VRFY alice\r\nDATA\r\n",
    ):
        if not driver.closed:
            driver.receive(octets)
    if driver.codes[-1] == 354:
        driver.receive(b"hello\r\n.\r\nNOOP\r\n")
    return driver


def _errors(driver: Driver) -> list[Log]:
    return [log for log in driver.logs if log.severity is Severity.ERROR]


def test_nothing_is_wrong() -> None:
    driver = _play(_Wrong("none", lambda: None))
    assert driver.codes == _RIGHT
    assert driver.logs == []


@pytest.mark.parametrize(("method", "make"), _WRONG)
def test_a_wrong_answer(method: str, make: Callable[[], object]) -> None:
    handler = _Wrong(method, make)
    driver = _play(handler)
    codes = _READ[method]
    late = driver.codes[: len(codes)]
    if method == "open" and driver.codes[7] == 354:
        # What is no sink is only found out by its use.
        codes = [*_RIGHT[:8], 451, 451, 250]
        late = driver.codes
    assert late == codes
    assert b" 4.3.0 " in driver.output
    first = _errors(driver)[0]
    assert first.text.isascii()
    assert first.text.isprintable()
    assert f"{method}() of the " in first.text
    assert first.error is not None
    _goes_on(driver, handler)


def _crash() -> object:
    raise RuntimeError("crash")


@pytest.mark.parametrize("what", [*_NONSENSE, *_FAILED, "an exception"])
@pytest.mark.parametrize("method", ["open", "write", "deliver"])
def test_a_wrong_answer_to_the_last_chunk_of_one_recipient(method: str, what: str) -> None:
    handler = _Wrong(method, {**_NONSENSE, **_FAILED, "an exception": _crash}[what])
    driver = Driver(handler)
    driver.receive(b"LHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@c>\r\n")
    driver.writes.clear()
    driver.receive(b"BDAT 1 LAST\r\nxNOOP\r\n")
    assert driver.output == b"451 4.3.0 internal error\r\n250 2.0.0 OK\r\n"
    assert f"{method}() of the handler " in _errors(driver)[0].text
    _goes_on(driver, handler)


def _goes_on(driver: Driver, handler: _Wrong) -> None:
    if not driver.closed:
        driver.writes.clear()
        driver.receive(b"RSET\r\nQUIT\r\n")
        assert driver.codes == [250, 221]
    assert driver.closed
    assert handler.disconnected == 1


@pytest.mark.parametrize(("method", "make"), _WRONG)
def test_the_error_has_a_name(method: str, make: Callable[[], object]) -> None:
    driver = _play(_Wrong(method, make))
    for log in _errors(driver):
        # What a job of the handler raises is logged as it is.
        if "failed: " in log.text or " is awaited" in log.text or " are awaited" in log.text:
            assert isinstance(log.error, HandlerError)
            assert str(log.error) in log.text
        else:
            assert log.error is not None


@pytest.mark.parametrize("what", ["text", "two statuses", "a job that gives a job"])
@pytest.mark.parametrize(
    ("method", "awaited"),
    [
        ("connect", "None, 220, 421 or 554 is awaited"),
        ("lhlo", "None or a reply is awaited"),
        ("mail", "None or a reply is awaited"),
        ("rcpt", "None or a reply is awaited"),
        ("open", "a sink or a refusal is awaited"),
        ("write", "None or a refusal is awaited"),
        ("deliver", "a final reply is awaited"),
    ],
)
def test_the_text_says_what_was_given_and_what_is_awaited(
    method: str, awaited: str, what: str
) -> None:
    given = {"text": "a str", "two statuses": "a list", "a job that gives a job": "a function"}
    driver = _play(_Wrong(method, _NONSENSE[what]))
    (log, *_) = _errors(driver)
    assert str(log.error) == f"{method}() of the handler answered {given[what]}: {awaited}"


def test_a_reply_in_the_text_is_escaped() -> None:
    driver = _play(_Wrong("deliver", lambda: Reply(354, "a\r\nb\x1b" + "x" * 5000)))
    (log,) = _errors(driver)
    assert "answered 354 a\\r\\nb\\x1bxxx" in str(log.error)
    assert len(str(log.error)) < 500


@pytest.mark.parametrize("make", [_coroutine, lambda: lambda: None, Future])
class TestEnds:
    """A method that ends something is over when it returns: work that it hands back is not done."""

    def test_close(self, make: Callable[[], object]) -> None:
        driver = _play(_Wrong("close", make))
        assert driver.codes == _RIGHT
        (log,) = _errors(driver)
        assert isinstance(log.error, HandlerError)
        assert "close() of the handler answered a " in log.text

    def test_close_at_the_end_of_the_session(self, make: Callable[[], object]) -> None:
        handler = _Wrong("close", make)
        driver = Driver(handler)
        driver.receive(b"LHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<right@example.org>\r\nBDAT 1\r\nx")
        with pytest.raises(HandlerError, match=r"close\(\) of the handler answered a "):
            driver.eof()
        assert handler.disconnected == 1

    def test_disconnect(self, make: Callable[[], object]) -> None:
        driver = Driver(_Wrong("disconnect", make))
        with pytest.raises(HandlerError, match=r"disconnect\(\) of the handler answered a "):
            driver.receive(b"QUIT\r\n")
        assert driver.codes == [220, 221]


def test_whoever_is_not_judged_is_not_trusted() -> None:
    # A coroutine is as true as True.
    driver = Driver(_Wrong("trusts", _coroutine))
    assert driver.session.trusted is False
    assert driver.codes == [421]


@pytest.mark.parametrize(
    ("sink", "codes"),
    [
        (type("NoWrite", (), {"deliver": lambda self, recipient: _OK, "close": int}), [451, 451]),
        (type("NoDeliver", (), {"write": lambda self, data: None, "close": int}), [451, 451]),
    ],
)
def test_a_sink_without_one_of_its_methods(sink: type, codes: list[int]) -> None:
    driver = _play(_Wrong("open", sink))
    assert driver.codes == [*_RIGHT[:8], *codes, 250]
    assert str(_errors(driver)[0].error).startswith("open() of the handler answered a No")


@pytest.mark.parametrize("settled_first", [False, True])
@pytest.mark.parametrize("what", ["sink", "refusal"])
def test_what_open_gives_too_late(what: str, settled_first: bool) -> None:
    future: Future[object] = Future()
    closed: list[str] = []
    handler = _Wrong("close", lambda: closed.append("closed"))
    given = _Sink(handler) if what == "sink" else Reply(451, "no")

    class Late(Handler):
        def open(self, transaction: Transaction, /) -> Any:
            return future

    driver = Driver(Late())
    driver.receive(b"LHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@c>\r\nDATA\r\n")
    if settled_first:
        future.set_result(given)
        driver.cut()
    else:
        driver.cut()
        future.set_result(given)
    assert closed == ["closed"] * (what == "sink")


@pytest.mark.parametrize("late", [Reply(550, "late"), RuntimeError("late")])
def test_the_first_word_counts(late: Reply | RuntimeError) -> None:
    class Later(Handler):
        def open(self, transaction: Transaction, /) -> Any:
            return MemorySink(lambda message, recipient: Future(), transaction)

    driver = Driver(Later())
    driver.receive(b"LHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@c>\r\nBDAT 1 LAST\r\nx")
    assert isinstance(driver.blocked, Wait)
    run = driver.blocked.run
    run.succeed(_OK)
    if isinstance(late, Reply):
        run.succeed(late)
    else:
        run.fail(late)
    driver.resume()
    assert driver.codes[-1] == 250
    driver.receive(b"QUIT\r\n")
    assert driver.codes[-2:] == [250, 221]
