"""Bytes and locks, as POSIX has them: on the mount as on a local filesystem. What maps files runs in a process of its own."""

from __future__ import annotations

import fcntl
import os
import random
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.functional.posix import fallocate, refusal

MIB = 1024**2


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def python(program: str, *arguments: object) -> str:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


APPENDS = """
import os, sys
path, name = sys.argv[1:]
file = os.open(path, os.O_WRONLY | os.O_APPEND)
print(flush=True)
sys.stdin.readline()
for number in range(300):
    os.write(file, f"{name} {number:03} {'.' * 50}\\n".encode())
"""


def test_two_programs_append(top: Path) -> None:
    (top / "log").write_bytes(b"begin\n")
    writers = []
    for name in ("one", "two"):
        command = [sys.executable, "-c", APPENDS, str(top / "log"), name]
        writers.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.readline()
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=60)
        assert writer.returncode == 0
    lines = (top / "log").read_text().splitlines()
    assert lines[0] == "begin"
    assert len(lines) == 601
    for name in ("one", "two"):  # none is lost or torn, and each one's are in order
        assert [line for line in lines if line.startswith(name)] == [f"{name} {n:03} {'.' * 50}" for n in range(300)]


def test_appending_ignores_where_one_is(top: Path) -> None:
    (top / "a").write_bytes(b"12345")
    with opened(top / "a", os.O_RDWR | os.O_APPEND) as file:
        os.lseek(file, 0, os.SEEK_SET)
        os.write(file, b"6")
        assert os.lseek(file, 0, os.SEEK_CUR) == 6
        assert os.pread(file, 10, 0) == b"123456"
        os.ftruncate(file, 2)
        os.write(file, b"3")
    assert (top / "a").read_bytes() == b"123"


def test_cutting_off_at_open(top: Path) -> None:
    (top / "a").write_bytes(b"old content")
    with opened(top / "a", os.O_RDONLY) as reader:
        with opened(top / "a", os.O_WRONLY | os.O_TRUNC) as file:
            assert os.fstat(file).st_size == 0
            os.write(file, b"new")
        assert os.pread(reader, 100, 0) == b"new"
    with opened(top / "a", os.O_WRONLY | os.O_TRUNC):
        pass
    assert (top / "a").stat().st_size == 0
    with opened(top / "a", os.O_RDWR | os.O_CREAT) as file:
        assert refusal(os.write, file, b"") is None
        os.pwrite(file, b"x", 5 * MIB)
        os.ftruncate(file, 3 * MIB)
        os.ftruncate(file, 6 * MIB)
        assert os.pread(file, 2, 5 * MIB) == b"\0\0"
    assert (top / "a").stat().st_size == 6 * MIB


def test_reading_beyond_the_end_and_with_the_wrong_flags(top: Path) -> None:
    (top / "a").write_bytes(b"12345")
    with opened(top / "a", os.O_RDONLY) as file:
        assert (os.pread(file, 10, 3), os.pread(file, 10, 5), os.pread(file, 10, 1 << 40)) == (b"45", b"", b"")
        assert refusal(os.write, file, b"x") == "EBADF"
        assert refusal(os.ftruncate, file, 0) == "EINVAL"
    with opened(top / "a", os.O_WRONLY) as file:
        assert refusal(os.read, file, 1) == "EBADF"
        assert refusal(os.lseek, file, -1, os.SEEK_SET) == "EINVAL"


def test_holes(top: Path) -> None:
    size = 3 * MIB
    (top / "a").write_bytes(random.Random(1).randbytes(size))
    with opened(top / "a", os.O_RDONLY) as file:
        assert os.lseek(file, MIB, os.SEEK_DATA) == MIB
        assert os.lseek(file, MIB, os.SEEK_HOLE) == size
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            assert refusal(os.lseek, file, size, whence) == "ENXIO"
    os.truncate(top / "a", 2 * size)
    subprocess.run(["cp", "--sparse=auto", top / "a", top / "b"], check=True, timeout=60)
    assert (top / "b").read_bytes() == (top / "a").read_bytes()


