"""gc: what nobody needs goes, all else stays."""

from __future__ import annotations

import zlib

import pytest

from archivia_fs.errors import ConfigError, StoreRejected
from archivia_fs.maintenance.gc import Gc, GcReport
from archivia_fs.store.faults import Fault, Kind
from archivia_fs.types import ObjectKey, OpenFlags
from archivia_fs.vfs.transfers import new_key
from catalog.catalog import Catalog
from catalog.previews import PreviewRecord, PreviewState
from tests.maintenance.conftest import MIB, Archive

NO_GRACE = -60.0  # seconds: as if all had happened a minute earlier than it did


def gc(archive: Archive, *, grace: float = NO_GRACE, upload_age: float = NO_GRACE, dry_run: bool = False) -> GcReport:
    return Gc(archive.catalog, archive.store, grace=grace, upload_age=upload_age, dry_run=dry_run).run()


def remove(archive: Archive, name: str) -> None:
    archive.vfs.unlink(archive.caller, archive.top, name)
    archive.vfs._files._sweep()  # as it does by itself within seconds: nobody has it open


def store_object(archive: Archive, key: ObjectKey, data: bytes = b"orphan") -> None:
    archive.bare.put(key, data, zlib.crc32(data))


def test_released_bytes_go_after_the_grace_period(archive: Archive) -> None:
    kept, gone = archive.put("kept", b"k" * 1000), archive.put("gone", b"g" * 2000)
    replaced = archive.put("replaced", b"r" * 300)
    now = archive.put("replaced", b"s" * 300)
    remove(archive, "gone")
    assert gc(archive, grace=3600) == GcReport()
    assert archive.keys() == {kept.key, gone.key, replaced.key, now.key}
    expected = GcReport(revisions=2, objects=2, bytes=2300)
    assert gc(archive, dry_run=True) == expected
    assert archive.keys() == {kept.key, gone.key, replaced.key, now.key}
    assert gc(archive) == expected
    assert archive.keys() == {kept.key, now.key}
    assert gc(archive) == GcReport()
    assert bytes(archive.vfs.snapshot(archive.caller, archive.vfs.lookup(archive.caller, archive.top, "kept").ino).pread(
        0, 5000)) == b"k" * 1000  # fmt: skip


def test_an_object_that_another_file_still_has_stays(archive: Archive) -> None:
    whole = archive.put("f", b"f" * 1000)
    ino = archive.vfs.lookup(archive.caller, archive.top, "f").ino
    archive.vfs.copy(archive.caller, ino, archive.top, "copy")
    archive.vfs.truncate(archive.caller, ino, 600)
    cut = archive.revision("f")
    assert (cut.key, cut.stored) == (whole.key, 600)
    remove(archive, "copy")
    assert gc(archive) == GcReport(revisions=1)  # the row of 1000 bytes; 600 of them are still a file
    assert archive.keys() == {whole.key}
    remove(archive, "f")
    assert gc(archive) == GcReport(revisions=1, objects=1, bytes=600)
    assert archive.keys() == set()


def test_an_open_file_without_a_name_keeps_its_bytes(archive: Archive) -> None:
    archive.put("f", b"f" * 1000)
    ino = archive.vfs.lookup(archive.caller, archive.top, "f").ino
    handle = archive.vfs.open(archive.caller, ino, OpenFlags.READ)
    remove(archive, "f")
    assert gc(archive) == GcReport()
    assert bytes(handle.pread(0, 5000)) == b"f" * 1000
    handle.release()
    archive.vfs._files._sweep()
    assert gc(archive).objects == 1


def test_uploads_that_nobody_goes_on_with_are_aborted(archive: Archive) -> None:
    """[D18] An interrupted upload can go on for a week, or as long as `gc --upload-age` says; after that `gc` drops what was
    stored."""
    other = Catalog.open(archive.url)
    key = new_key()
    upload = archive.bare.create_upload(key)
    other.begin_upload(upload, key, "/Documents/archive/big")
    body = b"p" * 6 * MIB
    other.record_part(upload, archive.bare.upload_part(key, upload, 1, body, zlib.crc32(body)))
    assert gc(archive) == GcReport()  # its gateway is alive
    other.close()
    assert gc(archive, upload_age=3600) == GcReport()  # it may be resumed
    expected = GcReport(expired_uploads=1, bytes=6 * MIB)
    assert gc(archive, dry_run=True) == expected
    assert len(archive.catalog.uploads()) == 1
    assert gc(archive) == expected
    assert archive.catalog.uploads() == []
    assert list(archive.bare.list_uploads("")) == []


