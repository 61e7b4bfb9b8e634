"""What is measured, row by row, the same for every contender.

Owns: the order of work and what is cold when. Used by: __main__. Before every cold row the contender is stopped, its local
caches are deleted, the kernel's caches are dropped, and it is started again.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench import scale
from tests.bench.doors import Contender, MountDoor
from tests.bench.measures import BIG, MANY, SMALL_BYTES, Measure, Row, Workload, reopen
from tests.bench.processes import BenchError


def rows(workload: Workload) -> list[Row]:
    """All rows in order, with titles for the tables."""
    size, small, many = mib(workload.size), workload.small_files, workload.many_files
    return [
        Row("write", f"write {size}", limited=True),
        Row("stored", f"write {size} until stored", limited=True),
        Row("read", f"read {size} cold", limited=True),
        Row("random", f"{workload.random_reads} random 128 KiB reads cold", limited=True),
        Row("small", f"{small} files of 100 KB in (rsync; curl)"),
        Row("small-stored", f"{small} files of 100 KB until stored"),
        Row("again", "the same rsync again"),
        Row("list", f"list {many:,} files cold (ls -l; PROPFIND)"),
        Row("rename", f"rename the {size} file"),
        *(
            Row(name, f"{workload.operations:,} x {what}")
            for name, what in (
                ("create", "create"),
                ("stat", "stat cold"),
                ("renames", "rename"),
                ("unlink", "unlink"),
            )
        ),
        Row("random4k", f"{workload.random_reads} random 4 KiB reads cold"),
        Row("edit", f"change 4 KiB in the middle of {size}, close"),
        Row("rsync-many", f"{workload.copied_files:,} files of 1 KB by rsync"),
        Row("cp-many", f"{workload.copied_files:,} files of 1 KB by cp -r"),
        Row("find", f"find in {workload.tree_files:,} files, cold"),
        Row("ls-lR", f"ls -lR of {workload.tree_files:,} files"),
        Row("git", "git clone of this repository"),
        Row("memory", "peak RSS"),
    ]


def mib(size: int) -> str:
    """A size for a title."""
    return f"{size >> 30} GiB" if size % (1 << 30) == 0 else f"{size / (1 << 20):.0f} MiB"


def measure(contender: Contender, workload: Workload, wanted: frozenset[str]) -> Iterator[Measure]:
    """Run the rows named in `wanted`; a row that fails yields a note and the next one goes on."""

    def wants(*names: str) -> bool:
        return not wanted.isdisjoint(names)

    contender.prepare()
    contender.start()
    served = contender.door != "S3"
    steps: list[tuple[str, Callable[[], list[Measure]]]] = []
    if wants("write", "stored", "read", "random", "rename"):
        steps.append(("write", lambda: _write(contender, workload)))
    if wants("read"):
        steps.append(("read", lambda: _read(contender, workload)))
    if wants("random"):
        steps.append(("random", lambda: _random(contender, workload)))
    if wants("small", "again") and served:
        steps.append(("small", lambda: _small(contender, workload)))
    if wants("list") and served:
        steps.append(("list", lambda: _list(contender, workload)))
    if isinstance(contender, MountDoor):
        steps += scale.steps(contender, workload, wanted)
    if wants("rename") and served:
        steps.append(("rename", lambda: _rename(contender)))
    for name, step in steps:
        try:
            yield from step()
        except BenchError as error:
            yield Measure(name, note=str(error), failed=True)
            reopen(contender)
    if served:
        yield Measure("memory", peak=contender.peak_bytes())


def _write(contender: Contender, workload: Workload) -> list[Measure]:
    _warm(workload.big)
    cpu, moved = contender.cpu_seconds(), workload.size
    seconds = contender.write(workload.big, BIG)
    closed_cpu = contender.cpu_seconds() - cpu
    stored = seconds + _wait_stored(contender)
    return [
        Measure("write", seconds, moved, cpu=closed_cpu),
        Measure("stored", stored, moved, cpu=contender.cpu_seconds() - cpu),
    ]


def _read(contender: Contender, workload: Workload) -> list[Measure]:
    reopen(contender)
    cpu = contender.cpu_seconds()
    seconds = contender.read(BIG, workload.size)
    return [Measure("read", seconds, workload.size, cpu=contender.cpu_seconds() - cpu)]


def _random(contender: Contender, workload: Workload) -> list[Measure]:
    reopen(contender)
    cpu = contender.cpu_seconds()
    seconds = contender.read_random(BIG, workload.big, workload.random_reads)
    moved = workload.random_reads * 128 * 1024
    return [Measure("random", seconds, moved, cpu=contender.cpu_seconds() - cpu)]


def _small(contender: Contender, workload: Workload) -> list[Measure]:
    reopen(contender)
    moved = workload.small_files * SMALL_BYTES
    cpu = contender.cpu_seconds()
    seconds, sent = contender.write_many(workload.small, "small")
    stored = seconds + _wait_stored(contender)
    found = [
        Measure(
            "small", seconds, moved, cpu=contender.cpu_seconds() - cpu, note=_unexpected(sent, workload.small_files)
        ),
        Measure("small-stored", stored, moved),
    ]
    if contender.door == "FUSE":
        seconds, sent = contender.write_many(workload.small, "small")
        found.append(Measure("again", seconds, note=_unexpected(sent, 0)))
        contender.wait_stored()
    return found


def _unexpected(sent: int, expected: int) -> str:
    return "" if sent == expected else f"{sent} files sent instead of {expected}"


def _list(contender: Contender, workload: Workload) -> list[Measure]:
    contender.fill(MANY, workload.many_files)
    contender.wait_stored()
    reopen(contender)
    cpu = contender.cpu_seconds()
    seconds = contender.list(MANY, workload.many_files)
    return [Measure("list", seconds, cpu=contender.cpu_seconds() - cpu)]


def _rename(contender: Contender) -> list[Measure]:
    return [Measure("rename", contender.rename(BIG, "renamed.dng"))]


def _wait_stored(contender: Contender) -> float:
    start = time.perf_counter()
    contender.wait_stored()
    return time.perf_counter() - start


def _warm(source: Path) -> None:
    """The source comes from memory, so that no one pays for its disk."""
    subprocess.run(["cat", str(source)], stdout=subprocess.DEVNULL, check=True, timeout=600)
