"""Several handles of one file: what one of them suffers or ends, the others do not."""

from __future__ import annotations

import contextlib
import errno
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from archivia_fs.errors import AccessDenied, FsError, StoreError
from archivia_fs.store.faults import Fault, Kind
from archivia_fs.types import Caller, InodeNo, OpenFlags, RenameFlag
from archivia_fs.vfs.block_cache import BLOCK
from archivia_fs.vfs.handle import FileHandle, OpenFile
from archivia_fs.vfs.spill import SpillFile
from archivia_fs.vfs.upload_plan import UploadPlan
from catalog.namespace import NewInode
from tests.vfs.conftest import ADMIN, KIB, Core, Make

READ, WRITE = OpenFlags.READ, OpenFlags.WRITE
RW = READ | WRITE
OLD = b"the old content" * 2000  # 30 KB: several parts
NEW = bytes(range(256)) * 300  # 77 KB


def opened(core: Core, ino: InodeNo, flags: OpenFlags = RW) -> FileHandle:
    handle = core.vfs.open(ADMIN, ino, flags)
    assert isinstance(handle, FileHandle)
    return handle


def test_a_failed_upload_is_the_matter_of_who_wrote_it(core: Core) -> None:
    """[D4] If the upload fails, `close()` and `fsync()` return the error, each time they are asked, and the old content stays."""
    ino = core.write("a.dng", OLD)
    reader, writer, other = opened(core, ino, READ), opened(core, ino), opened(core, ino)
    core.faults.inject(Fault(Kind.FAIL, "upload_part", times=1000))
    with contextlib.suppress(StoreError):
        writer.pwrite(0, NEW)  # may hear of it here
    with pytest.raises(StoreError):
        writer.flush()
    core.faults.heal()
    assert bytes(reader.pread(0, len(OLD))) == OLD
    assert core.vfs.getattr(ino, live=True).size == len(OLD)
    assert core.vfs.open_uploads() == 0
    later = opened(core, ino, RW | OpenFlags.TRUNCATE)
    later.pwrite(0, b"later")
    later.flush()
    assert core.read(ino) == b"later"
    for each in (writer, other):  # both could have written some of what is lost
        assert not each.flush_nowait()
        for act in (each.flush, each.fsync, lambda each=each: each.pwrite(0, b"x"), lambda each=each: each.truncate(0)):  # type: ignore[misc]
            with pytest.raises(StoreError):
                act()
        each.release()
    reader.fsync()
    assert later.flush_nowait()  # it has nothing to store, and nothing of the earlier failure to tell
    for each in (reader, later):
        each.release()
    assert core.read(ino) == b"later"


@pytest.fixture
def slow_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The last release of a file stands still between its decision to end the file and doing so, until this is set."""
    goes_on, real = threading.Event(), OpenFile.close

    def close(file: OpenFile) -> None:
        assert goes_on.wait(20)
        real(file)

    monkeypatch.setattr(OpenFile, "close", close)
    yield goes_on
    goes_on.set()


def test_opening_a_file_that_is_just_being_closed(core: Core, slow_end: threading.Event) -> None:
    ino = core.write("a.dng", OLD)
    first = opened(core, ino)
    with ThreadPoolExecutor(1) as pool:
        ending = pool.submit(first.release)
        second = opened(core, ino, RW | OpenFlags.TRUNCATE)
        second.pwrite(0, NEW[:1000])
        slow_end.set()
        ending.result(20)
        second.pwrite(1000, NEW[1000:])
        second.flush()
        second.release()
    assert core.read(ino) == NEW


def test_truncate_while_the_last_writer_closes(core: Core, slow_end: threading.Event) -> None:
    ino = core.write("a.dng", OLD)
    writer = opened(core, ino)
    writer.pwrite(0, NEW)  # and no flush: as mmap does
    with ThreadPoolExecutor(2) as pool:
        ending = pool.submit(writer.release)
        cutting = pool.submit(core.vfs.truncate, ADMIN, ino, 100)
        slow_end.set()
        ending.result(20)
        cutting.result(20)
    assert core.vfs.getattr(ino).size == 100
    assert core.read(ino) == NEW[:100]
    assert core.vfs.open_uploads() == 0


def test_whatever_goes_wrong_with_a_write_the_file_is_not_stored_without_it(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    ino = core.write("a.dng", OLD)
    handle = opened(core, ino)
    handle.pwrite(20_000, b"out of order")

    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "the disk is dying")

    with monkeypatch.context() as patch:
        patch.setattr(SpillFile, "pwrite", broken)
        with pytest.raises(FsError):
            handle.pwrite(10_000, b"more")
    for _ in range(2):
        with pytest.raises(FsError):
            handle.flush()
    handle.release()
    assert core.read(ino) == OLD
    assert core.vfs._transfers.spill._used == 0


def test_emptying_an_empty_file_is_a_change(core: Core) -> None:
    """open(2): O_TRUNC of an empty file updates its times; making a new one costs no second transaction."""
    ino = core.write("a.txt", b"")
    before = core.vfs.getattr(ino)
    opened(core, ino, WRITE | OpenFlags.TRUNCATE).release()
    after = core.vfs.getattr(ino)
    assert after.mtime_ns > before.mtime_ns
    assert after.ctime_ns > before.ctime_ns


def test_first_reads_at_once_leave_nothing_behind(make_core: Make) -> None:
    """The kernel sends several READs of a file just opened; a reader counted twice would halve everybody's read-ahead for good."""
    core = make_core(plan=UploadPlan())
    ino = core.write("a.dng", bytes(BLOCK))
    window = core.vfs._transfers.cache.fair_window
    with ThreadPoolExecutor(4) as pool:
        for _ in range(100):
            handle, gate = opened(core, ino, READ), threading.Barrier(4)

            def read(at: int, handle: FileHandle = handle, gate: threading.Barrier = gate) -> None:
                gate.wait(10)
                handle.pread(at * 100 * KIB, 100 * KIB)

            list(pool.map(read, range(4)))
            handle.release()
    assert core.vfs._transfers.cache.fair_window == window


def test_nobody_takes_the_collection_of_somebody_else(core: Core) -> None:
    """[A1] Admins may do everything, an owner everything in the own collection, others what they were granted."""
    documents = core.vfs.resolve(ADMIN, "/Documents").ino
    ann, bob = Caller("ann", 1, 1), Caller("bob", 1, 1)
    for user in ("ann", "bob"):
        core.catalog.add_user(user, "no password")
        core.catalog.add_collection(f"{user}s", user, NewInode(stat.S_IFDIR | 0o755, 1, 1))
    inside = core.vfs.mkdir(bob, core.vfs.lookup(bob, documents, "bobs").ino, "roll", 0o755)
    for flags in RenameFlag.EXCHANGE, RenameFlag.NONE:
        with pytest.raises(AccessDenied):
            core.vfs.rename(ann, documents, "anns", documents, "bobs", flags)
    core.vfs.remove(bob, core.vfs.lookup(bob, documents, "bobs").ino, "roll")
    with pytest.raises(AccessDenied):
        core.vfs.rename(ann, documents, "anns", documents, "bobs")  # it is empty now, so rename(2) would replace it
    core.vfs.rename(ann, documents, "anns", documents, "annes")
    assert [entry.name for entry in core.vfs.readdir(ADMIN, documents)] == ["annes", "archive", "bobs"]
    assert inside.is_dir
