"""Copies that are killed while the S3 server is frozen: they die, and the master they were to replace is whole."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.functional.conftest import House, frozen
from tests.fuse.conftest import eventually
from tests.s3_servers import S3Server

MIB = 1024**2
MASTER = random.Random(1).randbytes(20 * MIB)
DIES_SECONDS = 10.0


@pytest.fixture
def master(house: House, roll: str) -> Path:
    house.drives["webdav"].write(roll + "a.dng", MASTER)
    return house.mount / "Documents" / "archive" / roll / "a.dng"


def stuck(read: Callable[[], int]) -> int:
    """What `read` gives when it has not changed for a second."""
    seen = read()
    while time.sleep(1.0) or seen != read():
        seen = read()
    return seen


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_copy_dies_and_leaves_the_old_master(server: S3Server, master: Path, number: signal.Signals) -> None:
    with subprocess.Popen(["cp", "/dev/zero", str(master)]) as copy:
        try:
            eventually(lambda: master.stat().st_size > 30 * MIB, 30)
            with frozen(server):
                stuck(lambda: master.stat().st_size)  # in write(2)
                copy.send_signal(number)
                assert copy.wait(DIES_SECONDS) == -number
                start = time.monotonic()
                (master.parent / "new").mkdir()
                assert time.monotonic() - start < 1.0
        finally:
            copy.kill()
    eventually(lambda: master.stat().st_size == len(MASTER), 60)
    assert master.read_bytes() == MASTER
    subprocess.run(["cp", "/dev/stdin", str(master)], input=bytes(30 * MIB), check=True, timeout=60)
    assert master.read_bytes() == bytes(30 * MIB)


@pytest.mark.parametrize("flag", ["direct", "noatime"])
def test_a_killed_reader_dies(server: S3Server, master: Path, flag: str) -> None:
    command = ["dd", f"if={master}", "of=/dev/null", "bs=1M", f"iflag={flag}", "status=none"]
    with frozen(server), subprocess.Popen(command) as reader:
        time.sleep(1.0)
        assert reader.poll() is None
        reader.kill()
        assert reader.wait(DIES_SECONDS) == -signal.SIGKILL
    assert master.read_bytes() == MASTER


def test_who_is_killed_in_close_has_closed(server: S3Server, master: Path) -> None:
    with frozen(server), subprocess.Popen(["dd", "if=/dev/zero", f"of={master}", "bs=4k", "count=1"]) as writer:
        time.sleep(1.0)  # 4 KiB are sent at close
        assert writer.poll() is None
        writer.kill()
        assert writer.wait(DIES_SECONDS) == -signal.SIGKILL
    eventually(lambda: master.read_bytes() == bytes(4096), 60)  # it had called close()
