"""What the kernel says of processes: whose they are, and what leads out of them."""

import os
import time
from collections.abc import Callable
from pathlib import Path

_SECONDS = 20.0


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what no process tells of."""
    deadline = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def user_ids(pid: int) -> set[str]:
    """All the UIDs that a process has."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("Uid:"):
            return set(line.split()[1:])
    raise AssertionError("no Uid")


def network_sockets() -> set[str]:
    """The inodes of all sockets that are not UNIX ones."""
    inodes = set()
    for name in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6", "packet", "netlink"):
        table = Path("/proc/net", name)
        if not table.exists():
            continue
        header, *lines = table.read_text().splitlines()
        # Where a table names its inodes, the headline does, in as many words as the lines have
        # before the optional ones; packet and netlink have theirs at the end.
        for line in lines:
            words = line.split()
            inodes.add(words[-1] if "Inode" in header else words[9])
    return inodes


def of_the_network(pid: int) -> list[str]:
    """The descriptors of a process that lead to the network."""
    folder = f"/proc/{pid}/fd"
    links = [os.readlink(f"{folder}/{name}") for name in os.listdir(folder)]
    known = network_sockets()
    return [link for link in links if link[:8] == "socket:[" and link[8:-1] in known]


def of_session(pid: int) -> list[int]:
    """All processes of the session that a process leads."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and os.getsid(int(entry.name)) == pid:
                found.append(int(entry.name))
        except ProcessLookupError:
            continue
    return found
