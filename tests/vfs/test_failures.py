"""Bad days of the store as the core sees them: whoever wrote is told, and the old content stays."""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from archivia_fs.errors import (
    BadHandle,
    CatalogError,
    FileTooBig,
    FsError,
    NoSpace,
    StoreError,
    StoreFull,
    StoreRejected,
    StoreUnavailable,
)
from archivia_fs.store.base import ObjectStore
from archivia_fs.store.faults import Fault, Kind
from archivia_fs.store.retry import RetryPolicy
from archivia_fs.store.stack import stack
from archivia_fs.types import SIZE_MAX, OpenFlags
from archivia_fs.vfs.handle import FileHandle
from archivia_fs.vfs.reader import BLOCK
from archivia_fs.vfs.upload_plan import UploadPlan
from archivia_fs.vfs.writer import HOLE_MAX
from tests.vfs.conftest import ADMIN, KIB, Core, Make

MIB = 1024 * KIB
RW = OpenFlags.READ | OpenFlags.WRITE
OLD = b"the old content" * 2000  # 30 KB: several parts
NEW = bytes(range(256)) * 300  # 77 KB
FOREVER = 1_000_000
HASTY = RetryPolicy(first=0.001, cap=0.01, read_deadline=0.3, write_deadline=0.3)


def hasty(store: ObjectStore) -> ObjectStore:
    """All wrappers of the program, with little patience."""
    return stack(store, retry=HASTY)


def opened(core: Core, name: str = "a.dng", flags: OpenFlags = RW) -> FileHandle:
    handle = core.vfs.open(ADMIN, core.vfs.lookup(ADMIN, core.home, name).ino, flags)
    assert isinstance(handle, FileHandle)
    return handle


def leftovers(core: Core) -> set[str]:
    """Objects at the store that no revision names."""
    named = {core.catalog.revision(stat.revision).key for stat in all_stats(core) if stat.revision is not None}
    return {found.key for found in core.memory.list("objects/")} - {str(key) for key in named}


def all_stats(core: Core) -> list[object]:
    return [entry.stat for entry in core.vfs.readdir(ADMIN, core.home)]


FAULTS = [
    *(Fault(Kind.FAIL, operation, times=FOREVER) for operation in ("create_upload", "upload_part", "complete_upload")),
    Fault(Kind.FAIL, "upload_part", times=FOREVER, after=2),
    Fault(Kind.FAIL, "upload_part", times=FOREVER, error=StoreRejected("Wrong keys.")),
    Fault(Kind.FAIL, "upload_part", times=FOREVER, error=StoreFull("Full.")),
    *(Fault(kind, "upload_part", times=FOREVER) for kind in (Kind.LOSE_DATA, Kind.TRUNCATE, Kind.WRONG_ETAG)),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.operation}-{fault.kind.value}-{fault.after}")
def test_an_upload_that_fails_is_told_at_close_and_the_old_content_stays(make_core: Make, fault: Fault) -> None:
    """[D4] If the upload fails, `close()` and `fsync()` return the error, each time they are asked, and the old content stays.
    [D5] A store that loses a part, truncates it, or answers with a wrong ETag, is found out before `close()` returns."""
    core = make_core(wrap=hasty)
    core.write("a.dng", OLD)
    core.faults.inject(fault)
    handle = opened(core, flags=RW | OpenFlags.TRUNCATE)
    with contextlib.suppress(StoreError):  # the fault may show before the end
        for at in range(0, len(NEW), 4 * KIB):
            handle.pwrite(at, NEW[at : at + 4 * KIB])
    for again in (handle.flush, handle.flush, handle.fsync):
        with pytest.raises(StoreError) as told:
            again()
    assert told.value.errno == (errno.ENOSPC if isinstance(fault.error, StoreFull) else errno.EIO)
    core.faults.heal()
    handle.release()
    ino = core.vfs.lookup(ADMIN, core.home, "a.dng").ino
    assert core.read(ino) == OLD
    assert core.vfs.getattr(ino, live=True).size == len(OLD)
    assert core.vfs.open_uploads() == 0
    core.write("a.dng", NEW)  # and the next one may try again
    assert core.read(ino) == NEW


