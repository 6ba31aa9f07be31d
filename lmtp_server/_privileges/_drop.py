"""Becoming another user for good.

The invariant: after `drop` has returned, the process is that user in every respect, the kernel says
so, and an attempt to become root again has failed. If that cannot be had, it raises.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from ._identity import Identity, PrivilegesError
from ._kernel import (
    clear_bounding_set,
    forbid_new_privileges,
    hide_memory,
    keep_capabilities,
    set_capabilities,
)
from ._preload import preload
from ._seccomp import Confinement, confine

_CAPABILITY_SETS: Final = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def drop(identity: Identity, *, chroot: str | None = None, keep: Iterable[int] = ()) -> None:
    """Turn this process, which is root's and has one thread, into one of `identity`, for good.

    With `chroot`, that directory is the root of the file system from here on, and all paths are
    relative to it. The capabilities `keep` are kept for this process; programs that it executes
    have none. Raises PrivilegesError; the process is then in no state to go on.
    """
    kept = frozenset(keep)
    preload()
    proc = open_proc()
    try:
        if (threads := read_status(proc)["Threads"]) != ["1"]:
            raise PrivilegesError(f"one of {threads[0]} threads cannot change the user of them all")
        try:
            _change(identity, chroot, kept)
        except OSError as error:
            raise PrivilegesError(f"UID {identity.uid} is out of reach: {error}") from error
        _check(identity, kept, read_status(proc))
    finally:
        os.close(proc)


def harden(confinement: Confinement) -> bool:
    """Leave this process, whoever's it is, only what serving takes: no capabilities, and of the
    system calls those that `confinement` lets it have. Whether the kernel filters them.

    Raises PrivilegesError.
    """
    preload()
    proc = open_proc()
    try:
        try:
            set_capabilities()
            forbid_new_privileges()
            hide_memory()
        except OSError as error:
            raise PrivilegesError(f"this process cannot be hardened: {error}") from error
        status = read_status(proc)
    finally:
        os.close(proc)
    for name in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
        if int(status[name][0], 16):
            raise PrivilegesError(f"the kernel says {name}: {status[name][0]}, not 0")
    return confine(confinement)


def open_proc() -> int:
    """What the kernel says about this process, for `read_status`; a descriptor, good even in a
    chroot. Raises PrivilegesError."""
    try:
        return os.open("/proc/self", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise PrivilegesError(
            f"/proc is not there to prove who this process is: {error.strerror}"
        ) from error


def read_status(proc: int) -> Mapping[str, list[str]]:
    """The fields of /proc/self/status, in words."""
    descriptor = os.open("status", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    with os.fdopen(descriptor, encoding="ascii", errors="replace") as status:
        fields = (line.partition(":") for line in status)
        return {name: value.split() for name, _, value in fields}


def _change(identity: Identity, chroot: str | None, keep: frozenset[int]) -> None:
    # The time zone's file is out of reach in a chroot.
    time.tzset()
    clear_bounding_set()
    if chroot is not None:
        os.chroot(chroot)
        os.chdir("/")
    os.setgroups(identity.groups)
    os.setresgid(identity.gid, identity.gid, identity.gid)
    keep_capabilities(bool(keep))
    os.setresuid(identity.uid, identity.uid, identity.uid)
    keep_capabilities(False)
    set_capabilities(keep)
    forbid_new_privileges()
    hide_memory()


def _check(identity: Identity, keep: frozenset[int], status: Mapping[str, list[str]]) -> None:
    """Raise PrivilegesError unless the kernel agrees."""
    mask = sum(1 << number for number in keep)
    expected: dict[str, object] = dict.fromkeys(_CAPABILITY_SETS, 0)
    expected |= {"CapPrm": mask, "CapEff": mask, "Uid": {identity.uid}, "Gid": {identity.gid}}
    expected |= {"Groups": set(identity.groups), "NoNewPrivs": {1}}
    for name, value in expected.items():
        words = status[name]
        found: object = int(words[0], 16) if name in _CAPABILITY_SETS else set(map(int, words))
        if found != value:
            raise PrivilegesError(f"the kernel says {name}: {' '.join(words)}, not {value}")
    for attempt in _WAYS_BACK:
        try:
            attempt()
        except PermissionError:
            continue
        raise PrivilegesError("root is still within reach")


_WAYS_BACK: Final[tuple[Callable[[], None], ...]] = (
    lambda: os.setresuid(0, 0, 0),
    lambda: os.setresuid(-1, 0, -1),
    lambda: os.setgroups([0]),
)
