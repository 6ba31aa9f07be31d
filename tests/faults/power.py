"""Power cuts of a file system that is being delivered to.

The file system lies in a file behind a loop device. A cut is the ioctl by which ext4 and XFS shut
themselves down without writing out their log: what they have not yet handed to the device is gone,
memory and all, and the next mount replays the log as after a real cut.

What this does not show: the device itself loses nothing. A disk that drops its write cache although
it was told to flush it, or that tears a sector, is not played here, and neither is a file system
that forgets to tell it.
"""

import fcntl
import os
import random
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from mailstore import Sync
from tests.faults.store_writer import stored_below

FILE_SYSTEMS = ("ext4", "xfs")
# EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN
_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2
_MEGABYTES = 1024
# ext4 commits by itself every 5 seconds unless told otherwise, XFS every 30.
_OPTIONS = {"ext4": "loop,commit=300", "xfs": "loop"}
# A round makes the Maildirs, or finds those of the one before.
_ROUNDS_PER_ROOT = 2


@dataclass
class Tally:
    """What became of the messages: copies that were acknowledged, and what is wrong with any."""

    cuts: int = 0
    acknowledged: int = 0
    lost: int = 0
    torn: int = 0
    twice: int = 0

    def __str__(self) -> str:
        return (
            f"{self.cuts} cuts, {self.acknowledged} copies acknowledged,"
            f" {self.lost} lost, {self.torn} torn, {self.twice} twice"
        )


def cut_power(folder: Path, kind: str, syncs: list[Sync], *, rounds: int, seed: int = 0) -> Tally:
    """Deliver and cut the power at a random moment, round by round, each of `syncs` in turn."""
    chance = random.Random(f"{kind} {seed}")
    tally = Tally()
    acknowledged: set[tuple[str, str]] = set()
    with _mounted(folder, kind) as disk:
        for number in range(rounds):
            root = disk.mount_point / f"root{number // _ROUNDS_PER_ROOT}"
            if not root.exists():
                acknowledged.clear()
                root.mkdir()
                os.sync()
            sync = syncs[number % len(syncs)]
            promised = _deliver_until_cut(disk, root, f"round{number}", sync, chance)
            tally.acknowledged += len(promised)
            acknowledged |= promised
            disk.remount()
            stored, torn = stored_below(root)
            tally.cuts += 1
            tally.lost += len(acknowledged - stored.keys())
            tally.twice += sum(count > 1 for count in stored.values())
            tally.torn += len(torn)
            # What is lost once is not counted again in the next round.
            acknowledged &= stored.keys()
            if (number + 1) % _ROUNDS_PER_ROOT == 0:
                shutil.rmtree(root)
    return tally


class _Disk:
    """A file system in a file. Raises `subprocess.CalledProcessError`."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.mount_point = folder / "mounted"
        self.mount_point.mkdir()
        self._image = folder / "image"
        self._kind = kind
        with self._image.open("xb") as image:
            image.truncate(_MEGABYTES << 20)
        _run(f"mkfs.{kind}", "-q", str(self._image))

    def mount(self) -> None:
        options = _OPTIONS[self._kind]
        _run("mount", "-t", self._kind, "-o", options, str(self._image), str(self.mount_point))

    def cut(self) -> None:
        root = os.open(self.mount_point, os.O_RDONLY)
        try:
            fcntl.ioctl(root, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(root)

    def unmount(self) -> None:
        _run("umount", str(self.mount_point))

    def remount(self) -> None:
        self.unmount()
        self.mount()


@contextmanager
def _mounted(folder: Path, kind: str) -> Iterator[_Disk]:
    try:
        disk = _Disk(folder, kind)
        disk.mount()
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or error
        pytest.skip(f"no {kind} can be made and mounted here: {reason}")
    try:
        yield disk
    finally:
        disk.unmount()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


def _deliver_until_cut(
    disk: _Disk, root: Path, name: str, sync: Sync, chance: random.Random
) -> set[tuple[str, str]]:
    """Let a process deliver, cut the power under it, and give what it had acknowledged."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults.store_writer", str(root), name, sync],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
    ) as writer:
        assert writer.stdout is not None
        said = b""
        lines = chance.randrange(1, 120)
        while said.count(b"\n") < lines and (octets := os.read(writer.stdout.fileno(), 65_536)):
            said += octets
        # Somewhere in a batch, not always behind its replies.
        time.sleep(chance.random() / 50)
        os.set_blocking(writer.stdout.fileno(), False)
        said += writer.stdout.read() or b""
        # The process outlives the cut for a moment, as none would: XFS drops what is pinned in
        # memory, and a fsync amid that may find nothing left to write and succeed. What is said
        # from here on nobody would have heard.
        disk.cut()
        writer.kill()
    copies = set()
    for line in said.decode().splitlines(keepends=True):
        # The last line may be cut.
        if line.endswith("\n"):
            maildir, _, message = line.rstrip().partition(" ")
            copies.add((maildir, message))
    assert copies, "the writer did not deliver"
    return copies
