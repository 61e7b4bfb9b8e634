"""What a decoder gets: a range of a file, or a small TIFF made of pieces of a huge one (see sampling, reduced).

Owns: how pieces are fetched. Used by: sampling, reduced, pool, maker. Threading: `fetch` reads in a few threads of its own, which
end with it; it holds at most THREADS * STEP bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from archivia_fs.errors import BadPicture
from archivia_fs.views.thumbnails.windows import Read

STEP = 4 * 1024**2  # bytes read at once
THREADS = 4  # pieces are small, and a store far away takes 20 ms for each


class Part(Protocol):
    """`size`: bytes that `write` puts into the file behind `descriptor`, for samples a few more. It raises BadPicture, and what
    `read` raises."""

    @property
    def size(self) -> int: ...

    def write(self, read: Read, descriptor: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Range:
    """`size` bytes from `offset`, as they are."""

    offset: int
    size: int

    def write(self, read: Read, descriptor: int) -> None:
        """In order."""
        at, end = self.offset, self.offset + self.size
        while at < end:
            data = read(at, min(STEP, end - at))
            if not data:
                raise BadPicture(f"The file ends {end - at} bytes before its picture does.")
            at += os.pwrite(descriptor, data, at - self.offset)


@dataclass(frozen=True, slots=True)
class Piece:
    """`size` bytes of a file from `offset`, at most STEP, and where they go."""

    offset: int
    size: int
    at: int


def fetch(read: Read, pieces: Iterable[Piece], use: Callable[[Piece, memoryview], None], gap: int = 0) -> None:
    """Calls `use` with each piece and its bytes, from several threads. What stands one behind the other, with at most `gap` bytes
    between, is read at once. Raises BadPicture, and what `read` raises."""
    threads = ThreadPoolExecutor(THREADS, "pieces")
    try:
        for _ in threads.map(lambda run: _fetch(read, run, use), _runs(pieces, gap)):
            pass
    finally:
        threads.shutdown(cancel_futures=True)


def _runs(pieces: Iterable[Piece], gap: int) -> Iterator[list[Piece]]:
    run: list[Piece] = []
    for piece in pieces:
        if run:
            near = 0 <= piece.offset - (run[-1].offset + run[-1].size) <= gap
            if not near or piece.offset + piece.size - run[0].offset > STEP:
                yield run
                run = []
        run.append(piece)
    if run:
        yield run


def _fetch(read: Read, run: list[Piece], use: Callable[[Piece, memoryview], None]) -> None:
    start, end = run[0].offset, run[-1].offset + run[-1].size
    data = memoryview(read(start, end - start))
    if len(data) != end - start:
        raise BadPicture("The file ends before its picture does.")
    for piece in run:
        use(piece, data[piece.offset - start :][: piece.size])