def test_what_a_living_gateway_uploads_is_not_touched(archive: Archive) -> None:
    handle = archive.vfs.put(archive.caller, archive.top, "big", size_hint=12 * MIB)
    handle.write(b"a" * 11 * MIB)
    while not archive.catalog.uploads() or len(archive.catalog.uploads()[0].parts) < 2:
        pass  # pytest's timeout bounds it
    assert gc(archive, grace=-60, upload_age=-60) == GcReport()
    handle.write(b"b" * MIB)
    handle.commit()
    assert archive.revision("big").size == 12 * MIB
    assert gc(archive) == GcReport()


def test_what_a_crash_left_in_the_store_goes(archive: Archive) -> None:
    kept = archive.put("kept", b"k")
    key = new_key()
    orphan, foreign = new_key(), ObjectKey("objects/of another program")
    upload = archive.bare.create_upload(key)
    foreign_upload = archive.bare.create_upload(ObjectKey("backup.tar"))
    for each in (orphan, foreign):
        store_object(archive, each)
    assert gc(archive, grace=3600) == GcReport()
    expected = GcReport(unknown_uploads=1, unknown_objects=1, bytes=6)
    assert gc(archive, dry_run=True) == expected
    assert gc(archive) == expected
    assert archive.keys() == {kept.key, foreign}
    assert [each.upload_id for each in archive.bare.list_uploads("")] == [foreign_upload]
    archive.bare.abort_upload(ObjectKey("backup.tar"), foreign_upload)
    assert upload != foreign_upload


def test_previews_of_what_is_gone_go(in_memory: Archive) -> None:
    kept, gone = in_memory.put("kept", b"k"), in_memory.put("gone", b"g")
    for revision in (kept, gone):
        key = ObjectKey(f"previews/{revision.id[:2]}/{revision.id}")
        store_object(in_memory, key, b"jpeg")
        in_memory.catalog.previews.save(PreviewRecord(revision.id, PreviewState.DECODED, key=key, sizes=(1, 1, 2)))
    store_object(in_memory, ObjectKey("previews/notes.txt"))
    assert gc(in_memory) == GcReport()
    remove(in_memory, "gone")
    assert gc(in_memory) == GcReport(revisions=1, objects=1, previews=1, bytes=5)
    assert in_memory.keys() == {kept.key, f"previews/{kept.id[:2]}/{kept.id}", "previews/notes.txt"}


def test_the_catalog_of_another_archive_deletes_nothing(in_memory: Archive) -> None:
    """An empty home with the settings of a full bucket."""
    in_memory.put("mine", b"m")
    others = [new_key() for _ in range(3)]
    for key in others:
        store_object(in_memory, key)
    before = in_memory.keys()
    for dry_run in (True, False):
        with pytest.raises(ConfigError, match=r"does not know 3 of 4 objects.*--force"):
            gc(in_memory, dry_run=dry_run)
    assert in_memory.keys() == before
    assert Gc(in_memory.catalog, in_memory.store, grace=NO_GRACE).run(force=True).unknown_objects == 3
    assert len(in_memory.keys()) == 1


def test_a_store_that_refuses_stops_nothing(in_memory: Archive) -> None:
    for name in ("a", "b", "c"):
        in_memory.put(name, name.encode())
    in_memory.put("kept", b"k" * 5)
    in_memory.put("kept too", b"k" * 5)
    for name in ("a", "b", "c"):
        remove(in_memory, name)
    in_memory.store.inject(Fault(Kind.FAIL, "delete", error=StoreRejected("Forbidden.")))
    report = gc(in_memory)
    assert (report.objects, len(report.failed)) == (2, 1)
    assert "Forbidden" in report.failed[0]
    assert gc(in_memory) == GcReport()  # the rest of that very run took it as an object without a name
    assert report.unknown_objects == 1
    assert len(in_memory.keys()) == 2


def test_a_crash_between_the_row_and_the_bytes_leaves_only_bytes(in_memory: Archive) -> None:
    in_memory.put("f", b"f" * 100)
    in_memory.put("kept", b"k")
    remove(in_memory, "f")
    in_memory.store.inject(Fault(Kind.FAIL, "delete", times=2, error=StoreRejected("The process died here.")))
    assert len(gc(in_memory).failed) == 2
    assert in_memory.catalog.contradictions() == []
    assert gc(in_memory) == GcReport(unknown_objects=1, bytes=100)


def test_many(in_memory: Archive) -> None:
    for _ in range(1100):
        store_object(in_memory, new_key())
    told = []
    job = Gc(in_memory.catalog, in_memory.store, grace=NO_GRACE, progress=lambda r: told.append(r.unknown_objects))
    assert job.run(force=True).unknown_objects == 1100
    assert told[-1] == 1100
    assert in_memory.keys() == set()
