"""What the protocol costs by itself: the machines of server and client, without a socket.

Every figure is CPU time of one thread. A run also measures an asyncio exchange that does nothing:
the cost of a small transaction over that of the exchange can be compared between machines, the
microseconds cannot. Adversarial splits are measured at N and at 4 N; the ratio of the costs per
octet is 1 where the work is linear.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import _facts
from benchmarks._exchange import cpu_seconds_each
from benchmarks._messages import content, on_the_wire
from benchmarks._report import number
from benchmarks._statistics import Summary, paired_ratio, summarise
from lmtp_proto import (
    PAUSED,
    Address,
    Bdat,
    ClientConnection,
    CommandParser,
    Data,
    EndOfChunk,
    EndOfContent,
    Fault,
    Lhlo,
    Limits,
    Mail,
    Noop,
    Rcpt,
    Recipient,
    RemainingReply,
    Reply,
    ServerConnection,
    Settings,
    Signal,
)

SUMMARY = "events/s and MB/s of the protocol alone, and that its work is linear"

# As much as asyncio reads at once.
_READ = 262_144
_SMALL = 1000
_LARGE = 10_000_000
_MANY = 50
_OK = Reply(250, "OK", enhanced="2.0.0")
_GREETING = Reply(220, "mx.example.org LMTP", enhanced="")
_GO = Reply(354, "end with a dot")
_CAPABILITIES = Reply(250, "mx.example.org", "PIPELINING", "CHUNKING", enhanced="")
# What a server that accepts everything says to each event that asks for an answer.
_ANSWERS: Mapping[type[object], Reply | RemainingReply] = {
    Lhlo: _CAPABILITIES,
    Mail: _OK,
    Rcpt: _OK,
    Data: _GO,
    EndOfChunk: _OK,
    EndOfContent: RemainingReply(reply=_OK),
    Noop: _OK,
}
_SENDER = Address("sender", "example.net")
_UNBOUNDED = Limits(message_size=2**40, discard=2**40, reply=2**30, faults=2**30)


@dataclass(frozen=True, kw_only=True)
class _Cost:
    """Of one measurement: what was done and the CPU seconds it took."""

    events: int
    octets: int
    transactions: int
    seconds: float


@dataclass(frozen=True)
class _Scenario:
    """`measure(repetitions)`; `repetitions` make it long enough to be timed."""

    role: str
    name: str
    repetitions: int
    measure: Callable[[int], _Cost]


@dataclass(frozen=True)
class _Split:
    """`measure(size)` gives the CPU seconds; what `size` counts is `unit`."""

    role: str
    name: str
    unit: str
    size: int
    measure: Callable[[int], float]


def _pieces(octets: bytes) -> list[bytes]:
    return [octets[start : start + _READ] for start in range(0, len(octets), _READ)]


def _mailbox(index: int) -> str:
    return f"u{index}@example.org"


class _Server:
    """A server's machine that accepts everything."""

    def __init__(self, limits: Limits | None = None) -> None:
        settings = Settings(limits=limits or Limits())
        parser = CommandParser(settings.limits, settings.extensions)
        self._connection = ServerConnection(parser=parser)
        self._connection.send(_GREETING)
        self.faults = 0
        self.receive(b"LHLO client.example.org\r\n")

    def receive(self, octets: bytes) -> int:
        """Take `octets`, answer all they ask; the number of events they made."""
        connection = self._connection
        connection.receive_data(octets)
        events = 0
        while True:
            event = connection.next_event()
            if isinstance(event, Signal):
                if event is PAUSED:
                    raise AssertionError("a reply is missing")
                return events
            events += 1
            answer = _ANSWERS.get(type(event))
            if answer is not None:
                connection.send(answer)
            elif isinstance(event, Fault):
                self.faults += 1
                connection.send(event.reply)


