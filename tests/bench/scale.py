"""Rows of many small operations, and of one small one in a large file. Mounts only.

Owns: their steps. Used by: rows.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.doors import MountDoor
from tests.bench.measures import BIG, Measure, Workload, behind_wire, reopen

Step = tuple[str, Callable[[], list[Measure]]]


def steps(contender: MountDoor, workload: Workload, wanted: frozenset[str]) -> list[Step]:
    """Those of `wanted` that are here, in order."""
    found: list[Step] = []
    if not wanted.isdisjoint({"create", "stat", "renames", "unlink"}):
        found.append(("create", lambda: _operations(contender, workload)))
    if "random4k" in wanted:
        found.append(("random4k", lambda: _random(contender, workload)))
    if "rsync-many" in wanted:
        found.append(("rsync-many", lambda: _many(contender, workload, "rsync-many")))
    if "cp-many" in wanted:
        found.append(("cp-many", lambda: _many(contender, workload, "cp-many")))
    if not wanted.isdisjoint({"find", "ls-lR"}):
        found.append(("find", lambda: _tree(contender, workload)))
    if "git" in wanted:
        found.append(("git", lambda: _git(contender, workload)))
    if "edit" in wanted:
        found.append(("edit", lambda: _edit(contender, workload)))
    return found


def _operations(contender: MountDoor, workload: Workload) -> list[Measure]:
    count = str(workload.operations)
    found = [_timed(contender, "create", lambda: contender.probe("create", "ops", count))]
    contender.wait_stored()
    reopen(contender)
    for row, what in (("stat", "stat_all"), ("renames", "rename_all"), ("unlink", "unlink_all")):
        found.append(_timed(contender, row, lambda what=what: contender.probe(what, "ops", count)))  # type: ignore[misc]
    return found


def _random(contender: MountDoor, workload: Workload) -> list[Measure]:
    reopen(contender)
    reads = str(workload.random_reads)
    return [_timed(contender, "random4k", lambda: contender.probe("random_4k", BIG, str(workload.big), reads))]


def _many(contender: MountDoor, workload: Workload, row: str) -> list[Measure]:
    source, target = _small_files(workload), contender.root / row
    cp, rsync = ["cp", "-r", str(source), str(target)], ["rsync", "-a", f"{source}/", f"{target}/"]
    command = cp if row == "cp-many" else rsync
    return [_timed(contender, row, lambda: contender.command(*command) + _rest(contender))]


def _small_files(workload: Workload) -> Path:
    folder = workload.big.parent / "many-small"
    if not folder.exists():
        folder.mkdir()
        for number in range(workload.copied_files):
            (folder / f"note-{number:05}.txt").write_bytes(os.urandom(1000))
    subprocess.run(["cp", "-r", str(folder), str(folder) + "-warm"], check=True)
    subprocess.run(["rm", "-r", str(folder) + "-warm"], check=True)
    return folder


def _tree(contender: MountDoor, workload: Workload) -> list[Measure]:
    contender.fill_tree("tree", workload.tree_files)
    contender.wait_stored()
    reopen(contender)
    tree = str(contender.root / "tree")
    return [
        _timed(contender, "find", lambda: contender.command("find", tree, "-newer", "/proc/version")),
        _timed(contender, "ls-lR", lambda: contender.command("ls", "-lR", tree)),
    ]


def _git(contender: MountDoor, workload: Workload) -> list[Measure]:
    clone = ["git", "clone", "--quiet", "--no-local", str(workload.repository), str(contender.root / "clone")]
    return [_timed(contender, "git", lambda: contender.command(*clone) + _rest(contender))]


def _edit(contender: MountDoor, workload: Workload) -> list[Measure]:
    with behind_wire(contender) as wire:
        before, cpu = wire.moved, contender.cpu_seconds()
        seconds = contender.probe("edit", BIG, str(workload.size // 2)) + _rest(contender)
        moved = wire.moved - before
        found = Measure(
            "edit", seconds, moved, cpu=contender.cpu_seconds() - cpu, note=f"{moved / 2**20:.1f} MiB on the wire"
        )
    contender.start()
    return [found]


def _timed(contender: MountDoor, row: str, act: Callable[[], float]) -> Measure:
    cpu = contender.cpu_seconds()
    seconds = act()
    return Measure(row, seconds, cpu=contender.cpu_seconds() - cpu)


def _rest(contender: MountDoor) -> float:
    """Seconds until what was closed is stored; most are there at once."""
    start = time.perf_counter()
    contender.wait_stored()
    return time.perf_counter() - start
