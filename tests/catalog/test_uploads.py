"""Uploads that outlive their gateway: who is alive, who may claim, what expires."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from archivia_fs.errors import CatalogError, NotFound
from archivia_fs.types import Beginning, CopySource, ObjectKey, Part, UploadId, UploadRecord
from catalog import gateways
from catalog.catalog import Catalog
from tests.catalog.helpers import FILE, D, file, query, revision, sql, together

ROOT = Path(__file__).parents[2]
PART = Part(1, 8 << 20, "e1", 0xDEADBEEF)
TARGET = "inode 7"
BASE = ObjectKey("objects/base")
COPIES = [Part(1, 9, "c1", 0, CopySource(BASE, 0)), Part(2, 9, "c2", 0, CopySource(BASE, 9))]
TAIL = Part(3, 8 << 20, "e3", 0xDEADBEEF)

WRITER = """
import sys
from catalog.catalog import Catalog
from archivia_fs.types import ObjectKey, Part, UploadId
c = Catalog.open(sys.argv[1])
c.begin_upload(UploadId("u"), ObjectKey("objects/u"), "/Documents/archive/a.dng")
c.record_part(UploadId("u"), Part(1, 8 << 20, "e1", 0xDEADBEEF))
c.record_part(UploadId("u"), Part(2, 8 << 20, "e2", 2))
print(c.origin, flush=True)
sys.stdin.readline()
"""


@contextmanager
def another_process(url: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A gateway that has an upload "u" with two parts, and its origin."""
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert child.stdout is not None
    try:
        yield child, child.stdout.readline().strip()
    finally:
        child.kill()
        child.communicate()


def begin(catalog: Catalog, name: str, *parts: Part) -> None:
    catalog.begin_upload(UploadId(name), ObjectKey(f"objects/{name}"), f"/Documents/{name}")
    for part in parts:
        catalog.record_part(UploadId(name), part)


def claim(catalog: Catalog) -> UploadRecord | None:
    return catalog.claim_upload(Beginning(1, PART.size, PART.crc32), TARGET)


def test_only_a_dead_gateways_upload_is_claimed(catalog: Catalog, url: str) -> None:
    with another_process(url) as (child, origin):
        assert claim(catalog) is None
        assert catalog.expired_uploads(time.time_ns()) == []
        child.send_signal(signal.SIGSTOP)  # frozen is not dead
        assert claim(catalog) is None
        child.kill()
        deadline = time.monotonic() + 10
        while (found := claim(catalog)) is None:  # until the kernel is through with it
            assert time.monotonic() < deadline
        assert child.returncode is None, "a dead process that nobody has reaped yet counts as gone"
    assert found.parts == (PART, Part(2, 8 << 20, "e2", 2))
    assert (found.upload_id, found.key, found.target) == ("u", "objects/u", TARGET)
    assert catalog.uploads()[0].target == TARGET, "it is for whoever goes on with it"
    assert found.origin == catalog.origin != origin
    assert claim(catalog) is None, "it is ours now"
    catalog.record_part(UploadId("u"), Part(3, 5, "e3", 3))
    assert [part.number for part in catalog.uploads()[0].parts] == [1, 2, 3]
    catalog.put_file(D, "a.dng", revision("u"), FILE, mtime_ns=None, finish_upload=UploadId("u"))
    assert catalog.uploads() == []


def test_a_gateway_that_closes_leaves_its_uploads(catalog: Catalog, url: str) -> None:
    other = Catalog.open(url)
    begin(other, "u", PART)
    assert claim(catalog) is None
    other.close()
    found = claim(catalog)
    assert found is not None
    assert found.upload_id == "u"


def test_a_gateway_claims_nothing_of_its_own_but_what_it_released(catalog: Catalog) -> None:
    begin(catalog, "u", PART)
    assert claim(catalog) is None
    catalog.release_upload(UploadId("u"))
    assert [record.origin for record in catalog.uploads()] == [""]
    with pytest.raises(NotFound, match="not ours"):
        catalog.record_part(UploadId("u"), PART)
    found = claim(catalog)
    assert found is not None
    assert found.origin == catalog.origin
    catalog.record_part(UploadId("u"), PART)


def test_nobody_releases_what_is_not_his(catalog: Catalog, url: str) -> None:
    other = Catalog.open(url)
    try:
        begin(other, "u", PART)
        catalog.release_upload(UploadId("u"))
        assert claim(catalog) is None
    finally:
        other.close()


@pytest.mark.parametrize(
    "part",
    [
        Part(1, PART.size - 1, "e", PART.crc32),
        Part(1, PART.size, "e", PART.crc32 - 1),
        Part(2, PART.size, "e", PART.crc32),
        Part(1, PART.size, "e", PART.crc32, CopySource(BASE, 0)),
    ],
)
def test_another_first_part_is_another_upload(catalog: Catalog, part: Part) -> None:
    begin(catalog, "u", part)
    catalog.release_upload(UploadId("u"))
    assert claim(catalog) is None


