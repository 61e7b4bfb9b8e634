"""Samples of a TIFF whose pixels stand in it as they are: every n-th of every n-th row, as a small TIFF for the decoder.

Owns: which pixels are read. Used by: ways. Threading: pure but for the reading.
A scan of gigabytes is mostly like that, and of one of some hundred megabytes this is less to read and to keep in memory than the
whole. Of 16 bits the upper 8 are taken: more are not seen in a JPEG.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from archivia_fs.errors import BadPicture
from archivia_fs.views.thumbnails import SIDES
from archivia_fs.views.thumbnails.ifd import (
    LONG,
    SHORT,
    UNDEFINED,
    Directory,
    Photometric,
    Tag,
    Tiff,
    Value,
    profile_place,
)
from archivia_fs.views.thumbnails.parts import STEP, Piece, fetch
from archivia_fs.views.thumbnails.windows import Read
from archivia_fs.views.thumbnails.writing import HEAD_MAX, tiff_head

SIDE = 2 * SIDES[-1]  # pixels: of the longer side of a sample that much at most, half of it at least
BYTES_MAX = 256 * 1024**2  # read for one sample
READS_MAX = 16_384  # for one sample of more bytes than that
GAP = 128 * 1024  # bytes that are rather read than left out
CELLS_MAX = 400_000  # strips or tiles, 3 MiB of table
_CHANNELS: Mapping[int, int] = {Photometric.WHITE_IS_ZERO: 1, Photometric.BLACK_IS_ZERO: 1, Photometric.RGB: 3}


@dataclass(frozen=True, slots=True)
class Grid:
    """Where pixels stand: cells (tiles, or strips as wide as the picture) of `width` x `height` pixels, `across` in a row."""

    width: int
    height: int
    across: int
    offsets: Sequence[int]


@dataclass(frozen=True, slots=True)
class Sample:
    """Every `step`-th pixel of a picture. A pixel has `pixel` bytes, of which `kept` are taken. `profile`: (offset, bytes) of its
    ICC profile. `gap`: as fetch."""

    order: str
    width: int
    height: int
    pixel: int
    kept: Sequence[int]
    photometric: int
    grid: Grid
    step: int
    gap: int
    profile: tuple[int, int]

    @property
    def columns(self) -> int:
        return -(-self.width // self.step)

    @property
    def rows(self) -> int:
        return -(-self.height // self.step)

    @property
    def coarse(self) -> bool:
        """Whether it has fewer pixels than a preview shows."""
        return max(self.columns, self.rows) < min(SIDES[-1], max(self.width, self.height))

    @property
    def size(self) -> int:
        return self.columns * self.rows * len(self.kept) + self.profile[1] + HEAD_MAX

    def write(self, read: Read, descriptor: int) -> None:
        """See Part."""
        samples = len(self.kept)
        values: dict[int, Value] = {
            Tag.WIDTH: self._pack(LONG, self.columns), Tag.HEIGHT: self._pack(LONG, self.rows),
            Tag.BITS: self._pack(SHORT, *[8] * samples), Tag.COMPRESSION: self._pack(SHORT, 1),
            Tag.PHOTOMETRIC: self._pack(SHORT, self.photometric), Tag.SAMPLES: self._pack(SHORT, samples),
            Tag.ROWS_PER_STRIP: self._pack(LONG, self.rows),
        }  # fmt: skip
        if self.profile[1]:
            values[Tag.ICC_PROFILE] = UNDEFINED, read(*self.profile)
        head, (start,) = tiff_head(self.order, values, [self.columns * self.rows * samples])
        os.pwrite(descriptor, head, 0)
        stride = self.pixel * self.step

        def use(piece: Piece, data: memoryview) -> None:
            count = -(-len(data) // stride)
            pixels = bytearray(count * samples)
            for index, byte in enumerate(self.kept):
                pixels[index::samples] = data[byte::stride]
            os.pwrite(descriptor, pixels, start + piece.at * samples)

        fetch(read, self._pieces(), use, self.gap)

    def _pieces(self) -> Iterator[Piece]:
        """Cell by cell, so that what stands together comes together; `at` counts pixels of the sample."""
        grid, step = self.grid, self.step
        for top in range(0, self.height, grid.height):
            rows = range(-(-top // step) * step, min(top + grid.height, self.height), step)
            for column in range(grid.across) if rows else ():
                left = column * grid.width
                first = -(-left // step) * step
                count = len(range(first, min(left + grid.width, self.width), step))
                if count == 0:
                    continue
                cell = grid.offsets[top // grid.height * grid.across + column]
                for row in rows:
                    offset = cell + ((row - top) * grid.width + first - left) * self.pixel
                    size = ((count - 1) * step + 1) * self.pixel
                    yield Piece(offset, size, row // step * self.columns + first // step)

    def _pack(self, kind: int, *values: int) -> Value:
        return kind, struct.pack(self.order + ("H" if kind == SHORT else "I") * len(values), *values)


def sample_of(tiff: Tiff, first: Directory, size: int) -> Sample:
    """Which pixels of the picture in `first` to read; the file has `size` bytes. Raises BadPicture if it cannot be done, in words
    for the log."""
    width, height, samples = first.number(Tag.WIDTH), first.number(Tag.HEIGHT), first.number(Tag.SAMPLES, 1)
    bits = set(first.numbers(Tag.BITS) or (1,))
    photometric = first.number(Tag.PHOTOMETRIC, -1)
    channels = _CHANNELS.get(photometric, 0)
    plain = (
        first.number(Tag.COMPRESSION, 1) == 1 and first.number(Tag.PLANAR, 1) == 1 and bits in ({8}, {16})
        and set(first.numbers(Tag.SAMPLE_FORMAT) or (1,)) == {1} and 0 < channels <= samples <= 4
        and width > 0 and height > 0
    )  # fmt: skip
    if not plain:
        raise BadPicture(f"It has {size} bytes and {width} x {height} pixels, which cannot be read in part.")
    deep = bits == {16}
    pixel = samples * (2 if deep else 1)
    grid = _grid(first, width, height, size)
    if min(grid.width, width) * pixel > STEP:
        raise BadPicture(f"Its rows of {width} pixels are too long to be read.")
    step, gap = -(-max(width, height) // SIDE), GAP
    row = grid.across * grid.width * pixel
    if height * row > BYTES_MAX:
        rows = min(BYTES_MAX // row, READS_MAX // grid.across)
        step, gap = max(step, -(-height // max(1, rows))), 0
    upper = 1 if deep and tiff.order == "<" else 0  # the byte of a sample that counts more
    kept = [upper + index * (2 if deep else 1) for index in range(channels)]
    return Sample(
        tiff.order, width, height, pixel, kept, photometric, grid, step, gap, profile_place(first, size)
    )  # fmt: skip


def _grid(first: Directory, width: int, height: int, size: int) -> Grid:
    tiled = first.count(Tag.TILE_OFFSETS) > 0
    cell_width = first.number(Tag.TILE_WIDTH) if tiled else width
    cell_height = first.number(Tag.TILE_HEIGHT) if tiled else first.number(Tag.ROWS_PER_STRIP, height)
    cell_height = cell_height if tiled else min(cell_height or height, height)
    if cell_width <= 0 or cell_height <= 0:
        raise BadPicture("The picture has tiles without pixels.")
    across, down = -(-width // cell_width), -(-height // cell_height)
    offsets = first.numbers(Tag.TILE_OFFSETS if tiled else Tag.STRIP_OFFSETS, CELLS_MAX)
    if len(offsets) < across * down:
        raise BadPicture("The picture has fewer rows than it says.")
    if max(offsets) >= size:
        raise BadPicture("The picture points to rows past its end.")
    return Grid(cell_width, cell_height, across, offsets)
