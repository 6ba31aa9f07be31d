"""What memory a server takes for one huge message and for thousands of idle connections.

Growth by a message is the peak while it is received, less what was resident just before, when the
server had already delivered a few small ones: the durable daemon here, and for idle connections the
server that discards. One worker each (Dovecot: up to 110 connections a process): the figures are of
one process tree, shared pages counted once for each process (RSS), and once in all where PSS is
named.
"""

import argparse
import fnmatch
import json
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import _facts
from benchmarks._cell import drive
from benchmarks._idle import WARMUP, idle
from benchmarks._limits import raise_file_limit
from benchmarks._load import Load
from benchmarks._report import heading, number, row
from benchmarks._servers import Aiosmtpd, Dovecot, Ours, Server, ServerError

SUMMARY = "growth by a huge message, and the cost of idle connections"

_SERVERS: tuple[Server, ...] = (
    Ours("uvloop"),
    Ours("asyncio"),
    Ours("gevent"),
    Ours("blocking"),
    Aiosmtpd("asyncio"),
    # As shipped it would refuse the 101st connection.
    Dovecot(processes=100, connections_each=110),
)
# The server may take its time over the end of a huge message.
_SILENCE_SECONDS = 120.0
_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class _Figures:
    """MiB; None where `problem` kept them from being taken."""

    server: str
    rss_before_mib: float | None = None
    message_growth_mib: float | None = None
    idle_open: int = 0
    idle_rss_mib: float | None = None
    idle_pss_mib: float | None = None
    idle_kib_each: float | None = None
    problem: str | None = None


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "--size", type=int, default=256_000_000, help="octets of the message (256000000)"
    )
    parser.add_argument("--idle", type=int, default=10_000, help="idle connections (10000)")
    parser.add_argument(
        "--servers", default="*", metavar="GLOB", help="only these, such as 'uvloop-*'"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("benchmarks/results"),
        metavar="DIR",
        help="where results and, until the end, the delivered mail go (benchmarks/results)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure and report. Returns 0, 1 when a server failed, 2 when `--servers` matches nothing."""
    servers = [server for server in _SERVERS if fnmatch.fnmatch(server.name, arguments.servers)]
    if not servers:
        print(f"--servers {arguments.servers}: no such server", file=sys.stderr)
        return 2
    raise_file_limit()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    mail = Path(tempfile.mkdtemp(prefix="mail-", dir=out))
    mail.chmod(0o755)
    skipped: dict[str, str] = {}
    measured: list[_Figures] = []
    try:
        facts = _facts.facts(mail)
        for server in servers:
            reason = server.missing()
            if reason is not None:
                skipped[server.name] = reason
                continue
            print(server.name, file=sys.stderr, flush=True)
            measured.append(_measure_server(server, arguments.size, arguments.idle, mail))
    finally:
        shutil.rmtree(mail)
    results = {
        "facts": facts,
        "size": arguments.size,
        "idle": arguments.idle,
        "measurements": [asdict(figures) for figures in measured],
        "skipped": skipped,
    }
    (out / "memory.json").write_text(json.dumps(results, indent=1) + "\n")
    table = _markdown(measured, skipped, arguments.size, arguments.idle)
    (out / "memory.md").write_text(table)
    print(table)
    return 1 if any(figures.problem for figures in measured) else 0


def _measure_server(server: Server, size: int, count: int, mail: Path) -> _Figures:
    folder = mail / server.name
    folder.mkdir()
    folder.chmod(0o755)
    try:
        with server.running("durable", folder) as running:
            warm = drive(running, WARMUP)
            load = Load(connections=1, size=size, messages=1, timeout=_SILENCE_SECONDS)
            huge = drive(running, load)
        samples = warm.result.samples + huge.result.samples
        if samples:
            return _Figures(server=server.name, problem="; ".join(samples))
        # A fresh one: what the message left behind is not the connections' cost. And one that takes
        # so many connections: the daemon has a limit of its own.
        with server.running("discard", folder) as running:
            held = idle(running, count)
        return _Figures(
            server=server.name,
            rss_before_mib=huge.rss_before / _MIB,
            message_growth_mib=(huge.peak_rss - huge.rss_before) / _MIB,
            idle_open=held.open,
            idle_rss_mib=held.rss_mib,
            idle_pss_mib=held.pss_mib,
            idle_kib_each=held.kib_each,
            problem=held.problem,
        )
    except ServerError as error:
        return _Figures(server=server.name, problem=str(error))


def _markdown(measured: list[_Figures], skipped: dict[str, str], size: int, count: int) -> str:
    lines = heading(
        [
            "server",
            "RSS MiB",
            f"growth by {size // 1_000_000} MB, MiB",
            f"idle connections (of {count:,})",
            "RSS MiB with them",
            "PSS MiB with them",
            "KiB each",
        ]
    )
    for figures in measured:
        values = (
            figures.rss_before_mib,
            figures.message_growth_mib,
            figures.idle_open,
            figures.idle_rss_mib,
            figures.idle_pss_mib,
            figures.idle_kib_each,
        )
        cells = ["–" if value is None else number(value) for value in values]
        lines.append(row([figures.server, *cells]))
    lines += ["", *(f"- {server}: skipped: {reason}" for server, reason in skipped.items())]
    lines += [f"- {figures.server}: {figures.problem}" for figures in measured if figures.problem]
    return "\n".join(lines).rstrip() + "\n"
