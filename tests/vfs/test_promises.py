"""The promises about names, open files and rights, on the bare core. Each test quotes what it proves."""

from __future__ import annotations

import errno
import hashlib
import threading
import time
from collections.abc import Callable

import pytest

from archivia_fs.errors import AccessDenied, CatalogError, CrossDevice, Exists, NotFound, NotPermitted
from archivia_fs.types import Caller, InodeNo, OpenFlags, RevisionId, Right, SetAttr, Stat
from archivia_fs.vfs.handle import FileHandle
from catalog import gateways
from catalog.namespace import NewInode
from tests.vfs.conftest import ADMIN, KIB, Core, Make

RW = OpenFlags.READ | OpenFlags.WRITE
OLD = b"the old content" * 2000
NEW = bytes(range(256)) * 300
ALICE, BOB = Caller("alice", 1, 1), Caller("bob", 2, 2)


def opened(core: Core, name: str = "a.dng", flags: OpenFlags = RW) -> FileHandle:
    handle = core.vfs.open(ADMIN, core.vfs.lookup(ADMIN, core.home, name).ino, flags)
    assert isinstance(handle, FileHandle)
    return handle


def objects(core: Core) -> int:
    return len(list(core.memory.list("objects/")))


def stat(core: Core, name: str = "a.dng") -> Stat:
    return core.vfs.lookup(ADMIN, core.home, name)


def test_until_the_close_everyone_else_sees_the_old(make_core: Make) -> None:
    """[D2] Until then the name keeps its old content, for readers of every door."""
    core = make_core()
    other = make_core()
    ino = core.write("a.dng", OLD)
    handle = opened(core, flags=RW | OpenFlags.TRUNCATE)
    handle.pwrite(0, NEW)
    for gateway in (core, other):
        assert gateway.read(ino) == OLD
        assert gateway.vfs.getattr(ino).size == len(OLD)
    handle.flush()
    for gateway in (core, other):
        gateway.vfs.sync()
        wait_for(gateway, stat(core))
        assert gateway.read(ino) == NEW
    handle.release()


def test_a_postponed_commit_of_emptiness_is_made_at_the_end(make_core: Make, caplog: pytest.LogCaptureFixture) -> None:
    """What `command > file` is to the core: the old content stays until the next flush, or the release."""
    core = make_core()
    ino = core.write("a.dng", OLD)

    def emptied() -> FileHandle:
        handle = opened(core, flags=RW | OpenFlags.TRUNCATE)
        assert handle.only_emptied
        handle.postpone()
        assert handle.stat().size == 0
        assert core.vfs.getattr(ino).size > 0
        return handle

    unwritten = emptied()
    unwritten.discard()
    assert core.read(ino) == OLD

    failing = emptied()
    with pytest.MonkeyPatch.context() as broken:
        broken.setattr(failing._files, "commit", refuse)
        failing.release()
    assert "was not emptied" in caplog.text
    assert core.read(ino) == OLD

    written = emptied()
    written.pwrite(0, NEW)
    assert not written.only_emptied
    assert core.read(ino) == OLD
    written.flush()
    assert core.read(ino) == NEW
    written.release()
    assert core.read(ino) == NEW

    reader = opened(core, flags=OpenFlags.READ)
    emptied().release()
    assert core.vfs.getattr(ino).size == 0, "though another still has it open"
    reader.release()


def test_a_change_of_size_is_a_write(core: Core) -> None:
    core.write("a.dng", OLD)
    for change in (FileHandle.truncate, FileHandle.resize):
        handle = opened(core, flags=RW | OpenFlags.TRUNCATE)
        change(handle, 5)
        assert not handle.only_emptied
        handle.flush()
        assert stat(core).size == 5
        handle.release()


def refuse(*_: object) -> None:
    raise CatalogError("the disk is full")


def wait_for(core: Core, known: Stat) -> None:
    """Until this gateway has heard of it: other processes are polled."""
    until(lambda: core.vfs.getattr(known.ino).etag == known.etag)


def until(true: Callable[[], bool]) -> None:
    deadline = threading.Event()
    for _ in range(500):
        if true():
            return
        deadline.wait(0.01)
    raise AssertionError("not heard in 5 s")


def test_truncating_moves_nothing(core: Core) -> None:
    """[D10] truncate(2) of a file that nobody writes is one catalog transaction: no byte moves."""
    ino = core.write("a.dng", NEW)
    before, calls = objects(core), dict(core.faults.calls)
    for size in (10 * KIB, 20 * KIB, 1 << 40, 5):
        core.vfs.truncate(ADMIN, ino, size)
    assert objects(core) == before
    assert core.faults.calls == calls
    assert core.read(ino) == NEW[:5]


