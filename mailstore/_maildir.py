"""Maildirs, reached through directory descriptors.

The invariant: nothing outside the root is read, made or written, whatever the owner of a Maildir
puts in its place. Every component below the root is opened on its own as a directory and not
followed if it is a link; what is found so is used by descriptor alone.
"""

import logging
import os
import time
from collections import OrderedDict
from pathlib import PurePath
from typing import Final

from ._files import release
from ._permissions import OWNER_ONLY, Permissions, default_access_list
from ._sweep import is_due, sweep
from ._unnamed import NO_UNNAMED, UNNAMED, NoLinkError, link_open_file

_logger: Final = logging.getLogger("mailstore")

# A path below the root, one component an item; the root itself is ().
Parts = tuple[str, ...]

# O_PATH asks for no right to read a directory that is only passed through.
_PASS: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Maildir:
    """The open directories of one Maildir, or of one of its folders. Its owner closes it.

    A message is created in tmp/, published by a link in new/, or in cur/ if it has flags, and
    durable after `sync`: `target` is the one of the two. A name that exists is never overwritten.
    Where the file system can, a message has no name before it is published.
    All methods but `close` and `sweep` raise OSError.
    """

    __slots__ = (
        "_file_mode",
        "_has_unnamed",
        "_may_sweep",
        "_permissions",
        "_private",
        "_sharing",
        "_target_name",
        "_target_status",
        "_tmp_status",
        "target",
        "tmp",
    )

    def __init__(
        self, tmp: int, target: int, permissions: Permissions, target_name: str = "new"
    ) -> None:
        self.tmp = tmp
        self.target = target
        self._target_name = target_name
        self._permissions = permissions
        self._file_mode = permissions.file_mode
        self._private = permissions.private
        self._tmp_status = os.fstat(tmp)
        self._target_status = os.fstat(target)
        self._may_sweep = True
        self._has_unnamed = True
        self._sharing: tuple[object, ...] | None = None

    @property
    def sharing(self) -> tuple[object, ...] | None:
        """What files made here have in common with those of Maildirs for which this is equal.

        None if others than the owner may write to them: they would change other people's mail.
        """
        if self._permissions.file_mode & 0o022:
            return None
        if self._sharing is None:
            tmp, permissions = self._tmp_status, self._permissions
            self._sharing = (
                *(tmp.st_dev, tmp.st_uid, tmp.st_gid, permissions.file_mode, permissions.group),
                default_access_list(self.tmp),
            )
        return self._sharing

    def is_in(self, tmp: os.stat_result) -> bool:
        """Whether its tmp/ is the directory with that status."""
        return os.path.samestat(tmp, self._tmp_status)

    @property
    def device(self) -> int:
        """The number of the file system."""
        return self._target_status.st_dev

    def is_at(self, root: int, parts: Parts) -> bool:
        """Whether `parts` below the directory `root` still leads to this tmp/ and this target."""
        # Looking a path up may follow links, but then it finds other directories than those that
        # were opened without following any, or the same.
        path = "/".join((*parts, "tmp"))
        try:
            status = os.stat(path, dir_fd=root, follow_symlinks=False)
            if not os.path.samestat(status, self._tmp_status):
                return False
            self._tmp_status = status
            self._sharing = None
            status = os.stat(path[:-3] + self._target_name, dir_fd=root, follow_symlinks=False)
        except OSError:
            return False
        return os.path.samestat(status, self._target_status)

    def create(self, name: str) -> int:
        """A new file in tmp/: a descriptor for writing."""
        descriptor = os.open(name, _CREATE, self._file_mode, dir_fd=self.tmp)
        try:
            self._settle(descriptor)
        except BaseException:
            self.discard(name)
            raise
        return descriptor

    def create_unnamed(self) -> int | None:
        """A new file for `publish_unnamed`: a descriptor for writing. None if there can be none."""
        if not self._has_unnamed:
            return None
        try:
            descriptor = os.open(".", UNNAMED, self._file_mode, dir_fd=self.tmp)
        except OSError as error:
            if error.errno not in NO_UNNAMED:
                raise
            self._has_unnamed = False
            return None
        self._settle(descriptor)
        return descriptor

    def _settle(self, descriptor: int) -> None:
        if not self._private:
            try:
                self._permissions.settle_file(descriptor)
            except BaseException:
                release(descriptor)
                raise

    def publish(self, name: str) -> None:
        """Let the file `name` of tmp/ appear in the target."""
        # rename(2) would overwrite. By now the owner may have put a link in the file's place.
        os.link(name, name, src_dir_fd=self.tmp, dst_dir_fd=self.target, follow_symlinks=False)
        self.discard(name)

    def publish_unnamed(self, descriptor: int, name: str) -> None:
        """Let an open file without a name appear in the target.

        Raises NoLinkError as well: one that was made by `create` may do.
        """
        try:
            link_open_file(descriptor, self.target, name)
        except NoLinkError:
            # Why ever: the next ones are not written twice.
            self._has_unnamed = False
            raise

    def discard(self, name: str) -> None:
        """Remove the file `name` from tmp/ if it can be removed."""
        try:
            os.unlink(name, dir_fd=self.tmp)
        except OSError:
            # What is left in tmp/ is no mail, and is swept with the rest.
            pass

    def withdraw(self, name: str) -> None:
        """Remove a message from the target again."""
        os.unlink(name, dir_fd=self.target)

    def sync(self) -> None:
        """Make the entries of the target durable."""
        os.fsync(self.target)

    def sweep(self) -> None:
        """Remove from tmp/ what is old, if that has not been done for long."""
        if self._may_sweep and is_due(self._tmp_status, time.time()):
            try:
                sweep(self.tmp)
            except OSError as error:
                # It would fail before each message.
                self._may_sweep = False
                _logger.warning("a directory tmp/ cannot be swept: %s", error)

    def close(self) -> None:
        """Close the descriptors."""
        release(self.tmp)
        release(self.target)