def test_a_put_that_fails_leaves_nothing(make_core: Make) -> None:
    """[D6] A PUT that breaks off or fails leaves the old content untouched, or no file if there was none."""
    core = make_core(wrap=hasty)
    core.write("a.dng", OLD)
    for name in ("a.dng", "new.dng"):
        put = core.vfs.put(ADMIN, core.home, name)
        put.write(NEW)
        core.faults.inject(Fault(Kind.FAIL, "complete_upload", times=FOREVER))
        with pytest.raises(StoreError):
            put.commit()
        core.faults.heal()
        with pytest.raises(BadHandle):
            put.commit()
        broken = core.vfs.put(ADMIN, core.home, name)
        broken.write(NEW)
        broken.abort()
        broken.abort()
    assert [entry.name for entry in core.vfs.readdir(ADMIN, core.home)] == ["a.dng"]
    assert core.read(core.vfs.lookup(ADMIN, core.home, "a.dng").ino) == OLD


def test_a_lost_answer_is_no_lost_upload(make_core: Make) -> None:
    core = make_core(wrap=hasty)
    for operation in ("create_upload", "upload_part", "complete_upload", "put"):
        core.faults.inject(Fault(Kind.LOSE_ANSWER, operation))
        ino = core.write("a.dng", NEW if operation != "put" else b"small")
    assert core.read(ino) == b"small"


def test_wrong_bytes_are_never_given_to_a_reader(make_core: Make) -> None:
    """[D7] A reader gets the bytes that were written or an error, never a short or wrong answer from the network."""
    core = make_core(wrap=hasty)
    ino = core.write("a.dng", NEW)
    core.faults.inject(Fault(Kind.TRUNCATE, "read_into", times=FOREVER))
    with pytest.raises(StoreError):
        core.read(ino)
    core.faults.heal()
    core.faults.inject(Fault(Kind.FAIL, "read_into", times=2))
    assert core.read(ino) == NEW  # patience helps


