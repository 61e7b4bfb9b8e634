"""What programs have locked on a mount: flock(2) and fcntl(2), which the kernel keeps for us and tells in /proc/locks.

Owns: nothing. Used by: mount, which lends it to the core. Threading: any thread; touches no mount.

The kernel keeps these locks itself (pyfuse3 has no FUSE_SETLK), so between programs they cost no request. It shows those of the
PID namespace we are in: a gateway in a container does not see the locks of programs outside.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

PROC_LOCKS = Path("/proc/locks")
KINDS = frozenset({"FLOCK", "POSIX", "OFDLCK"})  # not LEASE and DELEG, which lock nobody out


def locked_inodes(device: str, table: Iterable[str] | None = None) -> frozenset[int]:
    """The kernel's inode numbers on `device` ("major:minor", as in mountinfo) that some process has locked. `table`: the lines of
    /proc/locks, proc_locks(5). Empty where there is no such file."""
    if table is None:
        try:
            table = PROC_LOCKS.read_text().splitlines()
        except OSError:
            return frozenset()
    major, _, minor = device.partition(":")
    wanted = os.makedev(int(major), int(minor))
    found = set()
    for line in table:
        words = line.split()  # "1: POSIX  ADVISORY  WRITE 4711 00:35:12 0 EOF"; who waits has "->" before the kind
        if len(words) >= 6 and words[1] in KINDS:
            device_major, device_minor, inode = words[5].split(":")  # hex, hex, decimal
            if os.makedev(int(device_major, 16), int(device_minor, 16)) == wanted:
                found.add(int(inode))
    return frozenset(found)
