"""A disk that fills up under load and is emptied: the daemon goes on by itself."""

import random
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.mounts import small_file_system
from tests.interop.daemon import Daemon
from tests.interop.lmtp import Client, split_trace

_CONNECTIONS = 8
_USERS = ("a", "b", "c")
# Some larger than what is kept in memory: the spool has no room either.
_SIZES = (500, 5_000, 50_000, 300_000)
_SECONDS = 60.0


class _Sender:
    """A client that delivers until it is told to stop, on one connection.

    `changed` is told of every reply, to whichever sender.
    """

    def __init__(self, name: str, address: str, changed: threading.Condition) -> None:
        self.acknowledged: list[tuple[str, str]] = []
        self.replies: Counter[bytes] = Counter()
        self.failure: BaseException | None = None
        self._name = name
        self._address = address
        self._stop = False
        self._changed = changed
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        chance = random.Random(self._name)
        try:
            with Client(self._address) as client:
                for count in range(1_000_000):
                    if self._stop:
                        return
                    self._deliver(client, f"{self._name}.{count}", chance)
        except BaseException as error:
            self.failure = error
        finally:
            with self._changed:
                self._changed.notify()

    def _deliver(self, client: Client, identity: str, chance: random.Random) -> None:
        users = chance.sample(_USERS, chance.randint(1, len(_USERS)))
        content = _content(identity, chance.choice(_SIZES))
        recipients = [f"{user}@example.test" for user in users]
        replies = client.deliver("sender@example.test", recipients, content)
        for user, reply in zip(users, replies, strict=True):
            with self._changed:
                self.replies[reply[:4]] += 1
                if reply.startswith(b"250 "):
                    self.acknowledged.append((user, identity))
                self._changed.notify()

    def stop(self) -> None:
        self._stop = True
        self._thread.join()


class _Load:
    """Several senders at once."""

    def __init__(self, address: str) -> None:
        self._changed = threading.Condition()
        self.senders = [
            _Sender(str(number), address, self._changed) for number in range(_CONNECTIONS)
        ]

    def taken(self) -> int:
        """How many copies were acknowledged so far."""
        return sum(sender.replies[b"250 "] for sender in self.senders)

    def wait_until_full(self) -> None:
        """Wait until every sender has been refused once more."""
        before = [sender.replies[b"452 "] for sender in self.senders]
        self._wait(
            lambda: all(
                sender.replies[b"452 "] > count
                for sender, count in zip(self.senders, before, strict=True)
            )
        )

    def wait_for_more_than(self, taken: int) -> None:
        """Wait until this many copies, and one more, are acknowledged."""
        self._wait(lambda: self.taken() > taken)

    def stop(self) -> None:
        """Let every sender end with its message."""
        for sender in self.senders:
            sender.stop()

    def _wait(self, reached: Callable[[], bool]) -> None:
        def over() -> bool:
            return reached() or any(sender.failure for sender in self.senders)

        with self._changed:
            assert self._changed.wait_for(over, timeout=_SECONDS)


def _content(identity: str, size: int) -> bytes:
    return f"Subject: {identity} {size}\r\n\r\n".encode() + b"0123456789\r\n" * (size // 12)


def _identity(file: Path) -> str:
    """The identity of a stored message, which is whole."""
    content = split_trace(file.read_bytes())[1]
    identity, size = content[len("Subject: ") : content.index(b"\n")].decode().split()
    assert content == _content(identity, int(size)).replace(b"\r\n", b"\n"), f"{file} is torn"
    return identity


@pytest.mark.timeout(240)
@pytest.mark.parametrize("options", ["size=4m", "size=64m,nr_inodes=60"])
def test_full_and_freed_under_load(tmp_path: Path, options: str) -> None:
    with small_file_system(tmp_path, options) as root:
        mail = root / "mail"
        mail.mkdir()
        daemon = Daemon(mail=f"{mail}/{{user}}")
        load = _Load(daemon.addresses[0])
        # What was there, by Maildir and identity, before it was deleted.
        fetched: set[tuple[str, str]] = set()
        try:
            for _ in range(3):
                load.wait_until_full()
                before = load.taken()
                for file in mail.glob("*/new/*"):
                    fetched.add((file.parent.parent.name, _identity(file)))
                    file.unlink()
                load.wait_for_more_than(before)
        finally:
            load.stop()
            daemon.stop()
        for sender in load.senders:
            assert sender.failure is None
            # Nothing but the want of space went wrong.
            assert sender.replies.keys() <= {b"250 ", b"452 "}
        there = [(file.parent.parent.name, _identity(file)) for file in mail.glob("*/new/*")]
        assert len(set(there)) == len(there)
        acknowledged = [copy for sender in load.senders for copy in sender.acknowledged]
        assert fetched | set(there) == set(acknowledged)
        assert not fetched & set(there)
        assert list(mail.glob("*/tmp/*")) == []
