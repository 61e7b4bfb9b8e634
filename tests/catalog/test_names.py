"""Names: POSIX and rename(2), each rule by itself; and what the effects say."""

from __future__ import annotations

import stat
import unicodedata
from collections.abc import Callable

import pytest

from archivia_fs.errors import (
    Exists,
    FsError,
    InvalidArgument,
    IsADirectory,
    NotADirectory,
    NotEmpty,
    NotFound,
    NotPermitted,
)
from archivia_fs.types import (
    DOCUMENTS_INODE,
    FIRST_FREE_INODE,
    ROOT_INODE,
    ChangeKind,
    InodeNo,
    RenameFlag,
    SetAttr,
)
from catalog.catalog import Catalog, NewInode
from tests.catalog.helpers import DIR, FILE, D, complete, file, folder, names, revision, rows, together

NFC = unicodedata.normalize("NFC", "Prüfung.dng")
NFD = unicodedata.normalize("NFD", NFC)


def test_a_new_archive_has_its_root_and_documents(catalog: Catalog) -> None:
    root, documents = catalog.stat(ROOT_INODE), catalog.stat(DOCUMENTS_INODE)
    assert (root.mode, root.nlink, documents.mode, documents.nlink) == (0o40755, 3, 0o40755, 2)
    assert catalog.lookup(ROOT_INODE, "Documents").stat == documents
    assert catalog.parents(DOCUMENTS_INODE) == [(ROOT_INODE, "Documents")]
    assert catalog.parents(ROOT_INODE) == []


def test_make(catalog: Catalog) -> None:
    effects = catalog.make(D, "a.dng", NewInode(stat.S_IFREG | 0o640, 5, 6))
    (change,) = effects.changes
    made = effects.stat(change.ino)
    assert made.ino >= FIRST_FREE_INODE
    assert (made.mode, made.nlink, made.uid, made.gid, made.size, made.revision) == (0o100640, 1, 5, 6, 0, None)
    assert made.atime_ns == made.mtime_ns == made.ctime_ns == made.birth_ns
    assert (change.kind, change.parent, change.name, change.origin) == (
        ChangeKind.ENTRY_ADDED,
        D,
        "a.dng",
        catalog.origin,
    )
    assert effects.stat(D) == catalog.stat(D)
    assert catalog.stat(D).mtime_ns == made.mtime_ns
    assert catalog.lookup(D, "a.dng").stat == made


def test_make_a_symlink_and_a_device(catalog: Catalog) -> None:
    link = catalog.make(D, "l", NewInode(stat.S_IFLNK | 0o777, 0, 0, symlink="größe")).changes[0].ino
    device = catalog.make(D, "d", NewInode(stat.S_IFCHR | 0o600, 0, 0, rdev=0x0103)).changes[0].ino
    assert (catalog.stat(link).symlink, catalog.stat(link).size) == ("größe", 7)
    assert catalog.stat(device).rdev == 0x0103


def test_directories_count_their_subdirectories(catalog: Catalog) -> None:
    a = folder(catalog, "a")
    assert catalog.stat(D).nlink == 3
    folder(catalog, "b", a)
    file(catalog, "c", a)
    assert catalog.stat(a).nlink == 3
    catalog.rmdir(a, "b")
    assert catalog.stat(a).nlink == 2


def test_a_set_group_id_folder_hands_on_its_group(catalog: Catalog) -> None:
    a = catalog.make(D, "a", NewInode(stat.S_IFDIR | 0o2775, 1, 77)).changes[0].ino
    made = catalog.stat(file(catalog, "f", a))
    below = catalog.stat(folder(catalog, "d", a))
    assert (made.gid, made.mode) == (77, 0o100644)
    assert (below.gid, below.mode) == (77, 0o42755)


def test_make_refuses(catalog: Catalog) -> None:
    f = file(catalog, "f")
    gone = folder(catalog, "gone")
    catalog.rmdir(D, "gone")
    for parent, name, error in (
        (D, "f", Exists),
        (f, "x", NotADirectory),
        (gone, "x", NotFound),
        (InodeNo(9999), "x", NotFound),
    ):
        with pytest.raises(error):
            catalog.make(parent, name, FILE)


@pytest.mark.parametrize(("first", "second"), [(NFC, NFD), (NFD, NFC)])
def test_both_spellings_are_one_file(catalog: Catalog, first: str, second: str) -> None:
    ino = file(catalog, first)
    found = catalog.lookup(D, second)
    assert (found.name, found.stat.ino) == (first, ino)
    with pytest.raises(Exists):
        catalog.make(D, second, FILE)
    with pytest.raises(NotFound):
        catalog.lookup(D, second.upper())
    catalog.unlink(D, second)
    assert names(catalog) == []


