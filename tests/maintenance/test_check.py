"""check: what the catalog says is there is there, and the catalog fits itself."""

from __future__ import annotations

import zlib

from archivia_fs.maintenance.check import Check, CheckReport
from archivia_fs.types import ObjectKey, Revision
from tests.catalog.helpers import sql
from tests.maintenance.conftest import MIB, Archive


def check(archive: Archive) -> CheckReport:
    return Check(archive.catalog, archive.store).run()


def overwrite(archive: Archive, revision: Revision, data: bytes) -> None:
    assert revision.key is not None
    archive.bare.put(revision.key, data, zlib.crc32(data))


def test_a_sound_archive(archive: Archive) -> None:
    for number in range(20):
        archive.put(f"f{number}", bytes(number))
    archive.put("big", bytes(6 * MIB))
    ino = archive.vfs.lookup(archive.caller, archive.top, "big").ino
    archive.vfs.truncate(archive.caller, ino, 9)  # of a longer object
    archive.vfs.copy(archive.caller, ino, archive.top, "copy")
    report = check(archive)
    assert report.sound
    assert (report.revisions, report.bytes) == (20, sum(range(20)) + 9)  # f0 has none


def test_missing_and_cut_objects_are_found(archive: Archive) -> None:
    revisions = [archive.put(f"f{number}", b"x" * 100) for number in range(6)]
    gone, cut, longer = revisions[1], revisions[3], revisions[5]
    assert gone.key is not None
    archive.bare.delete(gone.key)
    overwrite(archive, cut, b"x" * 99)
    overwrite(archive, longer, b"x" * 101)
    report = check(archive)
    assert not report.sound
    assert {(each.revision, each.reason, *each.paths) for each in report.bad_objects} == {
        (gone.id, "the object is missing", "/Documents/archive/f1"),
        (cut.id, "the object has 99 bytes instead of 100", "/Documents/archive/f3"),
        (longer.id, "the object has 101 bytes instead of 100", "/Documents/archive/f5"),
    }
    assert report.revisions == 6


def test_an_empty_store(in_memory: Archive) -> None:
    for number in range(3):
        revision = in_memory.put(f"f{number}", b"x")
        assert revision.key is not None
        in_memory.bare.delete(revision.key)
    assert len(check(in_memory).bad_objects) == 3


def test_adopted_objects_have_keys_of_their_own(in_memory: Archive) -> None:
    """Before, between and after ours in the order of keys, with and without folders."""
    keys = ["a.dng", "masters/1.dng", "masters/2.dng", "masters/deep/3.dng", "zz/4.dng", "Ä.dng", "objects/5.dng"]
    for number, key in enumerate(keys):
        made = in_memory.put(f"f{number}", b"x" * 10)
        sql(in_memory.url, f"UPDATE revisions SET object_key = '{key}' WHERE id = '{made.id}'")
        if number != 2:
            in_memory.bare.put(ObjectKey(key), b"x" * 10, zlib.crc32(b"x" * 10))
    in_memory.put("ours", b"o")
    assert [each.key for each in check(in_memory).bad_objects] == ["masters/2.dng"]


def test_the_catalog_that_contradicts_itself(in_memory: Archive) -> None:
    in_memory.put("f", b"x")
    sql(in_memory.url, "UPDATE inodes SET nlink = 9 WHERE revision IS NOT NULL")
    report = check(in_memory)
    assert not report.sound
    assert ["9 links" in each for each in report.contradictions] == [True]


def test_it_lists_instead_of_asking_for_each(in_memory: Archive) -> None:
    for number in range(50):
        in_memory.put(f"f{number}", b"x")
    before = dict(in_memory.store.calls)
    assert check(in_memory).sound
    assert {name for name, calls in in_memory.store.calls.items() if calls != before.get(name, 0)} == {"list"}