def test_copies_share_and_do_not_follow(core: Core) -> None:
    """[D15] A copy shares the stored bytes of its source: no byte moves, and neither changes when the other is written."""
    ino = core.write("a.dng", OLD)
    before = objects(core)
    copy = core.vfs.copy(ADMIN, ino, core.home, "b.dng")
    assert objects(core) == before
    handle = opened(core)
    handle.pwrite(5, b"changed")
    handle.flush()
    handle.release()
    assert core.read(copy.ino) == OLD
    core.write("b.dng", NEW)
    assert core.read(ino)[5:12] == b"changed"


def test_etags(core: Core) -> None:
    """[D16] The same strong ETag always means the same bytes."""
    seen: dict[str, str] = {}
    ino = core.write("a.dng", OLD)

    def look() -> None:
        for entry in core.vfs.readdir(ADMIN, core.home):
            digest = hashlib.sha256(core.read(entry.stat.ino)).hexdigest()
            assert seen.setdefault(entry.stat.etag, digest) == digest

    look()
    for size in (3, 0, 7, 3):
        core.vfs.truncate(ADMIN, ino, size)
        look()
    core.vfs.copy(ADMIN, core.write("a.dng", NEW), core.home, "b.dng")
    look()
    handle = opened(core)
    for piece in (b"x", b"y", b"x"):
        handle.pwrite(0, piece)
        handle.flush()
        look()
    handle.release()
    assert len(seen) >= 8


def test_handles_share_what_is_not_committed(core: Core) -> None:
    """[O1] All handles of a file in one gateway share its uncommitted bytes: what one writes, the others read."""
    core.write("a.dng", OLD)
    writer, reader = opened(core), opened(core, flags=OpenFlags.READ)
    writer.pwrite(len(OLD), b"more")
    assert bytes(reader.pread(len(OLD) - 3, 100)) == OLD[-3:] + b"more"
    assert reader.stat().size == len(OLD) + 4
    for handle in (reader, writer):
        handle.flush()
        handle.release()


def test_handles_follow_commits(make_core: Make) -> None:
    """[O2] A handle follows commits: after another door has replaced the bytes, it reads the new ones."""
    core = make_core()
    core.write("a.dng", OLD)
    reader = opened(core, flags=OpenFlags.READ)
    assert bytes(reader.pread(0, 100_000)) == OLD
    core.write("a.dng", NEW)
    assert bytes(reader.pread(0, 100_000)) == NEW
    reader.release()


def test_a_snapshot_stays(core: Core) -> None:
    """[O3] A download through WebDAV, or a snapshot, keeps the state it began with, whatever is committed meanwhile."""
    ino = core.write("a.dng", OLD)
    content = core.vfs.snapshot(ADMIN, ino)
    first = bytes(content.pread(0, 100))
    core.write("a.dng", NEW)
    core.vfs.unlink(ADMIN, core.home, "a.dng")
    assert first + bytes(content.pread(100, content.size)) == OLD
    content.close()


def test_gc_spares_what_is_being_downloaded(make_core: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateways, "REFRESH_SECONDS", 0.01)
    core = make_core()
    content = core.vfs.snapshot(ADMIN, core.write("a.dng", OLD))
    core.write("a.dng", NEW)
    later = time.time_ns() + 60 * 10**9
    until(lambda: not core.catalog.releasable(later))  # the gateway says that it reads
    content.close()
    until(lambda: len(core.catalog.releasable(later)) == 1)


def test_unlinked_but_open(core: Core) -> None:
    """[O4] A file that is unlinked while it is open can be read and written until it is closed; in another gateway for a day."""
    core.write("a.dng", OLD)
    handle = opened(core)
    core.vfs.unlink(ADMIN, core.home, "a.dng")
    assert bytes(handle.pread(0, 100_000)) == OLD
    handle.pwrite(0, NEW)
    handle.fsync()
    assert bytes(handle.pread(0, 100_000)) == NEW
    assert handle.stat().nlink == 0
    handle.release()
    with pytest.raises(NotFound):
        stat(core)


def test_unlinked_but_open_in_another_gateway(make_core: Make) -> None:
    """[O4] A file that is unlinked while it is open can be read and written until it is closed; in another gateway for a day."""
    one, two = make_core(), make_core()
    ino = one.write("a.dng", OLD)
    wait_for(two, stat(one))
    handle = opened(one)
    two.vfs.unlink(ADMIN, two.home, "a.dng")
    until(lambda: one.vfs.getattr(ino).nlink == 0)
    two.vfs._files._sweep()
    assert bytes(handle.pread(0, 100_000)) == OLD
    handle.pwrite(0, NEW)
    handle.flush()
    assert bytes(handle.pread(0, 100_000)) == NEW
    handle.release()
    assert one.catalog.stat(ino).nlink == 0
    one.vfs.close()
    one.catalog.close()
    two.vfs._files._sweep_after = 0.0
    two.vfs._files._sweep()
    with pytest.raises(NotFound):
        two.catalog.stat(ino)


