"""/Thumbnails over a real catalog and core: what is shown, what it costs, and what bad pictures do."""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from archivia_fs.content import Content
from archivia_fs.errors import (
    AccessDenied,
    Busy,
    Changed,
    InvalidArgument,
    IsADirectory,
    NotADirectory,
    NotFound,
    StoreUnavailable,
)
from archivia_fs.types import Caller, OpenFlags, RevisionId, Right, SetAttr
from archivia_fs.views.thumbnails import versions
from archivia_fs.views.thumbnails.background import Background, is_likely
from archivia_fs.views.thumbnails.facts import from_json, picture_facts
from archivia_fs.views.thumbnails.maker import Look, Made, Maker
from archivia_fs.views.thumbnails.parts import Part
from archivia_fs.views.thumbnails.placeholder import PLACEHOLDER
from archivia_fs.views.thumbnails.pool import Pool, handed_over
from archivia_fs.views.thumbnails.service import PREFIX, Previews
from archivia_fs.views.thumbnails.turns import Demand
from archivia_fs.views.thumbnails.ways import best
from archivia_fs.views.thumbnails.windows import Read
from catalog.previews import PreviewState
from tests.fuse.conftest import eventually, mounted
from tests.views.drive import READ_MAX, Drive, adopt, size_of
from tests.views.pictures import LONG, Sketch, Sparse, dng, jpeg
from tests.views.test_worker import bomb

# --- the tree ------------------------------------------------------------------------------------------------------------


def test_a_picture_has_its_preview_beside_the_archive(drive: Drive) -> None:
    """[T1] A picture has its preview at the same place under `/Thumbnails`, with `.jpg` behind its name.
    [T2] A listing shows the previews that exist and waits for none; to look up one that does not exist makes it."""
    stat = drive.put(
        "/Documents/scans/page.dng", dng(previews=[jpeg(64, 48), jpeg(1600, 1200)]).whole(), 1_700_000_000 * 10**9
    )
    assert drive.names("/Thumbnails") == ["scans"]
    assert drive.names("/Thumbnails/scans") == []  # a listing waits for nothing
    assert size_of(drive.read("/Thumbnails/scans/page.dng.jpg")) == (1200, 900)
    (entry,) = drive.list("/Thumbnails/scans")
    assert entry.name == "page.dng.jpg"
    assert entry.stat.mtime_ns == stat.mtime_ns
    assert entry.stat == drive.vfs.resolve(drive.caller, "/Thumbnails/scans/page.dng.jpg")


def test_folders_are_mirrored_and_other_files_are_not_shown(drive: Drive) -> None:
    scans = drive.vfs.resolve(drive.caller, "/Documents/scans").ino
    drive.vfs.mkdir(drive.caller, drive.vfs.mkdir(drive.caller, scans, "box", 0o755).ino, "roll", 0o755)
    drive.put("/Documents/scans/box/roll/a.jpg", jpeg(300, 200))
    drive.put("/Documents/scans/notes.txt", b"Nothing to see.\n")
    drive.put("/Documents/scans/empty.dng", b"")
    assert drive.names("/Thumbnails/scans") == ["box"]
    assert drive.names("/Thumbnails/scans/box") == ["roll"]
    assert size_of(drive.read("/Thumbnails/scans/box/roll/a.jpg.jpg")) == (300, 200)
    for name in ("notes.txt.jpg", "empty.dng.jpg", "notes.txt", "a.jpg", ".jpg", "none.dng.jpg"):
        with pytest.raises(NotFound):
            drive.vfs.resolve(drive.caller, f"/Thumbnails/scans/{name}")
    assert drive.names("/Thumbnails/scans") == ["box"]
    with pytest.raises(NotADirectory):
        drive.list("/Thumbnails/scans/box/roll/a.jpg.jpg")
    with pytest.raises(IsADirectory):
        drive.read("/Thumbnails/scans/box")