def test_allocating(top: Path) -> None:
    """Nothing that is there changes.

    [R6] fallocate(2) is EOPNOTSUPP, upon which posix_fallocate(3) writes zeros; SEEK_HOLE finds the end of the file and no other
    hole."""
    (top / "a").write_bytes(b"content")
    with opened(top / "a", os.O_RDWR) as file:
        os.posix_fallocate(file, 0, 100_000)
        assert os.fstat(file).st_size == 100_000
        assert os.pread(file, 100_000, 0) == b"content".ljust(100_000, b"\0")
        os.posix_fallocate(file, 0, 10)
        assert os.fstat(file).st_size == 100_000
        assert refusal(fallocate, file, 0, 0, 0) == "EINVAL"
        if "Documents" in top.parts:
            assert refusal(fallocate, file, 0, 0, 200_000) == "ENOTSUP"
            assert refusal(fallocate, file, 3, 0, 10) == "ENOTSUP"  # a hole
    assert (top / "a").stat().st_size == 100_000


def test_copying_in_the_kernel(top: Path) -> None:
    data = random.Random(2).randbytes(5 * MIB)
    (top / "a").write_bytes(data)
    with opened(top / "a", os.O_RDONLY) as source, opened(top / "b", os.O_WRONLY | os.O_CREAT) as target:
        done = 0
        while count := os.copy_file_range(source, target, len(data) - done, done, done):
            done += count
        assert done == len(data)
        assert os.copy_file_range(source, target, 100, len(data)) == 0
    assert (top / "b").read_bytes() == data
    with opened(top / "a", os.O_RDONLY) as source, opened(top / "c", os.O_WRONLY | os.O_CREAT) as target:
        assert os.sendfile(target, source, 1000, 500) == 500
    assert (top / "c").read_bytes() == data[1000:1500]


MAPS = """
import mmap, os, sys
path = sys.argv[1]
file = os.open(path, os.O_RDWR)
size = os.fstat(file).st_size
private = mmap.mmap(file, size, mmap.MAP_PRIVATE)
shared = mmap.mmap(file, size)
private[0:5] = b"never"
shared[4094:4099] = b"edges"
os.pwrite(file, b"by write", 10_000)
assert shared[10_000:10_008] == b"by write"
shared.flush()
assert os.pread(file, 5, 4094) == b"edges"
assert os.pread(file, 5, 0) == b"begin"
shared[size - 1:] = b"$"
shared.close()
os.close(file)
reader = os.open(path, os.O_RDONLY)
seen = mmap.mmap(reader, 0, prot=mmap.PROT_READ)
print(seen[0:5], seen[4094:4099], seen[10_000:10_008], seen[size - 1:])
"""


def test_mappings(top: Path) -> None:
    """Also shared ones that are written, as exiv2 does."""
    size = 300_001
    (top / "a").write_bytes(b"begin" + bytes(size - 5))
    assert python(MAPS, top / "a").strip() == "b'begin' b'edges' b'by write' b'$'"
    end = time.monotonic() + 10  # the last page is written when the mapping goes
    while (top / "a").read_bytes()[-1:] != b"$":
        assert time.monotonic() < end
    assert (top / "a").read_bytes()[10_000:10_008] == b"by write"
    assert (top / "a").stat().st_size == size


def test_statfs(top: Path) -> None:
    info = os.statvfs(top)
    assert info.f_namemax == 255
    assert 0 < info.f_bavail <= info.f_bfree <= info.f_blocks
    assert info.f_bsize >= 512
    assert 0 < info.f_ffree <= info.f_files
    with opened(top, os.O_RDONLY | os.O_DIRECTORY) as folder:
        assert os.fstatvfs(folder).f_blocks == info.f_blocks


# --- locks between programs --------------------------------------------------------------------------------------------------

HOLDS = {
    "flock": "fcntl.flock(f, fcntl.LOCK_EX)",
    "shared flock": "fcntl.flock(f, fcntl.LOCK_SH)",
    "fcntl": "fcntl.lockf(f, fcntl.LOCK_EX, 100, 50)",
    "shared fcntl": "fcntl.lockf(f, fcntl.LOCK_SH, 100, 50)",
}