def test_a_catalog_that_refuses_loses_no_bytes_it_may_have_named(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes first, then the name: when the catalog's answer is lost, its object is left to gc, not deleted."""
    core.write("a.dng", OLD)
    handle = opened(core, flags=RW | OpenFlags.TRUNCATE)
    handle.pwrite(0, NEW)

    def lost(*_: object, **__: object) -> None:
        raise CatalogError("The answer was lost.")

    monkeypatch.setattr(core.catalog, "commit_revision", lost)
    with pytest.raises(CatalogError):
        handle.flush()
    handle.release()
    assert len(leftovers(core)) == 1
    monkeypatch.setattr(core.catalog, "put_file", lost)
    put = core.vfs.put(ADMIN, core.home, "b.dng")
    put.write(NEW)
    with pytest.raises(CatalogError):
        put.commit()
    assert len(leftovers(core)) == 2
    assert core.read(core.vfs.lookup(ADMIN, core.home, "a.dng").ino) == OLD


def refused(act: Callable[[], object]) -> None:
    with pytest.raises(StoreError):
        act()


def within(seconds: float, act: Callable[[], object]) -> None:
    start = time.monotonic()
    act()
    assert time.monotonic() - start < seconds


def test_a_hanging_store_never_stops_names(core: Core) -> None:
    """[L3] A slow or hanging store makes readers and writers wait; names and attributes are answered as fast as ever."""
    core.write("a.dng", OLD)
    handle = opened(core, flags=RW | OpenFlags.TRUNCATE)
    core.faults.inject(Fault(Kind.HANG, "upload_part", times=FOREVER))

    def write_and_close() -> None:
        with contextlib.suppress(StoreError):  # the third part waits for the others, so this may hang already
            handle.pwrite(0, NEW)
        refused(handle.flush)

    closer = threading.Thread(target=write_and_close)
    closer.start()
    try:
        assert core.faults.hanging.wait(10)
        ino = core.vfs.lookup(ADMIN, core.home, "a.dng").ino
        within(5, lambda: core.vfs.rename(ADMIN, core.home, "a.dng", core.home, "b.dng"))
        within(5, lambda: core.vfs.mkdir(ADMIN, core.home, "roll", 0o755))
        within(5, lambda: core.vfs.readdir(ADMIN, core.home))
        within(5, lambda: core.vfs.getattr(ino, live=True))
        assert core.vfs.open_uploads() == 1
        assert closer.is_alive()
    finally:
        core.faults.heal()
        closer.join(20)
    assert not closer.is_alive()
    handle.release()
    assert core.read(ino) == OLD


def test_writers_wait_for_memory_and_stay_within_it(make_core: Make) -> None:
    """[L1] All buffers and caches together stay within `ARCHIVIA_MEMORY`, however many files are written and read at once."""
    core = make_core(plan=UploadPlan(), memory_limit=64 * MIB)
    budget, highest = core.vfs._transfers.write_budget, 0
    done = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.001):
            highest = max(highest, budget.used)

    def write(number: int) -> None:
        put = core.vfs.put(ADMIN, core.home, f"{number}.dng")
        for _ in range(20):
            put.write(bytes(MIB))
        put.commit()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    watcher = threading.Thread(target=watch)
    watcher.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    done.set()
    watcher.join()
    assert [entry.stat.size for entry in core.vfs.readdir(ADMIN, core.home)] == [20 * MIB] * 8
    assert 8 * MIB <= highest <= 16 * MIB  # a quarter of the memory is the writers'
    assert budget.used == 0
    assert core.vfs._transfers.cache.capacity <= 24 * MIB


def test_many_readers_fetch_each_block_once(make_core: Make) -> None:
    core = make_core(plan=UploadPlan(), memory_limit=128 * MIB)
    blocks = 4
    ino = core.write("a.dng", bytes(blocks * BLOCK))
    core.faults.calls.clear()
    gate = threading.Barrier(8)

    def read() -> None:
        content = core.vfs.snapshot(ADMIN, ino)
        gate.wait(10)
        for at in range(0, content.size, MIB):
            content.pread(at, MIB)
        content.close()

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    # a few readers begin with exact reads before they are known to be sequential
    assert core.faults.calls["read_into"] <= blocks + 8 * 2


def test_a_full_spill_area_is_enospc(make_core: Make, tmp_path: Path) -> None:
    """[L4] Bytes written out of order wait in the spill area; when it is full, the writer gets ENOSPC and the old content stays."""
    core = make_core(spill_limit=20 * KIB)
    ino = core.write("a.dng", OLD)
    handle = opened(core)
    with contextlib.suppress(NoSpace):
        for at in range(len(OLD) - 1000, 0, -1000):  # backwards
            handle.pwrite(at, b"x" * 1000)
    with pytest.raises(NoSpace) as full:
        handle.flush()
    assert full.value.errno == errno.ENOSPC
    handle.release()
    assert core.read(ino) == OLD
    assert not list((tmp_path / "spill").iterdir())
    handle = opened(core)
    handle.pwrite(5000, b"there is room again")
    handle.flush()
    handle.release()


def test_in_order_nothing_touches_the_disk(make_core: Make) -> None:
    """[L2] Bytes that come in order go to the store as they come; none are staged on the local disk, but one part at a time of a
    file beyond 117 GiB whose interrupted upload goes on."""
    core = make_core(spill_limit=0)
    _, handle = core.vfs.create(ADMIN, core.home, "a.dng", 0o644, RW)
    for at in range(0, len(NEW), 1000):
        handle.pwrite(at, NEW[at : at + 1000])
    handle.flush()
    handle.release()
    assert core.read(handle.ino) == NEW


