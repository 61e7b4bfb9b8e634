"""Owners, modes and times, as POSIX has them, for root and for two users: on the mount as on a local filesystem."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.functional.posix import UTIME_NOW, UTIME_OMIT, as_root, as_user, names, refusal, utimensat

ALICE, BOB = 65534, 65533
FRIENDS = 65500  # a group


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def owned(path: Path, uid: int, gid: int, mode: int) -> Path:
    os.chown(path, uid, gid)
    path.chmod(mode)
    return path


def refused(uid: int, call: Callable[..., object], *arguments: object, groups: tuple[int, ...] = ()) -> str | None:
    """As `refusal`, for a user."""
    return as_user(uid, lambda: refusal(call, *arguments), *groups)


@as_root
def test_in_a_sticky_folder_everybody_keeps_the_own_files(top: Path) -> None:
    sticky = top / "tmp"
    sticky.mkdir()
    sticky.chmod(0o1777)
    for name in ("a", "b"):
        (sticky / name).touch()
        owned(sticky / name, ALICE, ALICE, 0o666)
    (sticky / "d").mkdir()
    os.chown(sticky / "d", ALICE, ALICE)
    assert refused(BOB, os.unlink, sticky / "a") == "EPERM"
    assert refused(BOB, os.rmdir, sticky / "d") == "EPERM"
    assert refused(BOB, os.rename, sticky / "a", sticky / "c") == "EPERM"
    as_user(BOB, (sticky / "bobs").touch)
    assert refused(BOB, os.rename, sticky / "bobs", sticky / "a") == "EPERM"
    assert refused(ALICE, os.rename, sticky / "b", sticky / "a") is None
    assert refused(ALICE, os.unlink, sticky / "a") is None
    os.chown(sticky, ALICE, ALICE)
    assert refused(ALICE, os.unlink, sticky / "bobs") is None  # the folder is hers
    sticky.chmod(0o777)
    assert refused(BOB, os.rmdir, sticky / "d") is None


@as_root
def test_who_may_change_owners(top: Path) -> None:
    (top / "a").touch()
    owned(top / "a", ALICE, ALICE, 0o644)
    assert refused(ALICE, os.chown, top / "a", BOB, -1) == "EPERM"
    assert refused(ALICE, os.chown, top / "a", -1, FRIENDS) == "EPERM"
    assert refused(ALICE, os.chown, top / "a", -1, FRIENDS, groups=(ALICE, FRIENDS)) is None
    assert refused(BOB, os.chown, top / "a", BOB, -1) == "EPERM"
    assert refused(BOB, os.chown, top / "a", -1, -1) is None
    found = (top / "a").stat()
    assert (found.st_uid, found.st_gid) == (ALICE, FRIENDS)
    (top / "soft").symlink_to("a")
    os.lchown(top / "soft", BOB, BOB)
    assert ((top / "soft").lstat().st_uid, (top / "a").stat().st_uid) == (BOB, ALICE)
    os.chown(top / "soft", 0, 0)
    assert ((top / "soft").lstat().st_uid, (top / "a").stat().st_uid) == (BOB, 0)


@as_root
def test_who_may_change_modes(top: Path) -> None:
    (top / "a").touch()
    owned(top / "a", ALICE, ALICE, 0o644)
    before = (top / "a").stat().st_ctime_ns
    assert refused(BOB, os.chmod, top / "a", 0o777) == "EPERM"
    assert (mode(top / "a"), (top / "a").stat().st_ctime_ns) == (0o644, before)
    assert refused(ALICE, os.chmod, top / "a", 0o4711) is None
    assert mode(top / "a") == 0o4711
    assert (top / "a").stat().st_ctime_ns > before
    assert refused(ALICE, os.chmod, top / "a", 0o2755) is None
    assert mode(top / "a") == 0o2755
    os.chown(top / "a", ALICE, FRIENDS)
    assert refused(ALICE, os.chmod, top / "a", 0o2755) is None
    assert mode(top / "a") == 0o755  # not in the group: setgid is dropped without a word
    (top / "d").mkdir()
    for bits in (0o1777, 0o2770, 0o4755, 0o7000, 0):
        (top / "d").chmod(bits)
        assert mode(top / "d") == bits


@as_root
def test_what_privileges_a_change_takes_away(top: Path) -> None:
    """setuid and setgid do not outlive a new owner, or somebody else's bytes."""
    (top / "a").write_bytes(b"program")
    owned(top / "a", ALICE, ALICE, 0o6777)
    assert refused(ALICE, os.chown, top / "a", -1, FRIENDS, groups=(ALICE, FRIENDS)) is None
    assert mode(top / "a") == 0o777
    owned(top / "a", ALICE, ALICE, 0o6777)
    as_user(BOB, lambda: (top / "a").write_bytes(b"another"))
    assert mode(top / "a") == 0o777
    owned(top / "a", ALICE, ALICE, 0o6777)
    as_user(BOB, lambda: os.truncate(top / "a", 2))
    assert mode(top / "a") == 0o777


@as_root
def test_a_setgid_folder_hands_its_group_on(top: Path) -> None:
    (top / "shared").mkdir()
    owned(top / "shared", ALICE, FRIENDS, 0o2777)
    as_user(BOB, (top / "shared" / "file").touch)
    as_user(BOB, (top / "shared" / "sub").mkdir)
    assert ((top / "shared" / "file").stat().st_gid, (top / "shared" / "sub").stat().st_gid) == (FRIENDS, FRIENDS)
    assert mode(top / "shared" / "sub") & 0o2000
    assert not mode(top / "shared" / "file") & 0o2000
    as_user(BOB, (top / "plain").mkdir)
    assert ((top / "plain").stat().st_uid, (top / "plain").stat().st_gid) == (BOB, BOB)


