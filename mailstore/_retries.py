"""Messages that come again because the client has not seen that they were stored.

The invariant: a message is taken for a retry only if the one before it is durable: recorded as
stored, which it is behind its last sync, or recorded as begun by a delivery that is over, found in
its mailbox, and synced there. Whatever goes wrong with the records, the message is delivered: twice
is allowed, not at all is not.

A record is durable before its message is visible, so no crash leaves a message without one. That it
was stored is written behind its last sync and not synced itself: until that has reached the disk,
the message in its mailbox says the same.
"""

import errno
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from ._files import release
from ._folders import Place
from ._maildir import open_base, open_parts
from ._retry_file import NAME, RetryFile, make_file, open_file
from ._retry_record import Record, State, by_age, digest, find
from ._sync import Sync

_logger: Final = logging.getLogger("mailstore")

_MOST_ENTRIES: Final = 4096
_SECOND: Final = 1_000_000_000
# The file may be replaced while it is opened, but not for ever.
_ATTEMPTS: Final = 3
# Seconds between two looks at a delivery that goes on elsewhere.
_PAUSE: Final = 0.02
_PASS: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryOptions:
    """How long, and how many, deliveries are remembered. Raises ValueError for what makes no sense.

    A message is a retry if reverse-path, ENVID, recipient, ORCPT, mailbox and content are those of
    one that was delivered before, octet for octet.
    """

    window: float = 4 * 3600.0
    """Seconds for which a delivery is remembered."""
    entries: int = 256
    """How many deliveries to one user are remembered, 1 to 4096: 64 octets each, in the file
    `lmtp-retries` of the Maildir."""
    lock_timeout: float = 10.0
    """Seconds to wait for another delivery of the same message; then the client is told 451."""

    def __post_init__(self) -> None:
        if not self.window > 0:
            raise ValueError(f"the window {self.window!a} is no time: give seconds above 0")
        if not 1 <= self.entries <= _MOST_ENTRIES:
            raise ValueError(
                f"{self.entries!a} entries cannot be remembered: give 1 to {_MOST_ENTRIES}"
            )


class Recognised(Exception):  # noqa: N818  # it says what is so, and is no error
    """The message is a retry of one that is stored."""


class _InProgressError(Exception):
    """Another delivery of the message is not over yet."""


class Retries:
    """Recognises retries of messages to Maildirs below the directory `root`, a descriptor.

    `epoch` is part of what makes a message the same.
    """

    def __init__(self, root: int, sync: Sync, options: RetryOptions) -> None:
        self._root = root
        self._sync = sync
        self._options = options
        # What was not synced may be gone when the machine has stopped, whatever the records say.
        self.epoch = _boot() if sync is Sync.NEVER else b""

    def deliver(
        self,
        place: Place,
        keys: list[bytes],
        name: str,
        store: Callable[[], None],
        *,
        written: bool,
    ) -> None:
        """Call `store`, which stores the message as a file `name` in `place`, unless it is a retry.

        `written`: its batch writes the message. Raises Recognised if all of `keys` are those of
        messages that are stored, what `store` raises, and OSError; TimeoutError if another delivery
        of the message does not end.
        """
        base = open_base(self._root, place.parts)
        try:
            file = self._open(base, place)
            claim = None if file is None else self._claim(file, base, place, keys, name)
        finally:
            release(base)
        if claim is None:
            store()
            return
        # With syncfs, a batch that writes is synced as a whole before any of it is visible.
        if self._sync is not Sync.NEVER and not (self._sync is Sync.SYNCFS and written):
            claim.sync()
        claim.deliver(store)

    def _open(self, base: int, place: Place) -> RetryFile | None:
        """The file of the Maildir `base`, made if it is missing; None where that cannot be."""
        entries = self._options.entries
        for _ in range(_ATTEMPTS):
            try:
                file = open_file(base, entries)
            except OSError as error:
                _warn(place, error)
                return None
            if isinstance(file, RetryFile):
                return file
            # What is wrong with the Maildir itself is wrong with the delivery.
            maildir = open_parts(base)
            try:
                make_file(base, maildir, entries, replace=file)
            except OSError as error:
                _warn(place, error)
                return None
            finally:
                maildir.close()
        _logger.warning("%s in %a is replaced by others again and again", NAME, str(place))
        return None

    def _claim(
        self, file: RetryFile, base: int, place: Place, keys: list[bytes], name: str
    ) -> "_Claim | None":
        """What stands for this delivery in the file; None where that cannot be. Closes the file if
        it gives none, or raises Recognised or TimeoutError."""
        try:
            return self._wait(file, base, place, keys, name)
        except OSError as error:
            file.close()
            _warn(place, error)
            return None
        except _InProgressError:
            file.close()
            text = "another delivery of this message does not end"
            raise TimeoutError(errno.ETIMEDOUT, text) from None
        except BaseException:
            file.close()
            raise

    def _wait(
        self, file: RetryFile, base: int, place: Place, keys: list[bytes], name: str
    ) -> "_Claim":
        """Begin the delivery once no other of the same message goes on."""
        deadline = time.monotonic() + self._options.lock_timeout
        while True:
            with file.hold(deadline):
                now = time.time_ns()
                octets = file.read()
                try:
                    missing = [
                        key
                        for key in keys
                        if not self._is_stored(file, base, place, find(octets, key), now)
                    ]
                except _InProgressError:
                    if time.monotonic() >= deadline:
                        raise
                else:
                    if not missing:
                        raise Recognised
                    return _Claim(file, place, missing, name, now, by_age(octets, now))
            time.sleep(_PAUSE)

    def _is_stored(
        self,
        file: RetryFile,
        base: int,
        place: Place,
        records: Iterable[tuple[int, Record]],
        now: int,
    ) -> bool:
        """Whether one of these records is that of a message that is durable."""
        in_progress = False
        for number, record in records:
            if abs(now - record.time) > self._options.window * _SECOND:
                continue
            if record.state is State.STORED:
                return True
            if not file.take(number):
                in_progress = True
                continue
            try:
                # Its delivery is over, perhaps since the record was read.
                if self._settle(file, base, place, number, record):
                    return True
            finally:
                file.give_back(number)
        if in_progress:
            raise _InProgressError
        return False

    def _settle(
        self, file: RetryFile, base: int, place: Place, number: int, record: Record
    ) -> bool:
        """Whether the message of a record that nobody has any more is durable."""
        stored = replace(record, state=State.STORED)
        current = file.get(number)
        if current != record:
            return current == stored
        there = self._is_there(base, place, record.message)
        file.put(number, stored if there else None)
        return there

    def _is_there(self, base: int, place: Place, message: bytes) -> bool:
        """Whether the message is in its mailbox, durably."""
        # The INBOX gets it where there was no such folder.
        for folder in dict.fromkeys((place.mailbox.directory, "")):
            # What is read meanwhile goes from new/ to cur/, and must not be missed.
            for part in ("new", "cur"):
                directory = _open_below(base, folder, part)
                if directory is None:
                    continue
                try:
                    if _has(directory, message):
                        if self._sync is not Sync.NEVER:
                            os.fsync(directory)
                        return True
                finally:
                    release(directory)
        return False


