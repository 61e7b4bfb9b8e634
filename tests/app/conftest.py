from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.drive import Drive


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Drive]:
    it = Drive(tmp_path)
    it.start()
    yield it
    it.clean()
