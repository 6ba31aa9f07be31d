"""Quotas that are counted in `maildirsize`, as Maildir++ has it and Dovecot and maildrop read it.

The invariant: messages that this process is delivering count for each other before they are there,
so processes that race go beyond a limit by no more than the others have in flight. The file is only
added to for messages that are there.
"""

import logging
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import PurePath
from typing import Final

from . import _maildirsize
from ._fork import call_in_child
from ._maildir import Parts, split_path
from ._quota import NothingReserved, QuotaPolicy, Reservation, Usage
from ._quota_rules import Limits
from ._quota_warnings import WarningRunner
from ._sync import Sync

_logger: Final = logging.getLogger("mailstore")

# How often mail is counted for one message while others come in and leave it open whether it fits.
_COUNTS: Final = 5


class _Flight:
    """What is on its way to one Maildir."""

    __slots__ = ("counting", "lock", "messages", "octets", "stored", "users")

    def __init__(self) -> None:
        # Held for a few system calls on a small file, never while a Maildir is counted.
        self.lock = threading.Lock()
        # Counting once is enough for all who wait for it.
        self.counting = threading.Lock()
        self.octets = 0
        self.messages = 0
        # What has arrived, in all.
        self.stored = Usage(0, 0)
        self.users = 0


class _Flights:
    """What this process has on its way to all Maildirs; empty in a forked child."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[Parts, _Flight] = {}

    def enter(self, parts: Parts) -> _Flight:
        with self._lock:
            flight = self._flights.get(parts)
            if flight is None:
                flight = self._flights[parts] = _Flight()
            flight.users += 1
            return flight

    def leave(self, parts: Parts, flight: _Flight) -> None:
        with self._lock:
            flight.users -= 1
            if not flight.users and self._flights.get(parts) is flight:
                del self._flights[parts]


def _name_of(directory: str) -> str:
    return directory[1:] or "INBOX"


class MaildirQuotas:
    """The quotas of Maildirs below `root`, the directory of the store.

    `folder_name` gives the name that rules have for a folder, from that of its directory, such as
    `.Lists.2030`; left out, that is the name without the dot, and "INBOX" for "". `sync` is that of
    the store: a file `maildirsize` is durable only with Sync.ALWAYS; what is lost of it is counted
    anew or missing from the count, and never mail. Raises OSError if `root` cannot be opened. May
    be used by several threads and across fork(2).
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        folder_name: Callable[[str], str] = _name_of,
        sync: Sync = Sync.OPTIMIZED,
    ) -> None:
        self._durable = sync is Sync.ALWAYS
        self._path = os.path.abspath(root)
        self._folder_name = folder_name
        self._flights = _Flights()
        self._warnings = WarningRunner()
        self._root = os.open(self._path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        call_in_child(self._reset)

    def _reset(self) -> None:
        self._flights.reset()
        self._warnings.reset()

    def of(self, maildir: PurePath, policy: QuotaPolicy) -> "MaildirQuota":
        """The quota of the Maildir at `maildir`, below the root.

        Raises ValueError for a path that is not below the root.
        """
        parts = split_path(self._path, maildir)
        return MaildirQuota(
            self._root,
            parts,
            policy,
            self._folder_name,
            self._flights,
            self._warnings,
            durable=self._durable,
        )

    def finish_warnings(self) -> None:
        """Wait until the commands of warnings have ended, for a process that is about to end."""
        self._warnings.finish()

    def close(self) -> None:
        """Close the root; nothing may be on its way any more."""
        os.close(self._root)


class MaildirQuota:
    """The quota of one Maildir (a `Quota`); `MaildirQuotas.of` makes it.

    A Maildir that is missing holds nothing and is not made. The file `maildirsize` lies in the
    Maildir itself.
    """

    __slots__ = ("_durable", "_flights", "_folder_name", "_parts", "_policy", "_root", "_warnings")

    def __init__(
        self,
        root: int,
        parts: Parts,
        policy: QuotaPolicy,
        folder_name: Callable[[str], str],
        flights: _Flights,
        warnings: WarningRunner,
        *,
        durable: bool,
    ) -> None:
        self._durable = durable
        self._root = root
        self._parts = parts
        self._policy = policy
        self._folder_name = folder_name
        self._flights = flights
        self._warnings = warnings

    @property
    def mailbox_count(self) -> int:
        """How many mailboxes the user may have before a message makes no more; 0 for any number."""
        return self._policy.mailbox_count

    def check(self, size: int, *, folder: str = "INBOX") -> None:
        """Raise QuotaExceeded where a message of `size` octets (0 where that is not known) has no
        room now. Raises OSError."""
        self._policy.check_size(size)
        limits = self._policy.rules.limits(folder)
        if limits is None:
            return
        flight = self._flights.enter(self._parts)
        try:
            self._take(flight, 0, 0, partial(self._policy.has_room, limits, size=size))
        finally:
            self._flights.leave(self._parts, flight)

    def reserve(self, size: int, *, folder: str = "INBOX", enforced: bool = True) -> Reservation:
        """Hold room for a message of `size` octets on disk. Raises QuotaExceeded if there is none
        and `enforced` is set, and OSError."""
        if enforced:
            self._policy.check_size(size)
        limits = self._policy.rules.limits(folder)
        if limits is None:
            return NothingReserved()
        has_room = partial(self._policy.has_room, limits if enforced else Limits(), size=size)
        flight = self._flights.enter(self._parts)
        try:
            self._take(flight, size, 1, has_room)
        except BaseException:
            self._flights.leave(self._parts, flight)
            raise
        return _Room(self, flight, size)

    def usage(self) -> Usage:
        """What `maildirsize` says, counted anew where that is not to be believed. OSError."""
        with self._open() as maildir:
            if maildir is None:
                return Usage(0, 0)
            found = _maildirsize.read(maildir, self._limits)
            if found is None or not (found.fresh or self._within_limits(found.usage)):
                return self._count_anew(maildir)
            return found.usage

    def recalculate(self) -> Usage:
        """Count all messages and write `maildirsize` anew. Raises OSError."""
        with self._open() as maildir:
            return Usage(0, 0) if maildir is None else self._count_anew(maildir)

    def count(self) -> Usage:
        """Count all messages and write nothing, for a counter elsewhere. Raises OSError."""
        with self._open() as maildir:
            if maildir is None:
                return Usage(0, 0)
            return _maildirsize.count(maildir, self._counts)

    def add(self, flight: _Flight, size: int) -> None:
        """A message for which room was held is there. Never raises."""
        after = None
        # In one step: who looks in between would count the message twice.
        with flight.lock:
            try:
                with self._open() as maildir:
                    if maildir is not None:
                        after = _maildirsize.append(
                            maildir,
                            size,
                            tell=bool(self._policy.warnings),
                            durable=self._durable,
                        )
            except OSError as error:
                # The message is there, and stays. It counts when all mail is counted.
                path = "/".join(self._parts)
                _logger.error("maildirsize in %a was not added to: %s", path, error)
            flight.octets -= size
            flight.messages -= 1
            flight.stored = Usage(flight.stored.octets + size, flight.stored.messages + 1)
        self._flights.leave(self._parts, flight)
        if after is None and self._policy.warnings:
            # The first message of a Maildir may cross a limit as well.
            try:
                after = self.recalculate()
            except OSError as error:
                _logger.error("mail in %a is not counted: %s", "/".join(self._parts), error)
        if after is not None:
            self._warn(Usage(after.octets - size, after.messages - 1), after)

    def drop(self, flight: _Flight, size: int) -> None:
        """A message for which room was held did not come. Never raises."""
        with flight.lock:
            flight.octets -= size
            flight.messages -= 1
        self._flights.leave(self._parts, flight)

    @property
    def _limits(self) -> Limits:
        return self._policy.rules.default

    def _counts(self, directory: str) -> bool:
        return self._policy.rules.counts(self._folder_name(directory))

    def _open(self) -> AbstractContextManager[int | None]:
        return _maildirsize.open_directory(self._root, self._parts)

    def _within_limits(self, usage: Usage) -> bool:
        limits = self._limits
        return (not limits.octets or usage.octets <= limits.octets) and (
            not limits.messages or usage.messages <= limits.messages
        )

    def _take(
        self, flight: _Flight, octets: int, messages: int, has_room: Callable[[Usage], bool]
    ) -> None:
        """Put so much in flight if there is room. Raises QuotaExceeded and OSError."""

        def together(usage: Usage) -> Usage:
            return Usage(usage.octets + flight.octets, usage.messages + flight.messages)

        def attempt(found: _maildirsize.Recorded | None) -> bool:
            """Whether that is decided: nobody is refused for numbers that may be wrong."""
            if found is None:
                return False
            if not has_room(together(found.usage)):
                if found.fresh or not has_room(Usage(0, 0)):
                    raise self._policy.exceeded()
                return False
            flight.octets += octets
            flight.messages += messages
            return True

        with ExitStack() as stack:
            with flight.lock:
                # Opened while nothing arrives: one that was missing before may be full by now.
                maildir = stack.enter_context(self._open())
                if maildir is None:
                    attempt(_maildirsize.Recorded(Usage(0, 0), fresh=True))
                    return
                if attempt(_maildirsize.read(maildir, self._limits)):
                    return
            with flight.counting:
                # Somebody else may have counted in the meantime.
                with flight.lock:
                    if attempt(_maildirsize.read(maildir, self._limits)):
                        return
                for left in reversed(range(_COUNTS)):
                    before = flight.stored
                    usage = self._recount(maildir, flight)
                    with flight.lock:
                        # What arrived meanwhile was perhaps counted and perhaps not.
                        most = Usage(
                            usage.octets + flight.stored.octets - before.octets,
                            usage.messages + flight.stored.messages - before.messages,
                        )
                        if has_room(together(most)) or not has_room(together(usage)) or not left:
                            attempt(_maildirsize.Recorded(most, fresh=True))
                            return

    def _count_anew(self, maildir: int) -> Usage:
        flight = self._flights.enter(self._parts)
        try:
            return self._recount(maildir, flight)
        finally:
            self._flights.leave(self._parts, flight)

    def _recount(self, maildir: int, flight: _Flight) -> Usage:
        before = _maildirsize.read(maildir) if self._policy.warnings else None
        usage = _maildirsize.recount(
            maildir,
            self._limits,
            self._counts,
            # What arrives in between would be in no file that is read then.
            replacing=flight.lock,
            durable=self._durable,
        )
        if before is not None:
            self._warn(before.usage, usage)
        return usage

    def _warn(self, before: Usage, after: Usage) -> None:
        warning = self._policy.warning(before, after)
        if warning is not None:
            self._warnings.run(warning.command)


class _Room:
    """Room held for one message (a `Reservation`)."""

    __slots__ = ("_flight", "_quota", "_size")

    def __init__(self, quota: MaildirQuota, flight: _Flight, size: int) -> None:
        self._quota = quota
        self._flight = flight
        self._size = size

    def commit(self) -> None:
        """The message was stored."""
        self._quota.add(self._flight, self._size)

    def cancel(self) -> None:
        """It was not."""
        self._quota.drop(self._flight, self._size)
