"""Mounts of the toy, in a thread of the test's process: system calls release the GIL, so the test may use them itself."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from fuse.mount import FuseMount, MountOptions
from tests.fuse.toy import ToyVfs

if TYPE_CHECKING:
    from archivia_fs.vfs.vfs import Vfs


@pytest.fixture
def vfs() -> ToyVfs:
    return ToyVfs()


@contextmanager
def mounted(vfs: ToyVfs, path: Path, **options: Any) -> Iterator[FuseMount]:
    """A mount that answers; gone at the end, whatever happened."""
    mount = FuseMount(cast("Vfs", vfs), path, MountOptions(user="admin", **options))
    mount.mount()
    thread = threading.Thread(target=mount.run, daemon=True)
    thread.start()
    try:
        assert mount.ready.wait(10)
        yield mount
    finally:
        try:
            mount.unmount(force=True, timeout=20)
        finally:
            subprocess.run(["fusermount3", "-u", "-z", "-q", str(path)], check=False)
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def mount(vfs: ToyVfs, tmp_path: Path) -> Iterator[Path]:
    with mounted(vfs, tmp_path / "mnt") as mount:
        yield mount.path


def eventually(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Names are pushed by a thread, some 100 us after the commit."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not within the time"
        time.sleep(0.002)