def test_the_one_with_most_parts_goes_on(catalog: Catalog) -> None:
    for name, count in (("few", 1), ("many", 4), ("some", 3)):
        begin(catalog, name, PART, *(Part(n, 1, "e", n) for n in range(2, count + 1)))
        catalog.release_upload(UploadId(name))
    claimed = [claim(catalog) for _ in range(4)]
    assert [None if c is None else (c.upload_id, len(c.parts)) for c in claimed] == [
        ("many", 4), ("some", 3), ("few", 1), None,
    ]  # fmt: skip


def claim_edit(catalog: Catalog, tail: Part = TAIL, base: str = BASE) -> UploadRecord | None:
    return catalog.claim_upload(Beginning(tail.number, tail.size, tail.crc32, ObjectKey(base)), TARGET)


def test_an_edit_is_claimed_by_its_base_and_its_first_new_part(catalog: Catalog) -> None:
    begin(catalog, "u", *COPIES, TAIL, Part(4, 5, "e4", 4))
    assert claim_edit(catalog) is None, "it is still ours"
    catalog.release_upload(UploadId("u"))
    others = Part(3, TAIL.size - 1, "e", TAIL.crc32), Part(3, TAIL.size, "e", 1), Part(2, TAIL.size, "e", TAIL.crc32)
    assert [claim_edit(catalog, other) for other in others] == [None, None, None]
    assert claim_edit(catalog, base="objects/other") is None
    assert catalog.claim_upload(Beginning(1, TAIL.size, TAIL.crc32), TARGET) is None, "a new file has no base"
    found = claim_edit(catalog)
    assert found is not None
    assert found.parts == (*COPIES, TAIL, Part(4, 5, "e4", 4))
    assert claim_edit(catalog) is None


def test_an_edit_that_has_only_copied_is_of_use_to_the_next(catalog: Catalog) -> None:
    begin(catalog, "copies", *COPIES)
    begin(catalog, "more copies", *COPIES, Part(3, 9, "c3", 0, CopySource(BASE, 18)))
    begin(catalog, "the same", COPIES[0], TAIL)
    begin(catalog, "another", *COPIES, Part(3, 7, "e", 7))
    for record in catalog.uploads():
        catalog.release_upload(record.upload_id)
    claimed = [claim_edit(catalog) for _ in range(4)]
    assert [None if c is None else c.upload_id for c in claimed] == ["the same", "more copies", "copies", None]


def test_what_is_not_ours_any_more_is_not_dropped(catalog: Catalog, url: str) -> None:
    begin(catalog, "u", PART)
    catalog.release_upload(UploadId("u"))
    other = Catalog.open(url)
    try:
        assert claim(other) is not None
        assert not catalog.drop_upload(UploadId("u"))
        assert [record.origin for record in catalog.uploads()] == [other.origin]
        assert other.drop_upload(UploadId("u"))
        assert not other.drop_upload(UploadId("u"))
    finally:
        other.close()


def test_an_upload_is_claimed_once(url: str) -> None:
    catalogs = [Catalog.open(url) for _ in range(4)]
    try:
        begin(catalogs[0], "u", PART)
        catalogs[0].release_upload(UploadId("u"))
        found = []
        together(8, lambda number: found.append(claim(catalogs[number % 4])))
        assert len([each for each in found if each is not None]) == 1
    finally:
        for each in catalogs:
            each.close()


def test_a_gateway_of_another_machine_is_dead_after_90_seconds(catalog: Catalog, url: str) -> None:
    with another_process(url):
        sql(url, f"UPDATE gateways SET machine = 'another' WHERE origin <> '{catalog.origin}'")
        assert claim(catalog) is None
        late = 80 * 10**9
        sql(url, f"UPDATE gateways SET seen_ns = seen_ns - {late} WHERE origin <> '{catalog.origin}'")
        assert claim(catalog) is None
        sql(url, f"UPDATE gateways SET seen_ns = seen_ns - {late} WHERE origin <> '{catalog.origin}'")
        assert claim(catalog) is not None


def test_who_was_taken_for_dead_cannot_harm(catalog: Catalog, url: str) -> None:
    """A gateway that was frozen for long wakes up after another one has claimed its upload."""
    frozen = Catalog.open(url)
    try:
        begin(frozen, "u", PART)
        sql(url, f"UPDATE gateways SET pid = {2**22 + 1} WHERE origin = '{frozen.origin}'")  # beyond every pid_max
        assert claim(catalog) is not None
        with pytest.raises(NotFound, match="another gateway"):
            frozen.record_part(UploadId("u"), Part(2, 1, "e", 1))
        f = file(frozen, "f")
        with pytest.raises(CatalogError, match="taken this upload over"):
            frozen.commit_revision(f, revision("u"), mtime_ns=None, finish_upload=UploadId("u"))
        with pytest.raises(CatalogError, match="taken this upload over"):
            frozen.put_file(D, "g", revision("u"), FILE, mtime_ns=None, finish_upload=UploadId("u"))
        assert frozen.stat(f).revision is None
        with pytest.raises(NotFound):
            frozen.lookup(D, "g")
        assert [record.origin for record in catalog.uploads()] == [catalog.origin]
    finally:
        frozen.close()


