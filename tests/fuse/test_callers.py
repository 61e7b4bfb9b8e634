"""Who has been killed is let go, though the store does not answer; who lives waits for it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fuse.callers import is_killed
from tests.fuse.conftest import eventually
from tests.fuse.toy import ToyVfs

WRITER = "import sys, os; f = open(sys.argv[1], 'wb'); f.write(b'master'); f.flush(); print('written', flush=True); "
CLOSES = "f.close(); print('closed', flush=True)"
SYNCS = "os.fsync(f.fileno())"
SLEEPS = "import time; time.sleep(60)"
STATUS = "Name:\tcp\nState:\t{state}\nFDSize:\t{files}\nVmSize:\t 1 kB\nSigPnd:\t{own}\nShdPnd:\t{shared}\n"


@pytest.mark.parametrize(
    ("state", "files", "own", "shared", "killed"),
    [
        ("D (disk sleep)", "64", "0000000000000000", "0000000000000000", False),
        ("D (disk sleep)", "64", "0000000000000100", "0000000000000000", True),
        ("D (disk sleep)", "64", "0000000000000000", "0000000000000102", True),
        ("D (disk sleep)", "64", "0000000000000002", "0000000000000000", False),  # SIGINT that the program handles
        ("D (disk sleep)", "0", "0000000000000000", "0000000000000000", True),
        ("Z (zombie)", "0", "0000000000000000", "0000000000000100", False),
        ("S (sleeping)", "64", "0000000000000100", "0000000000000000", False),
    ],
)
def test_what_the_kernel_tells(state: str, files: str, own: str, shared: str, killed: bool) -> None:
    assert is_killed(1, STATUS.format(state=state, files=files, own=own, shared=shared)) is killed


def test_who_cannot_be_seen_may_live() -> None:
    assert not is_killed(0)
    assert not is_killed(2**22 + 1)
    assert not is_killed(1, "nonsense")


@contextmanager
def program(file: Path, does: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER + does, str(file)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "written\n"
        try:
            yield writer
        finally:
            writer.kill()


@pytest.fixture
def hanging(vfs: ToyVfs) -> Iterator[threading.Event]:
    """The store does not answer until this is set."""
    vfs.slow_flush = threading.Event()
    yield vfs.slow_flush
    vfs.slow_flush.set()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("does", [CLOSES, SYNCS, SLEEPS])
def test_a_killed_program_dies(
    vfs: ToyVfs, mount: Path, hanging: threading.Event, does: str, number: signal.Signals
) -> None:
    """[L6] A program that is killed while it waits in fsync() or close() dies within seconds, though the store hangs."""
    with program(mount / "a.dng", does) as writer:
        time.sleep(0.3)  # it waits in close(2) or fsync(2) by now
        writer.send_signal(number)
        assert writer.wait(15) == -number
    assert not hanging.is_set()
    hanging.set()
    eventually(lambda: (mount / "a.dng").read_bytes() == b"master", 10)  # what it wrote went on without it


def test_who_lives_waits(vfs: ToyVfs, mount: Path, hanging: threading.Event) -> None:
    with program(mount / "a.dng", CLOSES) as writer:
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(2.5)
        hanging.set()
        assert writer.wait(15) == 0
    assert (mount / "a.dng").read_bytes() == b"master"
