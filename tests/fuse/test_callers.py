"""Who has been killed is let go, though the store does not answer; who lives waits for it. Half a write is not committed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from fuse import mount as fuse_mount
from fuse.bridge import Bridge
from fuse.callers import (
    Ending,
    closed_by_signal,
    ending_of,
    exit_code_of,
    family,
    holds,
    is_killed,
    program_of,
    waits_in_vain,
)
from tests.fuse.conftest import eventually, mounted
from tests.fuse.toy import SELF, ToyVfs

OLD = b"the old master" * 1000
STATUS = "Name:\tcp\nState:\t{state}\nFDSize:\t{files}\nVmSize:\t 1 kB\nSigPnd:\t{own}\nShdPnd:\t{shared}\n"
STAT = "4711 (a) name) {state} 1 4711 4711 0 -1 {flags}" + " 0" * 42 + " {code}\n"
EXITING, LIVING = 0x40040C, 0x400000


@pytest.mark.parametrize(
    ("state", "files", "own", "shared", "killed"),
    [
        ("D (disk sleep)", "64", "0000000000000000", "0000000000000000", False),
        ("D (disk sleep)", "64", "0000000000000100", "0000000000000000", True),
        ("D (disk sleep)", "64", "0000000000000000", "0000000000000102", True),
        ("D (disk sleep)", "64", "0000000000000002", "0000000000000000", False),  # SIGINT that the program handles
        ("D (disk sleep)", "0", "0000000000000000", "0000000000000000", True),
        ("S (sleeping)", "0", "0000000000000000", "0000000000000000", False),  # it exits, and nobody has killed it
        ("S (sleeping)", "0", "0000000000000000", "0000000000000100", True),  # too late to be delivered
        ("S (sleeping)", "0", "0000000000000000", "0000000000000002", True),
        ("Z (zombie)", "0", "0000000000000000", "0000000000000100", False),
    ],
)
def test_what_the_kernel_tells_of_who_waits(state: str, files: str, own: str, shared: str, killed: bool) -> None:
    assert waits_in_vain(STATUS.format(state=state, files=files, own=own, shared=shared)) is killed


@pytest.mark.parametrize(
    ("state", "flags", "code", "expected"),
    [
        ("D", EXITING, 9, 9),
        ("S", EXITING, 0x86, 0x86),  # a crash that left a core
        ("S", EXITING, 3 << 8, 3 << 8),  # exit(3)
        ("t", LIVING, 5, 0),  # a debugger has stopped it
        ("Z", EXITING, 9, None),
    ],
)
def test_what_the_kernel_tells_of_an_end(state: str, flags: int, code: int, expected: int | None) -> None:
    assert exit_code_of(STAT.format(state=state, flags=flags, code=code)) == expected


@pytest.mark.parametrize(
    ("state", "code", "wchan", "expected"),
    [
        ("D", 9, "request_wait_answer", Ending.CLOSES),
        ("S", 0x86, "__fuse_simple_request", Ending.CLOSES),  # a crash is not pending any more: it could be killed yet
        ("D", 9, "0", Ending.CLOSES),  # a kernel that tells nobody where a thread waits
        ("D", 9, "folio_wait_bit_common", Ending.RUNS),
        ("R", 9, "0", Ending.RUNS),
        ("D", 3 << 8, "request_wait_answer", None),
        ("Z", 9, "0", None),
    ],
)
def test_who_is_closing_a_file_at_the_end(state: str, code: int, wchan: str, expected: Ending | None) -> None:
    assert ending_of(STAT.format(state=state, flags=EXITING, code=code), wchan) is expected


def test_who_cannot_be_seen_may_live() -> None:
    for nobody in (0, 2**22 + 1):
        assert not is_killed(nobody)
        assert not trio.run(closed_by_signal, nobody, [nobody])
        assert not family([nobody])
        assert program_of(nobody) == nobody
    assert not waits_in_vain("nonsense")
    assert exit_code_of("nonsense") is None


def test_a_thread_belongs_to_its_program() -> None:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(program_of(threading.get_native_id())))
    thread.start()
    thread.join()
    assert found == [os.getpid()]
    assert not is_killed(os.getpid())
    assert not trio.run(closed_by_signal, os.getpid())


def test_who_has_a_file_open(tmp_path: Path) -> None:
    path, me = tmp_path / "file", os.getpid()
    with path.open("w") as file:
        ino = path.stat().st_ino
        assert holds([me], ino)
        child = subprocess.Popen(["sleep", "60"], stdout=file)
        copy = os.dup(file.fileno())
    try:
        assert not holds([me], ino + 1)
        assert holds([me], ino), "the copy is open"
        os.close(copy)
        assert not holds([me], ino)
        assert family([me]) >= {me, child.pid}
        assert holds(family([me]), ino)
    finally:
        child.kill()
        child.wait()
    with path.open("r"):
        assert not holds([me], ino), "it reads only"
    assert not holds([2**22 + 1], ino)


BEGIN = "import mmap, os, sys, threading, time; path = sys.argv[1]; "
BEGUN = "print('begun', flush=True); "
OPENED = "f = os.open(path, os.O_RDWR); "
WRITTEN = OPENED + "os.ftruncate(f, 0); os.write(f, b'half'); "
WAITS = {
    "write": OPENED + BEGUN + "os.write(f, b'x' * 5000)",
    "read": OPENED + BEGUN + "os.read(f, 5000)",
    "direct read": "f = os.open(path, os.O_RDONLY | os.O_DIRECT); " + BEGUN + "os.readv(f, [mmap.mmap(-1, 4096)])",
    "ftruncate": OPENED + BEGUN + "os.ftruncate(f, 5)",
    "truncate": BEGUN + "os.truncate(path, 5)",
    "O_TRUNC": BEGUN + "os.open(path, os.O_WRONLY | os.O_TRUNC)",
    "mkdir": BEGUN + "os.mkdir(path + '.d')",
    "another thread": OPENED + "t = threading.Thread(target=os.write, args=(f, b'x' * 5000)); t.start(); " + BEGUN,
    "a thread that is gone opened it": "g = []; t = threading.Thread(target=lambda: g.append(os.open(path, os.O_RDWR))); "
    "t.start(); t.join(); " + BEGUN + "os.write(g[0], b'x' * 5000)",
}
FINISHES = {
    "close": WRITTEN + BEGUN + "os.close(f); print('closed', flush=True)",
    "fsync": WRITTEN + BEGUN + "os.fsync(f)",
}


@contextmanager
def program(file: Path, does: str) -> Iterator[subprocess.Popen[str]]:
    """Until it has said that it has begun; gone at the end."""
    command = [sys.executable, "-c", BEGIN + does, str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as begun:
        assert begun.stdout is not None
        try:
            assert begun.stdout.readline() == "begun\n"
            yield begun
        finally:
            begun.kill()


@pytest.fixture
def file(vfs: ToyVfs, mount: Path) -> Path:
    vfs.add("/a.dng", OLD)
    return mount / "a.dng"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("waits", WAITS)
def test_a_killed_program_dies(
    vfs: ToyVfs, file: Path, waits: str, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[L6] A program that is killed while it waits for the store or the catalog dies within seconds, however long they hang."""
    file.stat()
    with vfs.hanging_store(), vfs.hanging_catalog(), program(file, WAITS[waits]) as waiting:
        time.sleep(0.3)  # it waits in the kernel by now
        assert waiting.poll() is None
        waiting.send_signal(number)
        assert waiting.wait(15) == -number
    for left in (vfs.dirty, vfs.handles):  # what goes on without it comes to an end, and its file is let go then
        eventually(lambda left=left: not left, 10)  # type: ignore[misc]
    if waits not in ("truncate",):
        assert vfs.data[vfs.resolve(SELF, "/a.dng").ino] == OLD


