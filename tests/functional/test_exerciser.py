"""The exerciser on the mount, for a while. It maps files, so it runs in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.functional.conftest import House


@pytest.mark.parametrize("seed", [1, 2])
def test_no_byte_differs(house: House, roll: str, seed: int) -> None:
    file = house.mount / "Documents" / "archive" / roll / "exercised.dng"
    command = [sys.executable, "-m", "tests.functional.exerciser", f"--seed={seed}", "--ops=400", str(file)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert "400 operations without a difference" in done.stdout