def open_maildir(root: int, parts: Parts) -> Maildir:
    """Open the Maildir `parts` below the directory `root`; make what is missing, durably.

    Raises OSError: NotADirectoryError where something that is no directory, or a link, is in the
    way.
    """
    base = open_base(root, parts)
    try:
        return open_parts(base)
    finally:
        release(base)


def open_base(root: int, parts: Parts) -> int:
    """The directory `parts` below the directory `root`, made if it is missing: a descriptor that
    serves as a base for paths. Raises OSError as `open_maildir` does.
    """
    base = os.dup(root)
    try:
        for part in parts:
            outer, base = base, enter(base, part, OWNER_ONLY)
            release(outer)
    except BaseException:
        release(base)
        raise
    return base


def open_parts(base: int, *, flagged: bool = False) -> Maildir:
    """The Maildir that the directory `base` is, for messages with flags or for those without.

    Makes what is missing. Raises OSError as `open_maildir` does.
    """
    permissions = Permissions.of(os.fstat(base))
    # new/ comes last: where it is, the others are.
    cur = enter(base, "cur", permissions, _READ if flagged else _PASS)
    try:
        tmp = enter(base, "tmp", permissions, _READ)
        try:
            new = enter(base, "new", permissions, _PASS if flagged else _READ)
        except BaseException:
            release(tmp)
            raise
    except BaseException:
        release(cur)
        raise
    target, other = (cur, new) if flagged else (new, cur)
    release(other)
    try:
        return Maildir(tmp, target, permissions, "cur" if flagged else "new")
    except BaseException:
        release(tmp)
        release(target)
        raise


def enter(parent: int, name: str, permissions: Permissions, flags: int = _PASS) -> int:
    """Open the directory `name`; make it if it is missing, so that it outlives a power cut.

    Raises OSError as `open_maildir` does.
    """
    try:
        return os.open(name, flags, dir_fd=parent)
    except FileNotFoundError:
        pass
    make_directory(parent, name, permissions)
    return os.open(name, flags, dir_fd=parent)


def make_directory(parent: int, name: str, permissions: Permissions) -> None:
    """Make the directory `name`, durably, if somebody else is not faster. Raises OSError."""
    try:
        os.mkdir(name, permissions.directory_mode, dir_fd=parent)
    except FileExistsError:
        # It has perhaps not been synced yet.
        pass
    else:
        made = os.open(name, _READ, dir_fd=parent)
        try:
            permissions.settle_directory(made)
        finally:
            release(made)
    sync_directory(parent)


def sync_directory(directory: int) -> None:
    """Make the entries of `directory` durable; it need not be open for reading. Raises OSError."""
    readable = os.open(".", _READ, dir_fd=directory)
    try:
        os.fsync(readable)
    finally:
        release(readable)


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
                maildir.sweep()
                return maildir
            self.drop(parts)
        maildir = open_maildir(self._root, parts)
        self._open[parts] = maildir
        self._checked.add(parts)
        maildir.sweep()
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
