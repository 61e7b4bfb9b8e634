"""What is known of pictures: states, twins by content, and what goes with a revision."""

from __future__ import annotations

import time
from dataclasses import replace

from archivia_fs.types import ObjectKey, RevisionId
from catalog.catalog import Catalog
from catalog.previews import PreviewRecord, PreviewState
from tests.catalog.helpers import D, file, revision

MADE = PreviewRecord(
    RevisionId("r1"), PreviewState.DECODED, '{"make": "Ä"}', ObjectKey("previews/aa/x"), (10, 200, 3000),
    "e1", decoder="1", made_ns=5,
)  # fmt: skip
FAILED = PreviewRecord(
    RevisionId("r2"), PreviewState.PLACEHOLDER, sizes=(1, 1, 1), reason="It is a bomb.", attempts=2, retry_ns=7, decoder="1"
)  # fmt: skip


def store(catalog: Catalog, name: str, sha256: str | None = "a" * 64) -> None:
    catalog.commit_revision(file(catalog, name), revision(name, sha256=sha256), mtime_ns=None)


def test_what_is_saved_is_found(catalog: Catalog) -> None:
    store(catalog, "r1")
    store(catalog, "r2", sha256="b" * 64)
    assert catalog.previews.get(RevisionId("r1")) is None
    catalog.previews.save(MADE)
    catalog.previews.save(FAILED)
    assert catalog.previews.get(RevisionId("r1")) == MADE
    assert catalog.previews.many([RevisionId("r1"), RevisionId("r2"), RevisionId("r3")]) == {"r1": MADE, "r2": FAILED}
    assert catalog.previews.counts() == {PreviewState.DECODED: 1, PreviewState.PLACEHOLDER: 1}
    assert catalog.previews.failed() == [FAILED]
    catalog.previews.forgive([RevisionId("r1"), RevisionId("r2"), RevisionId("r3")])
    again = catalog.previews.get(RevisionId("r2"))
    assert again is not None
    assert again.retry_ns == 0
    better = PreviewRecord(RevisionId("r2"), PreviewState.EMBEDDED, key=ObjectKey("previews/bb/y"), sizes=(1, 2, 3))
    catalog.previews.save(better)
    assert catalog.previews.get(RevisionId("r2")) == better
    assert catalog.previews.failed() == []


def test_twins_have_the_same_content(catalog: Catalog) -> None:
    store(catalog, "r1")
    store(catalog, "r2")
    store(catalog, "r3", sha256=None)
    store(catalog, "r4", sha256="c" * 64)
    catalog.previews.save(MADE)
    assert catalog.previews.twin(RevisionId("r2")) == MADE
    for other in ("r1", "r3", "r4", "r5"):
        assert catalog.previews.twin(RevisionId(other)) is None


def test_a_failure_is_a_twin_if_there_is_no_better_one(catalog: Catalog) -> None:
    for name in ("r1", "r2", "r3", "r4"):
        store(catalog, name)
    for name, at in (("r2", 1), ("r3", 2)):
        catalog.previews.save(replace(FAILED, revision=RevisionId(name), made_ns=at))
    assert catalog.previews.twin(RevisionId("r4")) == replace(FAILED, revision=RevisionId("r3"), made_ns=2)
    catalog.previews.save(MADE)
    assert catalog.previews.twin(RevisionId("r4")) == MADE


def test_forgiven_are_those_named_and_copies_of_their_bytes(catalog: Catalog) -> None:
    for name, sha256 in (("r1", "a" * 64), ("r2", "a" * 64), ("r3", "b" * 64), ("r4", None), ("r5", None)):
        store(catalog, name, sha256)
        catalog.previews.save(replace(FAILED, revision=RevisionId(name), retry_ns=None))
    catalog.previews.forgive([RevisionId("r1"), RevisionId("r4")])
    found = catalog.previews.many([RevisionId(f"r{number}") for number in range(1, 6)])
    assert {name for name, record in found.items() if record.retry_ns == 0} == {"r1", "r2", "r4"}


def test_what_is_filled_in_later_makes_twins(catalog: Catalog) -> None:
    store(catalog, "r1", sha256=None)
    store(catalog, "r2", sha256=None)
    catalog.previews.save(MADE)
    catalog.fill_checksums(RevisionId("r2"), "a" * 64, None)
    assert catalog.previews.twin(RevisionId("r2")) is None
    catalog.fill_checksums(RevisionId("r1"), "a" * 64, None)
    assert catalog.previews.twin(RevisionId("r2")) == MADE


def test_previews_go_with_their_revision(catalog: Catalog) -> None:
    store(catalog, "r1")
    catalog.previews.save(MADE)
    keys = {ObjectKey("previews/aa/x"), ObjectKey("previews/aa/z")}
    assert catalog.previews.unknown_objects(keys) == {"previews/aa/z"}
    catalog.commit_revision(catalog.lookup(D, "r1").stat.ino, None, mtime_ns=None)
    catalog.drop_released(time.time_ns() + 10**9)
    assert catalog.previews.get(RevisionId("r1")) is None
    assert catalog.previews.unknown_objects(keys) == keys
    catalog.previews.save(MADE)  # somebody was still making it
    assert catalog.previews.get(RevisionId("r1")) is None


def test_it_is_no_change_of_the_archive(catalog: Catalog) -> None:
    store(catalog, "r1")
    seq = catalog.current_seq()
    catalog.previews.save(MADE)
    assert catalog.current_seq() == seq
