"""Uploads that survive, on the mount: a gateway is killed while rsync writes, and the same rsync again sends only what is missing.

The programs are real and talk to a real S3 server; a proxy between them sees which parts are sent.
"""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from archivia_fs.types import UploadRecord
from catalog.catalog import Catalog
from tests.app.parts import Parts, counted
from tests.app.program import Program, warm
from tests.s3_servers import seaweedfs

MIB = 1024**2
SIZE = 70 * MIB + 12_345  # 8 parts of 8 MiB and a rest
RATE = 16  # MiB/s, so that there is a middle to kill it in


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    with seaweedfs(tmp_path_factory.mktemp("s3")) as server, counted(server) as parts:
        yield parts


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "master.dng"
    path.write_bytes(random.Random(11).randbytes(SIZE))
    return path


class House:
    """Gateways on one catalog and one store, each with a mount of its own."""

    def __init__(self, folder: Path, parts: Parts, warm: subprocess.Popen[str]) -> None:
        self.program = Program(folder / "home", parts.server, warm)
        self.parts = parts
        self._folder = folder
        self._gateways: dict[str, subprocess.Popen[str]] = {}

    def mount(self, name: str) -> Path:
        """A gateway; returns the collection `archive`."""
        mount = self._folder / name
        self._gateways[name] = self.program.start("mount", mount)
        archive = mount / "Documents/archive"
        end = time.monotonic() + 60
        while not _is_dir(archive):
            assert time.monotonic() < end
            time.sleep(0.05)
        return archive

    def kill(self, name: str) -> None:
        gateway = self._gateways.pop(name)
        gateway.kill()
        gateway.communicate()

    def broken_off(self, name: str, parts: int, *command: object) -> UploadRecord:
        """The gateway dies when so many parts of what `command` writes are in the journal; what the journal has then."""
        with contextlib.closing(Catalog.open(f"sqlite:///{self.program.home}/catalog.db")) as catalog:
            self.parts.clear()
            copy = subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE)
            while sum(each.parts for each in catalog.open_uploads()) < parts:
                time.sleep(0.01)  # pytest's timeout bounds it
            self.kill(name)
            copy.communicate()
            assert copy.returncode != 0, "whoever wrote was told"
            (record,) = catalog.uploads()
        self.parts.clear()
        return record

    def close(self) -> None:
        for name, gateway in self._gateways.items():
            gateway.send_signal(signal.SIGINT)
            gateway.communicate(timeout=60)
            assert not (self._folder / name).is_mount()


@pytest.fixture
def house(tmp_path: Path, parts: Parts) -> Iterator[House]:
    with warm() as process:
        house = House(tmp_path, parts, process)
        yield house
        house.close()
    for mount in tmp_path.iterdir():
        subprocess.run(["umount", "-l", str(mount)], check=False, capture_output=True)


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a mount whose gateway is dead
        return False


def run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, timeout=100)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("other", ["the same mount again", "a mount that was there all the time"])
def test_rsync_after_the_gateway_was_killed(house: House, master: Path, other: str) -> None:
    """[D13] What a dead gateway had stored is taken over by whoever sends the same bytes again, through any door.
    [D17] What was interrupted is told by `archivia-fs status`: for which file, how much is stored, until when it can go on."""
    # rsync writes to a name of its own and renames at the end; the second time it is another name
    archive = house.mount("mnt")
    there = archive if other == "the same mount again" else house.mount("other")
    broken = house.broken_off("mnt", 4, "rsync", f"--bwlimit={RATE}m", master, f"{archive}/")
    told = json.loads(house.program.run("status", "--json").stdout)
    (upload,) = told["uploads"]
    assert upload["target"].startswith("/Documents/archive/.master.dng.")
    assert upload["bytes"] == sum(part.size for part in broken.parts) >= 4 * 8 * MIB
    assert upload["since"] < upload["resumable_until"]
    assert (upload["alive"], told["open_uploads"], told["interrupted_uploads"]) == (False, 0, 1)
    assert "interrupted" in house.program.run("status").stdout
    if there == archive:
        there = house.mount("mnt")
    run("rsync", master, f"{there}/")
    assert sorted(house.parts.sent) == [n for n in range(1, 10) if n not in {part.number for part in broken.parts}]
    assert (there / "master.dng").read_bytes() == master.read_bytes()
    assert json.loads(house.program.run("status", "--json").stdout)["uploads"] == []


@pytest.mark.timeout(180)
def test_append_after_the_gateway_was_killed(house: House, master: Path, tmp_path: Path) -> None:
    """`rsync --append-verify` onto what an earlier copy had closed: neither are the old bytes copied again."""
    archive, other = house.mount("mnt"), house.mount("other")
    there = archive / "master.dng"
    there.write_bytes(master.read_bytes()[: 20 * MIB])
    append = "rsync", "--append-verify"
    broken = house.broken_off("mnt", 4, *append, f"--bwlimit={RATE}m", master, there)
    assert [part.number for part in broken.parts if part.source is not None] == [1]
    assert (other / "master.dng").stat().st_size == 20 * MIB
    run(*append, master, other / "master.dng")
    assert house.parts.copied == []
    assert sorted(house.parts.sent) == [n for n in range(2, 9) if n not in {part.number for part in broken.parts}]
    assert (other / "master.dng").read_bytes() == master.read_bytes()


@pytest.mark.timeout(180)
def test_an_import_after_the_gateway_was_killed(house: House, master: Path) -> None:
    """Another door; and a program that goes on in place."""
    archive = house.mount("mnt")
    broken = house.broken_off("mnt", 3, "rsync", "--inplace", "-W", f"--bwlimit={RATE}m", master, f"{archive}/")
    done = house.program.run("import", master, "/Documents/archive/imported.dng")
    assert done.returncode == 0, done.stderr
    assert sorted(house.parts.sent) == [n for n in range(1, 10) if n not in {part.number for part in broken.parts}]
    archive = house.mount("mnt")
    assert (archive / "imported.dng").read_bytes() == master.read_bytes()
    assert (archive / "master.dng").stat().st_size == 0, "of which nothing was closed"