def test_a_pid_that_is_used_again_is_another_process(catalog: Catalog, url: str) -> None:
    with another_process(url):
        sql(url, f"UPDATE gateways SET born = born - 1 WHERE origin <> '{catalog.origin}'")
        assert claim(catalog) is not None


def test_a_process_that_proc_hides_is_judged_by_what_it_says(
    catalog: Catalog, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hidden(_pid: int, _signal: int) -> None:
        raise PermissionError

    with another_process(url):
        monkeypatch.setattr(gateways, "_born", lambda _pid: None)
        monkeypatch.setattr(os, "kill", hidden)
        assert claim(catalog) is None
        sql(url, f"UPDATE gateways SET seen_ns = seen_ns - {100 * 10**9} WHERE origin <> '{catalog.origin}'")
        assert claim(catalog) is not None
        monkeypatch.undo()


def test_what_nobody_goes_on_with_expires(catalog: Catalog, url: str) -> None:
    other = Catalog.open(url)
    begin(other, "left", PART)
    begin(catalog, "ours", PART)
    begin(catalog, "released", PART)
    middle = time.time_ns()
    catalog.release_upload(UploadId("released"))
    assert catalog.expired_uploads(middle) == []  # of `ours` and `left` the owner lives, `released` was touched later
    other.close()
    expired = catalog.expired_uploads(middle)
    assert [(each.upload_id, each.key, each.parts) for each in expired] == [("left", "objects/left", (PART,))]
    assert [each.upload_id for each in catalog.expired_uploads(time.time_ns())] == ["left", "released"]
    assert catalog.expire_upload(expired[0])
    assert not catalog.expire_upload(expired[0])
    released = catalog.expired_uploads(time.time_ns())[0]
    assert claim(catalog) is not None
    assert not catalog.expire_upload(released), "somebody goes on with it after all"
    assert {each.upload_id for each in catalog.uploads()} == {"ours", "released"}


def test_how_far_uploads_are(catalog: Catalog, url: str) -> None:
    """In short: the parts of 80 GB are counted where they are."""
    other = Catalog.open(url)
    begin(other, "left", PART, Part(2, 1, "e", 1))
    begin(catalog, "ours")
    begin(catalog, "released", PART)
    catalog.release_upload(UploadId("released"))
    told = {each.target: each for each in catalog.open_uploads()}
    assert [(each.parts, each.bytes, each.alive) for each in told.values()] == [
        (2, PART.size + 1, True), (0, 0, True), (1, PART.size, False),
    ]  # fmt: skip
    assert list(told) == ["/Documents/left", "/Documents/ours", "/Documents/released"]
    assert told["/Documents/ours"].origin == catalog.origin
    for each in told.values():
        assert 0 < each.created_ns <= each.active_ns <= time.time_ns()
    assert catalog.is_uploading({"/Documents/left", "none"})
    assert catalog.is_uploading({"/Documents/ours"})
    assert not catalog.is_uploading({"/Documents/released", "/Documents"})
    other.close()
    assert not catalog.is_uploading({"/Documents/left"}), "its gateway is gone"
    assert [each.alive for each in catalog.open_uploads()] == [False, True, False]


def test_an_open_catalog_is_seen(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateways, "REFRESH_SECONDS", 0.01)
    sign, other = Catalog.open(url), Catalog.open(url)
    try:
        seen = set()
        deadline = time.monotonic() + 10
        while len(seen) < 3:
            assert time.monotonic() < deadline
            rows = {row[0]: row for row in query(url, "SELECT origin, pid, seen_ns, machine FROM gateways")}
            if sign.origin in rows:
                assert rows[sign.origin][1] == os.getpid()
                seen.add(rows[sign.origin][2])
        assert sign.changes_after(0) == [], "nobody's caches care"
    finally:
        sign.close()
        sign.close()
        other.close()
    assert query(url, "SELECT * FROM gateways") == []


def test_rows_of_the_dead_are_swept(url: str) -> None:
    sql_row = "INSERT INTO gateways (origin, machine, pid, born, seen_ns) VALUES ('dead', 'another', 1, 1, 1)"
    Catalog.open(url).close()
    sql(url, sql_row)
    catalog = Catalog.open(url)
    begin(catalog, "u")
    assert [row[0] for row in query(url, "SELECT origin FROM gateways")] == [catalog.origin]
    catalog.close()
