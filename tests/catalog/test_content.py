"""Bytes, properties, the upload journal, users, collections and locks."""

from __future__ import annotations

import dataclasses
import sqlite3
import stat
import time
from pathlib import Path

import pytest
from sqlalchemy import bindparam, create_engine, select, text
from sqlalchemy.dialects.sqlite import dialect

from archivia_fs.errors import (
    CatalogError,
    Changed,
    Exists,
    InvalidArgument,
    IsADirectory,
    Locked,
    NoAttribute,
    NotFound,
)
from archivia_fs.types import (
    DOCUMENTS_INODE,
    ChangeKind,
    Collection,
    InodeNo,
    Lock,
    ObjectKey,
    Part,
    RevisionId,
    Right,
    SetAttr,
    UploadId,
    User,
)
from catalog import journal, upkeep
from catalog.catalog import Catalog, Counts, NewInode
from catalog.models import PENDING
from tests.catalog.helpers import DIR, FILE, D, Heard, complete, file, folder, revision, rows, together


def released(url: str) -> dict[str, bool]:
    """Which revisions gc may take."""
    engine = create_engine(url)
    with engine.connect() as connection:
        found = {
            row[0]: row[1] is not None for row in connection.execute(text("SELECT id, released_ns FROM revisions"))
        }
    engine.dispose()
    return found


def test_commit_a_revision(catalog: Catalog) -> None:
    f = file(catalog, "f")
    catalog.setattr(f, SetAttr(mode=0o6755))
    catalog.begin_upload(UploadId("u"), ObjectKey("k"), "/Documents/f")
    before = rows(catalog)
    new = dataclasses.replace(
        revision("r", 5 << 40), stored=1 << 40, parts=tuple(Part(n, 9, f"e{n}", n) for n in (1, 2, 3))
    )
    effects = catalog.commit_revision(f, new, mtime_ns=42, finish_upload=UploadId("u"))
    complete(catalog, effects, before)
    after = effects.stat(f)
    assert (after.revision, after.size, after.mtime_ns, after.mode) == ("r", 5 << 40, 42, 0o106755)
    assert after.ctime_ns > before[f].ctime_ns  # type: ignore[attr-defined]
    assert [c.kind for c in effects.changes] == [ChangeKind.DATA]
    assert catalog.revision(RevisionId("r")) == new
    assert catalog.uploads() == []


def test_set_id_bits_go_with_the_bytes_of_a_put(catalog: Catalog) -> None:
    """A mount's kernel takes them itself, at write(2)."""
    f = file(catalog, "f")
    catalog.setattr(f, SetAttr(mode=0o6755))
    assert catalog.put_file(D, "f", revision("r"), FILE, mtime_ns=None).stat(f).mode == 0o100755


def test_a_replaced_revision_is_released(catalog: Catalog, url: str) -> None:
    f = file(catalog, "f")
    catalog.commit_revision(f, revision("r1"), mtime_ns=None)
    started = time.time_ns()
    after = catalog.commit_revision(f, revision("r2", 7), mtime_ns=None).stat(f)
    assert (after.size, started < after.mtime_ns == after.ctime_ns) == (7, True)
    assert released(url) == {"r1": True, "r2": False}
    assert catalog.commit_revision(f, None, mtime_ns=None).stat(f).revision is None
    assert catalog.stat(f).size == 0
    assert released(url) == {"r1": True, "r2": True}
    catalog.commit_revision(f, catalog.revision(RevisionId("r1")), mtime_ns=None)
    assert released(url) == {"r1": False, "r2": True}


def test_a_shared_revision_is_released_with_its_last_user(catalog: Catalog, url: str) -> None:
    f = file(catalog, "f")
    catalog.commit_revision(f, revision("r"), mtime_ns=None)
    copy = catalog.copy_tree(f, D, "copy", FILE, recursive=True).changes[0].ino
    catalog.commit_revision(f, None, mtime_ns=None)
    assert released(url) == {"r": False}
    catalog.unlink(D, "copy")
    assert released(url) == {"r": False}  # somebody may have it open
    catalog.forget([copy])
    assert released(url) == {"r": True}


