"""Connections to a listening server.

How to connect is a generator of steps, so that it is the same where a runtime waits in place and
where it does not. The deadline holds for all addresses of a host together.
"""

import os
import select
import socket
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from ._address import TcpAddress, UnixAddress

# Seconds until a UNIX socket whose queue of connections was full is tried again.
_PAUSE: Final = 0.05
# The longest time poll() takes at once, in seconds: its milliseconds are an int of C.
_LONGEST_POLL: Final = 86_400.0

AddressInfo: TypeAlias = tuple[int, int, int, str, Any]
"""As `socket.getaddrinfo()` gives them."""


class Resolve:
    """Find the `addresses` of a host, as `socket.getaddrinfo(host, port, type=SOCK_STREAM)` does;
    `error` is what it raises."""

    __slots__ = ("addresses", "error", "host", "port")

    def __init__(self, host: str, port: int) -> None:
        self.host: Final = host
        self.port: Final = port
        self.addresses: Sequence[AddressInfo] = ()
        self.error: OSError | None = None


class AwaitConnected:
    """Wait until `sock` can be written; `outcome` is False when `deadline` came first."""

    __slots__ = ("deadline", "outcome", "sock")

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self.sock: Final = sock
        self.deadline: Final = deadline
        self.outcome = False


@dataclass(frozen=True, slots=True)
class Pause:
    """Let `seconds` go by."""

    seconds: float


ConnectStep: TypeAlias = Resolve | AwaitConnected | Pause


def wait_for_socket(sock: socket.socket, writing: bool, deadline: float) -> bool:
    """Wait in this thread until `sock` can be written, or read: False when `deadline`, in seconds
    of `time.monotonic()`, has passed first."""
    # poll(), unlike select(), takes descriptors beyond 1023.
    poll = select.poll()
    poll.register(sock, select.POLLOUT if writing else select.POLLIN)
    while True:
        left = deadline - time.monotonic()
        if poll.poll(min(max(left, 0.0), _LONGEST_POLL) * 1000):
            return True
        if left <= 0:
            return False


def _resolve(host: str, port: int) -> Sequence[AddressInfo]:
    # Octets, for text is checked as an IDNA name first and raises other errors.
    return socket.getaddrinfo(host.encode(), port, type=socket.SOCK_STREAM)


@dataclass(frozen=True, slots=True)
class Waiting:
    """How a runtime waits in which that can be done in place."""

    wait: Callable[[socket.socket, bool, float], bool] = wait_for_socket
    """As `wait_for_socket()`."""
    resolve: Callable[[str, int], Sequence[AddressInfo]] = _resolve
    """The addresses of a host, raises OSError."""
    pause: Callable[[float], object] = time.sleep
    """Lets as many seconds go by."""


THREAD: Final = Waiting()
"""Holds up the thread."""


def connect(
    address: TcpAddress | UnixAddress, timeout: float, waiting: Waiting = THREAD
) -> socket.socket:
    """Connect to `address` within `timeout` seconds, trying all addresses of a host name in turn.

    The socket does not block. Raises OSError that says what is wrong and where.
    """
    steps = connecting(address, timeout, time.monotonic)
    try:
        while True:
            step = next(steps)
            match step:
                case AwaitConnected():
                    step.outcome = waiting.wait(step.sock, True, step.deadline)
                case Pause():
                    waiting.pause(step.seconds)
                case Resolve():
                    try:
                        step.addresses = waiting.resolve(step.host, step.port)
                    except OSError as error:
                        step.error = error
    except StopIteration as end:
        sock: socket.socket = end.value
        return sock
    finally:
        steps.close()


def connecting(
    address: TcpAddress | UnixAddress, timeout: float, clock: Callable[[], float]
) -> Generator[ConnectStep, None, socket.socket]:
    """Connect as `connect()` does. Left early, it leaves no socket behind."""
    deadline = clock() + timeout
    try:
        if isinstance(address, UnixAddress):
            return (
                yield from _connect(
                    (socket.AF_UNIX, socket.SOCK_STREAM, 0, "", address.path), deadline, clock
                )
            )
        found = Resolve(address.host, address.port)
        yield found
        failure = found.error
        for tried, info in enumerate(found.addresses):
            now = clock()
            # What does not answer leaves time for those behind it.
            share = (deadline - now) / (len(found.addresses) - tried)
            try:
                sock = yield from _connect(info, now + share, clock)
            except OSError as error:
                failure = error
            else:
                # Commands are gathered before they are written: waiting would only delay them.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return sock
        raise failure or OSError("the host has no address")
    except OSError as error:
        raise _explained(error, address) from error


def _connect(
    info: AddressInfo, deadline: float, clock: Callable[[], float]
) -> Generator[ConnectStep, None, socket.socket]:
    family, kind, protocol, _, name = info
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        while True:
            try:
                sock.connect(name)
            except BlockingIOError:
                if family == socket.AF_UNIX:
                    # connect(2), EAGAIN: the queue is full, and nothing tells when it is not.
                    if clock() >= deadline:
                        raise TimeoutError("timed out") from None
                    yield Pause(_PAUSE)
                    continue
                writable = AwaitConnected(sock, deadline)
                yield writable
                if not writable.outcome:
                    raise TimeoutError("timed out") from None
                number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if number:
                    raise OSError(number, os.strerror(number)) from None
            return sock
    except BaseException:
        sock.close()
        raise


def _explained(error: OSError, address: TcpAddress | UnixAddress) -> OSError:
    """The error that says where nobody can be connected to, of the kind that `error` is."""
    reason = error.strerror or str(error)
    text = f"cannot connect to {address}: {reason}"
    # An errno makes the subclass, such as ConnectionRefusedError; those of getaddrinfo() are none.
    if isinstance(error, socket.gaierror):
        return socket.gaierror(error.errno, text)
    if isinstance(error, TimeoutError):
        return TimeoutError(text)
    return OSError(error.errno, text)
