"""What maintenance asks of the catalog."""

from __future__ import annotations

import dataclasses
import stat
import time

import pytest

from archivia_fs.types import DOCUMENTS_INODE, InodeNo, ObjectKey, RevisionId, UploadId
from catalog.catalog import Catalog, Freed, NewInode
from tests.catalog.helpers import DIR, FILE, D, file, folder, revision, sql

NEVER = 0


def put(catalog: Catalog, name: str, key: str | None = None, parent: InodeNo = D) -> None:
    """A file whose revision has its name."""
    made = revision(name)
    catalog.put_file(
        parent, name, dataclasses.replace(made, key=ObjectKey(key or f"objects/{name}")), FILE, mtime_ns=None
    )


def remove(catalog: Catalog, name: str) -> None:
    catalog.forget([stat.ino for stat in catalog.unlink(D, name).stats if stat.nlink == 0])


def test_revisions_of_a_folder(catalog: Catalog) -> None:
    top = folder(catalog, "top")
    deep = folder(catalog, "deep", folder(catalog, "inside", top))
    put(catalog, "c")
    put(catalog, "b", parent=top)
    put(catalog, "a", parent=deep)
    catalog.link(catalog.lookup(D, "c").stat.ino, deep, "c too")
    file(catalog, "empty", top)
    assert [each.id for each in catalog.revisions_in_use()] == ["a", "b", "c"]
    assert [each.id for each in catalog.revisions_in_use(below=top)] == ["a", "b", "c"]
    assert [each.id for each in catalog.revisions_in_use(below=deep, after="a")] == ["c"]
    assert [each.id for each in catalog.revisions_in_use(below=catalog.lookup(top, "b").stat.ino)] == ["b"]
    assert catalog.revisions_in_use(below=catalog.lookup(top, "empty").stat.ino) == []
    assert catalog.revisions_in_use(below=top, pending=True) == []
    assert catalog.totals_in_use() == (3, 3000)
    assert catalog.totals_in_use(below=deep, after="a") == (1, 1000)
    assert set(catalog.revision_paths(RevisionId("c"))) == {"/Documents/c", "/Documents/top/inside/deep/c too"}
    assert catalog.revision_paths(RevisionId("c"), limit=1) == ["/Documents/c"]
    assert catalog.revision_paths(RevisionId("nobody's")) == []


def test_objects_come_in_the_order_of_their_bytes(catalog: Catalog) -> None:
    """Not in that of a language, which would put "a" before "B" and skip the "/"."""
    keys = ["a/é", "b", "B", "a-", "a/z", "a"]
    for number, key in enumerate(keys):
        put(catalog, f"r{number}", key)
    put(catalog, "same object", "b")
    wanted = sorted([*keys, "b"], key=lambda key: key.encode())
    assert [each.key for each in catalog.objects_in_use()] == wanted
    found, after = [], ("", "")
    while page := catalog.objects_in_use(2, after):
        found += [each.key for each in page]
        after = (str(page[-1].key), page[-1].id)
    assert found == wanted


def test_what_is_released_is_forgotten_once_and_its_object_with_the_last(catalog: Catalog) -> None:
    for name, key in (("kept", "k1"), ("cut", "k1"), ("one", "k2"), ("two", "k2"), ("alone", "k3"), ("hole", "k4")):
        put(catalog, name, key)
    started = time.time_ns()
    for name in ("cut", "one", "two", "alone"):
        remove(catalog, name)
    assert catalog.releasable(started) == ()
    assert catalog.drop_released(started) == []
    now = time.time_ns()
    expected = [
        Freed(RevisionId("cut"), None, 1000),
        Freed(RevisionId("one"), None, 1000),
        Freed(RevisionId("two"), ObjectKey("k2"), 1000),
        Freed(RevisionId("alone"), ObjectKey("k3"), 1000),
    ]
    assert list(catalog.releasable(now)) == expected
    assert [catalog.drop_released(now, limit=3), catalog.drop_released(now, limit=3)] == [expected[:3], expected[3:]]
    assert catalog.drop_released(now) == []
    assert [each.id for each in catalog.revisions_in_use()] == ["hole", "kept"]


def test_an_object_stays_while_a_younger_release_has_it(catalog: Catalog) -> None:
    put(catalog, "old", "k")
    put(catalog, "new", "k")
    remove(catalog, "old")
    middle = time.time_ns()
    remove(catalog, "new")
    assert catalog.releasable(middle) == (Freed(RevisionId("old"), None, 1000),)
    assert catalog.drop_released(middle) == [Freed(RevisionId("old"), None, 1000)]
    assert catalog.drop_released(time.time_ns()) == [Freed(RevisionId("new"), ObjectKey("k"), 1000)]


def test_what_a_file_has_is_never_forgotten(catalog: Catalog, url: str) -> None:
    put(catalog, "f", "k")
    put(catalog, "twin", "k")
    sql(url, "UPDATE revisions SET released_ns = 1")
    remove(catalog, "twin")
    assert catalog.drop_released(time.time_ns()) == [Freed(RevisionId("twin"), None, 1000)]


def test_what_the_catalog_knows(catalog: Catalog) -> None:
    put(catalog, "f", "k1")
    put(catalog, "gone", "k2")
    remove(catalog, "gone")
    catalog.begin_upload(UploadId("u"), ObjectKey("k3"), "x")
    keys = {ObjectKey(f"k{number}") for number in range(1, 1200)}
    assert catalog.unknown_objects(keys) == keys - {"k1", "k2", "k3"}
    assert catalog.unknown_objects(set()) == set()
    assert catalog.unknown_uploads({UploadId("u"), UploadId("v")}) == {"v"}