def test_three_sizes_with_entity_tags_of_their_own(drive: Drive) -> None:
    drive.put("/Documents/scans/a.jpg", jpeg(2000, 1000))
    shown = drive.vfs.resolve(drive.caller, "/Thumbnails/scans/a.jpg.jpg")
    tags = {shown.etag}
    for side in (256, 512, 1200):
        stat = drive.vfs.variant(drive.caller, shown.ino, str(side))
        content = drive.vfs.snapshot(drive.caller, stat.ino)
        assert (content.size, content.etag) == (stat.size, stat.etag)
        assert size_of(bytes(content.pread(0, stat.size))) == (side, side // 2)
        tags.add(stat.etag)
    assert len(tags) == 3  # 1200 is what is shown
    for wrong in ("255", "0", "", "large", "-1"):
        with pytest.raises(InvalidArgument):
            drive.vfs.variant(drive.caller, shown.ino, wrong)
    document = drive.vfs.resolve(drive.caller, "/Documents/scans/a.jpg")
    assert drive.vfs.variant(drive.caller, document.ino, "256") == document


def test_the_rights_are_those_of_the_picture(drive: Drive) -> None:
    drive.put("/Documents/scans/a.jpg", jpeg(300, 200))
    ino = drive.vfs.resolve(drive.caller, "/Thumbnails/scans/a.jpg.jpg").ino
    guest = Caller("guest", 2, 2)
    assert drive.vfs.readdir(guest, drive.vfs.resolve(guest, "/Thumbnails").ino) == []
    with pytest.raises(AccessDenied):
        drive.vfs.resolve(guest, "/Thumbnails/scans")
    for trial in (drive.vfs.snapshot, lambda who, i: drive.vfs.variant(who, i, "256")):
        with pytest.raises(AccessDenied):
            trial(guest, ino)
    drive.catalog.grant("scans", "guest", Right.READ)
    drive.vfs.snapshot(guest, ino).close()


def test_a_changed_picture_has_another_preview(drive: Drive) -> None:
    """[T3] When a file changes, the preview of its old bytes is no longer shown."""
    drive.put("/Documents/scans/a.jpg", jpeg(300, 200))
    old = drive.vfs.resolve(drive.caller, "/Thumbnails/scans/a.jpg.jpg")
    before = drive.read("/Thumbnails/scans/a.jpg.jpg")
    handle = drive.vfs.open(drive.caller, old.ino, OpenFlags.READ)
    drive.put("/Documents/scans/a.jpg", jpeg(200, 300))
    assert drive.names("/Thumbnails/scans") == []
    new = drive.vfs.resolve(drive.caller, "/Thumbnails/scans/a.jpg.jpg")
    assert (new.ino, new.etag) != (old.ino, old.etag)
    assert size_of(drive.read("/Thumbnails/scans/a.jpg.jpg")) == (200, 300)
    assert bytes(handle.pread(0, 1 << 20)) == before  # whoever reads goes on with what was told
    handle.release()


def test_renames_and_copies_cost_nothing(drive: Drive) -> None:
    drive.put("/Documents/scans/a.jpg", jpeg(300, 200))
    drive.read("/Thumbnails/scans/a.jpg.jpg")
    scans = drive.vfs.resolve(drive.caller, "/Documents/scans").ino
    ino = drive.vfs.resolve(drive.caller, "/Documents/scans/a.jpg").ino
    drive.vfs.rename(drive.caller, scans, "a.jpg", scans, "b.jpg")
    drive.vfs.copy(drive.caller, ino, scans, "c.jpg")
    drive.vfs.link(drive.caller, ino, scans, "d.jpg")
    assert drive.names("/Thumbnails/scans") == ["b.jpg.jpg", "c.jpg.jpg", "d.jpg.jpg"]
    drive.put("/Documents/scans/e.jpg", jpeg(300, 200))  # the same bytes again, sent again
    drive.read("/Thumbnails/scans/e.jpg.jpg")
    assert drive.maker.made == 1


# --- what it costs -------------------------------------------------------------------------------------------------------


def test_80_gb_are_not_pulled(drive: Drive) -> None:
    """From the object of a sparse BigTIFF DNG, through the store: few bytes beside those of the preview.

    [T5] Of a file with a preview inside at most 256 KiB are read beside that preview, whatever its size."""
    preview = jpeg(1600, 1200)
    file = dng(big=True, previews=[jpeg(64, 48), preview], size=80 << 30, preview_at=(80 << 30) - 500_000)
    adopt(drive, "huge.dng", file)
    file.reads.clear()
    assert size_of(drive.read("/Thumbnails/scans/huge.dng.jpg")) == (1200, 900)
    assert file.bytes_read - len(preview) <= READ_MAX


def test_the_smallest_preview_that_is_large_enough_is_fetched(drive: Drive) -> None:
    sizes = [(160, 120), (4000, 3000), (1400, 1050)]
    facts = _facts(dng(previews=[jpeg(*size) for size in sizes]))
    assert [each.width for each in best(facts.previews)] == [1400, 4000, 160]
    assert [each.width for each in best(_facts(dng(previews=[jpeg(160, 120), jpeg(1024, 768)])).previews)] == [
        1024,
        160,
    ]


def _facts(file: Sparse):  # type: ignore[no-untyped-def]
    found = picture_facts(file.read, file.size)
    assert found is not None
    return found


def test_fifty_clients_one_decoding(drive: Drive) -> None:
    """[T6] However many ask for a preview at once, it is made once."""
    drive.put("/Documents/scans/a.png", _png(800, 600))
    drive.maker.delay = 0.2
    start = threading.Barrier(50)

    def client(_: int) -> bytes:
        start.wait()
        return drive.read("/Thumbnails/scans/a.png.jpg")

    with ThreadPoolExecutor(50) as clients:
        assert len(set(clients.map(client, range(50)))) == 1
    assert drive.maker.made == 1


def _png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(jpeg(width, height))).save(buffer, "PNG")
    return buffer.getvalue()