def test_an_unlinked_file_can_still_be_written(catalog: Catalog, url: str) -> None:
    f = file(catalog, "f")
    catalog.unlink(D, "f")
    assert catalog.commit_revision(f, revision("r"), mtime_ns=None).stat(f).revision == "r"
    catalog.forget([f])
    assert released(url) == {"r": True}
    with pytest.raises(NotFound):
        catalog.commit_revision(f, revision("r3"), mtime_ns=None)
    with pytest.raises(NotFound):
        catalog.revision(RevisionId("r3"))


def test_orphans_are_forgotten_after_an_hour(catalog: Catalog, url: str) -> None:
    old, new = file(catalog, "old"), file(catalog, "new")
    catalog.unlink(D, "old")
    catalog.unlink(D, "new")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE inodes SET ctime_ns = ctime_ns - 3601000000000 WHERE ino = :i"), {"i": old})
    engine.dispose()
    assert catalog.forget_orphans() == 1
    assert catalog.forget_orphans() == 0
    assert catalog.stat(new).nlink == 0
    with pytest.raises(NotFound):
        catalog.stat(old)


def test_put_creates_and_replaces(catalog: Catalog, url: str) -> None:
    before = rows(catalog)
    effects = catalog.put_file(D, "f", revision("r1"), FILE, mtime_ns=5)
    complete(catalog, effects, before)
    f = effects.changes[0].ino
    assert [c.kind for c in effects.changes] == [ChangeKind.ENTRY_ADDED, ChangeKind.DATA]
    assert (effects.stat(f).revision, effects.stat(f).mtime_ns) == ("r1", 5)
    catalog.link(f, D, "g")
    effects = catalog.put_file(D, "f", revision("r2"), FILE, mtime_ns=None)
    assert [(c.kind, c.ino) for c in effects.changes] == [(ChangeKind.DATA, f)]
    assert catalog.lookup(D, "g").stat.revision == "r2"
    catalog.put_file(D, "empty", None, FILE, mtime_ns=None)
    assert catalog.lookup(D, "empty").stat.size == 0
    assert released(url) == {"r1": True, "r2": False}


def test_put_refuses(catalog: Catalog) -> None:
    folder(catalog, "d")
    f = file(catalog, "f")
    catalog.make(D, "l", NewInode(stat.S_IFLNK | 0o777, 0, 0, symlink="f"))
    for name, exclusive, error in (("d", False, IsADirectory), ("f", True, Exists), ("l", False, InvalidArgument)):
        with pytest.raises(error):
            catalog.put_file(D, name, revision("r"), FILE, mtime_ns=None, exclusive=exclusive)
    with pytest.raises(NotFound):
        catalog.put_file(InodeNo(9999), "x", revision("r"), FILE, mtime_ns=None)
    with pytest.raises(InvalidArgument):
        catalog.commit_revision(D, revision("r"), mtime_ns=None)
    assert catalog.stat(f).revision is None
    with pytest.raises(NotFound):
        catalog.revision(RevisionId("r"))


def test_a_put_on_condition(catalog: Catalog) -> None:
    def put(name: str, etags: set[str]) -> None:
        catalog.put_file(D, "f", revision(name), FILE, mtime_ns=None, if_etags=etags)

    with pytest.raises(Changed):
        put("r0", {"r0"})  # nothing is there
    f = file(catalog, "f")
    for etags in (set(), {"r0"}):
        with pytest.raises(Changed, match="look at it again"):
            put("r0", etags)
    put("r1", {"x", f"empty-{f}"})
    put("r2", {"r1"})
    with pytest.raises(Changed):
        put("r3", {"r1"})
    assert catalog.stat(f).revision == "r2"
    with pytest.raises(NotFound):
        catalog.revision(RevisionId("r3"))


def test_one_of_many_puts_on_the_same_condition(catalog: Catalog) -> None:
    """Each has seen the empty file; whoever comes first replaces it."""
    f = file(catalog, "f")
    done = []

    def work(number: int) -> None:
        try:
            catalog.put_file(D, "f", revision(f"r{number}"), FILE, mtime_ns=None, if_etags={f"empty-{f}"})
        except Changed:
            return
        done.append(f"r{number}")

    together(8, work)
    assert done == [catalog.stat(f).revision]


