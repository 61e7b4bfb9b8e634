"""An exerciser in the manner of fsx: random operations on one file beside a bytearray, and the first difference in words.

`python -m tests.functional.exerciser [--seed N] [--ops N] [--remount COMMAND] FILE` on any filesystem; a test runs a short one on
the mount. COMMAND unmounts and mounts again, with nothing in any cache. The file is mapped into memory, so this must not run in the
process that serves the mount.
"""

from __future__ import annotations

import argparse
import mmap
import os
import random
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

SIZE_MAX = 24 * 1024**2  # bytes: up to three parts
PIECE_MAX = 300_000  # bytes of one operation
LAST = 12  # operations shown with a difference
REMOUNTS = 0.5  # of about 100 operations


class Difference(Exception):
    """The file is not what was written."""


class Exerciser:
    """`path` is made anew. `remount`: what to do now and then while it is closed."""

    def __init__(self, path: Path, seed: int, remount: Callable[[], object] | None = None) -> None:
        self._path = path
        self._chance = random.Random(seed)
        self._remount_now = remount
        self._model = bytearray()
        self._log: deque[str] = deque(maxlen=LAST)
        path.write_bytes(b"")
        self._file = os.open(path, os.O_RDWR)

    def run(self, operations: int) -> None:
        """Raises Difference."""
        kinds: list[tuple[float, Callable[[], None]]] = [
            (30, self._write), (12, self._append), (30, self._read), (6, self._truncate), (6, self._truncate_by_name),
            (6, self._reopen), (4, self._sync), (5, self._mapped), (3, self._mapped_write), (1, self._whole),
            (0 if self._remount_now is None else REMOUNTS, self._remount),
        ]  # fmt: skip
        weights, acts = zip(*kinds, strict=True)
        for _ in range(operations):
            self._chance.choices(acts, weights)[0]()
            if os.fstat(self._file).st_size != len(self._model):
                raise self._difference(f"the size is {os.fstat(self._file).st_size} instead of {len(self._model)}")
        self._reopen()
        self._whole()
        os.close(self._file)

    def _piece(self) -> tuple[int, int]:
        offset = self._chance.randrange(min(SIZE_MAX, len(self._model) + PIECE_MAX))
        return offset, min(self._chance.randrange(1, PIECE_MAX), SIZE_MAX - offset)

    def _write(self) -> None:
        offset, size = self._piece()
        self._put(offset, self._chance.randbytes(size))

    def _append(self) -> None:
        if len(self._model) + PIECE_MAX < SIZE_MAX:
            self._put(len(self._model), self._chance.randbytes(self._chance.randrange(1, PIECE_MAX)))

    def _put(self, offset: int, data: bytes) -> None:
        self._log.append(f"write {len(data)} at {offset}")
        os.pwrite(self._file, data, offset)
        self._model.extend(bytes(max(0, offset - len(self._model))))
        self._model[offset : offset + len(data)] = data

    def _read(self) -> None:
        offset, size = self._piece()
        self._log.append(f"read {size} at {offset}")
        self._compare(offset, os.pread(self._file, size, offset), size)

    def _mapped(self) -> None:
        if not self._model:
            return
        offset, size = self._piece()
        self._log.append(f"mapped read {size} at {offset}")
        with mmap.mmap(self._file, len(self._model), prot=mmap.PROT_READ) as mapped:
            self._compare(offset, mapped[offset : offset + size], size)

    def _mapped_write(self) -> None:
        if not self._model:
            return
        offset, size = self._piece()
        data = self._chance.randbytes(max(0, min(size, len(self._model) - offset)))
        self._log.append(f"mapped write {len(data)} at {offset}")
        with mmap.mmap(self._file, len(self._model)) as mapped:
            mapped[offset : offset + len(data)] = data
            if self._chance.random() < 0.5:
                mapped.flush()  # else the kernel writes it when the mapping goes
        self._model[offset : offset + len(data)] = data

    def _truncate(self) -> None:
        size = self._new_size()
        self._log.append(f"ftruncate {size}")
        os.ftruncate(self._file, size)

    def _truncate_by_name(self) -> None:
        size = self._new_size()
        self._log.append(f"truncate {size}")
        os.truncate(self._path, size)

    def _new_size(self) -> int:
        size = self._chance.choice([0, self._chance.randrange(SIZE_MAX), self._chance.randrange(len(self._model) + 1)])
        del self._model[size:]
        self._model.extend(bytes(size - len(self._model)))
        return size

    def _reopen(self) -> None:
        self._log.append("close and open")
        os.close(self._file)
        self._file = os.open(self._path, os.O_RDWR)

    def _remount(self) -> None:
        assert self._remount_now is not None
        self._log.append("close, unmount, mount and open")
        os.close(self._file)
        self._remount_now()
        self._file = os.open(self._path, os.O_RDWR)
        self._whole()

    def _sync(self) -> None:
        self._log.append("fsync")
        os.fsync(self._file)

    def _whole(self) -> None:
        self._log.append("read all by another descriptor")
        self._compare(0, self._path.read_bytes(), len(self._model))

    def _compare(self, offset: int, found: bytes, size: int) -> None:
        expected = self._model[offset : offset + size]
        if found == expected:
            return
        if len(found) != len(expected):
            raise self._difference(f"{len(found)} bytes at {offset} instead of {len(expected)}")
        at = next(number for number, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b)
        raise self._difference(f"byte {offset + at} is {found[at]} instead of {expected[at]}")

    def _difference(self, what: str) -> Difference:
        return Difference(f"{what}; after: " + "; ".join(self._log))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ops", type=int, default=20_000)
    parser.add_argument("--remount", metavar="COMMAND", help="unmounts and mounts again")
    arguments = parser.parse_args()
    remount = None
    if arguments.remount:
        remount = partial(subprocess.run, arguments.remount, shell=True, check=True, stdout=subprocess.DEVNULL)
    try:
        Exerciser(arguments.file, arguments.seed, remount).run(arguments.ops)
    except Difference as difference:
        sys.exit(f"seed {arguments.seed}: {difference}")
    print(f"seed {arguments.seed}: {arguments.ops} operations without a difference")


if __name__ == "__main__":
    main()