def test_copies_that_arrive_together_are_decoded_once(drive: Drive) -> None:
    """[T6] However many ask for a preview at once, it is made once."""
    for index in range(8):
        drive.put(f"/Documents/scans/{index}.png", _png(800, 600))
    drive.maker.delay = 0.2
    with ThreadPoolExecutor(8) as clients:
        found = set(clients.map(lambda index: drive.read(f"/Thumbnails/scans/{index}.png.jpg"), range(8)))
    assert len(found) == 1
    assert drive.maker.made == 1
    assert drive.catalog.previews.counts() == {PreviewState.DECODED: 8}


def test_a_hostile_file_costs_one_decoder_however_often_it_is_copied(drive: Drive) -> None:
    for index in range(5):
        drive.put(f"/Documents/scans/{index}.jpg", BAD["half.jpg"])
        assert drive.read(f"/Thumbnails/scans/{index}.jpg.jpg") == PLACEHOLDER
    assert drive.maker.made == 1
    assert drive.catalog.previews.counts() == {PreviewState.PLACEHOLDER: 5}


def test_it_is_kept_in_the_bucket_and_found_in_memory(drive: Drive, pool: Pool) -> None:
    drive.put("/Documents/scans/a.jpg", jpeg(1300, 900))
    data = drive.read("/Thumbnails/scans/a.jpg.jpg")
    drive.store.reads.clear()
    assert drive.read("/Thumbnails/scans/a.jpg.jpg") == data
    assert drive.store.reads == []
    (stored,) = drive.store.list(PREFIX)
    other = Previews(drive.catalog.previews, drive.catalog, drive.store, Maker(pool))  # after a restart
    record = other.ensure(drive.put("/Documents/scans/b.jpg", jpeg(1300, 900)).revision or RevisionId(""))
    assert record.key == stored.key
    assert other.read(record, 1200) == data
    assert drive.store.reads == [(stored.key, len(data))]


def test_memory_is_bounded(drive: Drive, pool: Pool) -> None:
    small = Previews(drive.catalog.previews, drive.catalog, drive.store, Maker(pool), cache_bytes=20_000)
    for shade in range(8):
        revision = drive.put(f"/Documents/scans/{shade}.jpg", jpeg(1200, 900, colour=(shade * 20, 0, 0))).revision
        assert revision is not None
        small.read(small.ensure(revision), 1200)
    assert sum(map(len, small._cache.values())) == small._cached <= 20_000