def test_two_gateways_write_one_file(make_core: Make) -> None:
    """[O5] Of two gateways that write one file at once, the one that closes last wins as a whole; bytes are never mixed."""
    one, two = make_core(), make_core()
    ino = one.write("a.dng", OLD)
    wait_for(two, stat(one))
    mine, theirs = opened(one, flags=RW | OpenFlags.TRUNCATE), opened(two, flags=RW | OpenFlags.TRUNCATE)
    for at in range(0, len(NEW), 1000):
        mine.pwrite(at, NEW[at : at + 1000])
        theirs.pwrite(at, bytes(1000))
    for handle in (theirs, mine):
        handle.flush()
        handle.release()
    assert one.read(ino) == NEW
    wait_for(two, stat(one))
    assert two.read(ino) == NEW


def test_times_set_while_writing(core: Core) -> None:
    """[O7] utimensat(2) on a file that is being written is kept by the close that follows."""
    _, handle = core.vfs.create(ADMIN, core.home, "a.dng", 0o644, RW)
    handle.pwrite(0, NEW)
    core.vfs.setattr(ADMIN, handle.ino, SetAttr(atime_ns=-5, mtime_ns=1_234_567_891))
    handle.flush()
    handle.release()
    assert (stat(core).atime_ns, stat(core).mtime_ns) == (-5, 1_234_567_891)


def test_spellings(core: Core) -> None:
    """[N2] A name is kept as it was spelled, and found in every spelling that is equal under NFC."""
    core.write("Ma\u0308rz.dng", OLD)
    assert [entry.name for entry in core.vfs.readdir(ADMIN, core.home)] == ["Ma\u0308rz.dng"]
    assert stat(core, "März.dng").ino == stat(core, "Ma\u0308rz.dng").ino
    with pytest.raises(Exists):
        core.vfs.mkdir(ADMIN, core.home, "März.dng", 0o755)


class Slow(dict[str, tuple[str, InodeNo]]):
    """Others get their turn whenever something is taken out."""

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        time.sleep(0.002)


def test_renames(core: Core) -> None:
    """[N3] A rename is one catalog transaction, whatever the size: no byte moves.
    [N4] A rename over an existing file replaces it at once: a reader finds the old or the new, never none."""
    core.write("a.dng", OLD)
    roll = core.vfs.mkdir(ADMIN, core.home, "roll", 0o755)
    core.write("a.dng", NEW, roll.ino)
    calls, stop, missing = dict(core.faults.calls), threading.Event(), 0

    def look() -> None:
        nonlocal missing
        while not stop.is_set():
            try:
                core.vfs.lookup(ADMIN, roll.ino, "a.dng")
            except NotFound:
                missing += 1

    core.vfs.readdir(ADMIN, roll.ino)
    directory = core.vfs._tree._directories[roll.ino]
    directory.children = Slow(directory.children)
    reader = threading.Thread(target=look)
    reader.start()
    for _ in range(50):
        core.vfs.copy(ADMIN, stat(core).ino, core.home, "b.dng")
        core.vfs.rename(ADMIN, core.home, "b.dng", roll.ino, "a.dng")
    stop.set()
    reader.join()
    assert missing == 0
    assert core.faults.calls == calls
    changes = core.catalog.current_seq()
    core.vfs.rename(ADMIN, core.home, "a.dng", roll.ino, "a.dng")
    assert core.catalog.current_seq() > changes
    assert core.read(core.vfs.lookup(ADMIN, roll.ino, "a.dng").ino) == OLD


def test_several_names(core: Core) -> None:
    """[N5] Files may have several names, in different documents; a folder has one."""
    ino = core.write("a.dng", OLD)
    roll = core.vfs.mkdir(ADMIN, core.home, "roll", 0o755)
    assert core.vfs.link(ADMIN, ino, roll.ino, "b.dng").nlink == 2
    core.write("b.dng", NEW, roll.ino)
    assert core.read(ino) == NEW
    core.vfs.unlink(ADMIN, core.home, "a.dng")
    assert core.vfs.lookup(ADMIN, roll.ino, "b.dng").nlink == 1
    with pytest.raises(NotPermitted):
        core.vfs.link(ADMIN, roll.ino, core.home, "again")


def people(core: Core) -> None:
    for caller in (ALICE, BOB):
        core.catalog.add_user(caller.user, "no password")
    core.catalog.add_collection("alices", "alice", NewInode(0o040755, 1, 1))


