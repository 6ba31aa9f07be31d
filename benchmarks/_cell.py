"""One measurement: a load generator's process against a server that runs, with what the server
spent meanwhile.

CPU seconds and peak memory are those of the measured window alone: they are read while the
generator pauses at its two ends. A measurement with a `problem` has no figures worth comparing.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import _load, _measure
from benchmarks._load import Load, Result
from benchmarks._servers import Handler, Running, Server, ServerError

_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Figures of one window. MB = 10**6 octets, MiB = 2**20; `problem` says what was wrong, None
    if nothing.

    `rss_growth_mib` is the peak less what was resident when the window opened.
    `load_average` is the machine's before the window; `steal_seconds` is what the hypervisor
    withheld during it.
    """

    messages_per_second: float
    megabytes_per_second: float
    cpu_seconds_per_thousand: float
    p50_ms: float | None
    p99_ms: float | None
    peak_rss_mib: float
    rss_growth_mib: float
    messages: int
    seconds: float
    generator_cpu_seconds: float
    steal_seconds: float
    load_average: float
    problem: str | None


@dataclass(frozen=True)
class Window:
    """What a generator reported, with the server's figures for the same time."""

    result: Result
    cpu_seconds: float
    peak_rss: int
    rss_before: int


def measure(
    server: Server, handler: Handler, load: Load, mail: Path, warm: Load | None = None
) -> Measurement:
    """Start `server`, send it `warm`, if given, and `load`, stop it. Raises ServerError when it
    does not start.

    Unless it discards, the copies that were acknowledged are afterwards looked for in the Maildirs
    below `mail`.
    """
    mail.mkdir(parents=True)
    # Dovecot delivers as another user.
    mail.chmod(0o755)
    promised = 0
    with server.running(handler, mail) as running:
        if warm is not None:
            promised += drive(running, warm).result.acknowledged * warm.recipients
        measurement, result = _measure_running(running, load)
    promised += result.acknowledged * load.recipients
    if measurement.problem is None and handler != "discard":
        return replace(measurement, problem=_with_log(_loss(promised, mail), running))
    return measurement


def measure_running(running: Running, load: Load) -> Measurement:
    """Send `load` to a server that runs, and discards. Raises ServerError when the generator itself
    fails."""
    measurement, _ = _measure_running(running, load)
    return measurement


def _measure_running(running: Running, load: Load) -> tuple[Measurement, Result]:
    before = _measure.machine()
    window = drive(running, load)
    result = window.result
    measurement = Measurement(
        messages_per_second=result.messages_per_second,
        megabytes_per_second=result.megabytes_per_second,
        cpu_seconds_per_thousand=1000 * window.cpu_seconds / max(1, result.messages),
        p50_ms=result.p50_ms,
        p99_ms=result.p99_ms,
        peak_rss_mib=window.peak_rss / 2**20,
        rss_growth_mib=(window.peak_rss - window.rss_before) / 2**20,
        messages=result.messages,
        seconds=result.seconds,
        generator_cpu_seconds=result.generator_cpu_seconds,
        steal_seconds=_measure.machine().steal_seconds - before.steal_seconds,
        load_average=before.load,
        problem=_with_log(_problem(result), running),
    )
    return measurement, result


def drive(
    running: Running,
    load: Load,
    watched: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Window:
    """Send `load` to a server that runs. Raises ServerError when the generator itself fails.

    What `watched` gives is entered when the window opens and left when it closes, both while
    nothing moves.
    """
    command = [sys.executable, "-m", "benchmarks._load", "--paced"]
    with (
        subprocess.Popen(
            command + _load.arguments_for(running.address, load),
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as generator,
        ExitStack() as watching,
    ):
        assert generator.stdin is not None
        assert generator.stdout is not None
        began = ended = 0.0
        before = peak = 0
        result: Result | None = None
        for line in generator.stdout:
            fields = json.loads(line)
            event = fields.pop("event")
            if event == "begin":
                _measure.reset_peak_rss(running.pid)
                before = _measure.rss(running.pid)
                began = _measure.cpu_seconds(running.pid)
                watching.enter_context(watched())
            elif event == "end":
                watching.close()
                ended = _measure.cpu_seconds(running.pid)
                peak = _measure.peak_rss(running.pid)
            else:
                result = Result(**fields)
                continue
            generator.stdin.write("\n")
            generator.stdin.flush()
    if result is None:
        raise ServerError(f"the load generator ended with status {generator.returncode}")
    return Window(result, ended - began, peak, before)


def _with_log(problem: str | None, running: Running) -> str | None:
    if problem is not None and running.log:
        return f"{problem} (the server's last words: {running.log[-1]})"
    return problem


def _problem(result: Result) -> str | None:
    if result.bad_replies or result.connection_errors:
        counts = (
            f"bad replies on {result.bad_replies} connections, {result.connection_errors} failed"
        )
        return f"{counts}: {'; '.join(result.samples)}"
    return None if result.messages else "no message was acknowledged"


def _loss(promised: int, mail: Path) -> str | None:
    """Return what is wrong when the Maildirs do not hold just the copies that were acknowledged."""
    stored = 0
    for mailbox in mail.iterdir():
        try:
            with os.scandir(mailbox / "new") as entries:
                stored += sum(1 for _ in entries)
        except FileNotFoundError:
            continue
    return None if stored == promised else f"{promised} deliveries acknowledged, {stored} on disk"