class _Claim:
    """The records of one delivery, until it is over."""

    def __init__(
        self,
        file: RetryFile,
        place: Place,
        keys: Iterable[bytes],
        name: str,
        now: int,
        numbers: Iterable[int],
    ) -> None:
        self._file = file
        self._place = place
        self._records: list[tuple[int, Record]] = []
        message = digest(name.encode())
        free = (number for number in numbers if file.take(number))
        for key, number in zip(keys, free, strict=False):
            self._records.append((number, Record(key, message, now, State.BEGUN)))
        self._try(self._begin)

    def sync(self) -> None:
        """Make the records durable."""
        self._try(self._file.sync)

    def deliver(self, store: Callable[[], None]) -> None:
        """Call `store` and write down what became of it."""
        # Until the file is closed, nobody else believes or withdraws what these records are about.
        with self._file:
            try:
                store()
            except BaseException:
                self._try(self._drop)
                raise
            self._try(self._confirm)

    def _begin(self) -> None:
        for number, record in self._records:
            self._file.put(number, record)

    def _confirm(self) -> None:
        for number, record in self._records:
            self._file.put(number, replace(record, state=State.STORED))

    def _drop(self) -> None:
        for number, _ in self._records:
            self._file.put(number, None)

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except OSError as error:
            _warn(self._place, error)


def _warn(place: Place, error: OSError) -> None:
    _logger.warning("%s in %a fails, retries may be stored twice: %s", NAME, str(place), error)


def _boot() -> bytes:
    """What is another after each start of the machine."""
    try:
        with open(_BOOT_ID, "rb") as file:
            return file.read()
    except OSError:
        return secrets.token_bytes(16)


def _open_below(base: int, folder: str, part: str) -> int | None:
    try:
        outer = os.open(folder or ".", _PASS, dir_fd=base)
        try:
            return os.open(part, _READ, dir_fd=outer)
        finally:
            release(outer)
    except (FileNotFoundError, NotADirectoryError):
        # Gone, a link (ENOTDIR with O_DIRECTORY) or a file: no mail was delivered there.
        return None


def _has(directory: int, message: bytes) -> bool:
    """Whether a file of that name, whatever its flags are, is in the directory."""
    with os.scandir(directory) as entries:
        return any(
            digest(os.fsencode(entry.name.partition(":")[0])) == message
            and entry.is_file(follow_symlinks=False)
            for entry in entries
        )
