"""Plans: laid out once, until something in them changes; bounded; and right again after anything was missed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Set
from concurrent.futures import Future, ThreadPoolExecutor
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
from archivia_fs.views.downloads import plans, touched
from archivia_fs.views.downloads.plan import complete
from archivia_fs.views.downloads.plans import Plans
from archivia_fs.views.downloads.text import Text
from archivia_fs.views.thumbnails.facts import to_json
from archivia_fs.views.thumbnails.ifd import PictureFacts
from catalog.catalog import Below, Catalog, DocumentState
from catalog.namespace import NewInode
from catalog.previews import PreviewRecord, PreviewState

FOLDER, FILE = NewInode(0o40755, 1, 1), NewInode(0o100644, 1, 1)


class Counting(Catalog):
    """Says how often a document was read, and how often it was asked where changes were."""

    reads = 0
    climbs = 0

    def folders_around(self, inos: Set[InodeNo]) -> set[InodeNo]:
        self.climbs += 1
        return super().folders_around(inos)

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
    monkeypatch.setattr(touched, "INODES_MAX", 3)
    for ino in (*box.files[1:], *box.folders[1:]):
        box.catalog.setattr(ino, SetAttr(mtime_ns=1))
    known.summary(box.documents[0])
    assert box.catalog.reads == 3  # nobody knows any more that nothing was in it


def test_memory_is_bounded(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    known = Plans(box.catalog, plans_bytes=1)
    for ino in box.documents * 2:
        known.plan(ino)
    assert box.catalog.reads == 6  # only the last one is kept whole
    known.plan(box.documents[2])
    for ino in box.documents:
        known.summary(ino)
    assert box.catalog.reads == 6  # but of all it is known what listings show
    monkeypatch.setattr(plans, "SUMMARIES_MAX", 2)
    small = Plans(box.catalog)
    for ino in box.documents * 2:
        small.summary(ino)
    assert box.catalog.reads == 12


def test_many_changes_elsewhere_cost_one_question_and_no_document(box: Box) -> None:
    """Somebody imports: the changes are far more than the document has inodes, and than the documents that are known."""
    known = Plans(box.catalog)
    for ino in box.documents:
        known.summary(ino)
    seq = box.catalog.current_seq()
    for start in range(1, 20_001, 1000):
        changes = [
            Change(seq + start + index, "other", ChangeKind.DATA, InodeNo(10**6 + start + index))
            for index in range(1000)
        ]
        known._on_effects(Effects([*changes], []))
    before = box.catalog.climbs
    for ino in box.documents:
        known.summary(ino)
    assert box.catalog.reads == 3
    assert box.catalog.climbs == before + 1


def test_a_change_is_noticed_though_it_could_not_be_asked_where_it_was(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Plans(box.catalog)
    before = known.summary(box.documents[0])
    box.fill(box.files[0])
    with monkeypatch.context() as broken:
        broken.setattr(box.catalog, "folders_around", lambda inos: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            known.summary(box.documents[0])
    assert known.summary(box.documents[0]).zip != before.zip


def test_changes_while_it_is_asked_where_others_were(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """... of the same inode, and seen by somebody else who asks meanwhile."""
    known = Plans(box.catalog)
    seen = [known.summary(box.documents[0]).zip]
    plain = box.catalog.folders_around

    def slowly(inos: Set[InodeNo]) -> set[InodeNo]:
        found = plain(inos)
        if len(changes) < 5:
            box.fill(box.files[0])
            changes.append(pool.submit(lambda: known.summary(box.documents[0]).zip))
        return found

    with ThreadPoolExecutor(8) as pool:
        changes: list[Future[plans.Shape]] = []
        monkeypatch.setattr(box.catalog, "folders_around", slowly)
        box.fill(box.files[0])
        seen.append(known.summary(box.documents[0]).zip)
        found = [each.result(10) for each in changes]
    last = known.summary(box.documents[0])
    assert last.seq == box.catalog.current_seq()
    assert seen[0] not in (seen[1], last.zip, *found)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known by now is asked each time."""
    monkeypatch.setattr(plans, "PENDING_SECONDS", 0)
    monkeypatch.setattr(plans, "PENDING_FACTOR", 0)


@pytest.mark.usefixtures("impatient")
def test_a_download_stays_what_it_was_until_the_document_changes(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    room = 5 * Plans(box.catalog).plan(box.documents[0])[1].memory // 2
    ino, known = box.documents[0], Plans(box.catalog, plans_bytes=room)

    def learn(revision: RevisionId) -> None:
        box.catalog.previews.save(PreviewRecord(revision, PreviewState.DECODED, to_json(PictureFacts("image/x", "Me"))))
        for each in box.documents[1:]:
            known.plan(each)  # there is no room for them all

    revision = box.fill(box.files[0], None, None)
    summary, plan = known.plan(ino)
    release = [known.hold(ino, plan), known.hold(ino, plan)]
    learn(revision)
    box.catalog.fill_checksums(revision, "b" * 64, 9)
    assert known.plan(ino)[1] is plan
    release.pop()()
    known._on_effects(Effects([Change(99, "other", ChangeKind.RESET, InodeNo(1))], []))
    assert known.plan(ino)[1] is plan
    release.pop()()
    assert known.plan(ino)[1] is plan  # who was cut off can go on
    assert known.summary(ino).zip == summary.zip
    revision = box.fill(box.files[0])
    changed, plan = known.plan(ino)
    assert changed.zip != summary.zip
    monkeypatch.setattr(plans, "RESUME_SECONDS", 0)
    known.hold(ino, plan)()
    learn(revision)
    assert b"<premis:formatName>image/x<" in known.plan(ino)[1].mets.data()
    assert known.plan(ino)[0].until == float("inf")


def test_what_does_not_become_known_is_asked_ever_more_seldom(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "PENDING_SECONDS", 0.001)
    monkeypatch.setattr(plans, "PENDING_MOST", 0.007)
    monkeypatch.setattr(plans, "PENDING_FACTOR", 0)
    revision = box.fill(box.files[0], None, None)
    known = Plans(box.catalog)
    pauses = []
    for _ in range(5):
        pauses.append(known.summary(box.documents[0]).pause)
        time.sleep(0.01)
    assert pauses == [0.001, 0.002, 0.004, 0.007, 0.007]
    box.catalog.fill_checksums(revision, "b" * 64, 9)
    assert known.summary(box.documents[0]).pause == 0.001


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
    assert isinstance(manifest, Text)
    assert manifest.data().count(b"c" * 64) == 2
    assert b"0" * 64 not in manifest.data()
    known.improve(box.documents[0], plan, bagged)
    assert known.plan(box.documents[0])[1] is bagged
    known.improve(box.documents[0], plan, replace(plan))
    assert known.plan(box.documents[0])[1] is bagged
