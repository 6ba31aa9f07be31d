"""Watches all processes of a session for one that has power over others and an ear to the network.

The invariant: a descriptor of a process with such power counts as one of the network unless the
kernel's table of UNIX sockets shows that it is not, or it is no socket at all.
"""

import os
import threading
from collections import defaultdict
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from lmtp_server._privileges import Capability
from tests.privileges.processes import network_sockets, of_session

_SETS: Final = ("CapInh", "CapPrm", "CapEff", "CapAmb")
# Docs: the supervisor may keep this one, for ports below 1024.
_HARMLESS: Final = 1 << Capability.NET_BIND_SERVICE


class Watch:
    """Looks at all processes of the session that `leader` leads, again and again.

    A context manager. A connection to the UNIX listener `path` counts as the network.

    Attributes:
        rounds: How often it has looked at all of them.
        faults: What must not be: a process with power that holds a socket of the network.
        listened: The UIDs of the processes that were seen with sockets of the network, and with
            how many at a time at most.
        uids: All UIDs that processes were seen with.
    """

    def __init__(self, leader: int, path: str | None = None) -> None:
        self._leader = leader
        self._path = path
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._error: BaseException | None = None
        self.rounds = 0
        self.faults: set[str] = set()
        self.listened: defaultdict[int, int] = defaultdict(int)
        self.uids: set[int] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def _run(self) -> None:
        try:
            # Once more behind the end: what is there when all is done is seen for certain.
            while not self._ended.is_set():
                self._look()
            self._look()
        except BaseException as error:
            self._error = error

    def _look(self) -> None:
        for pid in of_session(self._leader):
            try:
                self._look_at(pid)
            except (FileNotFoundError, ProcessLookupError):
                continue
        self.rounds += 1

    def _look_at(self, pid: int) -> None:
        before = _powers(pid)
        sockets = _sockets(pid)
        outside = network_sockets() | _unix_sockets(self._path)
        local = _unix_sockets() - outside
        powers = _powers(pid)
        uids = _uids(pid)
        self.uids |= uids
        known = [link for link in sockets if link in outside]
        for uid in uids:
            self.listened[uid] = max(self.listened[uid], len(known))
        # One that has just given up its power is judged as what it is now.
        if not before or not powers:
            return
        # What is neither may have been opened behind the first table or closed before the last.
        doubtful = [link for link in sockets if link not in local]
        self.faults |= {
            f"process {pid}, {powers}: socket {link}" for link in doubtful if link in _sockets(pid)
        }


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _uids(pid: int) -> set[int]:
    return set(map(int, _status(pid)["Uid"].split()))


def _powers(pid: int) -> str:
    """What a process has that lets it be others than it is; "" where there is nothing."""
    status = _status(pid)
    powers = [f"Uid {status['Uid']}"] if 0 in map(int, status["Uid"].split()) else []
    powers += [f"{name} {status[name]}" for name in _SETS if int(status[name], 16) & ~_HARMLESS]
    return ", ".join(powers)


def _sockets(pid: int) -> set[str]:
    """The inodes of the sockets that a process has open."""
    folder = f"/proc/{pid}/fd"
    links = set()
    for name in os.listdir(folder):
        try:
            links.add(os.readlink(f"{folder}/{name}"))
        except FileNotFoundError:
            continue
    return {link[8:-1] for link in links if link.startswith("socket:[")}


def _unix_sockets(path: str | None = None) -> set[str]:
    """The inodes of all UNIX sockets, or of those with a name: a listener and its connections."""
    found = set()
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        # The name is optional, and the last.
        words = line.split(maxsplit=7)
        if path is None or words[7:] == [path]:
            found.add(words[6])
    return found
