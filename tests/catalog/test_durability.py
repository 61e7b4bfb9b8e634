"""What is on the disk when a mutation returns, told by the kernel: pages of the write-ahead log that wait in memory."""

from __future__ import annotations

import ctypes
import platform
import time
from pathlib import Path

import pytest

from archivia_fs.types import SetAttr
from catalog.catalog import Catalog
from catalog.writer import FLUSH_SECONDS
from tests.catalog.helpers import FILE, D, file, revision

CACHESTAT = 451  # cachestat(2), since Linux 6.5, the same number on all architectures

pytestmark = pytest.mark.skipif(
    tuple(map(int, platform.release().split(".")[:2])) < (6, 5), reason="cachestat(2), which tells, came with Linux 6.5"
)


class _CacheStat(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("cache", "dirty", "writeback", "evicted", "recently_evicted")]


def unwritten(path: Path) -> int:
    """Pages that a power cut would take."""
    libc = ctypes.CDLL(None, use_errno=True)
    stat, everything = _CacheStat(), (ctypes.c_uint64 * 2)(0, 0)
    with path.open("rb") as log:
        assert libc.syscall(CACHESTAT, log.fileno(), everything, ctypes.byref(stat), 0) == 0
    return int(stat.dirty + stat.writeback)


def test_what_survives_a_power_cut_and_when(tmp_path: Path) -> None:
    """Committed bytes at once; names and attributes with them, at a sync, or after a second.
    [N7] Names and attributes survive a crash of the gateway at once, and a power cut after fsync(2) of a folder, with the next
    committed bytes, or after a second.
    """
    catalog, log = Catalog.open(f"sqlite:///{tmp_path}/catalog.db"), tmp_path / "catalog.db-wal"
    try:
        ino = file(catalog, "a.dng")
        catalog.commit_revision(ino, revision("bytes"), mtime_ns=None)
        assert unwritten(log) == 0

        catalog.setattr(ino, SetAttr(mode=0o600))
        assert unwritten(log) > 0, "the measure works, and nobody waited for the disk"
        catalog.sync()
        assert unwritten(log) == 0

        catalog.make(D, "b.dng", FILE)
        catalog.commit_revision(ino, revision("more"), mtime_ns=None)
        assert unwritten(log) == 0, "what came before is on the disk too"

        catalog.setattr(ino, SetAttr(mode=0o644))
        deadline = time.monotonic() + 10 * FLUSH_SECONDS
        while unwritten(log):
            assert time.monotonic() < deadline
            time.sleep(0.05)

        catalog.setattr(ino, SetAttr(mode=0o640))
    finally:
        catalog.close()
    assert not log.exists()  # all of it is in the database, which is on the disk before the log goes
