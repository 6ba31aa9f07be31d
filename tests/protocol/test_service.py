"""What an adapter builds on: the conversations of a server, and the jobs they hand out."""

from collections.abc import Generator
from concurrent.futures import Future

import pytest

from lmtp_proto import (
    Effect,
    Extension,
    Handler,
    HandlerError,
    Interrupt,
    Limits,
    Log,
    Receive,
    Run,
    Send,
    Service,
    Session,
    Settings,
)


def _say(conversation: Generator[Effect, None, None], octets: bytes) -> bytes:
    """What the server writes before it reads, and in answer to `octets`."""
    output = b""
    for effect in conversation:
        match effect:
            case Send(data=data):
                output += data
            case Receive():
                effect.outcome, octets = octets, b""
            case _:
                assert isinstance(effect, Log)
    return output


class _Peers(Handler):
    def __init__(self) -> None:
        self.met: list[Session] = []

    def connect(self, session: Session, /) -> None:
        self.met.append(session)


class TestService:
    def test_conversations_are_of_their_peers(self) -> None:
        handler = _Peers()
        service = Service(handler, None)
        for peer, client_ip in (("192.0.2.1:4711", "192.0.2.1"), ("unix", None)):
            session = Session(peer=peer, client_ip=client_ip)
            output = _say(service.converse(session, lambda: 0.0), b"QUIT\r\n")
            assert output.startswith(b"220 localhost ")
            assert output.endswith(b"\r\n221 2.0.0 bye\r\n")
        assert [(met.peer, met.client_ip) for met in handler.met] == [
            ("192.0.2.1:4711", "192.0.2.1"),
            ("unix", None),
        ]

    def test_one_flag_stops_them_all(self) -> None:
        service = Service(Handler(), None)
        service.stop_flag.requested = True
        for _ in range(2):
            output = _say(service.converse(Session(peer="unix"), lambda: 0.0), b"")
            assert output.startswith(b"421 4.3.2 ")

    def test_a_server_that_retires_ends_sessions_that_rest(self) -> None:
        service = Service(Handler(), None)
        service.stop_flag.retiring = True
        # Who has had no transaction yet may have one, and finish it.
        steps = [
            (b"LHLO x\r\n", False, b"220 localhost "),
            (b"MAIL FROM:<>\r\n", False, b"250"),
            (b"RSET\r\n", False, b"250 2.1.0 "),
        ]
        output = b""
        for effect in service.converse(Session(peer="unix"), lambda: 0.0):
            match effect:
                case Send(data=data):
                    output += data
                case Receive():
                    octets, resting, said = steps.pop(0)
                    assert effect.resting is resting
                    assert output.startswith(said)
                    output = b""
                    effect.outcome = octets
                case _:
                    raise AssertionError(effect)
        assert not steps
        assert output == b"250 2.0.0 OK\r\n421 4.3.2 the server is shutting down\r\n"

    def test_a_session_that_rests_is_woken_to_end(self) -> None:
        service = Service(Handler(), None)
        octets = b"LHLO x\r\nMAIL FROM:<>\r\nRSET\r\n"
        output = b""
        for effect in service.converse(Session(peer="unix"), lambda: 0.0):
            match effect:
                case Send(data=data):
                    output += data
                case Receive(resting=True):
                    service.stop_flag.retiring = True
                    effect.outcome = Interrupt.STOP
                case Receive():
                    effect.outcome, octets = octets, b""
        assert output.endswith(b"\r\n421 4.3.2 the server is shutting down\r\n")

    def test_the_limits_are_those_of_the_settings(self) -> None:
        limits = Limits(recipients=7)
        assert Service(Handler(), Settings(limits=limits)).limits is limits

    @pytest.mark.parametrize("starttls", [False, True])
    def test_starttls_is_for_connections_that_have_it(self, starttls: bool) -> None:
        with pytest.raises(ValueError, match="STARTTLS"):
            Service(Handler(), Settings(extensions=frozenset({Extension.STARTTLS})))
        service = Service(Handler(), None)
        conversation = service.converse(Session(peer="unix"), lambda: 0.0, starttls=starttls)
        assert (b"STARTTLS\r\n" in _say(conversation, b"LHLO x\r\n")) is starttls


class _Awaitable:
    def __await__(self) -> Generator[None, None, int]:
        yield
        return 7


async def _coroutine() -> int:
    return 7


class TestRun:
    """A job that is run in place, as runtimes without a loop do."""

    def test_a_callable(self) -> None:
        run = Run(lambda: 7)
        run.run()
        assert run.done
        assert run.outcome() == 7

    def test_a_future_is_waited_for(self) -> None:
        future: Future[object] = Future()
        future.set_result(7)
        run = Run(future)
        run.run()
        assert run.outcome() == 7

    def test_a_future_that_fails(self) -> None:
        future: Future[object] = Future()
        future.set_exception(OSError("full"))
        run = Run(future)
        run.run()
        with pytest.raises(OSError, match="full"):
            run.outcome()

    @pytest.mark.parametrize("make", [_coroutine, _Awaitable])
    def test_an_awaitable_is_for_asyncio_alone(self, make: type[_Awaitable]) -> None:
        # The coroutine is closed: else it would be warned of, and warnings are errors.
        run = Run(make())
        run.run()
        with pytest.raises(HandlerError, match="no awaitable"):
            run.outcome()

    def test_a_job_ends_no_process(self) -> None:
        def leave() -> None:
            raise SystemExit(3)

        run = Run(leave)
        run.run()
        with pytest.raises(HandlerError, match="SystemExit"):
            run.outcome()

    def test_but_whoever_sits_at_the_keyboard_does(self) -> None:
        def interrupt() -> None:
            raise KeyboardInterrupt

        run = Run(interrupt)
        with pytest.raises(KeyboardInterrupt):
            run.run()
        assert not run.done
