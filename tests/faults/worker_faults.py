"""Reloads the daemon, and kills its processes, under load, again and again.

A reload breaks nothing: no connection is refused, none ends amid a transaction. A killed or
stopped worker's own connections break, and a killed agent's own messages are answered 451; what was
not acknowledged is sent again, as an MTA does. Without its broker the daemon ends, for a service
manager to start it anew. Whatever happens, what was acknowledged is there.
"""

import os
import random
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from tests.faults.identified import SIZES, identified, identity_of
from tests.privileges.processes import of_session, user_ids
from tests.server._peer import connect
from tests.server._program import Program

_USERS: Final = ("a", "b", "c")
_CONNECTIONS: Final = 8
_WORKERS: Final = 4
# Messages over one connection: some clients come for one, some stay.
_STAYS: Final = (1, 1, 3, 50)
# Copies acknowledged between two faults: the faults come at any moment of a delivery.
_BETWEEN: Final = 10
_SECONDS: Final = 60.0
# A worker that was stopped is killed after so long, in seconds.
_HEARTBEAT: Final = 5
_FIRST_UID: Final = 24_000
_NEVER_LOGGED: Final = "Traceback|is killed"


class Mode(StrEnum):
    """Who runs the daemon, and who writes the mail."""

    PLAIN = "plain"
    """Whoever runs this does both."""
    ONE_USER = "vmail"
    """Root starts it, and it becomes one user."""
    BROKER = "broker"
    """Root starts it, and agents of each user write the mail."""


@dataclass
class Tally:
    """What the rounds came to. Nothing is lost or torn, no connection was refused, or there is no
    tally."""

    faults: int = 0
    connections: int = 0
    broken: int = 0
    told: int = 0
    deferred: int = 0
    acknowledged: int = 0
    stored: int = 0

    def __str__(self) -> str:
        return (
            f"{self.faults} faults, {self.connections} connections, none refused, {self.told} told"
            f" 421 between two messages, {self.broken} broken; {self.deferred} copies answered 451,"
            f" {self.acknowledged} acknowledged, none lost; {self.stored} stored, none torn"
        )


class _ToldError(Exception):
    """The server has said 421 where a transaction was to begin."""


class _Client(threading.Thread):
    """Delivers one message after the other; sends again what was not answered."""

    def __init__(self, load: "_Load", name: str, address: str) -> None:
        super().__init__()
        self._load = load
        self._name = name
        self._address = address
        self._chance = random.Random(name)
        self._count = 0

    def run(self) -> None:
        try:
            while not self._load.ended.is_set():
                self._connection()
        except BaseException as error:
            self._load.fail(error)

    def _connection(self) -> None:
        # What is raised here is a failure: nobody is refused, unless the whole daemon may end.
        try:
            sock = connect(self._address)
        except OSError:
            if not self._load.may_end:
                raise
            self._load.ended.set()
            return
        with sock:
            self._load.count(connections=1)
            try:
                with sock.makefile("rb") as replies:
                    self._hold(sock, replies.readline)
            except _ToldError:
                self._load.count(told=1)
            except ConnectionError as error:
                self._load.count(broken=1)
                if not self._load.may_break:
                    raise AssertionError(f"a connection broke: {error}") from error

    def _hold(self, sock: socket.socket, readline: Callable[[], bytes]) -> None:
        self._expect(readline, b"220")
        sock.sendall(b"LHLO client.test\r\n")
        self._expect(readline, b"250")
        for _ in range(self._chance.choice(_STAYS)):
            if self._load.ended.is_set():
                break
            self._deliver(sock, readline)
        sock.sendall(b"QUIT\r\n")
        # The server may have said 421 before it has read that.
        assert _reply(readline)[:3] in (b"221", b"421")

    def _deliver(self, sock: socket.socket, readline: Callable[[], bytes]) -> None:
        identity = f"{self._name}.{self._count}"
        users = self._chance.sample(_USERS, self._chance.randint(1, len(_USERS)))
        content = identified(identity, self._chance.choice(SIZES), self._chance)
        sock.sendall(b"MAIL FROM:<s@example.test>\r\n")
        reply = _reply(readline)
        if reply.startswith(b"421 4.3.2 "):
            raise _ToldError
        assert reply.startswith(b"250"), reply
        for user in users:
            sock.sendall(b"RCPT TO:<%b@example.test>\r\n" % user.encode())
            self._expect(readline, b"250")
        sock.sendall(b"DATA\r\n")
        self._expect(readline, b"354")
        sock.sendall(content + b".\r\n")
        # From here on another attempt is another message: the first may have been stored.
        self._count += 1
        for user in users:
            reply = _reply(readline)
            if reply.startswith(b"451 4.3.0 ") and self._load.may_defer:
                self._load.count(deferred=1)
                continue
            self._hear_end(reply)
            assert reply.startswith(b"250"), reply
            self._load.acknowledge(user, identity)

    def _expect(self, readline: Callable[[], bytes], code: bytes) -> None:
        reply = _reply(readline)
        self._hear_end(reply)
        assert reply.startswith(code), reply

    def _hear_end(self, reply: bytes) -> None:
        if reply.startswith(b"421 4.3.2 ") and self._load.may_end:
            raise _ToldError


