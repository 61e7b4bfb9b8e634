"""The main job on the embedded default: a DNG goes in by rsync and comes out by WebDAV, as a person would do it.

The DNGs are generated, as no package ships a camera's own; those that lie beside the checkout go through too (tests/masters.py).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from tests.app.drive import PROGRAM, Drive
from tests.masters import masters


@pytest.fixture
def roll(tmp_path: Path) -> Path:
    folder = tmp_path / "roll-03"
    folder.mkdir()
    chance = random.Random(3)
    for number, size in enumerate((0, 1, 100_000, 9_000_000, 20_000_001)):
        (folder / f"{number:04}.dng").write_bytes(chance.randbytes(size))
    for name, data in masters().items():
        (folder / name).write_bytes(data)
    return folder


def test_in_by_rsync_out_by_webdav_and_found_again(drive: Drive, roll: Path) -> None:
    """[D1] `close()`, `fsync()` and a 2xx answer mean: every byte is stored, verified by checksum or size, and named in the
    catalog.
    """
    target = drive.mount / "Documents/archive/1927 Expedition"
    subprocess.run(["rsync", "-a", f"{roll}/", f"{target}/"], check=True, timeout=60)
    again = subprocess.run(
        ["rsync", "-a", "--stats", f"{roll}/", f"{target}/"], check=True, timeout=60, capture_output=True, text=True
    )
    assert "files transferred: 0" in again.stdout
    for file in roll.iterdir():
        assert drive.get(f"/Documents/archive/1927%20Expedition/{file.name}") == file.read_bytes()
    part = drive.get("/Documents/archive/1927%20Expedition/0004.dng", Range="bytes=9000000-9000099")
    assert part == (roll / "0004.dng").read_bytes()[9_000_000:9_000_100]

    assert drive.end() == 0
    assert not drive.mount.is_mount()
    drive.start()
    assert (target / "0003.dng").read_bytes() == (roll / "0003.dng").read_bytes()
    assert "files" in drive.run("status").stdout
    assert drive.end() == 0


def test_a_kill_in_the_middle_of_a_write_leaves_the_old_content(drive: Drive, tmp_path: Path) -> None:
    """SIGKILL at any moment of a write leaves the old content, readable, and the next start recovers the mountpoint.
    [D3] SIGKILL of the gateway at any moment of a write leaves the old content, readable.
    """
    file = drive.mount / "Documents/archive/master.dng"
    file.write_bytes(b"the old content")
    with file.open("r+b", buffering=0) as handle:
        handle.truncate(0)
        for _ in range(24):
            handle.write(bytes(1024**2))
        drive.end(signal.SIGKILL)
        with pytest.raises(OSError, match=r".*"):
            os.fsync(handle.fileno())
        with pytest.raises(OSError, match=r".*"):
            handle.close()
    drive.start()
    assert file.read_bytes() == b"the old content"


@pytest.mark.parametrize(
    ("environment", "code", "message"),
    [
        ({"ARCHIVIA_S3_BUKET": "x"}, 2, "ARCHIVIA_S3_BUCKET"),
        ({"ARCHIVIA_S3_ENDPOINT": "http://127.0.0.1:9"}, 2, "ARCHIVIA_S3_ACCESS_KEY"),
        ({"ARCHIVIA_MEMORY": "much"}, 2, "ARCHIVIA_MEMORY"),
        ({"ARCHIVIA_CATALOG_URL": "mysql://x"}, 4, "postgresql"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, environment: dict[str, str], code: int, message: str) -> None:
    drive = Drive(tmp_path)
    done = subprocess.run(
        [*PROGRAM, "status"],
        env={**drive.environment, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    drive.run("store", "stop")
    assert done.returncode == code
    assert message in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


def test_doors_that_cannot_open_say_why(drive: Drive, tmp_path: Path) -> None:
    taken = drive.run("serve", f"--listen=127.0.0.1:{drive.port}")
    assert taken.returncode == 2
    assert "--listen" in taken.stderr
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").touch()
    assert drive.run("mount", str(full)).returncode == 5