def test_inode_numbers_are_never_used_again(catalog: Catalog) -> None:
    """[C3] An inode number is never used twice."""
    first = file(catalog, "a")
    catalog.unlink(D, "a")
    catalog.forget([first])
    with pytest.raises(Exists):
        catalog.make(ROOT_INODE, "Documents", DIR)
    assert file(catalog, "b") == first + 1


def test_link(catalog: Catalog) -> None:
    a = folder(catalog, "a")
    f = file(catalog, "f")
    before = rows(catalog)
    effects = catalog.link(f, a, "g")
    complete(catalog, effects, before)
    assert effects.stat(f).nlink == 2
    assert sorted(catalog.parents(f)) == [(D, "f"), (a, "g")]
    with pytest.raises(Exists):
        catalog.link(f, a, "g")
    with pytest.raises(NotPermitted):
        catalog.link(a, D, "b")
    with pytest.raises(NotADirectory):
        catalog.link(f, f, "x")
    catalog.unlink(a, "g")
    assert catalog.stat(f).nlink == 1


def test_unlink_keeps_the_inode_until_it_is_forgotten(catalog: Catalog) -> None:
    f = file(catalog, "f")
    before = rows(catalog)
    effects = catalog.unlink(D, "f")
    complete(catalog, effects, before)
    assert effects.changes[0].kind is ChangeKind.ENTRY_REMOVED
    assert effects.stat(f).nlink == 0
    assert catalog.stat(f).nlink == 0
    with pytest.raises(NotFound):
        catalog.link(f, D, "again")
    catalog.forget([f, D, InodeNo(9999)])
    with pytest.raises(NotFound):
        catalog.stat(f)
    assert catalog.stat(D).nlink == 2


def test_unlink_and_rmdir_refuse(catalog: Catalog) -> None:
    a = folder(catalog, "a")
    file(catalog, "f", a)
    for call, parent, name, error in (
        (catalog.unlink, D, "a", IsADirectory),
        (catalog.unlink, D, "none", NotFound),
        (catalog.rmdir, D, "a", NotEmpty),
        (catalog.rmdir, a, "f", NotADirectory),
        (catalog.rmdir, D, "none", NotFound),
        (catalog.remove_tree, D, "none", NotFound),
    ):
        with pytest.raises(error):
            call(parent, name)
    assert names(catalog, a) == ["f"]


def test_a_removed_folder_is_gone(catalog: Catalog) -> None:
    a = folder(catalog, "a")
    effects = catalog.rmdir(D, "a")
    assert effects.stat(a).nlink == 0
    assert effects.stat(D).nlink == 2
    with pytest.raises(NotFound):
        catalog.listing(a)


def test_listing(catalog: Catalog) -> None:
    a = folder(catalog, "a")
    assert catalog.listing(a).entries == []
    inos = {name: file(catalog, name, a) for name in ("x", "y", NFD)}
    found = catalog.listing(a)
    assert {entry.name: entry.stat.ino for entry in found.entries} == inos
    assert all(entry.stat == catalog.stat(entry.stat.ino) for entry in found.entries)
    assert found.seq == catalog.current_seq()
    with pytest.raises(NotADirectory):
        catalog.listing(inos["x"])
    with pytest.raises(NotFound):
        catalog.listing(InodeNo(9999))


# --- rename(2) -----------------------------------------------------------------------------------------------------


def test_rename_a_file_into_another_folder(catalog: Catalog) -> None:
    a, b = folder(catalog, "a"), folder(catalog, "b")
    f = file(catalog, "f", a)
    before = rows(catalog)
    effects = catalog.rename(a, "f", b, "g")
    complete(catalog, effects, before)
    assert [(c.kind, c.parent, c.name, c.ino) for c in effects.changes] == [
        (ChangeKind.ENTRY_REMOVED, a, "f", f),
        (ChangeKind.ENTRY_ADDED, b, "g", f),
    ]
    assert (names(catalog, a), names(catalog, b)) == ([], ["g"])
    old = before[f]
    assert catalog.stat(f).ctime_ns > old.ctime_ns  # type: ignore[attr-defined]
    assert catalog.stat(f).mtime_ns == old.mtime_ns  # type: ignore[attr-defined]


def test_rename_a_folder_moves_its_link(catalog: Catalog) -> None:
    a, b = folder(catalog, "a"), folder(catalog, "b")
    moved = folder(catalog, "m", a)
    complete_before = rows(catalog)
    effects = catalog.rename(a, "m", b, "m")
    complete(catalog, effects, complete_before)
    assert (catalog.stat(a).nlink, catalog.stat(b).nlink, catalog.stat(moved).nlink) == (2, 3, 2)


