"""The values of a run: what is measured, on which data.

Owns: Workload, Measure, Row, and what is cold when. Used by: rows, scale, documents, previews, table, __main__. Values.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.doors import Contender
from tests.bench.processes import drop_caches
from tests.bench.wire import Wire, counted

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
    """One number: `seconds`, or for memory `peak` bytes. `moved`: bytes that crossed the door. `note`: a surprise.

    Where it was counted: `added`, the bytes of memory more than before; `requests` to S3, and `read`, the bytes from S3 that
    the client did not ask for.
    """

    row: str
    seconds: float = 0.0
    moved: int = 0
    cpu: float = 0.0  # seconds of CPU in the contender's processes
    peak: int = 0
    note: str = ""
    failed: bool = False
    added: int | None = None
    requests: float | None = None
    read: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table. `limited`: plain S3 has a comparable number."""

    name: str
    title: str
    limited: bool = False


MANY = frozenset({"rsync-many", "cp-many", "find", "ls-lR"})  # rows of 10,000 files, and of a tree of ten times as many
# Minutes each; only when they are asked for by name, or with --all.
LONG = MANY | {"create", "stat", "renames", "unlink", "random4k", "edit", "git", "zip", "previews"}


def reopen(contender: Contender) -> None:
    """Cold: nothing of the file is in the contender or the kernel."""
    contender.stop()
    drop_caches()
    contender.start()


@contextlib.contextmanager
def opened(contender: Contender) -> Iterator[None]:
    """The contender, cold; stopped afterwards."""
    try:
        reopen(contender)
        yield
    finally:
        contender.stop()


@contextlib.contextmanager
def behind_wire(contender: Contender) -> Iterator[Wire]:
    """The contender, cold, while a proxy counts what it has with S3; stopped afterwards."""
    plain = contender.place.server
    with counted(plain) as wire:
        contender.stop()
        contender.redirect(wire.server)
        try:
            with opened(contender):
                yield wire
        finally:
            contender.redirect(plain)
