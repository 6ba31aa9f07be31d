"""Kills the whole daemon under load, with SIGKILL, again and again."""

import random
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.faults.identified import SIZES, identified, identity_of
from tests.interop.daemon import Daemon
from tests.interop.lmtp import Client

_USERS = ("a", "b", "c")
_CONNECTIONS = 8


@dataclass
class Tally:
    """What the rounds came to. Nothing is lost, torn or there twice, or there is no tally."""

    kills: int = 0
    acknowledged: int = 0
    stored: int = 0

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.acknowledged} copies acknowledged, none lost;"
            f" {self.stored} stored, none torn or twice"
        )


class _Load:
    """Clients that deliver until the connection breaks, and what they were promised."""

    def __init__(self, name: str, addresses: list[str]) -> None:
        self.acknowledged: list[tuple[str, str]] = []
        self.unexpected: list[bytes] = []
        self._progress = threading.Condition()
        self._name = name
        self._threads = [
            threading.Thread(target=self._run, args=(number, addresses[number % len(addresses)]))
            for number in range(_CONNECTIONS)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int, address: str) -> None:
        name = f"{self._name}.{number}"
        chance = random.Random(name)
        try:
            with Client(address) as client:
                for count in range(1_000_000):
                    self._deliver(client, f"{name}.{count}", chance)
        except OSError:
            # The daemon is dead: what this test waits for.
            pass
        finally:
            with self._progress:
                self._progress.notify()

    def _deliver(self, client: Client, identity: str, chance: random.Random) -> None:
        users = chance.sample(_USERS, chance.randint(1, len(_USERS)))
        content = identified(identity, chance.choice(SIZES), chance)
        recipients = [f"{user}@example.test" for user in users]
        replies = client.deliver("sender@example.test", recipients, content)
        for user, reply in zip(users, replies, strict=True):
            with self._progress:
                if reply.startswith(b"250 "):
                    self.acknowledged.append((user, identity))
                else:
                    self.unexpected.append(reply)
                self._progress.notify()

    def wait_for(self, acknowledged: int) -> None:
        """Wait until so many copies are acknowledged, or all clients have given up."""
        with self._progress:
            assert self._progress.wait_for(
                lambda: (
                    len(self.acknowledged) >= acknowledged
                    or self.unexpected
                    or not any(thread.is_alive() for thread in self._threads)
                ),
                timeout=20,
            )

    def join(self) -> None:
        for thread in self._threads:
            thread.join()


def kill_rounds(folder: Path, runtime: str | None, rounds: int) -> Tally:
    """Deliver and kill, round by round, to Maildirs below `folder`. Raises AssertionError."""
    mail = folder / "mail"
    acknowledged: set[tuple[str, str]] = set()
    # Files already checked: later rounds must neither lose nor touch them.
    stored: dict[Path, tuple[str, str]] = {}
    for number in range(rounds):
        # The second address lies there still, from the daemon that was killed.
        daemon = Daemon(
            mail=f"{mail}/{{user}}",
            listen=["127.0.0.1:0", f"unix:{folder}/lmtp"],
            runtime=runtime,
        )
        load = _Load(f"{number}", daemon.addresses)
        try:
            load.wait_for(5 + number * 17 % 100)
        finally:
            daemon.kill()
            load.join()
        assert not load.unexpected
        assert load.acknowledged
        assert "Traceback" not in daemon.stderr

        acknowledged.update(load.acknowledged)
        found = {file for user in _USERS for file in (mail / user / "new").glob("*")}
        assert stored.keys() <= found
        for file in found - stored.keys():
            stored[file] = (file.parent.parent.name, identity_of(file))
        copies = Counter(stored.values())
        lost = sorted(acknowledged - copies.keys())
        assert not lost
        twice = [copy for copy, count in copies.items() if count > 1]
        assert not twice
    return Tally(rounds, len(acknowledged), len(stored))