def test_rename_over_a_file(catalog: Catalog) -> None:
    f, g = file(catalog, "f"), file(catalog, "g")
    catalog.link(g, D, "g2")
    before = rows(catalog)
    effects = catalog.rename(D, "f", D, "g")
    complete(catalog, effects, before)
    assert names(catalog) == ["g", "g2"]
    assert catalog.lookup(D, "g").stat.ino == f
    assert effects.stat(g).nlink == 1
    assert catalog.rename(D, "g2", D, "g").stat(f).nlink == 0


def test_rename_over_an_empty_folder(catalog: Catalog) -> None:
    a, b = folder(catalog, "a"), folder(catalog, "b")
    before = rows(catalog)
    effects = catalog.rename(D, "a", D, "b")
    complete(catalog, effects, before)
    assert (effects.stat(b).nlink, effects.stat(D).nlink) == (0, 3)
    assert catalog.lookup(D, "b").stat.ino == a


def test_rename_refuses(catalog: Catalog) -> None:
    a, b = folder(catalog, "a"), folder(catalog, "b")
    inner = folder(catalog, "inner", a)
    file(catalog, "f")
    file(catalog, "x", b)
    before, seq = rows(catalog), catalog.current_seq()
    cases: list[tuple[InodeNo, str, InodeNo, str, RenameFlag, type[FsError]]] = [
        (D, "none", D, "x", RenameFlag.NONE, NotFound),
        (D, "f", InodeNo(9999), "x", RenameFlag.NONE, NotFound),
        (D, "a", D, "f", RenameFlag.NONE, NotADirectory),
        (D, "f", D, "a", RenameFlag.NONE, IsADirectory),
        (D, "a", D, "b", RenameFlag.NONE, NotEmpty),
        (D, "a", a, "x", RenameFlag.NONE, InvalidArgument),
        (D, "a", inner, "x", RenameFlag.NONE, InvalidArgument),
        (D, "f", D, "a", RenameFlag.NOREPLACE, Exists),
        (D, "f", D, "f", RenameFlag.NOREPLACE, Exists),
        (D, "f", D, "none", RenameFlag.EXCHANGE, NotFound),
        (a, "inner", D, "a", RenameFlag.EXCHANGE, InvalidArgument),
        (D, "a", a, "inner", RenameFlag.EXCHANGE, InvalidArgument),
        (D, "f", D, "a", RenameFlag.EXCHANGE | RenameFlag.NOREPLACE, InvalidArgument),
        (D, "f", D, "a", RenameFlag(4), InvalidArgument),
    ]
    for parent, name, new_parent, new_name, flags, error in cases:
        with pytest.raises(error):
            catalog.rename(parent, name, new_parent, new_name, flags)
    assert rows(catalog) == before
    assert catalog.current_seq() == seq


def test_rename_between_two_names_of_one_file_does_nothing(catalog: Catalog) -> None:
    f = file(catalog, "f")
    catalog.link(f, D, "g")
    seq = catalog.current_seq()
    for old, new, flags in (("f", "g", RenameFlag.NONE), ("f", "g", RenameFlag.EXCHANGE), ("f", "f", RenameFlag.NONE)):
        assert catalog.rename(D, old, D, new, flags).changes == ()
    assert (names(catalog), catalog.current_seq(), catalog.stat(f).nlink) == (["f", "g"], seq, 2)


@pytest.mark.parametrize("flags", [RenameFlag.NONE, RenameFlag.NOREPLACE])
def test_rename_to_another_spelling(catalog: Catalog, flags: RenameFlag) -> None:
    ino = file(catalog, NFC)
    effects = catalog.rename(D, NFC, D, NFD, flags)
    assert [(c.kind, c.name) for c in effects.changes] == [
        (ChangeKind.ENTRY_REMOVED, NFC),
        (ChangeKind.ENTRY_ADDED, NFD),
    ]
    assert [(entry.name, entry.stat.ino) for entry in catalog.listing(D).entries] == [(NFD, ino)]
    assert catalog.stat(ino).nlink == 1
    a = folder(catalog, "é")
    catalog.rename(D, "é", D, "e\u0301", flags)
    assert (catalog.lookup(D, "é").name, catalog.stat(a).nlink, catalog.stat(D).nlink) == ("e\u0301", 2, 3)


