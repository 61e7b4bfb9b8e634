"""Copies that are killed while the S3 server is frozen: they die, and the master they were to replace is whole."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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


SHELLS = {
    "a command": "exec cat > {}",
    "a child": "cat > {}; true",
    "a builtin": '{{ read -r line; printf %s "$line"; }} > {}',
    "a pipe": "cat | tee /dev/null > {}",
    "dd": "dd of={} bs=64k iflag=fullblock status=none",
    "python": 'exec python3 -c \'import subprocess, sys; f = open(sys.argv[1], "w"); p = subprocess.Popen(["cat"], stdout=f); '
    "f.close(); p.wait()' {}",
}


@contextmanager
def redirected(master: Path, shell: str) -> Iterator[subprocess.Popen[bytes]]:
    """A shell whose command waits for its input, with the master open as its output."""
    command = ["sh", "-c", shell.format(master)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as running:
        try:
            eventually(lambda: master.stat().st_size == 0, 30)
            time.sleep(0.5)  # the first descriptor is closed by now
            yield running
        finally:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_redirection_keeps_the_old_master_until_it_is_written(house: House, master: Path, shell: str) -> None:
    """[O10] `command > file` in a shell keeps the old content until the command has written and closed; if it writes nothing, the
    file is emptied when the last descriptor is closed, and an error then is only in the log."""
    dav, path = house.drives["webdav"], "/".join(master.parts[-2:])
    with redirected(master, SHELLS[shell]) as running:
        assert dav.read(path) == MASTER
        assert running.stdin is not None
        running.stdin.write(b"new")
        running.stdin.close()
        assert running.wait(30) == 0
        assert dav.read(path) == b"new"
    dav.write(path, MASTER)
    with redirected(master, SHELLS[shell]) as running:
        os.killpg(running.pid, signal.SIGKILL)
    eventually(lambda: master.stat().st_size == len(MASTER), 20)
    assert master.read_bytes() == MASTER


def test_a_killed_command_leaves_the_old_master_though_its_shell_goes_on(house: House, master: Path) -> None:
    with redirected(master, "cat > {}; sleep 60") as running:
        cat = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        os.kill(int(cat[0]), signal.SIGKILL)
        eventually(lambda: master.stat().st_size == len(MASTER), 20)
        assert master.read_bytes() == MASTER


def test_a_redirection_that_writes_nothing_empties(house: House, master: Path) -> None:
    dav, path = house.drives["webdav"], "/".join(master.parts[-2:])
    with master.open("rb") as reader:
        for empties in (": > {}", "true > {}", "dd of={} if=/dev/null status=none"):
            dav.write(path, MASTER)
            subprocess.run(["sh", "-c", empties.format(master)], check=True, timeout=30)
            assert master.stat().st_size == 0
            eventually(lambda: dav.read(path) == b"", 30)
        dav.write(path, MASTER)
        master.open("wb").close()
        assert dav.read(path) == b"", "who has no copy of the descriptor has closed"
        assert reader.read() == b""