def _served(recipients: int, reads: Sequence[bytes]) -> Callable[[int], _Cost]:
    """Measure transactions of an envelope, in one read, and `reads`."""
    mailboxes = [_mailbox(index) for index in range(recipients)]
    lines = [f"MAIL FROM:<{_SENDER}>", *(f"RCPT TO:<{mailbox}>" for mailbox in mailboxes)]
    envelope = "".join(f"{line}\r\n" for line in lines).encode()
    # DATA ends the flight; BDAT and its octets come together.
    first = [envelope + b"DATA\r\n", *reads]
    if reads[0].startswith(b"BDAT"):
        first = [envelope + reads[0], *reads[1:]]
    octets = sum(map(len, first))

    def measure(repetitions: int) -> _Cost:
        server = _Server()
        events = 0
        begin = time.process_time()
        for _ in range(repetitions):
            for read in first:
                events += server.receive(read)
        seconds = time.process_time() - begin
        if server.faults:
            raise AssertionError(f"{server.faults} commands were refused")
        return _Cost(
            events=events,
            octets=octets * repetitions,
            transactions=repetitions,
            seconds=seconds,
        )

    return measure


def _client(limits: Limits | None = None) -> ClientConnection:
    client = ClientConnection(limits=limits)
    client.receive_data(_GREETING.wire)
    client.next_event()
    client.send(Lhlo(domain="client.example.org"))
    client.receive_data(_CAPABILITIES.wire)
    client.next_event()
    return client


def _drain(client: ClientConnection, octets: bytes) -> int:
    client.receive_data(octets)
    events = 0
    while not isinstance(client.next_event(), Signal):
        events += 1
    return events


def _submitted(recipients: int, message: bytes, *, chunked: bool) -> Callable[[int], _Cost]:
    """Measure transactions of a client; the server's replies are ready-made."""
    parts = _pieces(message)
    addresses = [Address(f"u{index}", "example.org") for index in range(recipients)]
    accepted = _OK.wire * (1 + recipients)

    def measure(repetitions: int) -> _Cost:
        client = _client()
        events = octets = 0
        begin = time.process_time()
        for index in range(repetitions):
            # A server names each message: no final reply comes twice.
            final = b"250 2.0.0 saved as %08x\r\n" % index * recipients
            sent = [client.send(Mail(reverse_path=_SENDER))]
            sent += [
                client.send(Rcpt(recipient=Recipient(address=address))) for address in addresses
            ]
            if chunked:
                sent.append(client.send(Bdat(size=len(message), last=True)))
                events += _drain(client, accepted)
                sent += [client.send_content(part) for part in parts]
            else:
                sent.append(client.send(Data()))
                events += _drain(client, accepted + _GO.wire)
                sent += [client.send_content(part) for part in parts]
                sent.append(client.end_content())
            events += _drain(client, final)
            octets += sum(map(len, sent))
        return _Cost(
            events=events,
            octets=octets,
            transactions=repetitions,
            seconds=time.process_time() - begin,
        )

    return measure


