from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.drive import Drive


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Drive]:
    it = Drive(tmp_path)
    it.start()
    yield it
    if it.process is not None and it.process.poll() is None:
        it.end()
    subprocess.run(["umount", "-l", str(it.mount)], check=False, capture_output=True)
    it.run("store", "stop")
