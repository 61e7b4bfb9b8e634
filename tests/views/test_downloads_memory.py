"""The memory that a download takes does not depend on how much it is."""

from __future__ import annotations

import resource
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from archivia_fs.types import ObjectKey, OpenFlags, Revision, RevisionId
from archivia_fs.vfs import crc
from tests.views.test_downloads_acceptance import DOWNLOADS, CountingStore, Drive

MORE = 32 * 1024**2  # bytes that a large download may take beyond a small one
STEP = 1024**2


class Zeros(CountingStore):
    """Objects of any size, of zeros, under keys that begin with "zeros"."""

    def read_into(self, key: ObjectKey, offset: int, buffer: memoryview) -> None:
        if key.startswith("zeros"):
            buffer[:] = bytes(len(buffer))
        else:
            super().read_into(key, offset, buffer)


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Drive]:
    drive = Drive(tmp_path, Zeros())
    yield drive
    drive.close()


def make(drive: Drive, name: str, count: int, size: int, *, known: bool) -> None:
    """A document of `count` files of `size` bytes."""
    drive.folder(f"/Documents/scans/{name}")
    for number in range(count):
        stat = drive.put(f"/Documents/scans/{name}/{number}.dng", b"old")
        identity = f"zeros-{name}-{number}"
        sums = ("a" * 64, crc.zeros(size)) if known else (None, None)
        revision = Revision(RevisionId(identity), ObjectKey(identity), size, size, *sums, 0)
        drive.catalog.commit_revision(stat.ino, revision, mtime_ns=1)


def most_memory_while_reading(drive: Drive, name: str) -> tuple[int, int]:
    """(the most memory of this process meanwhile, bytes read)"""
    stat = drive.stat(f"{DOWNLOADS}/{name}.zip")
    handle = drive.vfs.open(drive.caller, stat.ino, OpenFlags.READ)
    most = offset = checksum = 0
    while data := handle.pread(offset, STEP):
        checksum = zlib.crc32(data, checksum)
        offset += len(memoryview(data))
        most = max(most, resident())
    handle.release()
    assert offset == stat.size
    return most, offset


def resident() -> int:
    """Bytes (proc_pid_statm(5), field 2, in pages)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("known", [True, False], ids=["streamed", "checksums computed before"])
def test_a_document_of_2_gib_takes_no_more_than_one_of_64_mib(drive: Drive, known: bool) -> None:
    make(drive, "small", 4, 16 * 1024**2, known=known)
    make(drive, "large", 8, 256 * 1024**2, known=known)
    small, _ = most_memory_while_reading(drive, "small")
    large, size = most_memory_while_reading(drive, "large")
    assert size > 2 * 1024**3
    assert large - small <= MORE
