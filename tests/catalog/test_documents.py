"""A document with all that is under it, as one state."""

from __future__ import annotations

import stat
import threading

import pytest

from archivia_fs.errors import NotFound
from archivia_fs.types import ROOT_INODE, InodeNo, RevisionId
from catalog.catalog import Below, Catalog
from catalog.previews import PreviewRecord, PreviewState
from tests.catalog.helpers import D, file, folder, revision


def read(catalog: Catalog, ino: InodeNo) -> dict[str, Below]:
    found: list[Below] = []
    catalog.document(ino, found.append)
    return {each.name: each for each in found}


def test_everything_below_with_what_is_known_of_it(catalog: Catalog) -> None:
    box = folder(catalog, "box")
    top = folder(catalog, "document", box)
    inner = folder(catalog, "inner", top)
    page, empty, deep = file(catalog, "page.dng", top), file(catalog, "empty", top), file(catalog, "deep", inner)
    file(catalog, "elsewhere", box)
    catalog.commit_revision(page, revision("one", 10), mtime_ns=77)
    catalog.commit_revision(deep, revision("two", 20, sha256=None), mtime_ns=88)
    catalog.previews.save(PreviewRecord(RevisionId("one"), PreviewState.NONE, "{}"))
    catalog.set_properties(top, {"user.dc.title": b"T", "user.other": b"x", "{ns}a": b"y"})
    catalog.set_properties(deep, {"user.dc.creator": b"C", "user.dcx": b"no", "user.other": b"no"})

    found: list[Below] = []
    state = catalog.document(top, found.append)
    assert [each.name for each in found[-1:]] == ["deep"]  # folders before what is in them
    below = {each.name: each for each in found}
    assert below.keys() == {"inner", "page.dng", "empty", "deep"}
    assert below["page.dng"] == Below(
        top, "page.dng", page, stat.S_IFREG | 0o644, 10, 77, RevisionId("one"), "a" * 64, 0xFFFFFFFF, "{}"
    )
    assert (below["deep"].parent, below["deep"].sha256, below["deep"].facts) == (inner, None, None)
    assert (below["empty"].ino, below["empty"].revision, below["empty"].crc32) == (empty, None, None)
    assert state.stat == catalog.stat(top)
    assert [name for _, name in state.path] == ["Documents", "box", "document"]
    assert state.path[0][0] == D
    assert state.properties == {"user.dc.title": b"T", "user.other": b"x", "{ns}a": b"y"}
    assert state.described == {deep: {"user.dc.creator": b"C"}}
    assert state.seq == catalog.current_seq()


def test_more_than_one_statement_can_ask_for(catalog: Catalog) -> None:
    top = folder(catalog, "document")
    folders = [folder(catalog, f"{number}", top) for number in range(600)]
    files = [file(catalog, f"f{number}", parent) for number, parent in enumerate(folders)]
    catalog.set_properties(files[-1], {"user.dc.title": b"last"})
    found: list[Below] = []
    state = catalog.document(top, found.append)
    assert {each.ino for each in found} == {*folders, *files}
    assert state.described == {files[-1]: {"user.dc.title": b"last"}}


def test_one_that_is_not_there(catalog: Catalog) -> None:
    top = folder(catalog, "document")
    catalog.remove_tree(D, "document")
    for ino in (top, InodeNo(4711)):
        with pytest.raises(NotFound):
            read(catalog, ino)


def test_it_is_one_state_whatever_is_written_meanwhile(catalog: Catalog) -> None:
    """A file moves between two folders all the time: it is seen exactly once."""
    top = folder(catalog, "document")
    left, right = folder(catalog, "left", top), folder(catalog, "right", folder(catalog, "middle", top))
    file(catalog, "x", left)
    done = threading.Event()

    def move() -> None:
        source, target = left, right
        while not done.is_set():
            catalog.rename(source, "x", target, "x")
            source, target = target, source

    mover = threading.Thread(target=move)
    mover.start()
    try:
        for _ in range(100):
            found: list[str] = []
            catalog.document(top, lambda each, found=found: found.append(each.name))  # type: ignore[misc]
            assert found.count("x") == 1
    finally:
        done.set()
        mover.join()


def test_the_folders_around(catalog: Catalog) -> None:
    box = folder(catalog, "box")
    top = folder(catalog, "document", box)
    inner, other = folder(catalog, "inner", top), folder(catalog, "other", box)
    page = file(catalog, "page.dng", inner)
    catalog.link(page, other, "linked.dng")
    above = {ROOT_INODE, D, box}
    assert catalog.folders_around({page}) == {*above, top, inner, other, page}
    assert catalog.folders_around({inner, other}) == {*above, top, inner, other}
    assert catalog.folders_around(set()) == set()
    nobody = {InodeNo(10**9 + number) for number in range(2000)}
    assert catalog.folders_around({*nobody, top}) == {*above, *nobody, top}