def test_few_pictures_are_in_memory_at_a_time(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of large ones one, whoever asks."""
    monkeypatch.setattr("archivia_fs.views.thumbnails.maker.SMALL_PICTURE", 1000)
    held, most = 0, []

    @contextlib.contextmanager
    def counted(part: Part, read: Read) -> Iterator[int]:
        nonlocal held
        with handed_over(part, read) as picture:
            held += part.size
            most.append(held)
            yield picture
            held -= part.size

    monkeypatch.setattr("archivia_fs.views.thumbnails.maker.handed_over", counted)
    for index in range(6):
        drive.put(f"/Documents/scans/{index}.jpg", jpeg(300 + index, 200))
    with ThreadPoolExecutor(6) as clients:
        list(clients.map(lambda index: drive.read(f"/Thumbnails/scans/{index}.jpg.jpg"), range(6)))
    assert len(most) == 6
    assert max(most) < 3000  # each has about 2,300 bytes


def test_what_the_bucket_lost_is_made_again(drive: Drive) -> None:
    drive.put("/Documents/scans/a.jpg", jpeg(1300, 900))
    data = drive.read("/Thumbnails/scans/a.jpg.jpg")
    for stored in list(drive.store.list(PREFIX)):
        drive.store.delete(stored.key)
    drive.previews._cache.clear()
    assert drive.read("/Thumbnails/scans/a.jpg.jpg") == data
    assert drive.maker.made == 2


def test_a_store_that_fails_is_an_error_and_not_a_grey_picture(drive: Drive) -> None:
    drive.put("/Documents/scans/a.jpg", jpeg(300, 200))
    drive.store.failing = True
    with pytest.raises(StoreUnavailable):
        drive.vfs.resolve(drive.caller, "/Thumbnails/scans/a.jpg.jpg")
    drive.store.failing = False
    assert size_of(drive.read("/Thumbnails/scans/a.jpg.jpg")) == (300, 200)


def test_what_the_picture_says_is_kept(drive: Drive) -> None:
    file = dng(previews=[jpeg(64, 48), jpeg(1600, 1200)], orientation=8, colour_space=3)
    stat = drive.put("/Documents/scans/page.dng", file.whole())
    drive.read("/Thumbnails/scans/page.dng.jpg")
    record = drive.catalog.previews.get(RevisionId(stat.etag))
    assert record is not None
    assert from_json(record.facts) == _facts(file)
    assert (record.state, record.attempts) == (PreviewState.EMBEDDED, 0)


def test_what_pictures_say_of_themselves_comes_into_the_table(drive: Drive) -> None:
    """From real files of each kind, through the catalog: camera, date and size, which only a decoder finds in HEIC and WebP."""
    heif = pytest.importorskip("pillow_heif", reason="HEIC is read where pillow-heif is installed")
    heif.register_heif_opener()
    scans = drive.vfs.resolve(drive.caller, "/Documents/scans").ino
    drive.vfs.mkdir(drive.caller, scans, "box", 0o755)
    exif = Image.Exif()
    exif[271], exif[272] = "Archivia", "Model Two"
    exif.get_ifd(34665)[36867] = "2025:12:31 23:59:58"
    kinds = {"JPEG": "jpg", "WEBP": "webp", "HEIF": "heic", "PNG": "png", "AVIF": "avif", "TIFF": "tif"}
    for kind, suffix in kinds.items():
        buffer = io.BytesIO()
        Image.open(io.BytesIO(jpeg(320, 240))).save(buffer, kind, exif=exif)
        drive.put(f"/Documents/scans/box/a.{suffix}", buffer.getvalue())
        drive.read(f"/Thumbnails/scans/box/a.{suffix}.jpg")
    drive.put("/Documents/scans/box/b.dng", dng(previews=[jpeg(64, 48)], raw=(640, 480)).whole())
    drive.read("/Thumbnails/scans/box/b.dng.jpg")
    text = drive.read("/Downloads/scans/box/box_metadata.csv").decode()
    rows = {row["filename"]: row for row in csv.DictReader(io.StringIO(text, newline=""))}
    columns = ("camera_make", "camera_model", "date_taken", "width", "height")
    told = {name: tuple(row[column] for column in columns) for name, row in rows.items()}
    expected = {
        f"a.{suffix}": ("Archivia", "Model Two", "2025-12-31T23:59:58", "320", "240") for suffix in kinds.values()
    }
    expected["a.tif"] = ("Archivia", "Model Two", "", "320", "240")  # Pillow writes no date into a TIFF
    expected["b.dng"] = ("Archivia", "Model One", "2026-01-02T03:04:05", "640", "480")
    assert {name: told[name] for name in expected} == expected


# --- without being asked -------------------------------------------------------------------------------------------------


def test_after_a_commit_they_are_there(drive: Drive) -> None:
    drive.vfs.subscribe(drive.background.on_effects)
    drive.background.start()
    drive.put("/Documents/scans/page.dng", dng(previews=[jpeg(64, 48), jpeg(1600, 1200)]).whole())
    drive.put("/Documents/scans/raw.dng", dng(raw=(640, 480)).whole())
    drive.put("/Documents/scans/a.png", _png(300, 200))
    drive.put("/Documents/scans/notes.txt", b"no picture, not even looked at")
    drive.put("/Documents/scans/.page.dng.a8Xz", dng(previews=[jpeg(64, 48), jpeg(1500, 1200)]).whole())
    scans = drive.vfs.resolve(drive.caller, "/Documents/scans").ino
    drive.vfs.rename(drive.caller, scans, ".page.dng.a8Xz", scans, "b.dng")  # as rsync does it
    assert drive.background.wait(30)
    made = drive.maker.made
    assert drive.names("/Thumbnails/scans") == ["a.png.jpg", "b.dng.jpg", "page.dng.jpg", "raw.dng.jpg"]
    assert size_of(drive.read("/Thumbnails/scans/raw.dng.jpg")) == (640, 480)
    assert drive.maker.made == made == 4


def test_a_file_that_is_still_written_is_not_decoded(drive: Drive) -> None:
    """Each fsync commits a revision; only the last one is a whole picture."""
    data = dng(raw=(640, 480)).whole()
    drive.vfs.subscribe(drive.background.on_effects)
    drive.background.start()
    scans = drive.vfs.resolve(drive.caller, "/Documents/scans").ino
    _, handle = drive.vfs.create(drive.caller, scans, "raw.dng", 0o644, OpenFlags.WRITE)
    for at in range(0, len(data), 100_000):
        handle.pwrite(at, data[at : at + 100_000])
        handle.fsync()
    handle.release()
    assert drive.background.wait(30)
    assert drive.catalog.previews.counts() == {PreviewState.DECODED: 1}
    assert size_of(drive.read("/Thumbnails/scans/raw.dng.jpg")) == (640, 480)


def test_a_slow_one_holds_up_nobody(drive: Drive) -> None:
    """While raw data are developed, previews inside files are made after each commit, and when somebody opens one."""
    going, go_on = threading.Event(), threading.Event()
    make = drive.maker.make

    def slow_make(content: Content, look: Look, demand: Demand) -> Made:
        if not look.quick and not demand.urgent:
            going.set()
            assert go_on.wait(60)
        return make(content, look, demand)

    drive.maker.make = slow_make  # type: ignore[method-assign]
    drive.vfs.subscribe(drive.background.on_effects)
    drive.background.start()
    try:
        drive.put("/Documents/scans/raw.dng", dng(raw=(640, 480)).whole())
        assert going.wait(60)
        drive.put("/Documents/scans/page.dng", dng(previews=[jpeg(64, 48), jpeg(1600, 1200)]).whole())
        drive.put("/Documents/scans/other.dng", dng(raw=(320, 240)).whole())
        until(lambda: drive.names("/Thumbnails/scans") == ["page.dng.jpg"])
        assert size_of(drive.read("/Thumbnails/scans/other.dng.jpg")) == (320, 240)
    finally:
        go_on.set()
    assert drive.background.wait(60)
    assert "raw.dng.jpg" in drive.names("/Thumbnails/scans")


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_who_opens_what_is_made_ahead_hurries_it(drive: Drive) -> None:
    stat = drive.put("/Documents/scans/raw.dng", dng(raw=(640, 480)).whole())
    seen: list[Demand] = []
    make = drive.maker.make

    def waiting_make(content: Content, look: Look, demand: Demand) -> Made:
        assert not demand.urgent
        seen.append(demand)
        until(lambda: demand.urgent)
        return make(content, look, demand)

    drive.maker.make = waiting_make  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as other:
        ahead = other.submit(drive.previews.ensure, RevisionId(stat.etag), urgent=False)
        until(lambda: bool(seen))
        assert size_of(drive.read("/Thumbnails/scans/raw.dng.jpg")) == (640, 480)
        assert ahead.result(10).state is PreviewState.DECODED


def test_what_was_busy_is_made_later(drive: Drive) -> None:
    make, busy = drive.maker.make, [True, True]

    def busy_make(content: Content, look: Look, demand: Demand) -> Made:
        if busy:
            busy.pop()
            raise Busy("Many previews are being made; try again in a moment.")
        return make(content, look, demand)

    drive.maker.make = busy_make  # type: ignore[method-assign]
    drive.vfs.subscribe(drive.background.on_effects)
    drive.background.start()
    drive.put("/Documents/scans/raw.dng", dng(raw=(640, 480)).whole())
    assert drive.background.wait(60)
    assert busy == []
    assert drive.names("/Thumbnails/scans") == ["raw.dng.jpg"]


def test_a_large_one_beside_another_large_one_is_no_failure(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    """If memory is short because of us, the picture is not to blame."""
    monkeypatch.setattr("archivia_fs.views.thumbnails.maker.SMALL_PICTURE", 1000)
    monkeypatch.setattr("archivia_fs.views.thumbnails.maker.memory_available", lambda: 0)
    stat = drive.put("/Documents/scans/a.jpg", jpeg(300, 200))
    with drive.pool.turns.turn(Demand(urgent=False), slow=True, large=True), pytest.raises(Busy):
        drive.read("/Thumbnails/scans/a.jpg.jpg")
    assert drive.catalog.previews.get(RevisionId(stat.etag)) is None


def test_closing_ends_what_is_being_read(drive: Drive) -> None:
    """A file of gigabytes is not read to its end first."""
    pool = Pool()
    previews = Previews(drive.catalog.previews, drive.catalog, drive.store, Maker(pool))
    stat = adopt(drive, "large.dng", Closing(pool, dng(raw=(64, 48), size=1 << 30)))
    with pytest.raises(Busy, match="shutting down"):
        previews.ensure(RevisionId(stat.etag))
    assert drive.catalog.previews.get(RevisionId(stat.etag)) is None


class Closing:
    """Ends the pool when the picture itself is read."""

    def __init__(self, pool: Pool, file: Sparse) -> None:
        self._pool, self._file, self.size = pool, file, file.size

    def read(self, offset: int, size: int) -> bytes:
        if size > READ_MAX:
            assert offset == 0, "it reads on"
            self._pool.close()
        return self._file.read(offset, size)


def test_a_listing_asks_for_what_is_missing(drive: Drive) -> None:
    drive.put("/Documents/scans/a.jpg", jpeg(300, 200))
    drive.background.start()
    assert drive.names("/Thumbnails/scans") == []
    assert drive.background.wait(30)
    assert drive.names("/Thumbnails/scans") == ["a.jpg.jpg"]


def test_the_queue_forgets_what_is_too_much(drive: Drive, pool: Pool) -> None:
    background = Background(drive.previews, pool, drive.catalog, drive.catalog.origin, queue_max=3)
    background.later(RevisionId(f"r{index}") for index in range(100))
    assert len(background._quick) == 3
    background.start()
    assert background.wait(30)  # they do not exist, which harms nobody
    background.close()


@pytest.mark.parametrize("change", ["put", "chmod"])
def test_previews_make_way_for_those_who_change_something(
    drive: Drive, pool: Pool, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """While one change follows the other, no more than a fifth of the time goes into looking at files."""
    looked: list[float] = []

    def look(_: RevisionId) -> bool:
        time.sleep(0.02)
        looked.append(time.monotonic())
        return True  # nothing more to do

    monkeypatch.setattr(drive.previews, "is_settled", look)
    background = Background(drive.previews, pool, drive.catalog, drive.catalog.origin)
    unsubscribe = drive.vfs.subscribe(background.on_effects)
    stored = [drive.put(f"/Documents/scans/{number}.jpg", b"%d" % number) for number in range(60)]
    background.start()
    eventually(lambda: looked)
    began, before = time.monotonic(), len(looked)
    for number, stat in enumerate(stored):
        if change == "put":
            drive.put(f"/Documents/scans/{number}.jpg", b"%d again" % number)
        else:
            drive.vfs.setattr(drive.caller, stat.ino, SetAttr(mode=0o600 + number % 8))
        time.sleep(0.01)
    during = len(looked) - before
    assert 0.02 * during <= (time.monotonic() - began) / 4
    assert background.wait(30)
    assert len(looked) > before + during
    unsubscribe()
    background.close()


def test_others_make_the_previews_of_what_they_commit_unless_they_end(drive: Drive, pool: Pool) -> None:
    patient = Background(drive.previews, pool, drive.catalog, "another gateway")
    eager = Background(drive.previews, pool, drive.catalog, "a third one", foreign=0.2)
    unsubscribe = drive.vfs.subscribe(eager.on_effects)
    drive.vfs.subscribe(patient.on_effects)
    for each in (patient, eager):
        each.start()
    drive.put("/Documents/scans/a.jpg", jpeg(300, 200))
    assert eager.wait(30)
    assert drive.names("/Thumbnails/scans") == ["a.jpg.jpg"]
    assert not patient.wait(0)
    unsubscribe()
    revision = drive.put("/Documents/scans/b.jpg", jpeg(200, 300)).revision
    assert revision is not None
    patient.later([revision])  # somebody lists the folder
    deadline = time.monotonic() + 30
    while drive.names("/Thumbnails/scans") != ["a.jpg.jpg", "b.jpg.jpg"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for each in (patient, eager):
        each.close()


def test_names_that_are_worth_a_look() -> None:
    assert all(map(is_likely, ("a.DNG", "b.tif", "c.d.JPeG", "x.heic")))
    assert not any(map(is_likely, ("a.txt", "dng", ".page.dng.a8Xz", "", "a.xmp")))


# --- bad pictures --------------------------------------------------------------------------------------------------------


def _self_loop() -> bytes:
    sketch = Sketch()
    sketch.directory({271: (2, b"Lo\0"), 330: (LONG, (4096,))}, following=4096, at=4096)
    return sketch.finish(4096).whole()


def _many_entries() -> bytes:
    sketch = Sketch(big=True)
    return sketch.finish(sketch.blob((10**9).to_bytes(8, "little"))).whole()


BAD = {
    "truncated.dng": dng(raw=(640, 480)).whole()[:100_000],
    "cut-in-its-preview.dng": dng(previews=[jpeg(1600, 1200)]).whole()[:12_000],
    "head-only.dng": b"II*\0",
    "loop.dng": _self_loop(),
    "past-the-end.dng": Sketch().finish(0xFFFFFF00).whole(),
    "many-entries.dng": _many_entries(),
    "bomb.jpg": bomb(),
    "half.jpg": jpeg(900, 700)[:5000],
    "no-frame.jpg": b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(500),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_pictures_are_grey(drive: Drive, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """[T4] A picture that cannot be decoded is shown grey; a file that is no picture is not shown, whatever its name."""
    caplog.set_level(logging.WARNING)
    stat = drive.put(f"/Documents/scans/{name}", BAD[name])
    start = time.monotonic()
    assert drive.read(f"/Thumbnails/scans/{name}.jpg") == PLACEHOLDER
    assert time.monotonic() - start < 20
    assert size_of(PLACEHOLDER) == (256, 192)
    assert drive.names("/Thumbnails/scans") == [f"{name}.jpg"]
    record = drive.catalog.previews.get(RevisionId(stat.etag))
    assert record is not None
    assert (record.state, record.attempts, record.decoder) == (PreviewState.PLACEHOLDER, 1, drive.maker.decoder)
    assert record.reason
    assert drive.read(f"/Thumbnails/scans/{name}.jpg") == PLACEHOLDER
    assert drive.maker.made == 1  # not tried again with the same decoder
    assert [each.getMessage().count(name) for each in caplog.records if "grey" in each.getMessage()] == [1]


def test_a_text_named_dng_is_no_picture(drive: Drive) -> None:
    """[T4] A picture that cannot be decoded is shown grey; a file that is no picture is not shown, whatever its name."""
    drive.put("/Documents/scans/a.dng", b"#!/bin/sh\necho This is no picture.\n")
    with pytest.raises(NotFound, match="no picture"):
        drive.vfs.resolve(drive.caller, "/Thumbnails/scans/a.dng.jpg")
    assert drive.names("/Thumbnails/scans") == []


def test_an_empty_file_is_no_picture(drive: Drive) -> None:
    drive.put("/Documents/scans/a.dng", b"")
    with pytest.raises(NotFound, match="holds no picture"):
        drive.vfs.resolve(drive.caller, "/Thumbnails/scans/a.dng.jpg")


def test_a_file_that_changes_while_it_is_decoded(drive: Drive) -> None:
    """The preview is that of the revision that was there; the next lookup shows the new one."""
    drive.put("/Documents/scans/a.jpg", jpeg(300, 200))
    drive.maker.delay = 0.3
    with ThreadPoolExecutor(1) as other:
        decoding = other.submit(drive.vfs.resolve, drive.caller, "/Thumbnails/scans/a.jpg.jpg")
        time.sleep(0.1)
        drive.put("/Documents/scans/a.jpg", jpeg(200, 300))
        old = decoding.result(30)
    content = drive.vfs.snapshot(drive.caller, old.ino)
    assert size_of(bytes(content.pread(0, old.size))) == (300, 200)
    assert size_of(drive.read("/Thumbnails/scans/a.jpg.jpg")) == (200, 300)


def test_a_preview_past_the_end_goes_to_the_raw_data(drive: Drive) -> None:
    """LibRaw would hand out the same broken JPEG."""
    file = dng(previews=[jpeg(64, 48), jpeg(1600, 1200)], raw=(640, 480))
    (large,) = (each for each in _facts(file).previews if each.width == 1600)
    data = bytearray(file.whole())
    data[large.offset + 700 : large.offset + large.length] = bytes(large.length - 700)
    stat = drive.put("/Documents/scans/a.dng", bytes(data))
    shown = drive.read("/Thumbnails/scans/a.dng.jpg")
    assert size_of(shown) == (640, 480)
    record = drive.catalog.previews.get(RevisionId(stat.etag))
    assert record is not None
    assert (record.state, record.attempts) == (PreviewState.DECODED, 0)


def test_why_there_is_none_is_told_in_one_word(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archivia_fs.views.thumbnails.ways.SMALL_MAX", 20_000)
    for name, data, failure in (
        ("half.jpg", BAD["half.jpg"], "corrupt"), ("loop.dng", BAD["loop.dng"], "unsupported"),
        ("many.dng", BAD["many-entries.dng"], "corrupt"), ("bomb.jpg", BAD["bomb.jpg"], "limits"),
        ("large.png", _png(900, 700) + bytes(20_000), "limits"),
    ):  # fmt: skip
        stat = drive.put(f"/Documents/scans/{name}", data)
        assert drive.read(f"/Thumbnails/scans/{name}.jpg") == PLACEHOLDER
        record = drive.catalog.previews.get(RevisionId(stat.etag))
        assert record is not None
        assert (name, record.failure) == (name, failure)


def test_without_a_rawpy_that_is_new_enough_raw_data_are_not_even_read(
    drive: Drive, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(versions, "RAWPY_MIN", (99, 0))
    previews = Previews(drive.catalog.previews, drive.catalog, drive.store, Maker(drive.pool))
    assert "install 99.0 or newer" in caplog.text  # at once, when a gateway starts
    raw = drive.put("/Documents/scans/raw.dng", dng(raw=(640, 480)).whole())
    drive.store.reads.clear()
    record = previews.ensure(RevisionId(raw.etag))
    assert (record.state, record.failure) == (PreviewState.PLACEHOLDER, "unsupported")
    assert "known holes" in record.reason
    assert sum(size for _, size in drive.store.reads) <= READ_MAX
    inside = drive.put("/Documents/scans/page.dng", dng(previews=[jpeg(64, 48), jpeg(1600, 1200)]).whole())
    assert previews.ensure(RevisionId(inside.etag)).state is PreviewState.EMBEDDED


def test_a_dead_decoder_is_tried_again_later(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have been the machine; another decoder brings another try at once."""
    stat = drive.put("/Documents/scans/a.png", _png(300, 200))
    revision = RevisionId(stat.etag)
    monkeypatch.setattr("archivia_fs.views.thumbnails.maker.memory_available", lambda: 0)
    assert drive.read("/Thumbnails/scans/a.png.jpg") == PLACEHOLDER
    record = drive.catalog.previews.get(revision)
    assert record is not None
    assert record.retry_ns is not None
    assert "too little free memory" in record.reason
    assert record.failure == "memory"
    monkeypatch.undo()
    assert drive.read("/Thumbnails/scans/a.png.jpg") == PLACEHOLDER
    drive.catalog.previews.save(replace(record, retry_ns=time.time_ns() - 1))
    assert size_of(drive.read("/Thumbnails/scans/a.png.jpg")) == (300, 200)
    drive.catalog.previews.save(replace(record, retry_ns=None, decoder="an older one"))
    assert size_of(drive.read("/Thumbnails/scans/a.png.jpg")) == (300, 200)


def test_a_grey_one_that_has_become_real_can_be_opened(
    drive: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever knows the grey one is told that it has changed, so the kernel looks it up again."""
    stat = drive.put("/Documents/scans/a.png", _png(300, 200))
    monkeypatch.setattr("archivia_fs.views.thumbnails.maker.memory_available", lambda: 0)
    with mounted(drive.vfs, tmp_path / "mnt") as mount:  # type: ignore[arg-type]  # a Vfs is what it stands for
        path = mount.path / "Thumbnails/scans/a.png.jpg"
        assert path.stat().st_size == len(PLACEHOLDER)
        grey = drive.vfs.resolve(drive.caller, "/Thumbnails/scans/a.png.jpg")
        monkeypatch.undo()
        record = drive.catalog.previews.get(RevisionId(stat.etag))
        assert record is not None
        drive.catalog.previews.save(replace(record, retry_ns=time.time_ns() - 1))
        assert path.stat().st_size == len(PLACEHOLDER)  # the kernel knows the name, for a second
        assert size_of(path.read_bytes()) == (300, 200)
        with pytest.raises(Changed):
            drive.vfs.open(drive.caller, grey.ino, OpenFlags.READ)


def test_a_raw_file_over_2_gib_without_a_preview_is_grey_unread(drive: Drive) -> None:
    file = dng(big=True, size=3 << 30)
    stat = adopt(drive, "large.dng", file)
    assert drive.read("/Thumbnails/scans/large.dng.jpg") == PLACEHOLDER
    assert file.bytes_read <= READ_MAX
    record = drive.catalog.previews.get(RevisionId(stat.etag))
    assert record is not None
    assert "at most 2147483647" in record.reason