@contextmanager
def holder(path: Path, how: str) -> Iterator[subprocess.Popen[str]]:
    """A program that has the lock until its standard input ends."""
    program = (
        f"import fcntl, sys; f = open(sys.argv[1], 'r+b'); {HOLDS[how]}; print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as held:
        try:
            assert held.stdout is not None
            assert held.stdout.readline() == "held\n"
            yield held
        finally:
            held.kill()


def test_flock_between_programs(top: Path) -> None:
    (top / "a").touch()
    with opened(top / "a", os.O_RDWR) as file:
        with holder(top / "a", "flock"):
            for how in (fcntl.LOCK_EX, fcntl.LOCK_SH):
                assert refusal(fcntl.flock, file, how | fcntl.LOCK_NB) == "EAGAIN"
        fcntl.flock(file, fcntl.LOCK_EX)  # the holder is dead, and its lock with it
        fcntl.flock(file, fcntl.LOCK_UN)
        with holder(top / "a", "shared flock"):
            assert refusal(fcntl.flock, file, fcntl.LOCK_EX | fcntl.LOCK_NB) == "EAGAIN"
            assert refusal(fcntl.flock, file, fcntl.LOCK_SH | fcntl.LOCK_NB) is None


@pytest.mark.parametrize("how", ["fcntl", "shared fcntl"])
def test_fcntl_between_programs(top: Path, how: str) -> None:
    (top / "a").write_bytes(bytes(1000))
    shared = how.startswith("shared")
    with opened(top / "a", os.O_RDWR) as file:
        with holder(top / "a", how) as held:
            for start, size, free in ((0, 50, True), (150, 0, True), (149, 10, False), (0, 51, False), (60, 10, False)):
                expected = None if free else "EAGAIN"
                assert refusal(fcntl.lockf, file, fcntl.LOCK_EX | fcntl.LOCK_NB, size, start) == expected
                expected = None if free or shared else "EAGAIN"
                assert refusal(fcntl.lockf, file, fcntl.LOCK_SH | fcntl.LOCK_NB, size, start) == expected
            fcntl.lockf(file, fcntl.LOCK_UN)
            asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            told = struct.unpack("hhqqi4x", fcntl.fcntl(file, fcntl.F_GETLK, asked))
            assert told == (fcntl.F_RDLCK if shared else fcntl.F_WRLCK, os.SEEK_SET, 50, 100, held.pid)
        fcntl.lockf(file, fcntl.LOCK_EX)
    with opened(top / "a", os.O_RDWR) as file, holder(top / "a", how):  # gone with the first close
        assert refusal(fcntl.lockf, file, fcntl.LOCK_EX | fcntl.LOCK_NB) == "EAGAIN"


@pytest.mark.parametrize("how", ["flock", "fcntl"])
def test_who_waits_for_a_lock_gets_it(top: Path, how: str) -> None:
    (top / "a").write_bytes(bytes(1000))
    wait = {"flock": fcntl.flock, "fcntl": fcntl.lockf}[how]
    with opened(top / "a", os.O_RDWR) as file, holder(top / "a", how) as held:
        ends = subprocess.Popen(["sh", "-c", f"sleep 0.5; kill {held.pid}"])
        start = time.monotonic()
        wait(file, fcntl.LOCK_EX)
        assert 0.3 < time.monotonic() - start < 20
        ends.wait()


def test_locks_do_not_need_the_bytes(top: Path) -> None:
    """A lock of a file that has been unlinked, and of one in a folder that was renamed."""
    (top / "sub").mkdir()
    (top / "sub" / "a").touch()
    with opened(top / "sub" / "a", os.O_RDWR) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        (top / "sub").rename(top / "moved")
        with opened(top / "moved" / "a", os.O_RDWR) as other:
            assert refusal(fcntl.flock, other, fcntl.LOCK_EX | fcntl.LOCK_NB) == "EAGAIN"
        (top / "moved" / "a").unlink()
        fcntl.flock(file, fcntl.LOCK_UN)
