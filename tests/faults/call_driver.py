"""A process that delivers a message, watched call by call, and tells how it went.

It stops once everything is ready, so that a tracer can come, and once more behind the delivery.
"""

import ctypes
import errno
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path, PurePath

import pytest

from lmtp_proto import Reply, Transaction
from mailstore import DeliveredTo, MaildirSink, MaildirStore, RetryOptions, Sync, TraceOptions
from tests.mailstore.support import codes, deliver, envelope, fill, refuse_unnamed

_PR_SET_PTRACER = 0x59616D61
_PR_SET_PTRACER_ANY = ctypes.c_ulong(-1)
_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True)
class Scenario:
    """One delivery: how, how large, to how many, whether the Maildirs were there before, whether
    copies may be links to one file and retries are recognised, and whether there are files without
    names.
    """

    sync: Sync
    size: int
    known: bool
    recipients: int = 2
    linked: bool = False
    once: bool = False
    unnamed: bool = True

    def __str__(self) -> str:
        size = "small" if self.in_memory else "large"
        how = ["sole"] * (self.recipients == 1) + ["linked"] * self.linked + ["once"] * self.once
        how += ["named"] * (not self.unnamed)
        return "-".join([self.sync, size, "known" if self.known else "fresh", *how])

    @property
    def in_memory(self) -> bool:
        """Whether the message needs no spool."""
        return self.size <= 128 * 1024

    @property
    def trace(self) -> TraceOptions:
        """What is written in front of the message: only what is the same for all may be linked."""
        return TraceOptions(delivered_to=DeliveredTo.NONE if self.linked else DeliveredTo.FINAL)

    @property
    def retries(self) -> RetryOptions | None:
        """How retries are recognised."""
        return RetryOptions() if self.once else None

    @property
    def maildirs(self) -> list[str]:
        """Where it goes, a path below the root for each recipient."""
        return [f"d/u{number}" for number in range(self.recipients)]

    def content(self, name: str) -> bytes:
        """The message called `name`, on the wire."""
        return f"Subject: {name}\r\n\r\n".encode() + b"0123456789\r\n" * (self.size // 12)


def drive(connection: Connection, root: Path, scenario: Scenario) -> None:
    """Say the threads; deliver "first" when told to, "next" when told again; say the replies,
    those of "next", and the descriptors that the store left open.
    """
    # A tracer that is not the parent needs this where Yama restricts who may trace.
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _PR_SET_PTRACER_ANY, 0, 0, 0)
    logging.disable()
    if not scenario.unnamed:
        refuse_unnamed(pytest.MonkeyPatch())
    before = _descriptors()
    store = MaildirStore(
        root,
        hostname="mx.example.org",
        sync=scenario.sync,
        trace=scenario.trace,
        hard_links=scenario.linked,
        retries=scenario.retries,
    )
    if scenario.known:
        deliver(store, scenario.content("before"), scenario.maildirs)
    # Jobs wait for the committer, one after the other: nothing is gained by holding it.
    at_once = scenario.in_memory and not scenario.once
    release = _hold_committer(store) if at_once else _start_committer(store)
    content = scenario.content("first")
    following = scenario.content("next")

    connection.send(sorted(map(int, os.listdir("/proc/self/task"))))
    connection.recv()
    replies = _deliver_at_once(store, content, scenario, release)
    connection.send(replies)
    connection.recv()
    connection.send(codes(deliver(store, following, scenario.maildirs)))
    store.close()
    connection.send([path for path in _descriptors() if path not in before])
    connection.close()


def _start_committer(store: MaildirStore) -> Callable[[], None]:
    deliver(store, b"Subject: warm\r\n\r\n", ["warm"])
    return lambda: None


def _hold_committer(store: MaildirStore) -> Callable[[], None]:
    """Let the committer wait behind a delivery, so that what follows comes as one batch."""
    main = threading.current_thread()
    called, released = threading.Event(), threading.Event()
    held = False

    def hold(_reply: object) -> None:
        nonlocal held
        # A callback that comes too late is called at once.
        held = threading.current_thread() is not main
        called.set()
        if held:
            released.wait()

    while not held:
        called.clear()
        transaction = envelope("warm@example.org")
        sink = store.open(transaction, {transaction.recipients[0]: PurePath("warm")})
        fill(sink, [b"Subject: warm\r\n\r\n"])
        answer = sink.deliver(transaction.recipients[0])
        assert not callable(answer)
        answer.add_done_callback(hold)
        called.wait()
        sink.close()
    return released.set


def _deliver_at_once(
    store: MaildirStore, content: bytes, scenario: Scenario, release: Callable[[], None]
) -> list[int]:
    """The reply codes a server would give: for content that cannot be spooled, all the same."""
    transaction = envelope(*(f"r{number}@example.org" for number in range(scenario.recipients)))
    places = dict(zip(transaction.recipients, map(PurePath, scenario.maildirs), strict=True))
    sink = store.open(transaction, places)
    try:
        fill(sink, [content])
        return codes(_answers(sink, transaction, release))
    except OSError as error:
        release()
        return [452 if error.errno in _FULL else 451] * scenario.recipients
    finally:
        sink.close()


def _answers(
    sink: MaildirSink, transaction: Transaction, release: Callable[[], None]
) -> list[Reply]:
    begun = [sink.deliver(recipient) for recipient in transaction.recipients]
    release()
    known = [answer() if callable(answer) else answer for answer in begun]
    return [answer if isinstance(answer, Reply) else answer.result() for answer in known]


def _descriptors() -> list[str]:
    paths = []
    for name in os.listdir("/proc/self/fd"):
        try:
            paths.append(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except OSError:
            # That of the directory that was listed.
            pass
    return paths
