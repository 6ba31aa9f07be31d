"""A seccomp filter: what a process that handles mail never calls is refused with EPERM.

The invariant: a list of what is forbidden, so that a library that begins to use another harmless
call goes on working. Where the kernel or the machine has no filter to offer, nothing is changed.
"""

import errno
import os
import struct
from dataclasses import dataclass
from typing import Final

from ._kernel import filter_system_calls

# linux/audit.h
_ARCHITECTURES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# The numbers of asm/unistd.h on x86_64 and aarch64. Reaching into other processes, the kernel,
# mounts, namespaces, and calls in disguise (io_uring).
_NEVER: Final[dict[str, tuple[int, int | None]]] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "bpf": (321, 280),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_by_handle_at": (304, 265),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "acct": (163, 89),
    "iopl": (172, None),
    "ioperm": (173, None),
}
_EXECUTE: Final = {"execve": (59, 221), "execveat": (322, 281)}
_SOCKET: Final = (41, 198)
_AF_UNIX: Final = 1
# x86_64 has its calls a second time with this bit set.
_X32: Final = 0x40000000

# linux/bpf_common.h: load a word, jump if equal, jump if at least, return.
_LOAD: Final = 0x20
_IF_EQUAL: Final = 0x15
_IF_AT_LEAST: Final = 0x35
_RETURN: Final = 0x06
_ALLOW: Final = 0x7FFF0000
_REFUSE: Final = 0x00050000 | errno.EPERM
# struct seccomp_data: number, architecture, instruction pointer, arguments.
_NUMBER: Final = 0
_ARCHITECTURE: Final = 4
_FIRST_ARGUMENT: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """What a process may do beyond files and sockets that it has."""

    network: bool = False
    """Whether it may make sockets other than UNIX ones."""
    execute: bool = False
    """Whether it may run other programs, as quota warnings do."""


def confine(confinement: Confinement) -> bool:
    """Set the filter for this process and all that come from it; whether there is one now.

    `forbid_new_privileges` must have been called.
    """
    machine = os.uname().machine
    if machine not in _ARCHITECTURES:
        return False
    try:
        filter_system_calls(_program(machine, confinement))
    except OSError:
        # A kernel without seccomp, or a container that forbids it.
        return False
    return True


def _program(machine: str, confinement: Confinement) -> bytes:
    column = [*_ARCHITECTURES].index(machine)
    forbidden = [call[column] for call in _NEVER.values()]
    if not confinement.execute:
        forbidden += [call[column] for call in _EXECUTE.values()]
    # Each jump skips one instruction, so that no distance has to be counted.
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 1, 0, _ARCHITECTURES[machine]),
        (_RETURN, 0, 0, _REFUSE),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if machine == "x86_64":
        program += [(_IF_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _REFUSE)]
    for number in filter(None, forbidden):
        program += [(_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE)]
    if not confinement.network:
        program += [
            (_IF_EQUAL, 1, 0, _SOCKET[column]),
            (_RETURN, 0, 0, _ALLOW),
            (_LOAD, 0, 0, _FIRST_ARGUMENT),
            (_IF_EQUAL, 1, 0, _AF_UNIX),
            (_RETURN, 0, 0, _REFUSE),
        ]
    program.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