def _scenarios(large: int) -> list[_Scenario]:
    small = content(_SMALL)
    dots, plain = content(large), content(large, dots=False)
    # Every line begins with a dot: no content costs more.
    only_dots = b".\r\n" * (large // 3)
    megabytes = f"{large / 1_000_000:g} MB"
    chunk = _pieces(b"BDAT %d LAST\r\n" % len(dots) + dots)
    bodies = {"DATA": plain, "DATA, some dots": dots, "DATA, all dots": only_dots}
    return [
        _Scenario("server", "1 KB", 5000, _served(1, [on_the_wire(small)])),
        _Scenario("server", f"1 KB, {_MANY} recipients", 300, _served(_MANY, [on_the_wire(small)])),
        *(
            _Scenario("server", f"{megabytes}, {how}", 5, _served(1, _pieces(on_the_wire(body))))
            for how, body in bodies.items()
        ),
        _Scenario("server", f"{megabytes}, BDAT", 20, _served(1, chunk)),
        _Scenario("client", "1 KB", 5000, _submitted(1, small, chunked=False)),
        _Scenario(
            "client", f"1 KB, {_MANY} recipients", 300, _submitted(_MANY, small, chunked=False)
        ),
        *(
            _Scenario("client", f"{megabytes}, {how}", 5, _submitted(1, body, chunked=False))
            for how, body in bodies.items()
        ),
        _Scenario("client", f"{megabytes}, BDAT", 20, _submitted(1, dots, chunked=True)),
    ]


_ENVELOPE = b"MAIL FROM:<>\r\nRCPT TO:<u0@example.org>\r\n"


def _fed(begin: bytes, block: bytes, end: bytes, *, single: bool = False) -> Callable[[int], float]:
    """Measure a server that reads `block` over and over, in one read each or, `single`, in all."""

    def measure(count: int) -> float:
        server = _Server(_UNBOUNDED)
        server.receive(begin)
        whole = block * count if single else b""
        start = time.process_time()
        if single:
            server.receive(whole)
        else:
            for _ in range(count):
                server.receive(block)
        server.receive(end)
        return time.process_time() - start

    return measure


def _octet_by_octet(begin: bytes, pattern: bytes, end: bytes) -> Callable[[int], float]:
    """Measure a server that reads `pattern` over and over, one octet at a time."""
    octets = [bytes((octet,)) for octet in pattern]

    def measure(count: int) -> float:
        server = _Server(_UNBOUNDED)
        server.receive(begin)
        start = time.process_time()
        for position in range(count):
            server.receive(octets[position % len(octets)])
        server.receive(end)
        return time.process_time() - start

    return measure


def _replied(line: bytes, last: bytes, *, one_octet: bool) -> Callable[[int], float]:
    """Measure a client that reads a reply of many lines, at once or one octet at a time."""

    def measure(count: int) -> float:
        client = _client(_UNBOUNDED)
        client.send(Noop())
        octets = line * count + last
        pieces = [octets]
        if one_octet:
            pieces = [octets[position : position + 1] for position in range(len(octets))]
        start = time.process_time()
        events = sum(_drain(client, piece) for piece in pieces)
        if events != 1:
            raise AssertionError(f"{events} replies")
        return time.process_time() - start

    return measure


def _splits(scale: int) -> list[_Split]:
    """The adversarial splits at N; the largest lines are of `scale` blocks of 64 KiB."""
    block = b"x" * 65_536
    data = _ENVELOPE + b"DATA\r\n"
    chunk = _ENVELOPE + b"BDAT 1000000000 LAST\r\n"
    octets = min(25_000, scale * 100)
    lines = min(20_000, scale * 100)
    end = b"\r\n.\r\n"
    return [
        _Split("server", "commands, one octet at a time", "octets", octets, _octet_by_octet(
            b"", b"NOOP\r\n", b"\r\n")),
        _Split("server", "content, one octet at a time", "octets", octets, _octet_by_octet(
            data, b"abcdefg\r\n", end)),
        _Split("server", "dots, one octet at a time", "octets", octets, _octet_by_octet(
            data, b"\r\n..", end)),
        _Split("server", "a chunk, one octet at a time", "octets", octets, _octet_by_octet(
            chunk, b"x", b"")),
        _Split("server", "short commands in one read", "lines", lines, _fed(
            b"", b"NOOP\r\n", b"", single=True)),
        _Split("server", "malformed lines in one read", "lines", lines, _fed(
            b"", b"\r\n", b"", single=True)),
        _Split("server", "short lines of content in one read", "lines", lines, _fed(
            data, b"..\r\n", end, single=True)),
        _Split("server", "short lines of content, one a read", "lines", lines, _fed(
            data, b"..\r\n", end)),
        _Split("server", "one line of a command", "blocks of 64 KiB", scale, _fed(
            b"", block, b"\r\n")),
        _Split("server", "one line of content", "blocks of 64 KiB", scale, _fed(
            data, block, end)),
        _Split("client", "a long reply in one read", "lines", lines, _replied(
            b"250-x\r\n", b"250 x\r\n", one_octet=False)),
        _Split("client", "a long reply, one octet at a time", "lines", lines // 5, _replied(
            b"250-x\r\n", b"250 x\r\n", one_octet=True)),
    ]  # fmt: skip


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("--rounds", type=int, default=5, help="times each figure is taken (5)")
    parser.add_argument(
        "--quick", action="store_true", help="little of each, one round: shows that it works"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("benchmarks/results"),
        metavar="DIR",
        help="where results go (benchmarks/results)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure and report. Returns 0."""
    quick: bool = arguments.quick
    rounds = 1 if quick else arguments.rounds
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    scenarios = _scenarios(_LARGE // 100 if quick else _LARGE)
    # 4 N is a line of 1 GiB.
    splits = _splits(4 if quick else 4096)
    costs: list[dict[str, str | int | float]] = []
    yardstick: dict[int, float] = {}
    for index in range(rounds):
        yardstick[index] = cpu_seconds_each(200 if quick else 10_000) * 1e6
        for scenario in scenarios:
            cost = scenario.measure(2 if quick else scenario.repetitions)
            costs.append(
                {"role": scenario.role, "scenario": scenario.name, "round": index, **asdict(cost)}
            )
    linear = [_linearity(split, rounds) for split in splits]
    results = {
        "facts": _facts.facts(out),
        "yardstick_us": list(yardstick.values()),
        "measurements": costs,
        "splits": linear,
    }
    (out / "protocol.json").write_text(json.dumps(results, indent=1) + "\n")
    table = _markdown(scenarios, costs, yardstick, linear)
    (out / "protocol.md").write_text(table)
    print(table)
    return 0


def _linearity(split: _Split, rounds: int) -> dict[str, str | float]:
    # The best of the rounds: what else the machine did is no work of the split's.
    at_n = min(split.measure(split.size) for _ in range(rounds))
    at_4n = min(split.measure(4 * split.size) for _ in range(rounds))
    return {
        "role": split.role,
        "split": split.name,
        "unit": split.unit,
        "n": split.size,
        "seconds_n": at_n,
        "seconds_4n": at_4n,
    }


def _range(summary: Summary | None) -> str:
    if summary is None:
        return "–"
    return f"{number(summary.median)} [{number(summary.low)}–{number(summary.high)}]"


def _markdown(
    scenarios: list[_Scenario],
    costs: list[dict[str, str | int | float]],
    yardstick: dict[int, float],
    linear: list[dict[str, str | float]],
) -> str:
    lines = [
        f"An asyncio exchange that does nothing: {_range(summarise(list(yardstick.values())))} µs.",
        "",
        "| machine | scenario | events/s | µs a transaction | MB/s | ÷ the exchange |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for scenario in scenarios:
        events, micros, rates = {}, {}, {}
        for cost in costs:
            if (cost["role"], cost["scenario"]) != (scenario.role, scenario.name):
                continue
            index, seconds = int(cost["round"]), float(cost["seconds"]) or 1e-9
            events[index] = float(cost["events"]) / seconds
            micros[index] = seconds / float(cost["transactions"]) * 1e6
            rates[index] = float(cost["octets"]) / seconds / 1e6
        figures = [summarise(list(by_round.values())) for by_round in (events, micros, rates)]
        cells = [_range(figure) for figure in (*figures, paired_ratio(micros, yardstick))]
        lines.append(f"| {' | '.join([scenario.role, scenario.name, *cells])} |")
    lines += [
        "",
        "| machine | split | N | µs each at N | µs each at 4 N | ratio |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for row in linear:
        n = float(row["n"])
        at_n, at_4n = float(row["seconds_n"]) / n * 1e6, float(row["seconds_4n"]) / n / 4 * 1e6
        cells = [f"{n:,.0f} {row['unit']}", number(at_n), number(at_4n)]
        cells.append(number(at_4n / at_n) if at_n else "–")
        lines.append(f"| {row['role']} | {row['split']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
