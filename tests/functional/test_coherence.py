"""What one door commits the others show at once, the kernel's caches included; another process soon."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.functional.conftest import House
from tests.functional.drives import No, refused

PAIRS = list(itertools.permutations(["vfs", "mount", "webdav"], 2))
OTHER = """
import sys
from pathlib import Path
from archivia_fs.store.s3 import S3Config, S3Store
from archivia_fs.vfs.vfs import Vfs, VfsOptions
from catalog.catalog import Catalog
from tests.functional.drives import VfsDrive
url, spill, path, data, *s3 = sys.argv[1:]
store = S3Store(S3Config(*s3))
store.probe()
catalog = Catalog.open(url)
vfs = Vfs(catalog, store, VfsOptions(Path(spill)))
VfsDrive(vfs).write(path, data.encode())
vfs.close()
catalog.close()
store.close()
"""


@pytest.mark.parametrize(("writer", "reader"), PAIRS)
def test_at_once(house: House, roll: str, writer: str, reader: str) -> None:
    """[C1] What one door commits, the other shows at once: names, size, bytes and ETag, the kernel's caches included."""
    one, other = house.drives[writer], house.drives[reader]
    path = roll + "a.dng"
    assert other.names(roll) == []
    assert refused(lambda: other.read(path)) is No.MISSING  # and the kernel remembers that
    for data in (b"first", b"second, longer", b"third!", b"THIRD!", b"", bytes(9 * 1024**2), b"end"):
        one.write(path, data)
        assert other.size(path) == len(data)
        assert other.read(path) == data
        assert other.names(roll) == ["a.dng"]
    one.rename(path, roll + "b.dng")
    assert other.names(roll) == ["b.dng"]
    assert refused(lambda: other.read(path)) is No.MISSING
    assert other.read(roll + "b.dng") == b"end"
    one.mkdir(roll + "sub")
    one.rename(roll + "b.dng", roll + "sub/b.dng")
    assert (other.names(roll), other.names(roll + "sub")) == (["sub"], ["b.dng"])
    one.remove(roll + "sub/b.dng")
    one.remove(roll + "sub")
    assert other.names(roll) == []
    assert refused(lambda: other.names(roll + "sub")) is No.MISSING


def test_another_process(house: House, roll: str, tmp_path: Path) -> None:
    path = roll + "a.dng"
    for drive in house.drives.values():
        assert refused(lambda drive=drive: drive.read(path)) is No.MISSING  # type: ignore[misc]
    for data in ("written by another gateway", "and once more, otherwise"):
        config = house.config
        arguments = [config.endpoint, config.bucket, config.access_key, config.secret_key, config.region, config.prefix]
        command = [sys.executable, "-c", OTHER, house.catalog_url, str(tmp_path), path, data, *arguments]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        subprocess.run(command, env=environment, check=True, timeout=60)
        deadline = time.monotonic() + 10
        for drive in house.drives.values():
            while refused(lambda drive=drive: drive.read(path)) or drive.read(path) != data.encode():  # type: ignore[misc]
                assert time.monotonic() < deadline
                time.sleep(0.02)
            assert drive.size(path) == len(data)
            assert drive.names(roll) == ["a.dng"]
