"""The load generator: one process, one epoll loop, octets built beforehand, every reply checked.

Run as `python -m benchmarks._load ADDRESS ...`. Standard output carries one JSON object a line:
`{"event": "begin"}` before the measured window opens, `{"event": "end"}` after it has closed, then
`{"event": "result", ...}`. With `--paced` it goes on behind `begin` and `end` only when a line
comes on standard input, so that whoever started it can read the server's clocks while nothing
moves.

Invariant: a message belongs wholly to the warm-up or wholly to the window. Each phase starts
messages until its time or count is used up and ends when the last of them has its final replies,
so the server's work between `begin` and `end` is exactly the work for the messages counted. A
connection whose replies are wrong in number, order or code is cut at once, counted and reported;
it never counts another message.
"""

import argparse
import gc
import json
import math
import select
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from benchmarks._messages import content, on_the_wire
from benchmarks._statistics import percentile

_READ = 1 << 16
_MAX_SAMPLES = 5


@dataclass(frozen=True, kw_only=True)
class Load:
    """What to send. `size` in octets of content; `warmup`, `duration` and `timeout` in seconds.

    The window closes after `duration` or `messages`, whichever comes first. Connection k addresses
    the mailboxes `u<k*recipients>` and following, modulo `mailboxes`, in `domain`. `mode` is
    "pipelined" (MAIL, RCPT and DATA in one flight), "unpipelined" (each command waits for its
    reply) or "ahead" (as pipelined, and the next envelope travels behind the dot).
    """

    connections: int = 10
    recipients: int = 1
    size: int = 10_000
    dots: bool = True
    mode: str = "pipelined"
    messages: int | None = None
    duration: float = math.inf
    warmup: float = 0.0
    replies: int | None = None
    mailboxes: int = 100
    domain: str = "example.org"
    timeout: float = 30.0


@dataclass(kw_only=True)
class Result:
    """What the window showed. Times in seconds, latencies in milliseconds, MB = 10**6 octets of
    content.

    `acknowledged` counts the messages of warm-up and window together. `bad_replies` counts
    connections cut for wrong, missing or surplus replies, `connection_errors` those that could not
    be opened or were closed early.
    """

    messages: int = 0
    acknowledged: int = 0
    octets: int = 0
    seconds: float = 0.0
    messages_per_second: float = 0.0
    megabytes_per_second: float = 0.0
    p50_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None
    bad_replies: int = 0
    connection_errors: int = 0
    samples: list[str] = field(default_factory=list)
    generator_cpu_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Step:
    """Octets sent in one flight and the reply codes owed for them, each as three digits and a
    space.
    """

    octets: bytes
    codes: tuple[bytes, ...]
    starts: bool = False
    finishes: bool = False


class _BadReplyError(Exception):
    """The server's replies are not those owed; the text says which came."""


class _Connection:
    __slots__ = (
        "closing",
        "epoll_out",
        "matched",
        "message_steps",
        "position",
        "received",
        "sent_at",
        "sock",
        "started_at",
        "step",
        "unsent",
    )

    def __init__(self, sock: socket.socket, steps: tuple[_Step, ...]) -> None:
        self.sock = sock
        self.message_steps = steps
        # The index of `step` in `message_steps`; outside messages, of the last of them.
        self.position = len(steps) - 1
        self.step: _Step | None = None
        self.matched = 0
        self.received = b""
        self.unsent: memoryview | None = None
        self.epoll_out = False
        self.sent_at = 0.0
        self.started_at = 0.0
        self.closing = False

    def take(self, data: bytes) -> bool:
        """Check `data` against the replies owed; true when the last of them has come.

        Raises _BadReplyError for a wrong code, a surplus reply, or a reply to octets not yet sent.
        """
        step = self.step
        if step is None:
            raise _BadReplyError(f"unasked: {data[:200]!r}")
        lines = (self.received + data).split(b"\r\n")
        self.received = lines.pop()
        codes = step.codes
        for line in lines:
            if self.matched == len(codes):
                raise _BadReplyError(f"surplus reply: {line[:200]!r}")
            code = codes[self.matched]
            if line[:4] == code or line == code[:3]:
                self.matched += 1
            elif line[:3] != code[:3] or line[3:4] != b"-":
                owed = code[:3].decode()
                raise _BadReplyError(f"reply {self.matched + 1} should be {owed}: {line[:200]!r}")
        if self.matched < len(codes):
            return False
        if self.received:
            raise _BadReplyError(f"surplus reply: {self.received[:200]!r}")
        if self.unsent is not None:
            raise _BadReplyError("replies came before the content had been sent")
        return True


