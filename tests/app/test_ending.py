"""The end of `serve --mount`: who writes is waited for and told of, whoever else comes is sent away or cut off."""

from __future__ import annotations

import base64
import contextlib
import http.client
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.drive import PASSWORD, Drive

MIB = 1024**2
READERS_SECONDS = 1.5
IMPATIENT = (  # the program, with less patience for those who do not write
    sys.executable, "-c",
    "from archivia_fs.commands import doors; from archivia_fs.cli import main; "
    f"doors.READERS_SECONDS = {READERS_SECONDS}; doors.TELL_SECONDS = 0.5; main()",
)  # fmt: skip


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[Drive]:
    it = Drive(tmp_path, IMPATIENT)
    it.start()
    yield it
    it.clean()


def rsync(source: Path, target: Path, rate: str) -> subprocess.Popen[str]:
    command = ["rsync", "-a", f"--bwlimit={rate}", f"{source}/", f"{target}/"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def await_file(path: Path) -> None:
    end = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_an_rsync_of_many_files_is_waited_for(impatient: Drive, tmp_path: Path) -> None:
    """Between two of its files nothing is open for an instant; its large file takes longer than readers are waited for."""
    chance, roll = random.Random(5), tmp_path / "roll"
    roll.mkdir()
    for number in range(100):
        (roll / f"{number:04}.tif").write_bytes(chance.randbytes(20_000))
    (roll / "z.dng").write_bytes(chance.randbytes(40 * MIB))
    target = impatient.mount / "Documents/archive/roll"
    copy = rsync(roll, target, "8m")
    await_file(target / "0001.tif")
    assert impatient.process is not None
    impatient.process.send_signal(signal.SIGINT)
    said, _ = copy.communicate(timeout=60)
    assert copy.returncode == 0, said
    told, _ = impatient.process.communicate(timeout=60)
    assert impatient.process.returncode == 0, told
    assert not impatient.mount.is_mount()
    waits = [line for line in told.splitlines() if line.startswith("Waiting for 1 open upload(s): ")]
    assert any("/Documents/archive/roll/.z.dng." in line and "MiB stored)" in line for line in waits), told
    impatient.start()
    assert {each.name: each.read_bytes() for each in target.iterdir()} == {
        each.name: each.read_bytes() for each in roll.iterdir()
    }


def put(drive: Drive, name: str, body: bytes) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", drive.port, timeout=60)
    token = base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
    connection.request("PUT", f"/Documents/archive/{name}", body, {"Authorization": f"Basic {token}"})
    return connection.getresponse()


def test_while_it_waits_no_other_put_begins(impatient: Drive) -> None:
    assert put(impatient, "before.dng", b"x").status == 201
    assert impatient.process is not None
    with (impatient.mount / "Documents/archive/open.dng").open("wb") as file:
        file.write(bytes(20 * MIB))
        file.flush()
        impatient.process.send_signal(signal.SIGINT)
        assert impatient.process.stdout is not None
        while "Waiting for 1 open upload(s): /Documents/archive/open.dng (" not in impatient.process.stdout.readline():
            pass
        refused = put(impatient, "late.dng", bytes(2 * MIB))
        assert refused.status == 503
        assert int(refused.headers["Retry-After"]) > 0
        assert b"stopped" in refused.read()
        assert impatient.get("/Documents/archive/before.dng") == b"x"
    assert impatient.process.wait(60) == 0
    impatient.start()
    assert (impatient.mount / "Documents/archive/open.dng").stat().st_size == 20 * MIB


def test_many_steady_writers_end_with_the_second_signal(impatient: Drive, tmp_path: Path) -> None:
    """There is no instant without an open upload; the old contents stay."""
    (tmp_path / "roll").mkdir()
    (tmp_path / "roll/a.dng").write_bytes(bytes(200 * MIB))
    copies = [rsync(tmp_path / "roll", impatient.mount / f"Documents/archive/{n}", "4m") for n in range(3)]
    for number in range(3):
        await_file(impatient.mount / f"Documents/archive/{number}")
    assert impatient.process is not None
    assert impatient.process.stdout is not None
    impatient.process.send_signal(signal.SIGINT)
    while "Waiting for" not in impatient.process.stdout.readline():
        pass
    time.sleep(2 * READERS_SECONDS)
    assert impatient.process.poll() is None
    impatient.process.send_signal(signal.SIGINT)
    assert impatient.process.wait(20) == 130
    for copy in copies:
        copy.communicate(timeout=30)
        assert copy.returncode != 0
    impatient.start()
    assert not list((impatient.mount / "Documents/archive").rglob("a.dng"))


def test_who_only_reads_is_cut_off(impatient: Drive) -> None:
    file = impatient.mount / "Documents/archive/master.dng"
    file.write_bytes(b"x" * MIB)
    assert impatient.process is not None
    with contextlib.suppress(OSError), file.open("rb") as reader:  # closing it says that the mount is gone
        reader.read(1)
        impatient.process.send_signal(signal.SIGINT)
        told, _ = impatient.process.communicate(timeout=60)
    assert impatient.process.returncode == 0, told
    assert "is in use by" in told
    assert "it is cut off" in told
    assert not impatient.mount.is_mount()
