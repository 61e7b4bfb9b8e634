"""The smaller forms of a TIFF that stand in directories of their own (pyramids), as a small TIFF for the decoder.

Owns: which of them is taken. Used by: ways. Threading: pure but for the reading.
Those that are a single JPEG are previews (ifd) already; these here have strips or tiles of any compression, and only their bytes
are read.
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
    UNDEFINED,
    ColourSpace,
    Directory,
    Tag,
    Tiff,
    Value,
    colour_space_of,
    is_raw,
    is_reduced,
    profile_place,
)  # fmt: skip
from archivia_fs.views.thumbnails.parts import STEP, Piece, fetch
from archivia_fs.views.thumbnails.windows import Read
from archivia_fs.views.thumbnails.writing import HEAD_MAX, tiff_head

BYTES_MAX = 64 * 1024**2  # of its strips or tiles
CELLS_MAX = 65_536  # strips or tiles
VALUE_MAX = 64 * 1024  # bytes of a tag; tables of JPEG have some 600
GAP = 16 * 1024  # bytes that are rather read than left out
_LONG8 = 16
_COPIED = (
    Tag.WIDTH, Tag.HEIGHT, Tag.BITS, Tag.COMPRESSION, Tag.PHOTOMETRIC, Tag.FILL_ORDER, Tag.SAMPLES, Tag.ROWS_PER_STRIP,
    Tag.PLANAR, Tag.PREDICTOR, Tag.COLOUR_MAP, Tag.TILE_WIDTH, Tag.TILE_HEIGHT, Tag.EXTRA_SAMPLES, Tag.SAMPLE_FORMAT,
    Tag.JPEG_TABLES, Tag.YCBCR_SUBSAMPLING, Tag.REFERENCE_BLACK_WHITE,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reduced:
    """One of them: `values` of its directory, and where its strips or tiles stand. `profile`: (offset, bytes) of the ICC
    profile."""

    order: str
    width: int
    height: int
    colour_space: ColourSpace
    values: Mapping[int, Value]
    offsets: Sequence[int]
    sizes: Sequence[int]
    tiled: bool
    profile: tuple[int, int]

    @property
    def side(self) -> int:
        """Pixels of the longer side."""
        return max(self.width, self.height)

    @property
    def size(self) -> int:
        pixels = sum(self.sizes) + 9 * len(self.sizes)  # with their places in the table, and at even ones
        return pixels + sum(len(data) for _, data in self.values.values()) + self.profile[1] + HEAD_MAX

    def write(self, read: Read, descriptor: int) -> None:
        """See Part."""
        values = dict(self.values)
        if self.profile[1]:
            values[Tag.ICC_PROFILE] = UNDEFINED, read(*self.profile)
        head, places = tiff_head(self.order, values, self.sizes, tiled=self.tiled)
        os.pwrite(descriptor, head, 0)
        pieces = (
            Piece(offset + start, min(STEP, size - start), place + start)
            for offset, size, place in zip(self.offsets, self.sizes, places, strict=True)
            for start in range(0, size, STEP)
        )
        fetch(read, pieces, lambda piece, data: _put(descriptor, data, piece.at), GAP)


def _put(descriptor: int, data: memoryview, at: int) -> None:
    os.pwrite(descriptor, data, at)


def reduced_of(tiff: Tiff, first: Directory, size: int) -> Reduced | None:
    """The smallest that is as large as a preview, else the largest; None if there is none that can be read. The file has `size`
    bytes. Raises BadPicture if the first directory is broken."""
    found = sorted(_sizes(tiff), key=lambda each: each[0])
    large = [each for each in found if each[0] >= SIDES[-1]]
    for _, directory in [*large, *reversed(found[: len(found) - len(large)])]:
        try:
            return _reduced(tiff, first, directory, size)
        except BadPicture:  # the next one may do
            continue
    return None


def _sizes(tiff: Tiff) -> Iterator[tuple[int, Directory]]:
    for each in tiff.directories():
        try:
            side = max(each.number(Tag.WIDTH), each.number(Tag.HEIGHT))
            if side > 0 and is_reduced(each) and not is_raw(each):
                yield side, each
        except BadPicture:
            continue


def _reduced(tiff: Tiff, first: Directory, directory: Directory, size: int) -> Reduced:
    tiled = directory.count(Tag.TILE_OFFSETS) > 0
    offsets = directory.numbers(Tag.TILE_OFFSETS if tiled else Tag.STRIP_OFFSETS, CELLS_MAX)
    sizes = directory.numbers(Tag.TILE_SIZES if tiled else Tag.STRIP_SIZES, CELLS_MAX)
    if not offsets or len(offsets) != len(sizes) or sum(sizes) > BYTES_MAX:
        raise BadPicture("Its strips or tiles are none, too many or too large.")
    if any(offset + length > size for offset, length in zip(offsets, sizes, strict=True)):
        raise BadPicture("It points past the end of the file.")
    values = {}
    for tag in _COPIED:
        value = directory.value(tag, VALUE_MAX)
        if value is not None:
            values[int(tag)] = _narrow(tiff.order, value)
    profile = profile_place(directory, size)
    return Reduced(
        tiff.order, directory.number(Tag.WIDTH), directory.number(Tag.HEIGHT), colour_space_of(directory), values,
        offsets, sizes, tiled, profile if profile[1] else profile_place(first, size),
    )  # fmt: skip


def _narrow(order: str, value: Value) -> Value:
    """The numbers of a BigTIFF for a classic one."""
    kind, data = value
    if kind != _LONG8:
        return value
    numbers = struct.unpack(f"{order}{len(data) // 8}Q", data)
    if max(numbers) >= 1 << 32:
        raise BadPicture("It has numbers that make no sense.")
    return LONG, struct.pack(f"{order}{len(numbers)}I", *numbers)
