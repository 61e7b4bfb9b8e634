"""The exerciser on the mount, for a while. It maps files, so it runs in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from archivia_fs.store.s3 import S3Config, S3Store
from archivia_fs.store.stack import stack
from archivia_fs.vfs.vfs import Vfs, VfsOptions
from catalog.catalog import Catalog
from tests.functional.drives import ADMIN
from tests.fuse.conftest import mounted
from tests.s3_servers import S3Server


@contextmanager
def gateway(home: Path, server: S3Server) -> Iterator[Path]:
    """A collection on a mount of its own. Another one on the same home is the same gateway after a restart."""
    store = S3Store(
        S3Config(server.endpoint, server.bucket, server.access_key, server.secret_key, prefix=f"{home.name}/")
    )
    stacked = stack(store)
    stacked.probe()
    catalog = Catalog.open(f"sqlite:///{home}/catalog.db")
    vfs = Vfs(catalog, stacked, VfsOptions(home / "spill"))
    if not catalog.users():
        catalog.add_user("admin", "no password", admin=True)
        vfs.mkdir(ADMIN, vfs.resolve(ADMIN, "/Documents").ino, "archive", 0o755)
    with mounted(vfs, home / "mnt") as mount:  # type: ignore[arg-type]
        yield mount.path / "Documents" / "archive"
        mount.unmount()  # not by force: whatever is open is a mistake
    vfs.close()
    catalog.close()
    store.close()


@pytest.mark.parametrize("seed", [1, 2])
def test_no_byte_differs(server: S3Server, tmp_path: Path, seed: int) -> None:
    """Each time the mount goes, so does everything that is remembered of the file but what is stored."""
    asks, answers = tmp_path / "asks", tmp_path / "answers"
    for pipe in (asks, answers):
        os.mkfifo(pipe)
    file = tmp_path / "mnt" / "Documents" / "archive" / "exercised.dng"
    remount = f"echo remount > {asks} && cat {answers}"
    exercise = f"{sys.executable} -m tests.functional.exerciser --seed={seed} --ops=400 --remount='{remount}' {file}"
    exerciser = subprocess.Popen(
        ["sh", "-c", f"cat {answers}; {exercise}; code=$?; echo over > {asks}; exit $code"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    mounts, asked = 0, "remount\n"
    while asked == "remount\n":
        mounts += 1
        with gateway(tmp_path, server):
            answers.write_text("mounted\n")
            asked = asks.read_text()
    said, complained = exerciser.communicate()
    assert exerciser.returncode == 0, complained
    assert "400 operations without a difference" in said
    assert mounts > 1