def test_exchange_a_file_and_a_folder(catalog: Catalog) -> None:
    a, b = folder(catalog, "a"), folder(catalog, "b")
    f, d = file(catalog, "f", a), folder(catalog, "d", b)
    file(catalog, "inside", d)
    before = rows(catalog)
    effects = catalog.rename(a, "f", b, "d", RenameFlag.EXCHANGE)
    complete(catalog, effects, before)
    assert catalog.lookup(a, "f").stat.ino == d
    assert catalog.lookup(b, "d").stat.ino == f
    assert (catalog.stat(a).nlink, catalog.stat(b).nlink) == (3, 2)
    assert names(catalog, d) == ["inside"]
    catalog.rename(a, "f", b, "d", RenameFlag.EXCHANGE)
    assert catalog.lookup(a, "f").stat.ino == f


# --- attributes -----------------------------------------------------------------------------------------------------


def test_setattr(catalog: Catalog) -> None:
    f = file(catalog, "f")
    before = catalog.stat(f)
    effects = catalog.setattr(f, SetAttr(mode=0o140600, uid=7, atime_ns=-5, mtime_ns=1_234_567_890_123_456_789))
    after = effects.stat(f)
    assert (after.mode, after.uid, after.gid) == (0o100600, 7, before.gid)
    assert (after.atime_ns, after.mtime_ns) == (-5, 1_234_567_890_123_456_789)
    assert after.ctime_ns > before.ctime_ns
    assert after == catalog.stat(f)
    assert [c.kind for c in effects.changes] == [ChangeKind.ATTRIBUTES]
    with pytest.raises(NotFound):
        catalog.setattr(InodeNo(9999), SetAttr(mode=0))


# --- trees ----------------------------------------------------------------------------------------------------------


def _tree(catalog: Catalog) -> tuple[InodeNo, InodeNo, InodeNo]:
    """a/f, a/f2 (the same file), a/l -> f, a/d/g; properties on a and g."""
    a = folder(catalog, "a")
    f = file(catalog, "f", a)
    catalog.commit_revision(f, revision("r1"), mtime_ns=17)
    catalog.link(f, a, "f2")
    catalog.make(a, "l", NewInode(stat.S_IFLNK | 0o777, 0, 0, symlink="f"))
    d = folder(catalog, "d", a)
    g = file(catalog, "g", d)
    catalog.commit_revision(g, revision("r2"), mtime_ns=18)
    catalog.setattr(g, SetAttr(mode=0o4755))
    catalog.set_properties(a, {"user.dc.title": b"A"})
    catalog.set_properties(g, {"user.x": b"\x00\xff", "{ns}y": b""})
    return a, d, g


def test_copy_a_tree_without_its_bytes(catalog: Catalog) -> None:
    a, _, g = _tree(catalog)
    before = rows(catalog)
    effects = catalog.copy_tree(a, D, "b", NewInode(stat.S_IFDIR | 0o755, 7, 8), recursive=True)
    complete(catalog, effects, before)
    b = effects.changes[0].ino
    assert (effects.changes[0].kind, effects.changes[0].name) == (ChangeKind.ENTRY_ADDED, "b")
    assert names(catalog, b) == ["d", "f", "f2", "l"]
    assert (catalog.stat(b).nlink, catalog.stat(D).nlink) == (3, 4)
    f, f2 = catalog.lookup(b, "f").stat, catalog.lookup(b, "f2").stat
    assert (f.revision, f.size, f.mtime_ns, f.uid, f.gid, f.nlink) == ("r1", 1000, 17, 7, 8, 1)
    assert f2.ino != f.ino
    assert catalog.lookup(b, "l").stat.symlink == "f"
    copy = catalog.lookup(catalog.lookup(b, "d").stat.ino, "g").stat
    assert (copy.ino != g, copy.revision, copy.mode) == (True, "r2", 0o100755)
    assert catalog.properties(b) == {"user.dc.title": b"A"}
    assert catalog.properties(copy.ino) == {"user.x": b"\x00\xff", "{ns}y": b""}


def test_copy_only_the_folder(catalog: Catalog) -> None:
    a, _, _ = _tree(catalog)
    b = catalog.copy_tree(a, D, "b", DIR, recursive=False).changes[0].ino
    assert (names(catalog, b), catalog.stat(b).nlink) == ([], 2)
    assert catalog.properties(b) == {"user.dc.title": b"A"}


def test_copy_refuses(catalog: Catalog) -> None:
    a, d, g = _tree(catalog)
    for source, parent, name, error in (
        (a, D, "a", Exists), (a, a, "x", InvalidArgument), (a, d, "x", InvalidArgument), (a, g, "x", NotADirectory),
        (InodeNo(9999), D, "x", NotFound),
    ):  # fmt: skip
        with pytest.raises(error):
            catalog.copy_tree(source, parent, name, DIR, recursive=True)
    assert names(catalog) == ["a"]


