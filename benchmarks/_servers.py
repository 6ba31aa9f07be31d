"""The servers that are compared, each started fresh for a cell and ended with it.

Invariant: inside `running` the server accepts connections; after it, every process it had is gone.
What was delivered stays where it was: nothing here removes mail.
"""

import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

from benchmarks import compiled

Handler = Literal["discard", "durable", "unsynced"]
Sync = Literal["optimized", "syncfs", "never"]

_ROOT = Path(__file__).parents[1]
_START_SECONDS = 30.0
_STOP_SECONDS = 20.0
_READY = "listening on "


class ServerError(Exception):
    """The server could not be started; the text says why."""


@dataclass(frozen=True)
class Running:
    """A started server: its address, the process at the root of its tree, what it has logged."""

    address: str
    pid: int
    log: Sequence[str]


class Server(Protocol):
    """A way to run an LMTP server. `name` is unique among them."""

    @property
    def name(self) -> str: ...

    def missing(self) -> str | None:
        """Return why it cannot run here; None when it can."""

    def running(self, handler: Handler, mail: Path) -> AbstractContextManager[Running]:
        """Run it; with "durable" it delivers to the Maildirs `mail`/<local-part>, with "unsynced"
        too, but syncs nothing.

        Entering raises ServerError.
        """


CORES: Final = os.cpu_count() or 1
"""As many workers are the daemon's default."""


@dataclass(frozen=True)
class Ours:
    """This project's adapters: the daemon for "durable", an embedder's server for "discard"."""

    runtime: str
    workers: int = 1
    is_compiled: bool = False
    """Whether with the protocol and the store that were compiled to C."""

    @property
    def name(self) -> str:
        return f"{self.runtime}{'-compiled' if self.is_compiled else ''}-w{self.workers}"

    def missing(self) -> str | None:
        if self.is_compiled and (reason := compiled.missing()):
            return reason
        needed = ["lmtp_proto", "lmtp_sockets", "mailstore", "lmtp_server"]
        if self.runtime in ("uvloop", "gevent"):
            needed.append(self.runtime)
        needed.append("lmtp_asyncio" if self.runtime == "uvloop" else f"lmtp_{self.runtime}")
        return _not_importable(needed)

    def running(self, handler: Handler, mail: Path) -> AbstractContextManager[Running]:
        arguments = ["--listen", "127.0.0.1:0", "--runtime", self.runtime]
        arguments += ["--workers", str(self.workers)]
        if handler == "discard":
            program = ["-m", "benchmarks.discard_server", *arguments]
            return _compiled(program) if self.is_compiled else _process(program)
        if handler == "unsynced":
            raise ServerError("it syncs what it stores")
        program = ["-m", "lmtp_server", "serve", *arguments, "--mail", f"{mail}/{{user}}"]
        return _compiled(program) if self.is_compiled else _process(program)


@dataclass(frozen=True)
class Store:
    """This project's store behind its fastest adapter, in as many workers as the machine has cores.

    It syncs as `sync` says: "never" for "unsynced", the others for "durable". With `hard_links`
    the recipients of a message share one file.
    """

    sync: Sync = "optimized"
    hard_links: bool = False
    is_compiled: bool = False
    """Whether with the protocol and the store that were compiled to C."""

    @property
    def name(self) -> str:
        links = "-links" if self.hard_links else ""
        return f"ours-{self.sync}{links}{'-compiled' if self.is_compiled else ''}"

    def missing(self) -> str | None:
        if self.is_compiled and (reason := compiled.missing()):
            return reason
        return _not_importable(["uvloop", "lmtp_asyncio", "lmtp_sockets", "mailstore"])

    def running(self, handler: Handler, mail: Path) -> AbstractContextManager[Running]:
        if handler != ("unsynced" if self.sync == "never" else "durable"):
            raise ServerError(f"it syncs: {self.sync}")
        program = ["-m", "benchmarks.store_server", "--mail", str(mail)]
        if self.sync != Store.sync:
            program += ["--sync", self.sync]
        if self.hard_links:
            program.append("--hard-links")
        program += ["--workers", str(CORES)]
        return _compiled(program) if self.is_compiled else _process(program)


