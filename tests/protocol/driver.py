"""A runtime without I/O: performs the effects of a conversation and keeps what they did."""

from concurrent.futures import Future

from lmtp_proto import (
    Effect,
    Handler,
    Handshake,
    Interrupt,
    Log,
    Receive,
    Run,
    Send,
    Session,
    Settings,
    StopFlag,
    Wait,
    converse,
)


class Driver:
    """Runs one conversation up to the effect that cannot be performed yet.

    Callables run in place; futures are waited for. Time stands still unless `now` is moved.
    """

    def __init__(
        self,
        handler: Handler,
        settings: Settings | None = None,
        *,
        tls: str | None = None,
        stop: StopFlag | None = None,
    ) -> None:
        settings = settings or Settings()
        self.session = Session(peer="192.0.2.1:4711", client_ip="192.0.2.1", id="session")
        self.stop = stop or StopFlag()
        self.now = 1000.0
        self.tls = tls
        self.writes: list[bytes] = []
        """What each Send wrote."""
        self.write_deadlines: list[float] = []
        self.logs: list[Log] = []
        self.closed = False
        """Whether the conversation is over."""
        self.blocked: Effect | None = None
        """The Receive or Wait that has to be satisfied next."""
        self._conversation = converse(
            handler,
            self.session,
            settings,
            parser=settings.parser(),
            clock=lambda: self.now,
            stop=self.stop,
        )
        self._run()

    @property
    def output(self) -> bytes:
        """All octets written."""
        return b"".join(self.writes)

    @property
    def codes(self) -> list[int]:
        """The reply codes written, one a reply."""
        lines = self.output.split(b"\r\n")[:-1]
        return [int(line[:3]) for line in lines if line[3:4] == b" "]

    @property
    def waiting(self) -> bool:
        """Whether the conversation waits for a job."""
        return isinstance(self.blocked, Wait)

    @property
    def deadline(self) -> float:
        """The deadline of the read that is under way."""
        assert isinstance(self.blocked, Receive)
        return self.blocked.deadline

    def receive(self, data: bytes) -> None:
        """Read `data`, not empty."""
        assert data
        self._received(data)

    def eof(self) -> None:
        """Read the end."""
        self._received(b"")

    def interrupt(self, reason: Interrupt) -> None:
        """End the read under way without octets."""
        self._received(reason)

    def resume(self) -> None:
        """Go on after a job that was waited for has ended."""
        assert isinstance(self.blocked, Wait)
        assert self.blocked.run.done
        self._run()

    def cut(self) -> None:
        """Close the conversation where it stands."""
        self._conversation.close()
        self.closed = True

    def _received(self, outcome: bytes | Interrupt) -> None:
        assert isinstance(self.blocked, Receive), f"blocked at {self.blocked!r}"
        self.blocked.outcome = outcome
        self._run()

    def _run(self) -> None:
        self.blocked = None
        for effect in self._conversation:
            match effect:
                case Receive():
                    self.blocked = effect
                    return
                case Send():
                    self.writes.append(effect.data)
                    self.write_deadlines.append(effect.deadline)
                case Run():
                    begin(effect)
                case Wait(run=run):
                    if not run.done:
                        self.blocked = effect
                        return
                case Handshake():
                    effect.outcome = self.tls
                case Log():
                    self.logs.append(effect)
        self.closed = True


def begin(run: Run) -> None:
    """Begin a job: a future settles the run once it is done, all else runs here."""
    job = run.job
    if isinstance(job, Future):
        job.add_done_callback(lambda future: _settle(run, future))
    else:
        run.run()


def _settle(run: Run, future: "Future[object]") -> None:
    try:
        value = future.result()
    except BaseException as error:
        run.fail(error)
    else:
        run.succeed(value)