def test_collections(core: Core) -> None:
    """[N6] Only collections stand directly under `/Documents`; only admins make them."""
    people(core)
    documents = core.vfs.resolve(ADMIN, "/Documents").ino
    with pytest.raises(NotPermitted):
        core.vfs.create(ADMIN, documents, "a.dng", 0o644, RW)
    with pytest.raises(NotPermitted):
        core.vfs.rename(ADMIN, core.home, "a.dng", documents, "a.dng")
    with pytest.raises(NotPermitted):
        core.vfs.mkdir(ALICE, documents, "another", 0o755)
    core.vfs.mkdir(ADMIN, documents, "another", 0o755)


def test_rights(core: Core) -> None:
    """[A1] Admins may do everything, an owner everything in the own collection, others what they were granted.
    [A2] A collection that a user may not read is not shown to that user."""
    people(core)
    box = core.vfs.resolve(ALICE, "/Documents/alices").ino
    documents = core.vfs.resolve(BOB, "/Documents").ino

    def shown(caller: Caller) -> list[str]:
        return [entry.name for entry in core.vfs.readdir(caller, documents)]

    def write(caller: Caller) -> None:
        core.vfs.put(caller, box, f"by {caller.user}").commit()

    assert (shown(ADMIN), shown(ALICE), shown(BOB)) == (["alices", "archive"], ["alices"], [])
    write(ALICE)
    write(ADMIN)
    with pytest.raises(AccessDenied):
        core.vfs.lookup(BOB, documents, "alices")
    with pytest.raises(AccessDenied):
        write(BOB)
    core.catalog.grant("alices", "bob", Right.READ)
    assert shown(BOB) == ["alices"]
    core.vfs.readdir(BOB, box)
    with pytest.raises(AccessDenied):
        write(BOB)
    core.catalog.grant("alices", "bob", Right.WRITE)
    write(BOB)
    core.catalog.revoke("alices", "bob")
    with pytest.raises(AccessDenied):
        core.vfs.readdir(BOB, box)
    core.catalog.set_disabled("alice", True)
    with pytest.raises(AccessDenied):
        core.vfs.readdir(ALICE, box)


def test_atime(core: Core) -> None:
    """[R4] atime is kept as it was set and not changed by reading."""
    ino = core.write("a.dng", OLD)
    core.vfs.setattr(ADMIN, ino, SetAttr(atime_ns=42))
    core.read(ino)
    handle = opened(core, flags=OpenFlags.READ)
    handle.pread(0, 10)
    handle.release()
    assert stat(core).atime_ns == 42


def test_moving_into_a_view(make_core: Make) -> None:
    """[R3] Moving between the archive and a view is EXDEV."""
    from tests.vfs.test_view import Shouting

    core = make_core(views=(Shouting(),))
    core.write("a.dng", OLD)
    view = core.vfs.resolve(ADMIN, "/Shouting").ino
    for old, new in ((core.home, view), (view, core.home)):
        with pytest.raises(CrossDevice) as refused:
            core.vfs.rename(ADMIN, old, "a.dng", new, "b.dng")
        assert refused.value.errno == errno.EXDEV


def test_what_is_given_up_leaves_the_old_content_and_its_parts(make_core: Make) -> None:
    core = make_core()
    core.write("a.dng", OLD)
    writer, reader = opened(core), opened(core, flags=OpenFlags.READ)
    writer.truncate(0)
    for at in range(0, len(NEW), 10 * KIB):
        writer.pwrite(at, NEW[at : at + 10 * KIB])
    until(lambda: any(len(each.parts) > 2 for each in core.catalog.uploads()))
    writer.discard()
    assert bytes(reader.pread(0, len(OLD))) == OLD
    assert core.vfs.open_uploads() == 0
    left = max(core.catalog.uploads(), key=lambda each: len(each.parts))  # beside that of a composed part, perhaps
    again = opened(core, flags=RW | OpenFlags.TRUNCATE)
    again.pwrite(0, NEW)
    again.flush()
    again.release()
    assert bytes(reader.pread(0, len(NEW))) == NEW
    assert core.catalog.uploads() == []
    assert core.catalog.revision(stat(core).revision or RevisionId("")).key == left.key  # taken over
    reader.release()


def test_what_others_write_too_is_not_given_up(core: Core) -> None:
    core.write("a.dng", OLD)
    ended, other = opened(core), opened(core)
    ended.pwrite(0, b"HALF")
    ended.discard()
    other.pwrite(4, b"MORE")
    other.flush()
    assert core.read(other.ino) == b"HALFMORE" + OLD[8:]
    other.pwrite(0, b"gone")
    other.discard()
    assert core.read(other.ino) == b"HALFMORE" + OLD[8:]
