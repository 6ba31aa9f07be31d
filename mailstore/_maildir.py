"""Maildirs, reached through directory descriptors.

The invariant: nothing outside the root is read, made or written, whatever the owner of a Maildir
puts in its place. Every component below the root is opened on its own as a directory and not
followed if it is a link; what is found so is used by descriptor alone.
"""

import os
from collections import OrderedDict
from pathlib import PurePath
from typing import Final

from ._files import release

# A path below the root, one component an item; the root itself is ().
Parts = tuple[str, ...]

# O_PATH asks for no right to read a directory that is only passed through.
_PASS: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Maildir:
    """The open directories of one Maildir. Its owner closes it.

    A message is created in tmp/, published by a link in new/, and durable after `sync`. A name
    that exists is never overwritten. All methods but `close` raise OSError.
    """

    __slots__ = ("_new_status", "_tmp_status", "new", "tmp")

    def __init__(self, tmp: int, new: int) -> None:
        self.tmp = tmp
        self.new = new
        self._tmp_status = os.fstat(tmp)
        self._new_status = os.fstat(new)

    @property
    def device(self) -> int:
        """The number of the file system."""
        return self._new_status.st_dev

    def is_at(self, root: int, parts: Parts) -> bool:
        """Whether `parts` below the directory `root` still leads to these directories."""
        # Looking a path up may follow links, but then it finds other directories than those that
        # were opened without following any, or the same.
        path = "/".join((*parts, "tmp"))
        if not _is_at(path, root, self._tmp_status):
            return False
        return _is_at(path[:-3] + "new", root, self._new_status)

    def create(self, name: str) -> int:
        """A new file in tmp/: a descriptor for writing."""
        return os.open(name, _CREATE, 0o600, dir_fd=self.tmp)

    def publish(self, name: str) -> None:
        """Let the file `name` of tmp/ appear in new/."""
        # rename(2) would overwrite. By now the owner may have put a link in the file's place.
        os.link(name, name, src_dir_fd=self.tmp, dst_dir_fd=self.new, follow_symlinks=False)
        self.discard(name)

    def discard(self, name: str) -> None:
        """Remove the file `name` from tmp/ if it can be removed."""
        try:
            os.unlink(name, dir_fd=self.tmp)
        except OSError:
            # What is left in tmp/ is no mail, and is swept with the rest.
            pass

    def withdraw(self, name: str) -> None:
        """Remove a message from new/ again."""
        os.unlink(name, dir_fd=self.new)

    def sync(self) -> None:
        """Make the entries of new/ durable."""
        os.fsync(self.new)

    def close(self) -> None:
        """Close the descriptors."""
        release(self.tmp)
        release(self.new)


def open_maildir(root: int, parts: Parts) -> Maildir:
    """Open the Maildir `parts` below the directory `root`; make what is missing, durably.

    Raises OSError: NotADirectoryError where something that is no directory, or a link, is in the
    way.
    """
    base = os.dup(root)
    try:
        for part in parts:
            outer, base = base, _enter(base, part, _PASS)
            release(outer)
        # new/ comes last: where it is, the others are.
        release(_enter(base, "cur", _PASS))
        tmp = _enter(base, "tmp", _READ)
        try:
            new = _enter(base, "new", _READ)
            try:
                return Maildir(tmp, new)
            except BaseException:
                release(new)
                raise
        except BaseException:
            release(tmp)
            raise
    finally:
        release(base)


def _enter(parent: int, name: str, flags: int) -> int:
    """Open the directory `name`; make it if it is missing, so that it outlives a power cut."""
    try:
        return os.open(name, flags, dir_fd=parent)
    except FileNotFoundError:
        pass
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        # Somebody else was faster, but has perhaps not synced yet.
        pass
    readable = os.open(".", _READ, dir_fd=parent)
    try:
        os.fsync(readable)
    finally:
        release(readable)
    return os.open(name, flags, dir_fd=parent)


def _is_at(path: str, root: int, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path, dir_fd=root, follow_symlinks=False), status)
    except OSError:
        return False


class MaildirCache:
    """Maildirs kept open, for one thread.

    `get` gives what lies at the path now: where an open Maildir was moved or deleted since the
    last `trim`, the path is opened anew. What `get` gave stays open until `trim`.
    """

    def __init__(self, root: int, limit: int) -> None:
        self._root = root
        self._limit = limit
        # Those used longest ago come first.
        self._open: OrderedDict[Parts, Maildir] = OrderedDict()
        self._checked: set[Parts] = set()
        self._dropped: list[Maildir] = []

    def get(self, parts: Parts) -> Maildir:
        """The Maildir `parts` below the root. Raises OSError."""
        maildir = self._open.get(parts)
        if maildir is not None:
            if parts in self._checked:
                return maildir
            if maildir.is_at(self._root, parts):
                self._checked.add(parts)
                self._open.move_to_end(parts)
                return maildir
            self.drop(parts)
        maildir = open_maildir(self._root, parts)
        self._open[parts] = maildir
        self._checked.add(parts)
        return maildir

    def drop(self, parts: Parts) -> None:
        """Open the Maildir anew at the next `get`."""
        maildir = self._open.pop(parts, None)
        if maildir is not None:
            self._dropped.append(maildir)

    def trim(self, limit: int | None = None) -> None:
        """Close the Maildirs that were dropped, and those used longest ago beyond the limit."""
        self._checked.clear()
        while len(self._open) > (self._limit if limit is None else limit):
            self._dropped.append(self._open.popitem(last=False)[1])
        while self._dropped:
            self._dropped.pop().close()


def split_path(root: str, path: PurePath) -> Parts:
    """The components of `path` below `root`; a relative path is taken to be below it.

    Raises ValueError for a path that is not below the root, has a component ".." or has a NUL.
    """
    text = os.fspath(path)
    if text.startswith("/"):
        if text != root and not text.startswith(root.rstrip("/") + "/"):
            raise ValueError(f"the path {text!a} is not below the mail root {root!a}")
        text = text[len(root) :]
    parts = tuple(part for part in text.split("/") if part not in {"", "."})
    if ".." in parts or "\0" in text:
        raise ValueError(f"the path {text!a} has '..' or NUL in it")
    return parts