def test_properties_of_many(catalog: Catalog) -> None:
    inos = [file(catalog, f"f{number}") for number in range(4)]
    catalog.set_properties(inos[0], {"user.a": b"1", "user.b": b"2"})
    catalog.set_properties(inos[2], {"user.a": b"3"})
    catalog.set_properties(D, {"user.a": b"not asked for"})
    assert catalog.properties_of(inos) == {inos[0]: {"user.a": b"1", "user.b": b"2"}, inos[2]: {"user.a": b"3"}}
    assert catalog.properties_of([]) == {}


def test_properties(catalog: Catalog) -> None:
    f = file(catalog, "f")
    before = rows(catalog)
    effects = catalog.set_properties(f, {"user.a": b"1", "{http://ns}b": b"\x00", "none": None})
    complete(catalog, effects, before)
    assert [c.kind for c in effects.changes] == [ChangeKind.PROPERTIES]
    assert catalog.properties(f) == {"user.a": b"1", "{http://ns}b": b"\x00"}
    catalog.set_properties(f, {"user.a": b"2"})
    catalog.set_properties(f, {"{http://ns}b": None})
    assert catalog.properties(f) == {"user.a": b"2"}
    with pytest.raises(NoAttribute):
        catalog.set_properties(f, {"{http://ns}b": None})
    with pytest.raises(NotFound):
        catalog.set_properties(InodeNo(9999), {"user.a": b"2"})
    catalog.unlink(D, "f")
    catalog.forget([f])
    assert catalog.properties(f) == {}


def test_the_journal_of_uploads(catalog: Catalog) -> None:
    catalog.begin_upload(UploadId("u1"), ObjectKey("k1"), "/Documents/a/b.dng")
    catalog.begin_upload(UploadId("u2"), ObjectKey("k2"), "import")
    catalog.record_part(UploadId("u1"), Part(2, 20, "e2", 2))
    catalog.record_part(UploadId("u1"), Part(1, 10, "e1", 0xFFFFFFFF))
    catalog.record_part(UploadId("u1"), Part(2, 21, "again", 3))
    first, second = catalog.uploads()
    assert (first.upload_id, first.key, first.origin, first.target) == (
        "u1",
        "k1",
        catalog.origin,
        "/Documents/a/b.dng",
    )
    assert first.parts == (Part(1, 10, "e1", 0xFFFFFFFF), Part(2, 21, "again", 3))
    assert (second.upload_id, second.parts) == ("u2", ())
    catalog.drop_upload(UploadId("u1"))
    catalog.drop_upload(UploadId("u1"))
    assert [record.upload_id for record in catalog.uploads()] == ["u2"]
    with pytest.raises(NotFound):
        catalog.record_part(UploadId("u1"), Part(3, 1, "e", 1))


def test_pending_checksums_are_filled_once(catalog: Catalog) -> None:
    whole, no_sha, nothing = revision("whole"), revision("a", sha256=None), revision("b", sha256=None)
    nothing = dataclasses.replace(nothing, crc32=None)
    for each in (whole, nothing, no_sha):
        catalog.put_file(D, each.id, each, FILE, mtime_ns=None)
    catalog.put_file(D, "gone", revision("c", sha256=None), FILE, mtime_ns=None)
    catalog.put_file(D, "gone", None, FILE, mtime_ns=None)
    assert catalog.pending_revisions() == [dataclasses.replace(each, parts=()) for each in (no_sha, nothing)]
    assert [each.id for each in catalog.pending_revisions(limit=1)] == ["a"]
    assert [each.id for each in catalog.pending_revisions(after="a")] == ["b"]
    heard = Heard(catalog)
    catalog.fill_checksums(RevisionId("b"), None, 0)
    catalog.fill_checksums(RevisionId("b"), "b" * 64, None)
    catalog.fill_checksums(RevisionId("b"), "b" * 64, 0)
    found = catalog.revision(RevisionId("b"))
    assert (found.sha256, found.crc32, found.parts) == ("b" * 64, 0, nothing.parts)
    for sha256, crc32 in (("c" * 64, None), (None, 1)):
        with pytest.raises(CatalogError, match="run scrub"):
            catalog.fill_checksums(RevisionId("b"), sha256, crc32)
    with pytest.raises(CatalogError):
        catalog.fill_checksums(RevisionId("a"), "d" * 64, 1)  # the CRC-32 is known
    assert [each.id for each in catalog.pending_revisions()] == ["a"]
    assert catalog.revision(RevisionId("b")) == found
    with pytest.raises(NotFound):
        catalog.fill_checksums(RevisionId("none"), "a" * 64, 1)
    assert heard.changes == []


