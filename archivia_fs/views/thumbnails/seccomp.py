"""The calls to the kernel that a decoder needs; everything else is refused.

Owns: the list, and the filter made of it (seccomp(2)). Used by: sandbox. Threading: before any thread starts.
What is refused fails with EPERM rather than kills, so a library that merely looks around goes on; calls younger than this list are
told to be missing (ENOSYS), as on an older kernel, so that a C library takes the older one.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_PR_SET_SECCOMP, _FILTER = 22, 2  # prctl(2)
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h
NEWEST = 470  # the highest number that was known when this was written, listns(2) of Linux 6.19

Numbers = tuple[int | None, int | None]  # on x86_64 and aarch64; None where the architecture has no such call

ALLOWED: Mapping[str, Numbers] = {
    # Descriptors it has. None is opened: there is no open, no socket and no memfd_create here.
    "read": (0, 63), "readv": (19, 65), "pread64": (17, 67), "preadv": (295, 69), "write": (1, 64), "writev": (20, 66),
    "lseek": (8, 62), "fstat": (5, 80), "close": (3, 57), "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24),
    "recvfrom": (45, 207), "recvmsg": (47, 212), "sendto": (44, 206), "sendmsg": (46, 211), "shutdown": (48, 210),
    "poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72), "fadvise64": (221, 223),
    # Its own memory.
    "mmap": (9, 222), "munmap": (11, 215), "mprotect": (10, 226), "mremap": (25, 216), "madvise": (28, 233),
    "brk": (12, 214), "membarrier": (324, 283),
    # Its own threads and signal handlers.
    "futex": (202, 98), "set_robust_list": (273, 99), "rseq": (334, 293), "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123), "getcpu": (309, 168), "exit": (60, 93), "exit_group": (231, 94),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    # Who and when.
    "getpid": (39, 172), "gettid": (186, 178), "getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175),
    "getgid": (104, 176), "getegid": (108, 177), "uname": (63, 160), "sysinfo": (99, 179), "getrandom": (318, 278),
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "nanosleep": (35, 101),
    "gettimeofday": (96, 169), "time": (201, None), "times": (100, 153), "getrusage": (98, 165),
    "getrlimit": (97, 163), "setrlimit": (160, 164),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Checked:
    """A call that is allowed if its argument number `argument` is one of `values`; or has one of the bits `needed`, and none of
    `forbidden`. Only its lower 32 bits are looked at, as the kernel does with all of these."""

    numbers: Numbers
    argument: int
    values: tuple[int, ...] = ()
    needed: int = 0
    forbidden: int = 0


_CLONE_THREAD = 0x10000
_CLONE_NEW = 0x7E020000  # all namespaces
_AT_EMPTY_PATH = 0x1000  # how C libraries ask for what fstat tells
_PR_SET_NAME = 15
_FCNTL = (0, 1, 2, 3, 1030)  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC; F_SETOWN would send signals


def checked(own_pid: int) -> Mapping[str, Checked]:
    """What is allowed to a degree, for the process with this number."""
    return {
        "clone": Checked((56, 220), 0, needed=_CLONE_THREAD, forbidden=_CLONE_NEW),
        "newfstatat": Checked((262, 79), 3, needed=_AT_EMPTY_PATH),
        "prlimit64": Checked((302, 261), 0, values=(0,)),
        "tgkill": Checked((234, 131), 0, values=(own_pid,)),
        "fcntl": Checked((72, 25), 1, values=_FCNTL),
        "prctl": Checked((157, 167), 0, values=(_PR_SET_NAME,)),
    }


_CLONE3 = 435  # its flags stand in memory, where a filter cannot look; told to be missing, the C library uses clone

_LOAD, _EQUAL, _ABOVE, _ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06  # linux/bpf_common.h
_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000 | errno.EPERM
_MISSING = 0x00050000 | errno.ENOSYS
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # struct seccomp_data, linux/seccomp.h

Step = tuple[int, int, int, int]  # (code, steps if true, steps if false, value), linux/filter.h


def install(libc: ctypes.CDLL) -> bool:
    """From now on, for this process and all its threads. The process has given up new privileges before (PR_SET_NO_NEW_PRIVS).
    False if this kernel or this architecture cannot."""
    machine = platform.machine()
    if machine not in _AUDIT:
        return False
    program = b"".join(struct.pack("=HBBI", *step) for step in steps(machine, os.getpid()))
    instructions = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]

    filled = Program(len(program) // 8, ctypes.addressof(instructions))
    return bool(libc.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.byref(filled), 0, 0) == 0)


def steps(machine: str, own_pid: int) -> Iterable[Step]:
    """The filter for an architecture. Calls of another one (32 bits, x32) have other numbers or say so."""
    column = 0 if machine == "x86_64" else 1
    yield from ((_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, _AUDIT[machine]), (_RETURN, 0, 0, _REFUSE))
    yield _LOAD, 0, 0, _NUMBER
    for numbers in ALLOWED.values():
        if (number := numbers[column]) is not None:
            yield from ((_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW))
    for rule in checked(own_pid).values():
        if (number := rule.numbers[column]) is not None:
            inside = list(_check(rule))
            yield from ((_EQUAL, 0, len(inside), number), *inside)
    yield from ((_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _MISSING))
    yield from ((_ABOVE, 0, 1, NEWEST), (_RETURN, 0, 0, _MISSING), (_RETURN, 0, 0, _REFUSE))


def _check(rule: Checked) -> Iterable[Step]:
    yield _LOAD, 0, 0, _ARGUMENTS + 8 * rule.argument  # both architectures are little-endian
    for value in rule.values:
        yield from ((_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW))
    if rule.needed:
        yield from ((_ANY_BIT, 0, 1, rule.forbidden), (_RETURN, 0, 0, _REFUSE))
        yield from ((_ANY_BIT, 0, 1, rule.needed), (_RETURN, 0, 0, _ALLOW))
    yield _RETURN, 0, 0, _REFUSE
