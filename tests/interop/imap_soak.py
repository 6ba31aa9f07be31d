"""`python -m tests.interop.imap_soak --messages 10000`: Dovecot's IMAP and our deliveries on one
Maildir.

Several connections deliver to one user of a daemon with several workers, while clients of a private
Dovecot use the same INBOX: one waits in IDLE and fetches what is new, one flags what that has seen,
one moves and expunges it, one lists everything again and again.

The invariant: each message that was acknowledged appears in the INBOX once, under one UID that
stays its own, and is at the end where the clients have left it, once; and Dovecot has no complaint.
"""

import argparse
import imaplib
import itertools
import os
import random
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from benchmarks.peers.dovecot import PrivateDovecot
from tests.interop.daemon import Daemon
from tests.interop.lmtp import Client

_USER = "u@example.test"
_CONNECTIONS = 6
_WORKERS = 3
# Deliveries wait while more than so many have not been seen by the client in IDLE, so that all of
# them meet clients at work.
_AHEAD = 200
# Octets of a body: some are larger than what the store keeps in memory.
_SIZES = (*(200, 2_000) * 20, 20_000, 200_000)
_ARCHIVE = "Archive"
_SECONDS = 60.0
_SETTINGS = "mailbox_idle_check_interval = 5 s\n"
_UID = re.compile(rb"\bUID (\d+)")
_ID = re.compile(rb"^Message-ID: <([^>]+)>", re.IGNORECASE)


@dataclass
class Tally:
    """What a run came to. Nothing was missing or there twice, or there is no tally."""

    messages: int = 0
    seconds: float = 0.0
    told: int = 0
    lists: int = 0
    flagged: int = 0
    moved: int = 0
    expunged: int = 0

    def __str__(self) -> str:
        return (
            f"{self.messages} messages in {self.seconds:.0f} s, each seen once: told of in IDLE"
            f" {self.told} times, all listed {self.lists} times; {self.flagged} flagged,"
            f" {self.moved} moved, {self.expunged} expunged"
        )


def soak(folder: Path, messages: int, seed: int = 0) -> Tally:
    """Deliver so many messages below `folder` while IMAP clients are at work.

    Raises AssertionError for a message that is missing or there twice.
    """
    template = f"{folder}/mail/{{user}}"
    with PrivateDovecot(mail=template, settings=_SETTINGS) as dovecot:
        maildir = folder / "mail" / "u"
        for path in (maildir, *(maildir / name for name in ("cur", "new", "tmp"))):
            path.mkdir(mode=0o770)
            # Dovecot's user and the daemon's share the mail by its group.
            path.chmod(0o770)
        dovecot.own(maildir)
        daemon = Daemon(mail=template, workers=_WORKERS)
        try:
            run = _Soak(messages, daemon.addresses[0], dovecot.imap_address, seed)
            run.run()
        finally:
            daemon.stop()
        complaints = [line for line in dovecot.log().splitlines() if ": Info: " not in line]
    assert not complaints, "\n".join(complaints[:20])
    _check_files(maildir, run)
    return run.tally