def test_what_maintenance_looks_for_has_an_index(tmp_path: Path) -> None:
    """Its questions cost what they find, not what the archive holds."""
    Catalog.open(f"sqlite:///{tmp_path}/catalog.db").close()
    database = sqlite3.connect(tmp_path / "catalog.db")
    for statement, index in (
        (select(upkeep.revisions).where(PENDING, upkeep.revisions.c.id > bindparam("a")), "revisions_pending"),
        (upkeep._RELEASED, "revisions_released"),
        (upkeep._LIVING, "revisions_by_object"),
        (journal._LIKE_NEW, "upload_parts_by_checksum"),
        (journal._LIKE_EDIT, "upload_parts_by_source"),
    ):
        query = statement.compile(dialect=dialect(paramstyle="named"))
        plan = database.execute(f"EXPLAIN QUERY PLAN {query}", dict.fromkeys(query.params, 1))
        assert index in str(plan.fetchall())
    database.close()


def test_users(catalog: Catalog) -> None:
    heard = Heard(catalog)
    catalog.add_user("zoe", "hash1")
    catalog.add_user("admin", "hash2", admin=True)
    assert catalog.users() == [User("admin", True, False), User("zoe", False, False)]
    assert (catalog.password_hash("zoe"), catalog.password_hash("nobody")) == ("hash1", None)
    catalog.set_password("zoe", "hash3")
    assert catalog.password_hash("zoe") == "hash3"
    catalog.set_disabled("zoe", True)
    assert catalog.password_hash("zoe") is None
    catalog.set_disabled("zoe", False)
    assert catalog.password_hash("zoe") == "hash3"
    with pytest.raises(Exists):
        catalog.add_user("zoe", "x")
    with pytest.raises(NotFound):
        catalog.set_password("nobody", "x")
    with pytest.raises(NotFound):
        catalog.set_disabled("nobody", True)
    assert [c.kind for c in heard.changes] == [ChangeKind.ACCESS] * 5


def test_collections(catalog: Catalog) -> None:
    catalog.add_user("a", "x")
    catalog.add_user("b", "x")
    effects = catalog.add_collection("archive", "a", DIR)
    ino = effects.changes[0].ino
    assert [c.kind for c in effects.changes] == [ChangeKind.ENTRY_ADDED, ChangeKind.ACCESS]
    assert effects.stat(DOCUMENTS_INODE).nlink == 3
    catalog.grant("archive", "b", Right.READ)
    catalog.grant("archive", "b", Right.WRITE)
    assert catalog.collections() == [Collection(ino, "archive", "a", (("b", Right.WRITE),))]
    catalog.revoke("archive", "b")
    assert catalog.collections() == [Collection(ino, "archive", "a", ())]
    folder(catalog, "no collection")
    with pytest.raises(Exists):
        catalog.add_collection("archive", "a", DIR)
    for collection, user in (("archive", "nobody"), ("none", "a"), ("no collection", "a")):
        with pytest.raises(NotFound):
            catalog.grant(collection, user, Right.READ)
    with pytest.raises(NotFound):
        catalog.add_collection("other", "nobody", DIR)
    catalog.rename(D, "archive", D, "renamed")
    assert [each.name for each in catalog.collections()] == ["renamed"]


def test_a_removed_collection_takes_its_grants_along(catalog: Catalog) -> None:
    catalog.add_user("a", "x")
    catalog.add_collection("archive", "a", DIR)
    catalog.grant("archive", "a", Right.READ)
    effects = catalog.rmdir(D, "archive")
    assert ChangeKind.ACCESS in [c.kind for c in effects.changes]
    assert catalog.collections() == []
    catalog.add_collection("archive", "a", DIR)
    assert [each.grants for each in catalog.collections()] == [()]


