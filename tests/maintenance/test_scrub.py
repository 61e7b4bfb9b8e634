"""scrub: every byte is read and compared, pending checksums are filled in, damage is told with its place."""

from __future__ import annotations

import hashlib
import itertools
import random
import zlib

import pytest

from archivia_fs.errors import StoreUnavailable
from archivia_fs.maintenance.scrub import Scrub, ScrubReport
from archivia_fs.store.faults import Fault, Kind
from archivia_fs.types import Revision
from tests.catalog.helpers import sql
from tests.maintenance.conftest import MIB, Archive


def scrub(archive: Archive, *, pending: bool = False) -> ScrubReport:
    return Scrub(archive.catalog, archive.store, pending=pending).run()


def overwrite(archive: Archive, revision: Revision, data: bytes) -> None:
    assert revision.key is not None
    archive.bare.put(revision.key, data, zlib.crc32(data))


def test_a_sound_archive(archive: Archive) -> None:
    data = random.Random(1).randbytes(11 * MIB + 17)
    for name, content in (("big", data), ("small", b"s"), ("empty", b"")):
        archive.put(name, content)
    assert len(archive.revision("big").parts) == 3
    report = scrub(archive)
    assert (report.revisions, report.bytes, report.filled, report.damaged) == (2, 11 * MIB + 18, 0, [])
    assert (report.total_revisions, report.total_bytes) == (2, 11 * MIB + 18)


def test_pending_checksums_are_filled_in(archive: Archive) -> None:
    data = random.Random(2).randbytes(2 * MIB + 5)
    archive.put("f", data)
    archive.put("other", b"x")
    ino = archive.vfs.lookup(archive.caller, archive.top, "f").ino
    size = 4 * MIB + 1
    archive.vfs.truncate(archive.caller, ino, size)  # zeros up to there, without a byte in the store
    whole = data + bytes(size - len(data))
    before = archive.revision("f")
    assert (before.sha256, before.stored) == (None, len(data))
    report = scrub(archive, pending=True)
    assert (report.revisions, report.filled, report.damaged) == (1, 1, [])
    after = archive.revision("f")
    assert (after.sha256, after.crc32) == (hashlib.sha256(whole).hexdigest(), zlib.crc32(whole))
    assert scrub(archive, pending=True).revisions == 0
    assert scrub(archive).damaged == []


def test_a_file_of_zeros_only(in_memory: Archive) -> None:
    in_memory.put("f", b"")
    ino = in_memory.vfs.lookup(in_memory.caller, in_memory.top, "f").ino
    in_memory.vfs.truncate(in_memory.caller, ino, 3 * MIB + 1)
    scrub(in_memory)
    after = in_memory.revision("f")
    assert after.key is None
    assert after.sha256 == hashlib.sha256(bytes(3 * MIB + 1)).hexdigest()
    assert after.crc32 == zlib.crc32(bytes(3 * MIB + 1))


def test_damage_is_told_with_all_its_paths_and_its_place(in_memory: Archive) -> None:
    data = bytearray(random.Random(3).randbytes(11 * MIB))
    revision = in_memory.put("f", bytes(data))
    in_memory.put("sound", b"s")
    ino = in_memory.vfs.lookup(in_memory.caller, in_memory.top, "f").ino
    in_memory.vfs.link(in_memory.caller, ino, in_memory.top, "hard link")
    in_memory.vfs.copy(in_memory.caller, ino, in_memory.top, "copy")
    data[7 * MIB] ^= 1
    overwrite(in_memory, revision, bytes(data))
    (damage,) = scrub(in_memory).damaged
    assert damage.revision == revision.id
    assert damage.size == 11 * MIB
    assert set(damage.paths) == {f"/Documents/archive/{name}" for name in ("f", "hard link", "copy")}
    assert damage.ranges == [(5 * MIB, 10 * MIB)]
    assert "SHA-256" in damage.reason
    assert "CRC-32" in damage.reason


def test_wrong_bytes_never_become_a_checksum(in_memory: Archive) -> None:
    revision = in_memory.put("f", b"right")
    sql(in_memory.url, "UPDATE revisions SET sha256 = NULL")
    overwrite(in_memory, revision, b"wrong")
    report = scrub(in_memory, pending=True)
    assert (report.filled, len(report.damaged)) == (0, 1)
    assert in_memory.revision("f").sha256 is None


def test_an_adopted_object_gets_its_first_checksums(in_memory: Archive) -> None:
    in_memory.put("f", b"adopted")
    sql(in_memory.url, "UPDATE revisions SET sha256 = NULL, crc32 = NULL", "DELETE FROM revision_parts")
    assert scrub(in_memory).filled == 1
    assert in_memory.revision("f").crc32 == zlib.crc32(b"adopted")


def test_what_is_missing_or_cut_is_damage(archive: Archive) -> None:
    gone, cut = archive.put("gone", b"g" * 100), archive.put("cut", b"c" * 100)
    archive.put("fine", b"f")
    assert gone.key is not None
    archive.bare.delete(gone.key)
    overwrite(archive, cut, b"c" * 99)
    report = scrub(archive)
    assert report.revisions == 3
    assert {path for each in report.damaged for path in each.paths} == {
        "/Documents/archive/gone",
        "/Documents/archive/cut",
    }


def test_a_store_that_cannot_be_reached_is_no_damage_and_the_next_run_goes_on(in_memory: Archive) -> None:
    revisions = sorted((in_memory.put(name, name.encode() * 10) for name in "abcde"), key=lambda each: each.id)
    in_memory.store.inject(Fault(Kind.FAIL, "read_into", after=3))
    job = Scrub(in_memory.catalog, in_memory.store)
    with pytest.raises(StoreUnavailable):
        job.run()
    assert (job.report.revisions, job.report.last, job.report.damaged) == (3, revisions[2].id, [])
    report = Scrub(in_memory.catalog, in_memory.store, after=job.report.last).run()
    assert (report.revisions, report.total_revisions) == (2, 2)


def test_only_what_is_below(in_memory: Archive) -> None:
    top = in_memory.vfs.mkdir(in_memory.caller, in_memory.top, "folder", 0o755).ino
    in_memory.put("f", b"f")
    ino = in_memory.vfs.lookup(in_memory.caller, in_memory.top, "f").ino
    assert Scrub(in_memory.catalog, in_memory.store, below=top).run().revisions == 0
    assert Scrub(in_memory.catalog, in_memory.store, below=ino).run().revisions == 1
    in_memory.vfs.rename(in_memory.caller, in_memory.top, "f", top, "f")
    assert Scrub(in_memory.catalog, in_memory.store, below=top).run().revisions == 1


def test_progress_and_memory_do_not_depend_on_the_size(in_memory: Archive) -> None:
    """Reads are of at most 1 MiB, and the report moves with each."""
    in_memory.put("f", bytes(11 * MIB))
    seen: list[int] = []
    before = in_memory.store.calls.get("read_into", 0)
    Scrub(in_memory.catalog, in_memory.store, progress=lambda report: seen.append(report.bytes)).run()
    assert in_memory.store.calls["read_into"] - before == 11
    assert seen == sorted(seen)
    assert max(after - before for before, after in itertools.pairwise(seen)) == MIB
