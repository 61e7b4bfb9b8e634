"""WebDAV locks as the core enforces them for callers without tokens: over time, gateways and ways of spelling."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from archivia_fs.errors import Locked
from archivia_fs.types import Lock, OpenFlags, SetAttr
from tests.vfs.conftest import ADMIN, Core, Make

DAV = replace(ADMIN, has_tokens=True)


def lock(path: str, *, seconds: float | None = 600, depth: int = 0, token: str = "t1") -> Lock:
    expires = None if seconds is None else time.time_ns() + int(seconds * 1e9)
    return Lock(token, path, "ann", "", True, depth, 600, expires)


def busy(act: Callable[[], object]) -> bool:
    try:
        act()
    except Locked:
        return True
    return False


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 5
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_in_every_gateway_and_after_it(make_core: Make) -> None:
    """[K4] WebDAV locks outlive the gateway and hold in every gateway of the catalog; each ends with UNLOCK, with its time, or by
    `archivia-fs locks remove`."""
    first, second = make_core(), make_core()
    ino = first.write("a.dng", b"kept")
    assert not busy(lambda: second.vfs.setattr(ADMIN, ino, SetAttr(mode=0o600)))
    first.vfs.add_lock(lock("/Documents/archive/a.dng"))
    assert busy(lambda: first.vfs.setattr(ADMIN, ino, SetAttr(mode=0o644)))
    assert eventually(lambda: busy(lambda: second.vfs.setattr(ADMIN, ino, SetAttr(mode=0o644))))
    first.vfs.close()
    third = make_core()
    assert busy(lambda: third.vfs.unlink(ADMIN, third.home, "a.dng"))
    second.vfs.remove_lock("t1")
    assert not busy(lambda: second.vfs.setattr(ADMIN, ino, SetAttr(mode=0o640)))
    second.vfs.add_lock(lock("/Documents/archive/a.dng", seconds=0.3, token="t2"))
    assert busy(lambda: second.vfs.unlink(ADMIN, second.home, "a.dng"))
    assert eventually(lambda: not busy(lambda: second.vfs.setattr(ADMIN, ino, SetAttr(mode=0o600))))


def test_who_has_tokens_was_asked_by_the_door(core: Core) -> None:
    ino = core.write("a.dng", b"kept")
    core.vfs.add_lock(lock("/Documents/archive/a.dng", seconds=None))
    core.vfs.setattr(DAV, ino, SetAttr(mode=0o600))
    core.vfs.unlink(DAV, core.home, "a.dng")


def test_every_name_of_a_file_counts(core: Core) -> None:
    ino = core.write("a.dng", b"kept")
    core.vfs.link(ADMIN, ino, core.home, "b.dng")
    core.vfs.add_lock(lock("/Documents/archive/b.dng"))
    assert busy(lambda: core.vfs.open(ADMIN, ino, OpenFlags.WRITE))
    assert core.vfs.open_nowait(ADMIN, ino, OpenFlags.WRITE) is None
    assert not busy(lambda: core.vfs.unlink(ADMIN, core.home, "a.dng"))  # that name is not locked


def test_finders_spelling_is_the_same_file(core: Core) -> None:
    core.write("a\u0308.dng", b"kept")
    core.vfs.add_lock(lock("/Documents/archive/\u00e4.dng"))
    for name in ("a\u0308.dng", "\u00e4.dng"):
        assert busy(lambda name=name: core.vfs.unlink(ADMIN, core.home, name))  # type: ignore[misc]


def test_a_lock_that_comes_during_an_import(core: Core) -> None:
    put = core.vfs.put(ADMIN, core.home, "a.dng")
    put.write(b"80 GB take a while")
    core.vfs.add_lock(lock("/Documents/archive", depth=-1))
    with pytest.raises(Locked, match="ann has locked /Documents/archive over WebDAV"):
        put.commit()
    assert core.vfs.readdir(ADMIN, core.home) == []
    assert core.vfs.open_uploads() == 0


def test_what_is_written_cannot_be_locked_and_the_other_way_round(core: Core) -> None:
    ino = core.write("a.dng", b"kept")
    handle = core.vfs.open(ADMIN, ino, OpenFlags.WRITE)
    idle = core.vfs.open(ADMIN, core.write("b.dng", b"kept"), OpenFlags.WRITE)
    handle.pwrite(0, b"new!")
    with pytest.raises(Locked, match=r"is writing /Documents/archive/a\.dng"):
        core.vfs.add_lock(lock("/Documents/archive", depth=-1))
    assert core.vfs.locks() == []
    handle.flush()
    core.vfs.add_lock(lock("/Documents/archive", depth=-1))
    assert busy(lambda: handle.pwrite(0, b"more"))
    assert busy(lambda: idle.truncate(0))
    assert core.vfs.open_uploads() == 0
    core.vfs.remove_lock("t1")
    assert handle.pwrite(0, b"more") == 4  # a refusal is no failure of the file
    for each in (handle, idle):
        each.flush()
        each.release()
    assert core.read(ino) == b"more"


def test_locks_of_programs(core: Core) -> None:
    ino, other = core.write("a.dng", b"kept"), core.write("b.dng", b"free")
    stop = core.vfs.watch_locks(lambda: {ino})
    assert busy(lambda: core.vfs.put(DAV, core.home, "a.dng"))
    assert busy(lambda: core.vfs.set_properties(DAV, ino, {"dc:title": b"x"}))
    assert busy(lambda: core.vfs.add_lock(lock("/Documents/archive/a.dng")))
    assert not busy(lambda: core.vfs.setattr(DAV, other, SetAttr(mode=0o600)))
    assert not busy(lambda: core.vfs.setattr(ADMIN, ino, SetAttr(mode=0o600)))  # between programs the kernel knows
    stop()
    assert not busy(lambda: core.vfs.set_properties(DAV, ino, {"dc:title": b"x"}))
