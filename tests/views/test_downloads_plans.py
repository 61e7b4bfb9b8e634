"""Plans: laid out once, until something in them changes; bounded; and right again after anything was missed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from archivia_fs.errors import NotFound
from archivia_fs.types import (
    DOCUMENTS_INODE,
    Change,
    ChangeKind,
    Effects,
    InodeNo,
    ObjectKey,
    Revision,
    RevisionId,
    SetAttr,
)
from archivia_fs.views.downloads import plans
from archivia_fs.views.downloads.plans import Plans, complete
from catalog.catalog import Below, Catalog, DocumentState
from catalog.namespace import NewInode

FOLDER, FILE = NewInode(0o40755, 1, 1), NewInode(0o100644, 1, 1)


class Counting(Catalog):
    """Says how often a document was read."""

    reads = 0

    def document(self, ino: InodeNo, each: Callable[[Below], None]) -> DocumentState:
        self.reads += 1
        return super().document(ino, each)


class Box:
    """Documents `a`, `b` and `c` of a collection, each with a folder `in`, and a file in that."""

    def __init__(self, catalog: Counting) -> None:
        self.catalog = catalog
        catalog.add_user("admin", "x", admin=True)
        catalog.add_collection("box", "admin", FOLDER)
        self.ino = catalog.lookup(DOCUMENTS_INODE, "box").stat.ino
        self.documents = [self.make(self.ino, name, FOLDER) for name in "abc"]
        self.folders = [self.make(document, "in", FOLDER) for document in self.documents]
        self.files = [self.make(folder, "page.dng", FILE) for folder in self.folders]
        self.count = 0

    def make(self, parent: InodeNo, name: str, new: NewInode) -> InodeNo:
        return self.catalog.make(parent, name, new).changes[0].ino

    def fill(self, ino: InodeNo, sha256: str | None = "a" * 64, crc32: int | None = 7) -> RevisionId:
        self.count += 1
        revision = Revision(RevisionId(f"r{self.count}"), ObjectKey(f"k{self.count}"), 5, 5, sha256, crc32, 0)
        self.catalog.commit_revision(ino, revision, mtime_ns=5)
        return revision.id


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    catalog = Counting.open(f"sqlite:///{tmp_path}/catalog.db")
    assert isinstance(catalog, Counting)
    yield Box(catalog)
    catalog.close()


def test_once_for_many_questions(box: Box) -> None:
    known = Plans(box.catalog)
    for ino in box.documents * 3:
        known.summary(ino)
        known.plan(ino)
    assert box.catalog.reads == 3
    with ThreadPoolExecutor(8) as pool:
        fresh = Plans(box.catalog)
        assert len(set(pool.map(lambda _: fresh.summary(box.documents[0]).zip, range(32)))) == 1
    assert box.catalog.reads == 4


def test_what_changes_elsewhere_costs_nothing(box: Box) -> None:
    known = Plans(box.catalog)
    first = known.summary(box.documents[0]).zip
    box.fill(box.files[1])
    box.make(box.ino, "d", FOLDER)
    box.catalog.set_properties(box.documents[2], {"user.dc.title": b"x"})
    assert known.summary(box.documents[0]).zip == first
    assert box.catalog.reads == 1
    box.fill(box.files[0])
    assert known.summary(box.documents[0]).zip != first
    assert box.catalog.reads == 2


@pytest.mark.parametrize("between", [0, 1, 50])
def test_every_change_is_noticed_however_many_others_there_are(box: Box, between: int) -> None:
    """A document of three inodes: of fifty changes its inodes are looked up in them, of one it is the other way round."""
    catalog = box.catalog
    known = Plans(catalog)
    top, folder, page = box.documents[0], box.folders[0], box.files[0]
    changes: list[Callable[[], object]] = [
        lambda: box.fill(page),
        lambda: box.make(folder, "new", FILE),
        lambda: catalog.unlink(folder, "new"),
        lambda: catalog.set_properties(folder, {"user.dc.title": b"x"}),
        lambda: catalog.setattr(page, SetAttr(mtime_ns=9 * 10**18)),
        lambda: catalog.rename(box.ino, "a", box.ino, "A"),
        lambda: catalog.rename(DOCUMENTS_INODE, "box", DOCUMENTS_INODE, "crate"),
    ]
    for change in changes:
        before = known.summary(top)
        for _ in range(between):
            box.fill(box.files[1])
        assert known.summary(top) is before
        for _ in range(between // 2):
            box.fill(box.files[1])
        change()
        for _ in range(between):
            box.fill(box.files[1])
        after = known.summary(top)
        assert after is not before
        assert after.mets != before.mets


def test_a_nested_document_and_the_one_around_it(box: Box) -> None:
    known = Plans(box.catalog)
    before = known.summary(box.documents[0]).zip, known.summary(box.folders[0]).zip
    box.catalog.rename(box.ino, "a", box.ino, "A")
    renamed = known.summary(box.documents[0]).zip, known.summary(box.folders[0]).zip
    assert renamed[0] != before[0]
    box.fill(box.files[0])
    after = known.summary(box.documents[0]).zip, known.summary(box.folders[0]).zip
    assert renamed[0] != after[0]
    assert renamed[1] != after[1]


def test_another_gateway_changes_it(box: Box, tmp_path: Path) -> None:
    known = Plans(box.catalog)
    first = known.summary(box.documents[0]).zip
    other = Catalog.open(f"sqlite:///{tmp_path}/catalog.db")
    other.make(box.folders[0], "new", FILE)
    other.close()
    deadline = time.monotonic() + 5
    while known.summary(box.documents[0]).zip == first:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_one_that_was_removed_is_gone(box: Box) -> None:
    known = Plans(box.catalog)
    known.summary(box.documents[0])
    box.catalog.remove_tree(box.ino, "a")
    with pytest.raises(NotFound):
        known.summary(box.documents[0])


def test_changes_that_were_missed_drop_all(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    known = Plans(box.catalog)
    known.summary(box.documents[0])
    reset = Change(99, "other", ChangeKind.RESET, InodeNo(1))
    known._on_effects(Effects([reset], []))
    known.summary(box.documents[0])
    assert box.catalog.reads == 2
    monkeypatch.setattr(plans, "CHANGES_MAX", 3)
    for _ in range(5):
        box.fill(box.files[1])
    known.summary(box.documents[0])
    assert box.catalog.reads == 3


def test_memory_is_bounded(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    known = Plans(box.catalog, plans_bytes=1)
    for ino in box.documents * 2:
        known.plan(ino)
    assert box.catalog.reads == 6  # only the last one is kept whole
    known.plan(box.documents[2])
    for ino in box.documents:
        known.summary(ino)
    assert box.catalog.reads == 6  # but of all it is known what listings show
    monkeypatch.setattr(plans, "SUMMARY_INODES", 3)
    small = Plans(box.catalog)
    for ino in box.documents * 2:
        small.summary(ino)
    assert box.catalog.reads == 12


def test_what_is_pending_is_asked_again(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "PENDING_SECONDS", 0.05)
    monkeypatch.setattr(plans, "PENDING_FACTOR", 0)
    revision = box.fill(box.files[0], None, None)
    known = Plans(box.catalog)
    before = known.summary(box.documents[0])
    assert known.summary(box.documents[0]) is before
    box.catalog.fill_checksums(revision, "b" * 64, 9)
    time.sleep(0.06)
    assert known.summary(box.documents[0]).mets != before.mets


def test_a_completed_plan_has_the_same_size_and_tag(box: Box) -> None:
    first = box.fill(box.files[0], None, None)
    second = box.make(box.folders[0], "page 2.txt", FILE)
    box.fill(second, None, 3)
    known = Plans(box.catalog)
    summary, plan = known.plan(box.documents[0])
    asked: list[RevisionId] = []

    def digests(revision: RevisionId) -> tuple[str, int]:
        asked.append(revision)
        return "c" * 64, 3

    zipped = complete(plan, digests, hashes=False)
    assert asked == [first]
    assert not zipped.zip.layout.unknown
    bagged = complete(zipped, digests, hashes=True)
    assert len(asked) == 2
    assert complete(bagged, digests, hashes=True) is bagged
    for each in (zipped, bagged):
        assert (each.zip.layout.size, each.zip.layout.etag) == (summary.zip.size, summary.zip.etag)
        assert (each.bag.layout.size, each.bag.layout.etag) == (summary.bag.size, summary.bag.etag)
    manifest = bagged.bag.sources[2]
    assert isinstance(manifest, plans.Text)
    assert manifest.data().count(b"c" * 64) == 2
    assert b"0" * 64 not in manifest.data()
    known.improve(box.documents[0], plan, bagged)
    assert known.plan(box.documents[0])[1] is bagged
    known.improve(box.documents[0], plan, replace(plan))
    assert known.plan(box.documents[0])[1] is bagged
