"""The file `maildirsize` of Maildir++, and counting what a Maildir holds.

The invariant: what is in the file counts only if every octet of it is as it should be and the file
is a plain one of the Maildir's owner or of this process; anything else is no answer, and never
waited on. Nothing outside the Maildir is opened, counted or written, whatever its owner puts there.

https://www.courier-mta.org/imap/README.maildirquota.html
"""

import errno
import fcntl
import logging
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Final

from ._files import write_all
from ._quota import Usage
from ._quota_rules import Limits

_logger: Final = logging.getLogger("mailstore")

_NAME: Final = "maildirsize"
# A larger file is counted anew (Maildir++).
_LARGEST: Final = 5120
_FRESH_SECONDS: Final = 15 * 60
_MOST: Final = (1 << 63) - 1

# Dovecot writes numbers without padding, maildrop pads them with spaces.
_LINE: Final = re.compile(rb" *([+-]?[0-9]{1,19}) +([+-]?[0-9]{1,19}) *")
_LIMIT: Final = re.compile(rb"([0-9]{1,19})([SC])")
_SIZE: Final = re.compile(r",S=([0-9]{1,18})(?:[:,]|\Z)")

_PASS: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: neither a FIFO nor a lease on the file is waited on.
_OPEN: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

# What opening something else than a readable, writable plain file gives.
_UNUSABLE: Final = frozenset(
    {
        *(errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV, errno.EACCES),
        *(errno.EPERM, errno.EAGAIN, errno.EROFS, errno.ETXTBSY, errno.EOVERFLOW),
    }
)

# The file may be replaced while it is looked at, but not for ever.
_ATTEMPTS: Final = 10


def parse(data: bytes) -> tuple[Limits, Usage, int] | None:
    """Limits, sum and number of lines that are summed; None for what is not as it should be."""
    if len(data) > _LARGEST or not data.endswith(b"\n"):
        return None
    first, *lines = data[:-1].split(b"\n")
    limits = _parse_limits(first)
    if limits is None or not lines:
        return None
    octets = messages = 0
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None:
            return None
        octets += int(match[1])
        messages += int(match[2])
    if not (0 <= octets <= _MOST and 0 <= messages <= _MOST):
        return None
    return limits, Usage(octets, messages), len(lines)


def _parse_limits(line: bytes) -> Limits | None:
    limits = {b"S": 0, b"C": 0}
    for part in line.split(b","):
        match = _LIMIT.fullmatch(part)
        if match is None:
            return None
        limits[match[2]] = int(match[1])
    return Limits(limits[b"S"], limits[b"C"])