def _reply(readline: Callable[[], bytes]) -> bytes:
    while True:
        line = readline()
        if not line.endswith(b"\r\n"):
            assert not line, f"half a reply: {line!r}"
            raise ConnectionResetError("the server closed the connection")
        if line[3:4] != b"-":
            return line


class _Load:
    """The clients, and what they were promised."""

    def __init__(
        self,
        addresses: list[str],
        *,
        may_break: bool,
        may_defer: bool,
        may_end: bool = False,
        name: str = "",
    ) -> None:
        self.may_break = may_break
        self.may_end = may_end
        self.may_defer = may_defer
        self.ended = threading.Event()
        self.acknowledged: list[tuple[str, str]] = []
        self.tally = Tally()
        self._failures: list[BaseException] = []
        self._change = threading.Condition()
        self._clients = [
            _Client(self, f"{name}{number}", addresses[number % len(addresses)])
            for number in range(_CONNECTIONS)
        ]
        for client in self._clients:
            client.start()

    def count(self, **counts: int) -> None:
        with self._change:
            for name, more in counts.items():
                setattr(self.tally, name, getattr(self.tally, name) + more)

    def acknowledge(self, user: str, identity: str) -> None:
        with self._change:
            self.acknowledged.append((user, identity))
            self._change.notify_all()

    def fail(self, error: BaseException) -> None:
        with self._change:
            self._failures.append(error)
            self._change.notify_all()

    def wait_for_more(self, copies: int) -> None:
        """Wait until so many more copies are acknowledged. Raises what went wrong."""
        with self._change:
            enough = len(self.acknowledged) + copies
            came = self._change.wait_for(
                lambda: len(self.acknowledged) >= enough or bool(self._failures), _SECONDS
            )
            self._raise()
            assert came, "nothing is acknowledged any more"

    def end(self) -> None:
        self.ended.set()
        for client in self._clients:
            client.join()
        self._raise()

    def _raise(self) -> None:
        if self._failures:
            raise self._failures[0]


def reload_rounds(folder: Path, runtime: str | None, rounds: int, mode: Mode = Mode.PLAIN) -> Tally:
    """Deliver and reload, round by round, below `folder`. Raises AssertionError."""

    def reload(program: Program, number: int) -> None:
        program.send_signal(signal.SIGHUP)
        program.wait_for(r" reloaded$", number + 1)

    return _rounds(_Daemon(folder, runtime, mode), rounds, reload)


def worker_rounds(
    folder: Path,
    runtime: str | None,
    rounds: int,
    mode: Mode = Mode.PLAIN,
    number: signal.Signals = signal.SIGKILL,
) -> Tally:
    """Deliver and kill workers, or stop them, round by round, below `folder`. Raises
    AssertionError."""
    chance = random.Random(rounds)

    def kill(program: Program, _: int) -> None:
        # Faster kills would only show that what fails at its start is started ever more slowly.
        deadline = time.monotonic() + _SECONDS
        while len(pids := sorted(_workers(program))) < _WORKERS:
            assert time.monotonic() < deadline, "a killed worker is not replaced"
            time.sleep(0.05)
        pid = chance.choice(pids)
        os.kill(pid, number)
        program.wait_for(rf"worker {pid} was ended by SIG(KILL|ABRT)")

    # A worker that was stopped is killed by the supervisor, and no other is.
    logged = "Traceback" if number == signal.SIGSTOP else _NEVER_LOGGED
    daemon = _Daemon(folder, runtime, mode)
    return _rounds(daemon, rounds, kill, may_break=True, never_logged=logged)


def agent_rounds(folder: Path, runtime: str | None, rounds: int) -> Tally:
    """Deliver and kill users' agents, round by round, below `folder`. Raises AssertionError."""
    chance = random.Random(rounds)
    daemon = _Daemon(folder, runtime, Mode.BROKER)
    uids = {str(uid) for uid in daemon.uids.values()}

    def kill(program: Program, _: int) -> None:
        agents = [pid for pid in of_session(program.pid) if user_ids(pid) <= uids]
        pid = chance.choice(sorted(agents))
        os.kill(pid, signal.SIGKILL)
        program.wait_for(rf"agent {pid} of '.*' was ended by SIGKILL")

    return _rounds(daemon, rounds, kill, may_defer=True)