def _steps(load: Load, number: int, wire: bytes) -> tuple[_Step, ...]:
    """Return the flights of one message on connection `number`: the envelope's, then the content's
    last.
    """
    # The content is shared by all connections: only the envelopes differ.
    first = number * load.recipients
    mail = b"MAIL FROM:<load@example.com>\r\n"
    rcpts = [
        f"RCPT TO:<u{(first + i) % load.mailboxes}@{load.domain}>\r\n".encode()
        for i in range(load.recipients)
    ]
    finals = (b"250 ",) * (load.recipients if load.replies is None else load.replies)
    body = _Step(wire, finals, finishes=True)
    if load.mode == "unpipelined":
        return (
            _Step(mail, (b"250 ",), starts=True),
            *(_Step(rcpt, (b"250 ",)) for rcpt in rcpts),
            _Step(b"DATA\r\n", (b"354 ",)),
            body,
        )
    codes = (b"250 ",) * (1 + load.recipients) + (b"354 ",)
    envelope = mail + b"".join(rcpts) + b"DATA\r\n"
    opening = _Step(envelope, codes, starts=True)
    if load.mode == "pipelined":
        return (opening, body)
    both = _Step(wire + envelope, finals + codes, starts=True, finishes=True)
    return (opening, both, body)


class _Generator:
    """Drives all connections through the phases greeting, warm-up, window, farewell."""

    def __init__(self, address: str, load: Load) -> None:
        self._address = address
        self._load = load
        self._epoll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._busy = 0
        self._left: float = 0
        self._deadline = 0.0
        self._latencies: list[float] = []
        self.result = Result()

    def run(self, on_begin: Callable[[], None], on_end: Callable[[], None]) -> Result:
        load, result = self._load, self.result
        self._connect()
        self._exchange(_Step(b"", (b"220 ",)))
        self._exchange(_Step(b"LHLO load.example.com\r\n", (b"250 ",)))
        if load.warmup > 0:
            self._phase(math.inf, load.warmup)
            result.acknowledged = len(self._latencies)
            self._latencies.clear()
        on_begin()
        cpu = time.process_time()
        began = time.perf_counter()
        self._phase(math.inf if load.messages is None else load.messages, load.duration)
        result.seconds = time.perf_counter() - began
        result.generator_cpu_seconds = time.process_time() - cpu
        on_end()
        self._farewell()
        self._summarise()
        return result

    def _connect(self) -> None:
        # Dot-stuffing is not counted: MB/s are of content.
        wire = on_the_wire(content(self._load.size, dots=self._load.dots))
        for number in range(self._load.connections):
            try:
                sock = connect(self._address, self._load.timeout)
            except OSError as error:
                self.result.connection_errors += 1
                self._sample(f"connection {number}: {error}")
                continue
            sock.setblocking(False)
            connection = _Connection(sock, _steps(self._load, number, wire))
            self._connections[sock.fileno()] = connection
            self._epoll.register(sock.fileno(), select.EPOLLIN)

    def _exchange(self, step: _Step) -> None:
        """Take every connection through `step`, which belongs to no message."""
        self._left = 0
        self._busy = len(self._connections)
        for connection in list(self._connections.values()):
            connection.position = len(connection.message_steps) - 1
            self._start(connection, step)
        self._poll_until_idle()

    def _phase(self, messages: float, seconds: float) -> None:
        """Send messages until `messages` were started or `seconds` have passed, then wait for the
        last.
        """
        self._left = messages
        self._deadline = time.perf_counter() + seconds
        for connection in list(self._connections.values()):
            if self._may_start():
                self._busy += 1
                self._start_message_step(connection, 0)
        self._poll_until_idle()

    def _farewell(self) -> None:
        """QUIT everywhere: a reply too many of the last message shows here at the latest."""
        for connection in self._connections.values():
            connection.closing = True
        self._exchange(_Step(b"QUIT\r\n", (b"221 ",)))
        self._epoll.close()

    def _may_start(self) -> bool:
        if self._left < 1 or time.perf_counter() >= self._deadline:
            return False
        self._left -= 1
        return True

    def _poll_until_idle(self) -> None:
        connections = self._connections
        while self._busy:
            events = self._epoll.poll(self._load.timeout)
            if not events:
                self._give_up()
                return
            for number, event in events:
                connection = connections.get(number)
                if connection is None:
                    continue
                if event & select.EPOLLOUT:
                    self._send(connection)
                if event & ~select.EPOLLOUT and number in connections:
                    self._receive(connection)

    def _receive(self, connection: _Connection) -> None:
        try:
            data = connection.sock.recv(_READ)
        except BlockingIOError:
            return
        except OSError as error:
            self._drop(connection, str(error), bad=False)
            return
        step = connection.step
        if not data:
            if connection.closing and step is None:
                self._drop(connection)
            else:
                self._drop(connection, f"closed by the server: {_owed(connection)}", bad=False)
            return
        try:
            if not connection.take(data):
                return
        except _BadReplyError as error:
            self._drop(connection, str(error), bad=True)
            return
        assert step is not None
        if step.finishes:
            self._latencies.append(time.perf_counter() - connection.started_at)
        if step.starts:
            connection.started_at = connection.sent_at
        self._advance(connection, step)

    def _advance(self, connection: _Connection, step: _Step) -> None:
        """Start what follows the completed `step`."""
        following = connection.position + 1
        if connection.closing:
            # 221 has come: the server's close is still to be seen.
            connection.step = None
        elif self._load.mode == "ahead" and step.starts:
            # Whether another message starts has to be known before this one's content goes out.
            self._start_message_step(connection, 1 if self._may_start() else 2)
        elif following < len(connection.message_steps):
            self._start_message_step(connection, following)
        elif self._may_start():
            self._start_message_step(connection, 0)
        else:
            connection.step = None
            self._busy -= 1

    def _start_message_step(self, connection: _Connection, position: int) -> None:
        connection.position = position
        self._start(connection, connection.message_steps[position])

    def _start(self, connection: _Connection, step: _Step) -> None:
        connection.step = step
        connection.matched = 0
        connection.sent_at = time.perf_counter()
        if not step.octets:
            return
        connection.unsent = memoryview(step.octets)
        self._send(connection)

    def _send(self, connection: _Connection) -> None:
        unsent = connection.unsent
        if unsent is None:
            return
        try:
            sent = connection.sock.send(unsent)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._drop(connection, str(error), bad=False)
            return
        if sent == len(unsent):
            connection.unsent = None
            if connection.epoll_out:
                connection.epoll_out = False
                self._epoll.modify(connection.sock.fileno(), select.EPOLLIN)
            return
        connection.unsent = unsent[sent:]
        if not connection.epoll_out:
            connection.epoll_out = True
            self._epoll.modify(connection.sock.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _give_up(self) -> None:
        """Nothing moved for the whole timeout: those that still wait have been left without
        replies.
        """
        for connection in list(self._connections.values()):
            if connection.step is not None or connection.closing:
                text = f"nothing for {self._load.timeout:g} s: {_owed(connection)}"
                self._drop(connection, text, bad=True)

    def _drop(
        self, connection: _Connection, problem: str | None = None, *, bad: bool = False
    ) -> None:
        """Close `connection`, and count `problem` as a bad reply or as a connection error."""
        if problem is not None:
            if bad:
                self.result.bad_replies += 1
            else:
                self.result.connection_errors += 1
            self._sample(problem)
        if connection.step is not None or connection.closing:
            self._busy -= 1
        del self._connections[connection.sock.fileno()]
        connection.sock.close()

    def _sample(self, text: str) -> None:
        samples = self.result.samples
        if len(samples) < _MAX_SAMPLES and text not in samples:
            samples.append(text)

    def _summarise(self) -> None:
        result = self.result
        latencies = sorted(self._latencies)
        result.messages = len(latencies)
        result.acknowledged += len(latencies)
        result.octets = len(latencies) * self._load.size
        if latencies:
            result.messages_per_second = len(latencies) / result.seconds
            result.megabytes_per_second = result.octets / result.seconds / 1e6
            result.p50_ms = percentile(latencies, 50) * 1000
            result.p99_ms = percentile(latencies, 99) * 1000
            result.max_ms = latencies[-1] * 1000


def _owed(connection: _Connection) -> str:
    step = connection.step
    if step is None:
        return "still open after QUIT" if connection.closing else "between messages"
    rest = f", then {connection.received[:200]!r}" if connection.received else ""
    return f"{connection.matched} of {len(step.codes)} replies had come{rest}"


def connect(address: str, timeout: float) -> socket.socket:
    """Connect to `address`, "HOST:PORT", "[IPV6]:PORT" or "unix:PATH". Raises OSError."""
    if address.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(timeout)
            sock.connect(address.removeprefix("unix:"))
        except OSError:
            sock.close()
            raise
        return sock
    host, _, port = address.rpartition(":")
    sock = socket.create_connection((host.strip("[]"), int(port)), timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def arguments_for(address: str, load: Load) -> list[str]:
    """Return the command line arguments that make `main` send `load` to `address`."""
    arguments = [address]
    for name, value in asdict(load).items():
        if name == "dots":
            arguments += [] if value else ["--no-dots"]
        elif value is not None:
            arguments += [f"--{name}", str(value)]
    return arguments


def _parser() -> argparse.ArgumentParser:
    defaults = Load()
    parser = argparse.ArgumentParser(prog="python -m benchmarks._load", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("address", help="HOST:PORT, [IPV6]:PORT or unix:PATH")
    parser.add_argument("--connections", type=int, default=defaults.connections)
    parser.add_argument("--recipients", type=int, default=defaults.recipients)
    parser.add_argument("--size", type=int, default=defaults.size, help="octets of content")
    parser.add_argument("--no-dots", dest="dots", action="store_false", help="no dot-stuffed lines")
    parser.add_argument(
        "--mode", choices=("pipelined", "unpipelined", "ahead"), default=defaults.mode
    )
    parser.add_argument("--messages", type=int, help="close the window after so many")
    parser.add_argument("--duration", type=float, default=defaults.duration, help="seconds")
    parser.add_argument("--warmup", type=float, default=defaults.warmup, help="seconds")
    parser.add_argument(
        "--replies", type=int, help="final replies a message, if not one a recipient"
    )
    parser.add_argument("--mailboxes", type=int, default=defaults.mailboxes)
    parser.add_argument("--domain", default=defaults.domain)
    parser.add_argument(
        "--timeout", type=float, default=defaults.timeout, help="seconds of silence"
    )
    parser.add_argument("--paced", action="store_true", help="wait for a line behind begin and end")
    return parser


def _say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


def main() -> int:
    """Send the load and print the events; exit 0 only if every reply was right."""
    parser = _parser()
    values = vars(parser.parse_args())
    address = values.pop("address")
    paced = values.pop("paced")
    load = Load(**values)
    if load.messages is None and load.duration == math.inf:
        parser.error("give --messages or --duration: without either the load would never end")
    # A collection in the middle would count as the server's latency.
    gc.disable()

    def say(event: str) -> None:
        _say(event=event)
        if paced:
            sys.stdin.readline()

    result = _Generator(address, load).run(lambda: say("begin"), lambda: say("end"))
    _say(event="result", **asdict(result))
    return 1 if result.bad_replies or result.connection_errors else 0


if __name__ == "__main__":
    sys.exit(main())
