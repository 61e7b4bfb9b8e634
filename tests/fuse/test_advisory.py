"""The kernel's table of locks, proc_locks(5)."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from fuse.advisory import locked_inodes

TABLE = """\
1: POSIX  ADVISORY  WRITE 4711 00:35:12 0 EOF
2: FLOCK  ADVISORY  READ 4712 00:35:13 0 EOF
2: -> FLOCK  ADVISORY  WRITE 4713 00:35:14 0 EOF
3: OFDLCK ADVISORY  WRITE -1 00:35:15 100 149
4: LEASE  ACTIVE    READ 4711 00:35:16 0 EOF
5: POSIX  ADVISORY  WRITE 4711 08:01:17 0 EOF
6: POSIX  *NOINODE*
""".splitlines()


def test_who_holds_a_lock_on_the_device() -> None:
    assert locked_inodes("0:53", TABLE) == {12, 13, 15}
    assert locked_inodes("8:1", TABLE) == {17}
    assert locked_inodes("8:2", TABLE) == frozenset()


def test_the_real_table(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        stat = os.fstat(file.fileno())
        device = f"{os.major(stat.st_dev)}:{os.minor(stat.st_dev)}"
        assert stat.st_ino not in locked_inodes(device)
        fcntl.flock(file, fcntl.LOCK_EX)
        assert stat.st_ino in locked_inodes(device)
