from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from archivia_fs.views.thumbnails.pool import Pool
from tests.views.drive import Drive


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    pool = Pool()
    yield pool
    pool.close()


@pytest.fixture
def drive(tmp_path: Path, pool: Pool) -> Iterator[Drive]:
    drive = Drive(tmp_path, pool)
    yield drive
    drive.close()