def test_nothing_is_larger_than_5_tib(core: Core) -> None:
    """[R1] A file ends at 5 TiB, the largest S3 object: beyond it a write or truncate is EFBIG."""
    _, handle = core.vfs.create(ADMIN, core.home, "a.dng", 0o644, RW)
    for too_far in (
        lambda: handle.pwrite(SIZE_MAX, b"x"),
        lambda: handle.pwrite(SIZE_MAX - 1, b"xx"),
        lambda: handle.truncate(SIZE_MAX + 1),
        lambda: core.vfs.truncate(ADMIN, handle.ino, SIZE_MAX + 1),
        lambda: core.vfs.put(ADMIN, core.home, "b.dng", size_hint=SIZE_MAX + 1),
    ):
        with pytest.raises(FileTooBig) as refused:
            too_far()
        assert refused.value.errno == errno.EFBIG
    handle.release()


@pytest.mark.parametrize("before", [b"", b"bytes", OLD])
def test_nobody_waits_for_terabytes_of_zeros(core: Core, before: bytes) -> None:
    """[R5] A write that would leave a hole of more than 64 GiB before it is EFBIG: S3 objects have no holes, so the zeros would
    have to be stored."""
    ino = core.write("a.dng", before)
    core.vfs.truncate(ADMIN, ino, SIZE_MAX)  # where there is nothing but a hole it costs nothing
    handle = opened(core)
    with pytest.raises(FileTooBig):
        handle.pwrite(len(before) + HOLE_MAX + 1, b"x")
    handle.release()
    assert bytes(core.vfs.snapshot(ADMIN, ino).pread(0, len(before) + 5)) == before + bytes(5)
    handle = opened(core)
    handle.pwrite(len(before) + 3_000_000, b"x")
    handle.truncate(len(before) + 3_000_001)
    handle.flush()
    handle.release()
    assert core.read(ino) == before + bytes(3_000_000) + b"x"


def test_a_sparse_file_of_absurd_size_costs_nothing(core: Core) -> None:
    """[D9] Lengthening a file with truncate costs neither time nor space; the new bytes read as zeros."""
    ino = core.write("a.dng", b"bytes")
    objects = len(list(core.memory.list("")))
    assert core.vfs.truncate(ADMIN, ino, SIZE_MAX).size == SIZE_MAX
    handle = opened(core)
    assert bytes(handle.pread(0, 10)) == b"bytes" + bytes(5)
    assert bytes(handle.pread(SIZE_MAX - 3, 10)) == bytes(3)
    handle.release()
    assert len(list(core.memory.list(""))) == objects
    core.vfs.truncate(ADMIN, ino, 5)
    assert core.read(ino) == b"bytes"


def test_a_handle_is_used_after_its_end(core: Core) -> None:
    ino = core.write("a.dng", OLD)
    reader = core.vfs.open(ADMIN, ino, OpenFlags.READ)
    with pytest.raises(BadHandle):
        reader.pwrite(0, b"x")
    reader.release()
    reader.release()
    with pytest.raises(BadHandle):
        reader.pread(0, 1)


def test_a_read_of_what_is_lost_is_an_error(core: Core) -> None:
    ino = core.write("a.dng", OLD)
    for found in list(core.memory.list("objects/")):
        core.memory.delete(found.key)
    with pytest.raises(FsError) as lost:
        core.read(ino)
    assert lost.value.errno == errno.EIO


def test_a_store_that_does_not_answer_is_given_up(make_core: Make) -> None:
    core = make_core(wrap=hasty)
    ino = core.write("a.dng", OLD)
    core.faults.inject(Fault(Kind.FAIL, "read_into", times=10_000))
    start = time.monotonic()
    with pytest.raises(StoreUnavailable):
        core.read(ino)
    assert time.monotonic() - start < 10
