"""What a process that decodes strangers' files may not do any more.

Owns: resource limits, capabilities and Landlock of the process that calls this. Used by: worker. Threading: before any thread
starts. The limits always hold. Landlock (landlock(7)) and seccomp (seccomp(2)) hold where the kernel has them: then the process
opens no file, has no network, starts nothing and touches no other process, whatever a decoder is made to do; it has the
descriptors it was given.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from pathlib import Path

from archivia_fs.views.thumbnails import seccomp

_PR_SET_NO_NEW_PRIVS = 38  # prctl(2)
_CAPABILITIES = 0x20080522  # the version of capset(2) with 64 of them
_LANDLOCK_CREATE, _LANDLOCK_RESTRICT = 444, 446  # the same on all architectures
_LANDLOCK_VERSION = 1  # flag: tell the version of the interface
# Rights by version of the interface (linux/landlock.h): v1 has 13, v2 rename and link between folders, v3 truncate, v5 ioctl.
_LANDLOCK_FILES = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_LANDLOCK_NET = 3  # bind and connect, since version 4
_LANDLOCK_SCOPE = 3  # no abstract sockets and no signals outside, since version 6


def limit(memory: int, files: int) -> None:
    """`memory`: bytes of address space; at most `files` descriptors, no core dump, no byte in any file."""
    for what, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_NOFILE, files),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        resource.setrlimit(what, (value, value))


def limit_job(memory: int, seconds: int) -> None:
    """Until the next call: `memory` bytes of address space in all, `seconds` more of CPU time; then the kernel ends the process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    for what, value in (
        (resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + 1 + seconds),
        (resource.RLIMIT_AS, memory),
    ):
        most = resource.getrlimit(what)[1]
        resource.setrlimit(what, (value if most == resource.RLIM_INFINITY else min(value, most), most))


def address_space() -> int:
    """Bytes that this process has mapped."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def lock_down() -> list[str]:
    """Refuse everything named above, for good. Returns which layers hold."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not give_up_privileges(libc):
        return []
    layers = {"landlock": landlock(libc), "seccomp": seccomp.install(libc)}
    return [name for name, holds in layers.items() if holds]


def give_up_privileges(libc: ctypes.CDLL) -> bool:
    """Whoever was root is not any more; False if the kernel does not do what the layers need."""
    libc.capset(struct.pack("Ii", _CAPABILITIES, 0), bytes(24))  # may always be given up
    return bool(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)


def landlock(libc: ctypes.CDLL) -> bool:
    """No file by its name, no TCP, and where the kernel can do that, no signal to others. Whether it holds."""
    version = libc.syscall(_LANDLOCK_CREATE, None, 0, _LANDLOCK_VERSION)
    if version < 1:
        return False
    rules = struct.pack("Q", _LANDLOCK_FILES[min(version, max(_LANDLOCK_FILES))])
    if version >= 4:
        rules += struct.pack("Q", _LANDLOCK_NET)
    if version >= 6:
        rules += struct.pack("Q", _LANDLOCK_SCOPE)
    ruleset = libc.syscall(_LANDLOCK_CREATE, rules, len(rules), 0)
    if ruleset < 0:
        return False
    try:
        return bool(libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0) == 0)
    finally:
        os.close(ruleset)
