"""What a conversation asks its runtime to do.

A conversation is a generator that yields effects; the runtime performs each, fills its result in
and goes on. An effect object may be yielded many times.
"""

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol, TypeGuard, TypeVar

from ._errors import HandlerError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Pending(Protocol[T_co]):
    """A result that comes from elsewhere, such as a `concurrent.futures.Future`."""

    def add_done_callback(self, callback: Callable[[object], object], /) -> object:
        """Call `callback` once the result is there, from any thread."""

    def result(self) -> T_co:
        """The result, or the exception raised."""


Job = Callable[[], T] | Pending[T] | Awaitable[T]
"""Work that is not done yet: a callable that may block, a future, or (asyncio only) an awaitable.
The runtime runs a callable where it holds up no other session."""


def is_job(answer: object) -> TypeGuard[Job[object]]:
    """Whether a handler's answer is work that is not done yet."""
    if callable(answer):
        return True
    try:
        return hasattr(answer, "add_done_callback") or hasattr(answer, "__await__")
    except Exception:
        # An object that cannot even be asked for its attributes is no work either.
        return False


class Interrupt(Enum):
    """Why `Receive` ended without octets."""

    TIMEOUT = "the deadline has passed"
    STOP = "the server stops"


class Receive:
    """Read what is there: `outcome` becomes the octets, `b""` when the peer sends no more, or an
    `Interrupt`. `deadline` is in the time of the conversation's clock. `resting` says that a
    server's client has had a transaction and is not amid another: a server that retires ends the
    wait by `Interrupt.STOP`."""

    __slots__ = ("deadline", "outcome", "resting")

    def __init__(self) -> None:
        self.deadline = 0.0
        self.resting = False
        self.outcome: bytes | Interrupt = b""


class Send:
    """Write `data`. A peer that has gone is no error, nor is one that has not read all of it by
    `deadline`: it is given up, and the next `Receive` gives `b""`."""

    __slots__ = ("data", "deadline")

    def __init__(self) -> None:
        self.data = b""
        self.deadline = 0.0


class Run:
    """Begin `job` and go on at once; `done` with its `value` or `error` when it is over.

    The first word on it counts: a job that ends a second time changes nothing.
    """

    __slots__ = ("abandoned", "done", "error", "job", "value")

    def __init__(self, job: Job[object]) -> None:
        self.job: Final = job
        # Takes the value of a job that nobody waits for any more.
        self.abandoned: Callable[[object], None] | None = None
        self.done = False
        self.value: object = None
        self.error: BaseException | None = None

    def succeed(self, value: object) -> None:
        """The runtime's word that the job is over."""
        if self.done:
            return
        self.value = value
        self.done = True
        if self.abandoned is not None:
            self.abandoned(value)

    def fail(self, error: BaseException) -> None:
        """The runtime's word that the job has raised `error`."""
        if self.done:
            return
        self.error = error
        self.done = True

    def outcome(self) -> object:
        """The value of a job that is over; raises what the job raised."""
        error = self.error
        if error is None:
            return self.value
        if isinstance(error, Exception):
            raise error
        # A cancelled task's CancelledError would unwind the session, not only this job.
        raise HandlerError(f"the job ended with {type(error).__name__}") from error

    def run(self) -> None:
        """Run a callable here and now, or wait here for a future."""
        job = self.job
        try:
            if callable(job):
                self.succeed(job())
            elif isinstance(job, Awaitable):
                if isinstance(job, Coroutine):
                    job.close()
                raise HandlerError("this runtime takes no awaitable: return a callable or a future")
            else:
                self.succeed(job.result())
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            # A job that wants to end the process, or was cancelled, has failed; no more.
            self.fail(error)


class Wait:
    """Go on when `run` is done."""

    __slots__ = ("run",)

    def __init__(self, run: Run) -> None:
        self.run: Final = run


class GiveWay:
    """Let other sessions have their turn, then go on: this one has octets for many more."""

    __slots__ = ()


class Handshake:
    """Do the TLS handshake, as the side whose conversation this is.

    `outcome` becomes protocol and cipher as text, None when the handshake failed or was not over by
    `deadline`; `error` is why then. `certificate` becomes the peer's, as
    `ssl.SSLSocket.getpeercert()` gives it, None where none was shown or verified. Whom a client's
    handshake has to convince of whose name is the runtime's to know.
    """

    __slots__ = ("certificate", "deadline", "error", "outcome")

    def __init__(self) -> None:
        self.deadline = 0.0
        self.outcome: str | None = None
        self.certificate: Mapping[str, object] | None = None
        self.error: Exception | None = None


class Severity(Enum):
    """How much a `Log` matters; the values are those of the logging module."""

    INFO = 20
    WARNING = 30
    ERROR = 40


@dataclass(frozen=True, slots=True)
class Log:
    """Write a log line; `text` is escaped already. `error` is the exception behind it."""

    severity: Severity
    text: str
    error: BaseException | None = None


Effect = Receive | Send | Run | Wait | GiveWay | Handshake | Log
