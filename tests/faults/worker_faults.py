"""Reloads the daemon, and kills its workers, under load, again and again.

A reload breaks nothing: no connection is refused, none ends amid a transaction. A killed worker's
own connections break; what was not acknowledged is sent again, as an MTA does. Either way, what was
acknowledged is there.
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
from pathlib import Path
from typing import Final

from tests.faults.identified import SIZES, identified, identity_of
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


@dataclass
class Tally:
    """What the rounds came to. Nothing is lost or torn, no connection was refused, or there is no
    tally."""

    faults: int = 0
    connections: int = 0
    broken: int = 0
    told: int = 0
    acknowledged: int = 0
    stored: int = 0

    def __str__(self) -> str:
        return (
            f"{self.faults} faults, {self.connections} connections, none refused, {self.told} told"
            f" 421 between two messages, {self.broken} broken; {self.acknowledged} copies"
            f" acknowledged, none lost; {self.stored} stored, none torn"
        )


class _ToldError(Exception):
    """The server has said 421 where a transaction was to begin."""


class _Client(threading.Thread):
    """Delivers one message after the other; sends again what was not answered."""

    def __init__(self, load: "_Load", number: int, address: str) -> None:
        super().__init__()
        self._load = load
        self._name = str(number)
        self._address = address
        self._chance = random.Random(number)
        self._count = 0

    def run(self) -> None:
        try:
            while not self._load.ended.is_set():
                self._connection()
        except BaseException as error:
            self._load.fail(error)

    def _connection(self) -> None:
        # What is raised here is a failure: nobody is refused.
        with connect(self._address) as sock:
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
            self._expect(readline, b"250")
            self._load.acknowledge(user, identity)

    def _expect(self, readline: Callable[[], bytes], code: bytes) -> None:
        reply = _reply(readline)
        assert reply.startswith(code), reply


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

    def __init__(self, addresses: list[str], *, may_break: bool) -> None:
        self.may_break = may_break
        self.ended = threading.Event()
        self.acknowledged: list[tuple[str, str]] = []
        self.tally = Tally()
        self._failures: list[BaseException] = []
        self._change = threading.Condition()
        self._clients = [
            _Client(self, number, addresses[number % len(addresses)])
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


def reload_rounds(folder: Path, runtime: str | None, rounds: int) -> Tally:
    """Deliver and reload, round by round, below `folder`. Raises AssertionError."""

    def reload(program: Program, number: int) -> None:
        program.send_signal(signal.SIGHUP)
        program.wait_for(r" reloaded$", number + 1)

    return _rounds(folder, runtime, rounds, reload, may_break=False)


def worker_rounds(folder: Path, runtime: str | None, rounds: int) -> Tally:
    """Deliver and kill workers, round by round, below `folder`. Raises AssertionError."""
    chance = random.Random(rounds)

    def kill(program: Program, number: int) -> None:
        while not (pids := sorted(program.workers())):
            # All were killed; others come.
            time.sleep(0.1)
        pid = chance.choice(pids)
        os.kill(pid, signal.SIGKILL)
        program.wait_for(rf"worker {pid} was ended by SIGKILL")

    return _rounds(folder, runtime, rounds, kill, may_break=True)


def _rounds(
    folder: Path,
    runtime: str | None,
    rounds: int,
    strike: Callable[[Program, int], None],
    *,
    may_break: bool,
) -> Tally:
    program = Program(
        *("--listen", "127.0.0.1:0", "--listen", f"unix:{folder}/lmtp"),
        *("--mail", f"{folder}/mail/{{user}}", "--workers", str(_WORKERS)),
        *(() if runtime is None else ("--runtime", runtime)),
        cwd=folder,
    )
    try:
        load = _Load(program.addresses(2), may_break=may_break)
        try:
            for number in range(rounds):
                load.wait_for_more(_BETWEEN + number * 17 % 20)
                strike(program, number)
            # The service goes on after the last one, too.
            load.wait_for_more(_BETWEEN)
        finally:
            load.end()
        assert program.stop() == 0
    finally:
        program.kill()
    assert not re.search("Traceback|is killed", program.stderr), program.stderr

    stored = Counter(
        (user, identity_of(file))
        for user in _USERS
        for file in (folder / "mail" / user / "new").glob("*")
    )
    lost = sorted(set(load.acknowledged) - stored.keys())
    assert not lost
    twice = [copy for copy, count in stored.items() if count > 1]
    assert not twice
    tally = load.tally
    tally.faults = rounds
    tally.acknowledged = len(load.acknowledged)
    tally.stored = stored.total()
    return tally
