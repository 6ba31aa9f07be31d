"""The system calls about privileges that the standard library lacks.

The invariant: each either did what it says or raised OSError. They act on the calling thread, so
they are for processes with one.
"""

import ctypes
import os
from collections.abc import Iterable
from enum import IntEnum
from typing import Final

_libc: Final = ctypes.CDLL(None, use_errno=True)

# linux/prctl.h
_SET_DUMPABLE: Final = 4
_SET_KEEPCAPS: Final = 8
_SET_SECCOMP: Final = 22
_CAPBSET_READ: Final = 23
_CAPBSET_DROP: Final = 24
_SET_NO_NEW_PRIVS: Final = 38
_CAP_AMBIENT: Final = 47
_CAP_AMBIENT_CLEAR_ALL: Final = 4
_SECCOMP_MODE_FILTER: Final = 2
# linux/capability.h: the version with 64 bits.
_CAPABILITY_VERSION: Final = 0x20080522


class Capability(IntEnum):
    """The capabilities that the daemon has a use for (capabilities(7))."""

    DAC_READ_SEARCH = 2
    KILL = 5
    SETGID = 6
    SETUID = 7
    SETPCAP = 8
    NET_BIND_SERVICE = 10
    SYS_CHROOT = 18


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


class _Instructions(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _fail() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def _prctl(option: int, argument: object, third: int = 0) -> int:
    given = argument if not isinstance(argument, int) else ctypes.c_ulong(argument)
    result: int = _libc.prctl(
        option, given, ctypes.c_ulong(third), ctypes.c_ulong(0), ctypes.c_ulong(0)
    )
    if result < 0:
        raise _fail()
    return result


def forbid_new_privileges() -> None:
    """No program that is executed from here on gains anything: set-uid and the like are void."""
    _prctl(_SET_NO_NEW_PRIVS, 1)


def hide_memory() -> None:
    """No core is dumped, and nobody but root traces this process or reads its memory."""
    _prctl(_SET_DUMPABLE, 0)


def keep_capabilities(keep: bool) -> None:
    """Whether the permitted capabilities outlive the change from root to another user."""
    _prctl(_SET_KEEPCAPS, int(keep))


def clear_bounding_set(keep: Iterable[int] = ()) -> None:
    """No program that is executed from here on gains a capability but those of `keep`."""
    kept = frozenset(keep)
    for number in range(64):
        try:
            present = _prctl(_CAPBSET_READ, number)
        except OSError:
            # Past the last that this kernel knows.
            return
        if present and number not in kept:
            _prctl(_CAPBSET_DROP, number)


def set_capabilities(keep: Iterable[int] = ()) -> None:
    """Have the capabilities of `keep`, none inheritable and none ambient."""
    _prctl(_CAP_AMBIENT, _CAP_AMBIENT_CLEAR_ALL)
    mask = sum(1 << number for number in frozenset(keep))
    header = _Header(_CAPABILITY_VERSION, 0)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    data = (_Data * 2)(_Data(low, low, 0), _Data(high, high, 0))
    if _libc.capset(ctypes.byref(header), data) < 0:
        raise _fail()


def filter_system_calls(instructions: bytes) -> None:
    """Pass each system call through a seccomp filter (struct sock_filter, 8 octets each).

    Needs `forbid_new_privileges` before.
    """
    program = _Instructions(len(instructions) // 8, instructions)
    _prctl(_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(program))