def broker_rounds(folder: Path, runtime: str | None, rounds: int) -> Tally:
    """Deliver, kill the broker, and start the daemon anew, round by round, below `folder`. Raises
    AssertionError."""
    daemon = _Daemon(folder, runtime, Mode.BROKER)
    total = Tally()
    acknowledged: list[tuple[str, str]] = []
    for number in range(rounds):
        program = daemon.start()
        try:
            load = _Load(
                program.addresses(2),
                may_break=True,
                may_defer=True,
                name=f"{number}.",
                may_end=True,
            )
            try:
                load.wait_for_more(_BETWEEN + number * 17 % 20)
                [broker] = program.workers() - _workers(program)
                os.kill(broker, signal.SIGKILL)
                assert program.wait() == os.EX_SOFTWARE, program.stderr
            finally:
                load.end()
        finally:
            program.kill()
        assert "Traceback" not in program.stderr, program.stderr
        acknowledged += load.acknowledged
        for name in ("connections", "broken", "told", "deferred"):
            setattr(total, name, getattr(total, name) + getattr(load.tally, name))
    total.faults = rounds
    return _count(daemon, acknowledged, total)


def _workers(program: Program) -> set[int]:
    """The children of the supervisor, but for the broker."""
    children = program.workers()
    owner = user_ids(program.pid)
    return {pid for pid in children if user_ids(pid) == owner}


class _Daemon:
    """Settings, and what they need, below `folder`."""

    def __init__(self, folder: Path, runtime: str | None, mode: Mode) -> None:
        self._folder = folder
        self._runtime = runtime
        self.uids: dict[str, int] = {}
        settings = [
            f'listen = ["127.0.0.1:0", "unix:{folder}/lmtp"]',
            f"workers = {_WORKERS}",
            f'mail = "{folder}/mail/{{user}}"',
        ]
        # Whom root's daemon becomes has to get there.
        folder.chmod(0o755)
        if mode is Mode.ONE_USER:
            settings += ['user = "nobody"']
        elif mode is Mode.BROKER:
            (folder / "mail").mkdir()
            lines = []
            for number, user in enumerate(_USERS):
                uid = self.uids[user] = _FIRST_UID + number
                (folder / "mail" / user).mkdir()
                os.chown(folder / "mail" / user, uid, uid)
                lines += [f"{user}:x:{uid}:{uid}::{folder}/mail/{user}::"]
            (folder / "passwd").write_text("\n".join(lines) + "\n")
            settings += ['network_user = "nobody"', 'auth_username_format = "%Ln"']
            settings += ["[[userdb]]", 'driver = "passwd-file"', f'path = "{folder}/passwd"']
        settings += ["[worker]", f"heartbeat = {_HEARTBEAT}"]
        (folder / "settings.toml").write_text("\n".join(settings) + "\n")

    def start(self) -> Program:
        """Start it; it listens at a port and at a UNIX socket."""
        flags = () if self._runtime is None else ("--runtime", self._runtime)
        return Program("--config", "settings.toml", *flags, cwd=self._folder)

    def stored(self) -> Counter[tuple[str, str]]:
        """User and identity of each message that is there. A torn one is an AssertionError."""
        return Counter(
            (user, identity_of(file))
            for user in _USERS
            for file in (self._folder / "mail" / user / "new").glob("*")
        )


def _rounds(
    daemon: _Daemon,
    rounds: int,
    strike: Callable[[Program, int], None],
    *,
    may_break: bool = False,
    may_defer: bool = False,
    never_logged: str = _NEVER_LOGGED,
) -> Tally:
    program = daemon.start()
    try:
        load = _Load(program.addresses(2), may_break=may_break, may_defer=may_defer)
        try:
            for number in range(rounds):
                load.wait_for_more(_BETWEEN + number * 17 % 20)
                strike(program, number)
            # The service goes on after the last one, too.
            load.wait_for_more(_BETWEEN)
        except BaseException as error:
            error.add_note(program.stderr[-3000:])
            raise
        finally:
            load.end()
        assert program.stop() == 0
    finally:
        program.kill()
    assert not re.search(never_logged, program.stderr), program.stderr
    load.tally.faults = rounds
    return _count(daemon, load.acknowledged, load.tally)


def _count(daemon: _Daemon, acknowledged: list[tuple[str, str]], tally: Tally) -> Tally:
    """See that all that was acknowledged is there, once."""
    stored = daemon.stored()
    lost = sorted(set(acknowledged) - stored.keys())
    assert not lost
    twice = [copy for copy, count in stored.items() if count > 1]
    assert not twice
    tally.acknowledged = len(acknowledged)
    tally.stored = stored.total()
    return tally
