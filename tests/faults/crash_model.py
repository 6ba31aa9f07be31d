"""A model of what a file system may keep of a delivery when the machine stops.

It takes the system calls of a delivery as strace saw them and looks at every moment between two of
them. At each, what was synced is on disk; of all else any part may be there and any part missing,
in whatever order it was done: an entry of a directory, each of them for itself, and what was
written to a file, without which the file is torn. A call that makes or moves an entry does so
wholly or not at all. That is less than ext4 or XFS promise, and what POSIX does.

The invariant: an unknown call that may change files is an error, not a change that is overlooked.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from tests.faults.tracing import Call

# They change nothing of what a message is, or only memory.
_HARMLESS = {
    *("access", "chdir", "close", "dup", "dup2", "dup3", "execve", "faccessat", "faccessat2"),
    *("fadvise64", "fchmod", "fchmodat", "fchown", "fchownat", "fcntl", "flock", "fstat"),
    *("fstatfs", "getcwd", "getdents64", "ioctl", "lseek", "lstat", "mmap", "newfstatat"),
    *("pread64", "read", "readlink", "readlinkat", "readv", "stat", "statfs", "statx"),
    *("sync_file_range", "utimensat"),
}
_AT = r"(?:\d+|AT_FDCWD)<([^>]*)>"
_DESCRIPTOR = r"\d+<([^>]*)>"
_OPEN = r"(\d+)<([^>]*)>"
_NAME = r'"([^"]*)"'
_CREATE = re.compile(
    rf"openat\({_AT}, {_NAME}, [^)]*(O_CREAT|O_TMPFILE).*<([^>]*)>(?:\(deleted\))?$"
)
_MKDIR = re.compile(rf"mkdirat\({_AT}, {_NAME}, ")
_WRITE = re.compile(rf"(?:write|writev|pwrite64|pwritev|pwritev2|sendfile)\({_DESCRIPTOR}")
_COPY = re.compile(rf"copy_file_range\({_DESCRIPTOR}[^,]*, [^,]*, {_DESCRIPTOR}")
_LINK = re.compile(rf"linkat\({_AT}, {_NAME}, {_AT}, {_NAME}, ")
# A file by a descriptor of it.
_OPEN_FILE = re.compile(r"/proc/self/fd/(\d+)")
_RENAME = re.compile(rf"renameat2?\({_AT}, {_NAME}, {_AT}, {_NAME}")
_UNLINK = re.compile(rf"unlinkat\({_AT}, {_NAME}, ")
_SYNC = re.compile(rf"(?:fsync|fdatasync)\({_DESCRIPTOR}")
_SIZE = re.compile(r",S=(\d+),W=")


class _Inode:
    """A file or a directory, whatever names it has."""


@dataclass(frozen=True)
class _Entry:
    """A name in a directory: which file it leads to, None for none."""

    directory: _Inode
    name: str
    target: _Inode | None


@dataclass(frozen=True)
class _Data:
    """So many octets of a file."""

    file: _Inode
    octets: int


@dataclass(frozen=True)
class _Change:
    """What one call changed, all of it or nothing, and when it began and was over."""

    parts: tuple[_Entry | _Data, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Sync:
    """A call after which changes are on disk: of the file or directory at `path`, or all (None)."""

    path: str | None
    inode: _Inode | None
    begin: int
    end: int


@dataclass(frozen=True)
class _Message:
    """A name in a directory new/, the directories that lead there, and its size when whole."""

    path: PurePath
    chain: tuple[_Entry, ...]
    size: int


class Delivery:
    """The changes, the syncs and the replies of deliveries to Maildirs below `root`.

    `replies` are pairs: the Maildir of a recipient and the call that gave the reply.
    """

    def __init__(
        self, root: str, calls: Sequence[Call], replies: Sequence[tuple[str, Call]]
    ) -> None:
        self._root = root
        self._names: dict[str, _Inode] = {root: _Inode()}
        # Files that are open, some of which have lost their names.
        self._open: dict[int, _Inode] = {}
        self._changes: list[_Change] = []
        self.syncs: list[Sync] = []
        self._messages: list[_Message] = []
        self._chains: dict[str, tuple[_Entry, ...]] = {root: ()}
        self._answered: dict[str, list[int]] = {}
        for maildir, call in replies:
            self._answered.setdefault(f"{root}/{maildir}/new", []).append(call.begin)
        for call in calls:
            self._take(call)
        self._moments = sorted({moment for call in calls for moment in (call.begin, call.end)})

    def violations(self, *, without: Sequence[Sync] = ()) -> list[str]:
        """What a crash may leave that must not be. `without` are syncs that are left out."""
        syncs = [sync for sync in self.syncs if sync not in without]
        found = []
        # The replies for a Maildir come in the order in which its messages appeared.
        replies = {path: iter(begins) for path, begins in self._answered.items()}
        for message in self._messages:
            reply = next(replies[str(message.path.parent)])
            wrong = {
                what
                for moment in self._moments
                for what in self._wrong(message, moment, syncs, promised=reply < moment)
            }
            found += [f"{message.path}: {what}" for what in sorted(wrong)]
        found += [f"nothing in {path}" for path, left in replies.items() if next(left, None)]
        return found

    def _take(self, call: Call) -> None:
        if self._root not in call.text or call.result < 0:
            return
        text = call.text
        if match := _CREATE.match(text):
            inode = self._names[match[4]] = _Inode()
            if match[3] == "O_CREAT":
                self._change(call, self._entry(match[1], match[2], inode))
        elif match := _MKDIR.match(text):
            inode = self._names[f"{match[1]}/{match[2]}"] = _Inode()
            self._change(call, self._entry(match[1], match[2], inode))
        elif match := _WRITE.match(text) or _COPY.match(text):
            self._change(call, _Data(self._names[match[match.lastindex or 1]], call.result))
        elif match := _LINK.match(text):
            by_descriptor = _OPEN_FILE.fullmatch(match[2])
            if by_descriptor:
                inode = self._open[int(by_descriptor[1])]
            else:
                inode = self._names[f"{match[1]}/{match[2]}"]
            self._change(call, self._entry(match[3], match[4], inode))
            self._names[f"{match[3]}/{match[4]}"] = inode
        elif match := _RENAME.match(text):
            inode = self._names.pop(f"{match[1]}/{match[2]}")
            gone = _Entry(self._names[match[1]], match[2], None)
            self._change(call, gone, self._entry(match[3], match[4], inode))
            self._names[f"{match[3]}/{match[4]}"] = inode
        elif match := _UNLINK.match(text):
            del self._names[f"{match[1]}/{match[2]}"]
            self._change(call, _Entry(self._names[match[1]], match[2], None))
        elif match := _SYNC.match(text):
            self.syncs.append(Sync(match[1], self._names[match[1]], call.begin, call.end))
        elif call.name == "syncfs":
            self.syncs.append(Sync(None, None, call.begin, call.end))
        elif call.name not in _HARMLESS and not (call.name == "openat" and "O_CREAT" not in text):
            raise AssertionError(f"the model does not know this call: {text}")
        for number, path in re.findall(rf"\b{_OPEN}", text):
            if path in self._names:
                self._open[int(number)] = self._names[path]

    def _change(self, call: Call, *parts: _Entry | _Data) -> None:
        self._changes.append(_Change(parts, call.begin, call.end))

    def _entry(self, directory: str, name: str, target: _Inode) -> _Entry:
        entry = _Entry(self._names[directory], name, target)
        chain = self._chains[directory]
        self._chains[f"{directory}/{name}"] = (*chain, entry)
        path = PurePath(directory, name)
        size = _SIZE.search(name)
        if path.parent.name == "new" and size is not None:
            self._messages.append(_Message(path, (*chain, entry), int(size[1])))
        return entry

    def _wrong(
        self, message: _Message, moment: int, syncs: Sequence[Sync], *, promised: bool
    ) -> Iterator[str]:
        """What may be wrong with a message when the machine stops right before line `moment`."""
        file = message.chain[-1].target
        # The other changes have no part in whether it is there and whole.
        places = {(entry.directory, entry.name) for entry in message.chain}

        def matters(part: _Entry | _Data) -> bool:
            if isinstance(part, _Data):
                return part.file is file
            return (part.directory, part.name) in places

        changes = [
            change
            for change in self._changes
            if change.begin < moment and any(map(matters, change.parts))
        ]
        kept = [any(_keeps(sync, change, moment) for sync in syncs) for change in changes]
        for chosen in itertools.product(*((True,) if keep else (True, False) for keep in kept)):
            entries: dict[tuple[_Inode, str], _Inode | None] = {}
            octets = 0
            for change in itertools.compress(changes, chosen):
                for part in change.parts:
                    if isinstance(part, _Data):
                        octets += part.octets if part.file is file else 0
                    else:
                        entries[part.directory, part.name] = part.target
            visible = all(
                entries.get((entry.directory, entry.name)) is entry.target
                for entry in message.chain
            )
            if visible and octets != message.size:
                yield "in new/ and not whole"
            if promised and not visible:
                yield "acknowledged and not there"


def _keeps(sync: Sync, change: _Change, moment: int) -> bool:
    """Whether the change is on disk at the moment because of this sync."""
    if not (change.end < sync.begin and sync.end < moment):
        return False
    return sync.inode is None or any(
        sync.inode is (part.file if isinstance(part, _Data) else part.directory)
        for part in change.parts
    )