@pytest.fixture
def hanging(vfs: ToyVfs) -> Iterator[threading.Event]:
    """No upload ends until this is set."""
    vfs.slow_flush = threading.Event()
    yield vfs.slow_flush
    vfs.slow_flush.set()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("does", FINISHES)
def test_who_is_killed_in_close_has_closed(
    file: Path, hanging: threading.Event, does: str, number: signal.Signals
) -> None:
    with program(file, FINISHES[does]) as writer:
        time.sleep(0.3)
        writer.send_signal(number)
        assert writer.wait(15) == -number
    assert not hanging.is_set()
    hanging.set()
    eventually(lambda: file.read_bytes() == b"half", 10)  # what it asked for goes on without it


def test_who_lives_waits(file: Path, hanging: threading.Event) -> None:
    with program(file, FINISHES["close"]) as writer:
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(2.5)
        hanging.set()
        assert writer.wait(15) == 0
    assert file.read_bytes() == b"half"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGABRT])
@pytest.mark.parametrize("threads", [0, 3])
def test_who_is_ended_by_a_signal_has_not_closed(vfs: ToyVfs, file: Path, number: signal.Signals, threads: int) -> None:
    """[O8] What a program has written that is ended by a signal (a kill, Ctrl-C, a crash) is not committed, unless it had called
    `close()` or `fsync()`: the old content stays, and the parts it sent are taken over by whoever sends the same bytes again."""
    does = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); " + WRITTEN +
        f"[threading.Thread(target=time.sleep, args=(60,)).start() for _ in range({threads})]; " + BEGUN + "time.sleep(60)"
    )  # fmt: skip
    with program(file, does) as writer:
        assert file.stat().st_size == 4
        writer.send_signal(number)
        assert writer.wait(15) == -number
    eventually(lambda: file.read_bytes() == OLD)
    assert file.stat().st_size == len(OLD)
    assert vfs.dirty == {}