def test_orphans_are_left_to_the_last_gateway(catalog: Catalog, url: str) -> None:
    file(catalog, "open elsewhere")
    other = Catalog.open(url)
    other.begin_upload(UploadId("u"), ObjectKey("k"), "so that it is known to be alive")
    catalog.unlink(D, "open elsewhere")
    sql(url, "UPDATE inodes SET ctime_ns = ctime_ns - 3601000000000 WHERE nlink = 0")
    assert catalog.forget_orphans() == 0
    other.close()
    assert catalog.forget_orphans() == 1


def test_gateways_that_never_end_do_not_keep_what_is_gone_for_ever(catalog: Catalog, url: str) -> None:
    inos = [file(catalog, name) for name in ("old", "new")]
    other = Catalog.open(url)
    other.begin_upload(UploadId("u"), ObjectKey("k"), "so that it is known to be alive")
    for name in ("old", "new"):
        catalog.unlink(D, name)
    assert catalog.forget(inos) == inos
    sql(url, f"UPDATE inodes SET ctime_ns = ctime_ns - 86401000000000 WHERE ino = {inos[0]}")
    assert catalog.forget(inos) == inos[1:]
    sql(url, "UPDATE inodes SET ctime_ns = ctime_ns - 86401000000000 WHERE nlink = 0")
    assert catalog.forget_orphans() == 1
    other.close()


def test_a_sound_catalog_does_not_contradict_itself(catalog: Catalog) -> None:
    catalog.add_user("a", "x")
    catalog.add_collection("archive", "a", DIR)
    top = folder(catalog, "top")
    folder(catalog, "inside", top)
    f = file(catalog, "f", top)
    catalog.link(f, D, "f too")
    catalog.commit_revision(f, revision("r"), mtime_ns=None)
    catalog.set_properties(f, {"user.a": b"1"})
    catalog.make(D, "l", NewInode(stat.S_IFLNK | 0o777, 0, 0, symlink="f"))
    catalog.make(D, "p", NewInode(stat.S_IFIFO | 0o600, 0, 0))
    put(catalog, "open")
    catalog.unlink(D, "open")
    folder(catalog, "removed")
    catalog.rmdir(D, "removed")
    catalog.remove_tree(D, "f too")
    assert catalog.contradictions() == []


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("UPDATE inodes SET nlink = 7 WHERE ino = 16", "inode 16 counts 7 links and has 1"),
        ("UPDATE inodes SET nlink = 7 WHERE ino = 2", "inode 2 counts 7 links and has 3"),
        ("DELETE FROM dentries WHERE ino = 17", "inode 17 counts 2 links and has 0"),
        (
            "INSERT INTO dentries (parent, key, name, ino) VALUES (2, 'again', 'again', 17)",
            "the folder 17 has 2 names instead of one",
        ),
        ("UPDATE dentries SET parent = 16 WHERE ino = 17", "the name 'folder' is in inode 16, which is no folder"),
        ("UPDATE inodes SET size = 5 WHERE ino = 16", "inode 16 has 5 bytes, and its revision 1000"),
        ("UPDATE inodes SET revision = 'f' WHERE ino = 17", "inode 17 has bytes and is no regular file"),
        ("UPDATE revisions SET released_ns = 5", "revision f is in use and marked as released"),
        (
            "UPDATE inodes SET revision = NULL, size = 0 WHERE ino = 16",
            "revision f is not in use and not released, so gc never takes it",
        ),
        ("UPDATE revisions SET stored = 1001", "revision f stores 1001 of 1000 bytes in object objects/f"),
        ("UPDATE revisions SET object_key = NULL", "revision f stores 1000 of 1000 bytes in object (none)"),
    ],
)
def test_contradictions_are_found(catalog: Catalog, url: str, damage: str, says: str) -> None:
    put(catalog, "f")
    folder(catalog, "folder")
    assert catalog.contradictions() == []
    sql(url, damage)
    assert says in catalog.contradictions()


def test_rows_that_lead_nowhere(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Foreign keys forbid them; a damaged file may have them all the same."""
    url = f"sqlite:///{tmp_path_factory.mktemp('catalog')}/catalog.db"
    catalog = Catalog.open(url)
    try:
        put(catalog, "f")
        sql(
            url,
            "INSERT INTO dentries (parent, key, name, ino) VALUES (2, 'a', 'a', 99)",
            "INSERT INTO dentries (parent, key, name, ino) VALUES (98, 'b', 'b', 16)",
            "INSERT INTO properties (ino, name, value) VALUES (97, 'a', 'b'), (95, 'a', 'b')",
            "INSERT INTO collections (ino, owner) VALUES (96, 'a')",
            "INSERT INTO revision_parts (revision, number, size, etag, crc32) VALUES ('none', 1, 1, '', 1)",
            "UPDATE inodes SET revision = 'lost' WHERE ino = 16",
        )
        assert set(catalog.contradictions()) >= {
            f"the name 'a' in folder {DOCUMENTS_INODE} leads to inode 99, which is not there",
            "the name 'b' is in inode 98, which is no folder",
            "properties of inode 97, which is not there",
            "inode 96 is a collection and not there",
            "parts of revision none, which is not there",
            "inode 16 has the revision lost, which is not there",
        }
        assert len(catalog.contradictions(limit=1)) < len(catalog.contradictions())
        sql(url, "UPDATE dentries SET parent = 98 WHERE name = 'f'", "UPDATE inodes SET revision = 'f' WHERE ino = 16")
        assert catalog.revision_paths(RevisionId("f"))[0].startswith("(lost)/")
    finally:
        catalog.close()