def test_remove_a_tree(catalog: Catalog) -> None:
    a, d, g = _tree(catalog)
    f = catalog.lookup(a, "f").stat.ino
    catalog.link(g, D, "kept")
    before = rows(catalog)
    effects = catalog.remove_tree(D, "a")
    complete(catalog, effects, before)
    assert effects.changes[-1].name == "a"
    assert sorted(str(c.name) for c in effects.changes) == ["a", "d", "f", "f2", "g", "l"]
    assert [catalog.stat(ino).nlink for ino in (a, d, f, g)] == [0, 0, 0, 1]
    assert (names(catalog), catalog.stat(D).nlink) == (["kept"], 2)
    for ino in (a, d):
        with pytest.raises(NotFound):
            catalog.make(ino, "x", FILE)
    catalog.forget([each.ino for each in effects.stats])
    assert set(rows(catalog)) == {ROOT_INODE, DOCUMENTS_INODE, g}


def test_trees_wider_than_one_statement(catalog: Catalog) -> None:
    wide = folder(catalog, "wide")
    folder(catalog, "inner", folder(catalog, "a0", wide))
    first = catalog.lookup(wide, "a0").stat.ino

    def copy(thread: int) -> None:  # 600 folders with one each: more than the values of one IN (...)
        for number in range(1 + thread, 600, 8):
            catalog.copy_tree(first, wide, f"a{number}", DIR, recursive=True)

    together(8, copy)
    effects = catalog.copy_tree(wide, D, "again", DIR, recursive=True)
    assert len(effects.changes) == 1 + 600 + 600
    again = effects.changes[0].ino
    assert (catalog.stat(again).nlink, len(catalog.listing(again).entries)) == (602, 600)
    assert len(catalog.remove_tree(D, "again").stats) == 1 + 1 + 600 + 600


def test_every_refusal_leaves_no_trace(catalog: Catalog) -> None:
    file(catalog, "f")
    seq = catalog.current_seq()
    refused: list[Callable[[], object]] = [
        lambda: catalog.make(D, "f", FILE),
        lambda: catalog.unlink(D, "x"),
        lambda: catalog.rmdir(D, "f"),
        lambda: catalog.link(D, D, "x"),
    ]
    for call in refused:
        with pytest.raises(FsError):
            call()
    assert catalog.current_seq() == seq
    assert catalog.changes_after(seq) == []


def test_what_is_there_makes_room_in_the_same_transaction(catalog: Catalog) -> None:
    old, new = folder(catalog, "old"), folder(catalog, "new")
    inside = file(catalog, "page", old)
    before = rows(catalog)
    effects = catalog.move_over(D, "new", D, "old")
    complete(catalog, effects, before)
    assert catalog.lookup(D, "old").stat.ino == new
    assert names(catalog, D) == ["old"]
    assert effects.stat(inside).nlink == effects.stat(old).nlink == 0
    for act in (
        lambda: catalog.move_over(new, "sub", D, "old"),  # the folder it is in
        lambda: catalog.move_over(D, "old", new, "sub"),  # into itself
        lambda: catalog.copy_tree(catalog.lookup(new, "sub").stat.ino, D, "old", DIR, recursive=True, over=True),
    ):
        if not names(catalog, new):
            folder(catalog, "sub", new)
        with pytest.raises(InvalidArgument):
            act()
    assert names(catalog, D) == ["old"]
    assert names(catalog, new) == ["sub"]


def test_a_name_moved_over_another_of_the_same_file_is_gone(catalog: Catalog) -> None:
    """RFC 4918 9.9: nothing is left at the source; rename(2) would do nothing."""
    ino = file(catalog, "a")
    catalog.link(ino, D, "b")
    catalog.move_over(D, "a", D, "b")
    assert names(catalog, D) == ["b"]
    assert catalog.stat(ino).nlink == 1
    catalog.move_over(D, "b", D, "b")
    assert names(catalog, D) == ["b"]


def test_a_copy_over_something(catalog: Catalog) -> None:
    ino = file(catalog, "a")
    old = folder(catalog, "b")
    file(catalog, "inside", old)
    before = rows(catalog)
    effects = catalog.copy_tree(ino, D, "b", FILE, recursive=True, over=True)
    complete(catalog, effects, before)
    assert names(catalog, D) == ["a", "b"]
    assert catalog.lookup(D, "b").stat.is_file