@pytest.mark.parametrize("ends", ["os._exit(3)", "raise SystemExit(1)", "raise ValueError", ""])
def test_who_exits_has_closed(file: Path, ends: str) -> None:
    """[O9] A program that exits by itself, whatever its exit code, has closed its files."""
    threads = "[threading.Thread(target=time.sleep, args=(60,), daemon=True).start() for _ in range(3)]; "
    with program(file, WRITTEN + threads + BEGUN.rstrip("; ") + "; " + ends) as writer:
        writer.wait(15)
    eventually(lambda: file.read_bytes() == b"half")


def test_a_child_that_goes_on_is_not_its_killed_parent(file: Path) -> None:
    """Who is killed had opened the file; who goes on writing it has it from there."""
    does = WRITTEN + (
        "child = os.fork(); "
        "(time.sleep(1.5), os.write(f, b' and whole'), os._exit(0)) if not child else None; "
    ) + BEGUN + "time.sleep(60)"  # fmt: skip
    with program(file, does) as writer:
        writer.kill()
        assert writer.stdout is not None
        writer.stdout.read()  # until the child is gone too; the parent is a zombie meanwhile
    eventually(lambda: file.read_bytes() == b"half and whole")


@pytest.mark.parametrize("parent", ["lives", "is killed", "is killed first"])
def test_a_killed_child_has_not_closed(file: Path, parent: str) -> None:
    """Whether what it has written is committed, its parent decides, who has the file open too."""
    does = WRITTEN + (
        "child = os.fork(); "
        "(os.write(f, b' of it'), time.sleep(60)) if not child else print(child, flush=True); "
    ) + BEGUN + "sys.stdin.read()"  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-c", BEGIN + does, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdin is not None
        child = int(writer.stdout.readline())
        eventually(lambda: file.stat().st_size == len("half of it"))
        if parent == "is killed first":
            writer.kill()
            writer.wait(15)
        os.kill(child, signal.SIGKILL)
        time.sleep(0.3)
        if parent == "is killed":
            writer.kill()
        writer.stdin.close()
    eventually(lambda: file.read_bytes() == (b"half of it" if parent == "lives" else OLD))


def test_who_else_writes_is_not_undone(file: Path) -> None:
    with program(file, WRITTEN + BEGUN + "time.sleep(60)") as killed:
        with file.open("r+b", buffering=0) as other:
            killed.kill()
            killed.wait(15)
            time.sleep(0.2)
            other.write(b"HA")
        assert file.read_bytes() == b"HAlf"


def test_letting_go_of_files_never_stops_names(
    vfs: ToyVfs, tmp_path: Path, hanging: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last to let go of a file commits what mmap has written, though it only read."""
    monkeypatch.setattr(fuse_mount, "Bridge", partial(Bridge, metadata_threads=4))
    for number in range(8):
        vfs.add(f"/f{number}", b"x")
    with mounted(vfs, tmp_path / "mnt") as mount:
        for number in range(8):
            os.close(os.open(mount.path / f"f{number}", os.O_RDONLY))
        eventually(lambda: vfs.calls["release"] >= 4)
        start = time.monotonic()
        (mount.path / "new").mkdir()
        assert time.monotonic() - start < 1.0
        hanging.set()