@dataclass(frozen=True)
class Aiosmtpd:
    """aiosmtpd's LMTP class on `loop`, "asyncio" or "uvloop"."""

    loop: str

    @property
    def name(self) -> str:
        return f"aiosmtpd-{self.loop}"

    def missing(self) -> str | None:
        return _not_importable(["aiosmtpd", *(["uvloop"] if self.loop == "uvloop" else [])])

    def running(self, handler: Handler, mail: Path) -> AbstractContextManager[Running]:
        arguments = ["-m", "benchmarks.peers.aiosmtpd_server", "--loop", self.loop]
        if handler == "durable":
            arguments += ["--mail", str(mail)]
        return _process(arguments)


@dataclass(frozen=True)
class Nothing:
    """A protocol on `loop`, "asyncio", "uvloop" or "threads" (one for each connection), that
    answers and checks nothing. With threads it may store what it reads, synced."""

    loop: str

    @property
    def name(self) -> str:
        return f"nothing-{self.loop}"

    def missing(self) -> str | None:
        return _not_importable(["uvloop"]) if self.loop == "uvloop" else None

    def running(self, handler: Handler, mail: Path) -> AbstractContextManager[Running]:
        command = ["-m", "benchmarks.peers.nothing_server", "--loop", self.loop]
        if handler == "durable" and self.loop == "threads":
            # Where the mail of the first mailbox is looked for: it knows no others.
            folder = mail / "u0" / "new"
            folder.mkdir(parents=True, exist_ok=True)
            command += ["--mail", str(folder)]
        elif handler != "discard":
            raise ServerError("it stores nothing")
        return _process(command)


@dataclass(frozen=True)
class Dovecot:
    """Debian's dovecot-lmtpd: `mail_fsync = optimized`, or `never`, or Sieve's discard.

    By default, as Debian ships it, one process serves one connection, and there are at most 100.
    """

    processes: int = 100
    connections_each: int = 1

    @property
    def name(self) -> str:
        return "dovecot"

    def missing(self) -> str | None:
        absent = _not_importable(["psutil"])
        if absent is not None:
            return absent
        from benchmarks.peers.dovecot import PrivateDovecot

        return PrivateDovecot.missing()

    @contextmanager
    def running(self, handler: Handler, mail: Path) -> Iterator[Running]:
        from benchmarks.peers.dovecot import PrivateDovecot

        dovecot = PrivateDovecot(
            mail=f"{mail}/{{user}}",
            fsync="never" if handler == "unsynced" else "optimized",
            discard=handler == "discard",
            process_limit=self.processes,
            client_limit=self.connections_each,
        )
        try:
            dovecot.__enter__()
        except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
            raise ServerError(str(error)) from error
        try:
            yield Running(dovecot.lmtp_address, dovecot.pids()[0], ())
        finally:
            dovecot.__exit__(None, None, None)


def _not_importable(modules: Sequence[str]) -> str | None:
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


def _compiled(program: Sequence[str]) -> AbstractContextManager[Running]:
    """Run a program with the packages that were compiled."""
    # The sources, where the process starts, come behind them (-P).
    return _process(["-P", *program], path=[compiled.PLACE, _ROOT])


@contextmanager
def _process(arguments: Sequence[str], *, path: Sequence[Path] = ()) -> Iterator[Running]:
    """Run a Python program that says `listening on ADDRESS` on standard error once it does."""
    environment = dict(os.environ)
    if path:
        environment["PYTHONPATH"] = os.pathsep.join(map(str, path))
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=_ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="backslashreplace",
        # A group of its own, so that workers can be ended with it.
        start_new_session=True,
    )
    lines: list[str] = []
    spoken = threading.Event()

    def read() -> None:
        # Read to the end: a full pipe would stop the server.
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line.rstrip("\n"))
            if line.startswith(_READY):
                spoken.set()
        spoken.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        spoken.wait(_START_SECONDS)
        ready = [line for line in lines if line.startswith(_READY)]
        if not ready:
            said = lines[-1] if lines else "nothing on standard error"
            raise ServerError(f"{' '.join(arguments)} did not start: {said}")
        yield Running(ready[0].removeprefix(_READY), process.pid, lines)
    finally:
        _end(process)
        reader.join()
        assert process.stderr is not None
        process.stderr.close()


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