class _Soak:
    """What deliveries and clients share while they run."""

    def __init__(self, messages: int, lmtp: str, imap: tuple[str, int], seed: int) -> None:
        self.tally = Tally(messages)
        self._lmtp = lmtp
        self._imap = imap
        self._seed = seed
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._errors: list[BaseException] = []
        self._acknowledged: set[str] = set()
        # The Message-ID by UID, as the client in IDLE has seen it.
        self._seen: dict[int, str] = {}
        # UIDs that others may use then; None is the end.
        self._to_flag: SimpleQueue[int | None] = SimpleQueue()
        self._to_move: SimpleQueue[int | None] = SimpleQueue()
        self.moved: set[str] = set()
        self.expunged: set[str] = set()

    def run(self) -> None:
        """Deliver, use the mailbox, and look at what is left. Raises what went wrong first."""
        begun = time.monotonic()
        jobs = [self._watch, self._flag, self._move, self._list]
        jobs += [partial(self._deliver, number) for number in range(_CONNECTIONS)]
        threads = [threading.Thread(target=self._guard, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._errors:
            raise self._errors[0]
        self._check()
        self.tally.seconds = time.monotonic() - begun

    def _guard(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            with self._changed:
                self._errors.append(error)
        finally:
            with self._changed:
                self._changed.notify_all()

    def _deliver(self, connection: int) -> None:
        chance = random.Random(f"{self._seed}.{connection}")
        with Client(self._lmtp) as client:
            while (number := next(self._numbers)) < self.tally.messages:
                self._wait(lambda: len(self._acknowledged) - len(self._seen) < _AHEAD)
                identity = f"{number}@soak.test"
                body = b"0123456789abcdef\r\n" * (chance.choice(_SIZES) // 18)
                content = b"Message-ID: <%b>\r\nSubject: soak\r\n\r\n%b" % (identity.encode(), body)
                (reply,) = client.deliver("sender@example.test", [_USER], content)
                assert reply.startswith(b"250 "), reply
                with self._changed:
                    self._acknowledged.add(identity)
                    self._changed.notify_all()

    def _wait(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._errors or condition(), _SECONDS), (
                f"{len(self._acknowledged)} acknowledged, {len(self._seen)} seen, and no more came"
            )
            assert not self._errors, "another client has failed"

    def _watch(self) -> None:
        """See each message once, as soon as Dovecot tells of it."""
        try:
            with _inbox(self._imap) as client:
                while len(self._seen) < self.tally.messages:
                    last = max(self._seen, default=0)
                    found = _fetch(client, f"{last + 1}:*")
                    # Of an empty range, IMAP gives the last message.
                    for uid, identity in sorted(found.items()):
                        if uid > last:
                            self._see(uid, identity)
                    if len(self._seen) < self.tally.messages and max(found, default=0) <= last:
                        _idle(client)
                        self.tally.told += 1
        except TimeoutError:
            missing = sorted(self._acknowledged - set(self._seen.values()))
            raise AssertionError(f"acknowledged and never seen: {missing[:5]}") from None
        finally:
            self._to_flag.put(None)
            self._to_move.put(None)

    def _see(self, uid: int, identity: str) -> None:
        assert identity not in self._seen.values(), f"{identity} came again, as UID {uid}"
        with self._changed:
            self._seen[uid] = identity
            self._changed.notify_all()
        self._to_flag.put(uid)
        if uid % 2:
            self._to_move.put(uid)

    def _flag(self) -> None:
        """Give each message flags: Dovecot gives its file another name."""
        with _inbox(self._imap) as client:
            for uids in _taken(self._to_flag):
                for uid in uids:
                    _ok(client.uid("STORE", str(uid), "+FLAGS", "(\\Seen)"))
                _ok(client.uid("STORE", ",".join(map(str, uids)), "+FLAGS", "(\\Flagged soak)"))
                self.tally.flagged += len(uids)

    def _move(self) -> None:
        """Take half of the messages out of the INBOX: some are moved, some copied, some are
        expunged at once."""
        with _inbox(self._imap) as client:
            _ok(client.create(_ARCHIVE))
            for uids in _taken(self._to_move):
                for uid in uids:
                    way = uid // 2 % 3
                    if way == 0:
                        _ok(client.uid("MOVE", str(uid), _ARCHIVE))
                    else:
                        if way == 1:
                            _ok(client.uid("COPY", str(uid), _ARCHIVE))
                        _ok(client.uid("STORE", str(uid), "+FLAGS", "(\\Deleted)"))
                    (self.expunged if way == 2 else self.moved).add(self._seen[uid])
                _ok(client.expunge())
        self.tally.moved, self.tally.expunged = len(self.moved), len(self.expunged)

    def _list(self) -> None:
        """List the INBOX anew again and again: no UID and no message ever becomes another."""
        known: dict[int, str] = {}
        while len(self._seen) < self.tally.messages:
            with self._changed:
                if self._errors:
                    return
            with _inbox(self._imap) as client:
                known |= _consistent(known, _fetch(client, "1:*"))
            self.tally.lists += 1
        twice = [identity for identity, count in Counter(known.values()).items() if count > 1]
        assert not twice, f"under two UIDs: {twice[:5]}"
        _consistent(self._seen, known)

    def _check(self) -> None:
        """Each message is where it was left."""
        assert set(self._seen.values()) == self._acknowledged
        with _inbox(self._imap) as client:
            inbox = _fetch(client, "1:*")
            _consistent(self._seen, inbox)
            _ok(client.select(_ARCHIVE))
            archive = _fetch(client, "1:*")
        assert Counter(archive.values()) == Counter(self.moved)
        assert Counter(inbox.values()) == Counter(self._acknowledged - self.moved - self.expunged)


def _check_files(maildir: Path, run: _Soak) -> None:
    """As many files lie there as messages are left, and nothing else."""
    left = run.tally.messages - len(run.moved) - len(run.expunged)
    for mailbox, count in ((maildir, left), (maildir / f".{_ARCHIVE}", len(run.moved))):
        names = [*os.listdir(mailbox / "new"), *os.listdir(mailbox / "cur")]
        assert len({name.partition(":")[0] for name in names}) == len(names) == count
        assert os.listdir(mailbox / "tmp") == []


@contextmanager
def _inbox(address: tuple[str, int]) -> Iterator[imaplib.IMAP4]:
    with imaplib.IMAP4(*address, timeout=_SECONDS) as client:
        client.login(_USER, "any")
        _ok(client.select("INBOX"))
        yield client


def _ok(answer: tuple[str, Sequence[object]]) -> Sequence[object]:
    status, data = answer
    assert status == "OK", data
    return data


def _idle(client: imaplib.IMAP4) -> None:
    """Wait in IDLE (RFC 2177) until the mailbox has changed."""
    client.send(b"idle IDLE\r\n")
    line = client.readline()
    # What happened since the last command may be told first.
    while not line.startswith((b"+ ", b"* ")):
        line = client.readline()
    if line.startswith(b"+ "):
        line = client.readline()
    client.send(b"DONE\r\n")
    while not line.startswith(b"idle "):
        assert line, "Dovecot has closed the connection"
        line = client.readline()
    assert line.startswith(b"idle OK"), line


def _fetch(client: imaplib.IMAP4, uids: str) -> dict[int, str]:
    """Message-ID by UID."""
    data = _ok(client.uid("FETCH", uids, "(UID BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])"))
    found: dict[int, str] = {}
    for item in data:
        # Flags that another client has set are told in between.
        if isinstance(item, tuple):
            uid, identity = _UID.search(item[0]), _ID.search(item[1])
            assert uid is not None, item
            assert identity is not None, item
            assert int(uid[1]) not in found
            found[int(uid[1])] = identity[1].decode()
    return found


def _consistent(known: dict[int, str], found: dict[int, str]) -> dict[int, str]:
    """`found`, none of whose UIDs is another message in `known`."""
    both = known.keys() & found.keys()
    others = {uid: (known[uid], found[uid]) for uid in both if known[uid] != found[uid]}
    assert not others, f"UIDs of two messages: {others}"
    return found


def _taken(waiting: SimpleQueue[int | None]) -> Iterator[list[int]]:
    """What has come in, each time at least one, until the end."""
    while (uid := waiting.get()) is not None:
        uids = [uid]
        while not waiting.empty():
            uid = waiting.get()
            if uid is None:
                yield uids
                return
            uids.append(uid)
        yield uids


def main() -> int:
    """Run once and say what it came to."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.interop.imap_soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="of the sizes")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary one by default")
    arguments = parser.parse_args()
    if reason := PrivateDovecot.missing():
        parser.error(reason)
    with tempfile.TemporaryDirectory(prefix="lmtp-", dir=arguments.folder) as name:
        folder = Path(name)
        # Dovecot's user is another.
        folder.chmod(0o755)
        sys.stdout.write(f"{soak(folder, arguments.messages, arguments.seed)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
