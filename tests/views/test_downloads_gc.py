"""A download takes longer than gc spares the bytes of old versions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from archivia_fs.errors import FsError
from archivia_fs.maintenance.gc import Gc
from archivia_fs.types import OpenFlags, RevisionId
from catalog import gateways
from catalog.catalog import Catalog
from tests.views.test_downloads_acceptance import DOWNLOADS, ROLL, Drive

NO_GRACE = -60.0  # seconds: as if all had happened a minute earlier than it did
ZIP = f"{DOWNLOADS}/Rolle 3.zip"


@pytest.fixture
def drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Drive]:
    monkeypatch.setattr(gateways, "REFRESH_SECONDS", 0.01)
    drive = Drive(tmp_path)
    drive.folder(ROLL)
    for name in ("first", "last"):
        drive.put(f"{ROLL}/{name}.dng", name.encode() * 500_000)
    yield drive
    drive.close()


def gc(drive: Drive, url: str) -> int:
    """How many revisions another process takes away."""
    time.sleep(0.1)  # the gateway says what it reads
    other = Catalog.open(url)
    try:
        told = len(other.releasable(time.time_ns() + 60 * 10**9))
        assert Gc(other, drive.store, grace=NO_GRACE).run().revisions == told
    finally:
        other.close()
    return told


def test_gc_spares_what_an_open_zip_shows(drive: Drive, tmp_path: Path) -> None:
    """[Z9] As long as a ZIP is open, a week at most, `archivia-fs gc` spares the bytes in it, whatever has replaced them."""
    url = f"sqlite:///{tmp_path}/catalog.db"
    whole = drive.read(ZIP)
    old = RevisionId(drive.stat(f"{ROLL}/last.dng").etag)
    handles = [drive.vfs.open(drive.caller, drive.stat(ZIP).ino, OpenFlags.READ) for _ in range(2)]
    first = [bytes(handle.pread(0, 100_000)) for handle in handles]
    drive.put(f"{ROLL}/last.dng", b"other")
    assert gc(drive, url) == 0
    handles.pop().release()
    assert gc(drive, url) == 0
    assert first[0] + bytes(handles[0].pread(100_000, 1 << 30)) == whole
    handles.pop().release()
    assert gc(drive, url) == 1
    with pytest.raises(FsError):
        drive.catalog.revision(old)


def test_a_reader_that_never_ends_does_not_keep_bytes_for_ever(
    drive: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = drive.vfs.open(drive.caller, drive.stat(ZIP).ino, OpenFlags.READ)
    drive.put(f"{ROLL}/last.dng", b"other")
    monkeypatch.setattr(gateways, "READING_SECONDS", -61.0)
    assert gc(drive, f"sqlite:///{tmp_path}/catalog.db") == 1
    handle.release()


def test_a_gateway_that_died_reads_nothing(drive: Drive, tmp_path: Path) -> None:
    handle = drive.vfs.open(drive.caller, drive.stat(ZIP).ino, OpenFlags.READ)
    drive.put(f"{ROLL}/last.dng", b"other")
    time.sleep(0.1)
    drive.catalog._presence.close()  # its row is gone
    assert gc(drive, f"sqlite:///{tmp_path}/catalog.db") == 1
    handle.release()
