"""The values of a run: what is measured, on which data.

Owns: Workload, Measure, Row. Used by: rows, scale, table, __main__. Values.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.bench.doors import Contender
from tests.bench.processes import drop_caches

BIG = "big.dng"
SMALL_BYTES = 100 * 1000
MANY = "many"


@dataclass(frozen=True, slots=True)
class Workload:
    """The data: `big` is one incompressible file, `small` a folder of files; both on a warm local disk."""

    big: Path
    small: Path
    size: int
    random_reads: int = 200
    small_files: int = 500
    many_files: int = 10_000
    operations: int = 1000
    copied_files: int = 10_000
    tree_files: int = 100_000
    repository: Path = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Measure:
    """One number: `seconds`, or for memory `peak` bytes. `moved`: bytes that crossed the door. `note`: a surprise."""

    row: str
    seconds: float = 0.0
    moved: int = 0
    cpu: float = 0.0  # seconds of CPU in the contender's processes
    peak: int = 0
    note: str = ""
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table. `limited`: plain S3 has a comparable number."""

    name: str
    title: str
    limited: bool = False


# Minutes each; only when they are asked for by name, or with --all.
LONG = frozenset(
    {"create", "stat", "renames", "unlink", "random4k", "edit", "rsync-many", "cp-many", "find", "ls-lR", "git"}
)


def reopen(contender: Contender) -> None:
    """Cold: nothing of the file is in the contender or the kernel."""
    contender.stop()
    drop_caches()
    contender.start()