@contextmanager
def open_directory(root: int, parts: tuple[str, ...]) -> Iterator[int | None]:
    """The directory `parts` below the directory `root`, no link followed; None if it is missing.

    Raises OSError.
    """
    base = os.dup(root)
    try:
        for part in (*parts, "."):
            outer, base = base, os.open(part, _READ if part == "." else _PASS, dir_fd=base)
            os.close(outer)
    except FileNotFoundError:
        os.close(base)
        yield None
        return
    except BaseException:
        os.close(base)
        raise
    try:
        yield base
    finally:
        os.close(base)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What `maildirsize` says."""

    usage: Usage
    fresh: bool
    """Whether all of it was counted within the last 15 minutes: a full mailbox is not believed
    otherwise (Maildir++)."""


def read(maildir: int, limits: Limits | None = None) -> Recorded | None:
    """What `maildirsize` of the directory `maildir` says; None if it is to be counted anew, as it
    is if its limits are not `limits`.

    Raises OSError for what is no fault of the file.
    """
    descriptor = _open(maildir, os.O_RDONLY)
    if descriptor is None:
        return None
    try:
        status = os.fstat(descriptor)
        found = parse(os.read(descriptor, _LARGEST + 1))
    finally:
        os.close(descriptor)
    if found is None or limits not in {None, found[0]}:
        return None
    _, usage, lines = found
    return Recorded(usage, lines == 1 and 0 <= time.time() - status.st_mtime <= _FRESH_SECONDS)


def append(maildir: int, size: int, *, tell: bool, durable: bool = False) -> Usage | None:
    """Add one message of `size` octets, which is in its place already, to `maildirsize`.

    Where there is no such file nothing is added: who makes one counts the message. With `tell`, the
    sum up to and including this message: of messages added at the same time by others, those before
    it in the file and no others. `durable`: it is synced. Raises OSError.
    """
    for _ in range(_ATTEMPTS):
        descriptor = _open(maildir, os.O_RDWR | os.O_APPEND)
        if descriptor is None:
            return None
        try:
            # One write, so that no other comes between (Maildir++).
            os.write(descriptor, b"%d 1\n" % size)
            if not _is_current(maildir, descriptor):
                # Replaced in between: who did that has perhaps not seen it any more.
                continue
            if durable:
                os.fsync(descriptor)
            if not tell:
                return None
            end = os.lseek(descriptor, 0, os.SEEK_CUR)
            found = parse(os.pread(descriptor, end, 0)) if end <= _LARGEST else None
            return None if found is None else found[1]
        finally:
            os.close(descriptor)
    return None


def recount(
    maildir: int,
    limits: Limits,
    counted: Callable[[str], bool],
    *,
    replacing: AbstractContextManager[object],
    durable: bool = False,
) -> Usage:
    """Count what the directory `maildir` holds and write `maildirsize` anew.

    `counted` says of each folder, by the name of its directory ("" is INBOX), whether it counts.
    What others add meanwhile may be in the new file twice, but is not lost; it is not in what this
    gives. What they add while the file is replaced is in the new one a moment later: `replacing` is
    entered for that time, and keeps away who must not miss it. `durable`: the file is synced.
    Raises OSError for what cannot be counted; that the file cannot be written is no failure.
    """
    try:
        old = _old_file(maildir, limits, durable=durable)
    except OSError as error:
        _logger.warning("maildirsize cannot be written, all mail is counted: %s", error)
        old = None
    if old is None:
        return count(maildir, counted)
    try:
        try:
            # One at a time; the others go by what they count themselves. Not waited for: the
            # mailbox's owner could hold the lock.
            fcntl.flock(old, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return count(maildir, counted)
        begin = os.fstat(old).st_size
        usage = count(maildir, counted)
        try:
            with replacing:
                _replace(maildir, old, begin, limits, usage, durable=durable)
        except OSError as error:
            _logger.warning("maildirsize cannot be written, all mail is counted: %s", error)
        return usage
    finally:
        os.close(old)


def count(maildir: int, counted: Callable[[str], bool]) -> Usage:
    """What lies in new/ and cur/ of all folders that `counted` holds for. Raises OSError."""
    octets = messages = 0
    for directory in _directories(maildir, counted):
        with os.scandir(directory) as entries:
            for entry in entries:
                size = _size(entry)
                if size is not None:
                    octets += size
                    messages += 1
    return Usage(octets, messages)


def _open(maildir: int, flags: int) -> int | None:
    """A descriptor of `maildirsize` if that is what it should be, else None."""
    for _ in range(_ATTEMPTS):
        try:
            descriptor = os.open(_NAME, flags | _OPEN, dir_fd=maildir)
        except OSError as error:
            if error.errno in _UNUSABLE:
                return None
            raise
        try:
            status = os.fstat(descriptor)
            owners = {os.fstat(maildir).st_uid, os.geteuid()}
        except BaseException:
            os.close(descriptor)
            raise
        # A second name may be that of a file elsewhere, which is not to be written to.
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid in owners:
            return descriptor
        os.close(descriptor)
        if status.st_nlink:
            return None
        # Replaced in between.
    return None


def _is_current(maildir: int, descriptor: int) -> bool:
    """Whether the open file is the one that is there."""
    try:
        there = os.stat(_NAME, dir_fd=maildir, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))


def _old_file(maildir: int, limits: Limits, *, durable: bool) -> int | None:
    """The file that is there, for others to add to while mail is counted; one that nobody believes
    is made where there is none. None where that cannot be."""
    descriptor = _open(maildir, os.O_RDWR)
    if descriptor is None:
        if not _put(maildir, b"%b\n?\n" % _definition(limits), durable=durable):
            return None
        descriptor = _open(maildir, os.O_RDWR)
    return descriptor


def _replace(
    maildir: int, old: int, begin: int, limits: Limits, usage: Usage, *, durable: bool
) -> None:
    """Write the file anew, with what was added to the old one since it had `begin` octets."""
    text = b"%b\n%d %d\n" % (_definition(limits), usage.octets, usage.messages)
    added = os.pread(old, _LARGEST, begin)
    if not _is_current(maildir, old) or not _put(maildir, text + added, durable=durable):
        return
    late = os.pread(old, _LARGEST, begin + len(added))
    if late:
        new = _open(maildir, os.O_WRONLY | os.O_APPEND)
        if new is not None:
            try:
                os.write(new, late)
                if durable:
                    os.fsync(new)
            finally:
                os.close(new)


def _definition(limits: Limits) -> bytes:
    """The first line."""
    parts = []
    if limits.octets or not limits.messages:
        parts.append(f"{limits.octets}S")
    if limits.messages:
        parts.append(f"{limits.messages}C")
    return ",".join(parts).encode()


def _put(maildir: int, text: bytes, *, durable: bool) -> bool:
    """Put a new file in the place of `maildirsize`; whether that could be done."""
    try:
        tmp = os.open("tmp", _PASS, dir_fd=maildir)
    except (FileNotFoundError, NotADirectoryError):
        # What is no Maildir yet, or is none, gets no file.
        return False
    try:
        name = f"{int(time.time())}.P{os.getpid()}R{secrets.token_hex(8)}.{_NAME}"
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN, 0o600, dir_fd=tmp)
        try:
            try:
                write_all(descriptor, text)
                if durable:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.rename(name, _NAME, src_dir_fd=tmp, dst_dir_fd=maildir)
        except BaseException as error:
            os.unlink(name, dir_fd=tmp)
            if isinstance(error, IsADirectoryError):
                return False
            raise
        if durable:
            os.fsync(maildir)
        return True
    finally:
        os.close(tmp)


def _directories(maildir: int, counted: Callable[[str], bool]) -> Iterator[int]:
    """new/ and cur/ of all folders that count: descriptors, each open for one step."""
    with os.scandir(maildir) as entries:
        folders = [
            entry.name
            for entry in entries
            if entry.name.startswith(".")
            and not entry.name.startswith("..")
            and entry.is_dir(follow_symlinks=False)
        ]
    for folder in ("", *folders):
        if not counted(folder):
            continue
        # What is read while it is counted goes from new/ to cur/, and must not be missed.
        for part in ("new", "cur"):
            directory = _open_below(maildir, folder, part)
            if directory is not None:
                try:
                    yield directory
                finally:
                    os.close(directory)


def _open_below(maildir: int, folder: str, part: str) -> int | None:
    try:
        base = os.open(folder or ".", _PASS, dir_fd=maildir)
        try:
            return os.open(part, _READ, dir_fd=base)
        finally:
            os.close(base)
    except (FileNotFoundError, NotADirectoryError):
        # Gone, a link (ENOTDIR with O_DIRECTORY) or a file: no mail is delivered there.
        return None


def _size(entry: os.DirEntry[str]) -> int | None:
    """The size of a message, from its name where that has it; None for what is no message."""
    match = _SIZE.search(entry.name)
    try:
        if entry.is_dir(follow_symlinks=False):
            return None
        if match is not None:
            return int(match[1])
        return entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        # Read or deleted meanwhile.
        return None