@as_root
def test_who_may_look_and_write(top: Path) -> None:
    (top / "d").mkdir()
    (top / "d" / "a").write_bytes(b"secret")
    owned(top / "d" / "a", ALICE, FRIENDS, 0o640)
    assert as_user(ALICE, (top / "d" / "a").read_bytes) == b"secret"
    assert as_user(BOB, (top / "d" / "a").read_bytes, BOB, FRIENDS) == b"secret"
    assert refused(BOB, os.open, top / "d" / "a", os.O_RDONLY) == "EACCES"
    assert refused(BOB, os.open, top / "d" / "a", os.O_WRONLY, groups=(BOB, FRIENDS)) == "EACCES"
    (top / "d").chmod(0o711)
    assert refused(BOB, names, top / "d") == "EACCES"
    assert refused(BOB, os.stat, top / "d" / "a") is None
    assert refused(BOB, os.mkdir, top / "d" / "new") == "EACCES"
    assert refused(BOB, os.unlink, top / "d" / "a") == "EACCES"
    (top / "d").chmod(0o766)
    assert refused(BOB, os.stat, top / "d" / "a") == "EACCES"
    (top / "d").chmod(0o700)
    assert refused(BOB, os.rename, top / "d" / "a", top / "a") == "EACCES"
    assert as_user(BOB, lambda: os.access(top / "d" / "a", os.R_OK)) is False


def test_the_umask(top: Path) -> None:
    old = os.umask(0o027)
    try:
        (top / "d").mkdir()
        os.close(os.open(top / "f", os.O_CREAT | os.O_WRONLY, 0o666))
        os.mkfifo(top / "p", 0o666)
    finally:
        os.umask(old)
    assert [mode(top / name) for name in "dfp"] == [0o750, 0o640, 0o640]
    os.close(os.open(top / "read-only", os.O_CREAT | os.O_WRONLY, 0o400))
    assert mode(top / "read-only") == 0o400


def test_times_to_the_nanosecond(top: Path) -> None:
    (top / "a").touch()
    os.utime(top / "a", ns=(1_234_567_890_123_456_789, 987_654_321_987_654_321))
    found = (top / "a").stat()
    assert (found.st_atime_ns, found.st_mtime_ns) == (1_234_567_890_123_456_789, 987_654_321_987_654_321)
    utimensat(top / "a", (0, UTIME_OMIT), (5, 6))
    found = (top / "a").stat()
    assert (found.st_atime_ns, found.st_mtime_ns) == (1_234_567_890_123_456_789, 5_000_000_006)
    utimensat(top / "a", (7, 8), (0, UTIME_OMIT))
    found = (top / "a").stat()
    assert (found.st_atime_ns, found.st_mtime_ns) == (7_000_000_008, 5_000_000_006)
    start = time.time()
    utimensat(top / "a", (0, UTIME_NOW), (0, UTIME_OMIT))
    found = (top / "a").stat()
    assert abs(found.st_atime - start) < 5
    assert found.st_mtime_ns == 5_000_000_006
    before = found
    utimensat(top / "a", (0, UTIME_OMIT), (0, UTIME_OMIT))
    assert (top / "a").stat() == before
    os.utime(top / "a", ns=(-1_500_000_000, -1))  # before 1970
    assert (top / "a").stat().st_mtime_ns == -1
    assert refusal(utimensat, top / "a", (0, 0), (0, 1_000_000_000)) == "EINVAL"
    (top / "soft").symlink_to("a")
    os.utime(top / "soft", ns=(1, 2), follow_symlinks=False)
    assert ((top / "soft").lstat().st_mtime_ns, (top / "a").stat().st_mtime_ns) == (2, -1)


@as_root
def test_who_may_change_times(top: Path) -> None:
    (top / "a").touch()
    owned(top / "a", ALICE, ALICE, 0o644)
    assert refused(ALICE, utimensat, top / "a", (1, 0), (2, 0)) is None
    assert refused(BOB, utimensat, top / "a", (1, 0), (2, 0)) == "EPERM"
    assert refused(BOB, utimensat, top / "a", (0, UTIME_NOW), (0, UTIME_NOW)) == "EACCES"
    (top / "a").chmod(0o666)
    assert refused(BOB, utimensat, top / "a", (0, UTIME_NOW), (0, UTIME_NOW)) is None
    assert refused(BOB, utimensat, top / "a", (1, 0), (0, UTIME_NOW)) == "EPERM"


def test_what_moves_times(top: Path) -> None:
    def touched(path: Path, act: Callable[[], object]) -> str:
        """Which of mtime and ctime moved."""
        before = path.stat()
        time.sleep(0.01)  # a local filesystem counts in ticks of 4 ms
        act()
        after = path.stat()
        return "m" * (after.st_mtime_ns > before.st_mtime_ns) + "c" * (after.st_ctime_ns > before.st_ctime_ns)

    file = top / "a"
    assert touched(top, file.touch) == "mc"
    assert touched(file, lambda: file.write_bytes(b"x")) == "mc"
    assert touched(file, lambda: os.truncate(file, 0)) == "mc"
    assert touched(file, partial(file.chmod, 0o600)) == "c"
    assert touched(file, lambda: os.link(file, top / "b")) == "c"
    assert touched(top, lambda: file.rename(top / "c")) == "mc"
    assert touched(top / "c", (top / "b").unlink) == "c"
    (top / "sub").mkdir()
    assert touched(top / "sub", lambda: (top / "sub" / "x").mkdir()) == "mc"
    assert touched(top / "sub", lambda: (top / "sub" / "x").rmdir()) == "mc"
    assert touched(top, lambda: (top / "c").read_bytes()) == ""
    assert touched(top / "c", lambda: refusal(os.rmdir, top / "c")) == ""