def test_locks(catalog: Catalog) -> None:
    never = Lock("t1", "/Documents/ä", "a", "<owner/>", False, -1, 600, None)
    later = dataclasses.replace(never, token="t2", depth=0, expires_ns=time.time_ns() + 10**12)
    expired = dataclasses.replace(never, token="t3", expires_ns=time.time_ns() - 1)
    for lock in (never, later, expired):
        catalog.add_lock(lock)
    assert {lock.token: lock for lock in catalog.locks()} == {"t1": never, "t2": later}
    assert (catalog.lock("t2"), catalog.lock("t3"), catalog.lock("t4")) == (later, None, None)
    refreshed = catalog.refresh_lock("t2", 99, None)
    assert refreshed == dataclasses.replace(later, timeout_s=99, expires_ns=None) == catalog.lock("t2")
    for token in ("t3", "t4"):
        with pytest.raises(NotFound):
            catalog.refresh_lock(token, 99, None)
    with pytest.raises(Exists):
        catalog.add_lock(never)
    catalog.add_lock(dataclasses.replace(expired, expires_ns=None))
    catalog.remove_lock("t1")
    catalog.remove_lock("t1")
    assert sorted(lock.token for lock in catalog.locks()) == ["t2", "t3"]


@pytest.mark.parametrize(
    ("held", "wanted", "refused"),
    [
        (("/a", "X", 0), ("/a", "X", 0), True),
        (("/a", "X", 0), ("/a", "S", 0), True),
        (("/a", "S", 0), ("/a", "X", 0), True),
        (("/a", "S", -1), ("/a", "S", -1), False),
        (("/a", "X", -1), ("/a/b/c", "S", 0), True),
        (("/a", "X", 0), ("/a/b", "X", 0), False),
        (("/a/b", "X", 0), ("/a", "S", -1), True),
        (("/a/b", "X", 0), ("/a", "X", 0), False),
        (("/a", "X", -1), ("/ab", "X", -1), False),
        (("/", "X", -1), ("/a", "X", 0), True),
        (("/", "X", 0), ("/a", "X", 0), False),
        (("/a/b", "S", -1), ("/a", "S", -1), False),
    ],
)
def test_locks_that_exclude_each_other(
    catalog: Catalog, held: tuple[str, str, int], wanted: tuple[str, str, int], refused: bool
) -> None:
    def lock(token: str, of: tuple[str, str, int], expires_ns: int | None = None) -> Lock:
        return Lock(token, of[0], "a", "", of[1] == "X", of[2], 600, expires_ns)

    catalog.add_lock(lock("expired", ("/", "X", -1), expires_ns=time.time_ns() - 1))
    catalog.add_lock(lock("held", held))
    if refused:
        with pytest.raises(Locked, match=f"a has locked {held[0]};"):
            catalog.add_lock(lock("wanted", wanted))
        assert catalog.lock("wanted") is None
        catalog.remove_lock("held")
    catalog.add_lock(lock("wanted", wanted))
    assert catalog.lock("wanted") is not None


def test_one_of_many_gets_the_lock(url: str) -> None:
    catalogs = [Catalog.open(url) for _ in range(2)]
    got = []

    def work(number: int) -> None:
        try:
            catalogs[number % 2].add_lock(Lock(f"t{number}", "/a", "a", "", True, 0, 600, None))
        except Locked:
            return
        got.append(number)

    try:
        together(8, work)
        assert len(got) == 1
        assert [lock.token for lock in catalogs[0].locks()] == [f"t{got[0]}"]
    finally:
        for each in catalogs:
            each.close()


def test_counts_and_statfs(catalog: Catalog) -> None:
    f = file(catalog, "f")
    catalog.link(f, D, "f2")
    catalog.commit_revision(f, revision("r", 100, sha256=None), mtime_ns=None)
    catalog.copy_tree(f, D, "copy", FILE, recursive=True)
    catalog.begin_upload(UploadId("u"), ObjectKey("k"), "x")
    assert catalog.counts() == Counts(files=2, directories=2, bytes=200, uploads=1, checksums_pending=1)
    assert catalog.statfs() == (100, 4)
    file(catalog, "g")
    assert catalog.statfs() == (100, 4)  # remembered
    assert catalog.counts().files == 3
