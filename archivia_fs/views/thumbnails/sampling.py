"""Samples of a TIFF that is too large to be read: some pixels of some rows, as a small TIFF for the decoder.

Owns: which pixels are read. Used by: maker. Threading: pure but for the reading.
Only rows that stand in the file as they are (no compression) can be found without the rest. Scans of gigabytes are mostly
like that; where they are compressed, they carry reduced forms or are not shown.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from archivia_fs.errors import BadPicture
from archivia_fs.views.thumbnails.ifd import Directory, Tag, Tiff
from archivia_fs.views.thumbnails.windows import Read, Windows

SIDE = 800  # pixels of the longer side of a sample; each of its rows is one read
ROW_MAX = 4 * 1024**2  # bytes; 350,000 pixels of 16-bit RGB
STRIPS_MAX = 400_000  # in the table of strips, 3 MiB
_PHOTOMETRIC = (0, 1, 2)  # grey of either sign, RGB
_WINDOWS = 256  # of 16 KiB, for the table of strips


@dataclass(frozen=True, slots=True)
class Sample:
    """Pixels of a picture: of the rows that begin at `places` in the file and have `row` bytes, those that begin at `columns`."""

    order: str
    bits: Sequence[int]
    photometric: int
    orientation: int
    places: Sequence[int]
    row: int
    columns: Sequence[int]

    def tiff(self, read: Read) -> bytes:
        """A TIFF of just these pixels. Raises BadPicture, and what `read` raises."""
        pixels = b"".join(self._pixels(read(place, self.row)) for place in self.places)
        rows, samples = len(self.places), len(self.bits)
        bits_at = 8  # behind the header
        at = bits_at + 8 + len(pixels) + len(pixels) % 2
        tags = (
            (256, 4, 1, len(self.columns)), (257, 4, 1, rows), (258, 3, samples, bits_at), (259, 3, 1, 1),
            (262, 3, 1, self.photometric), (273, 4, 1, bits_at + 8), (277, 3, 1, samples), (278, 4, 1, rows),
            (279, 4, 1, len(pixels)),
        )  # fmt: skip
        mark = b"II" if self.order == "<" else b"MM"
        table = struct.pack(self.order + "H", len(tags))
        for tag, kind, count, value in tags:
            if tag == 258 and samples == 1:
                value = self.bits[0]
            code = "H2x" if kind == 3 and count == 1 else "I"
            table += struct.pack(self.order + "HHI" + code, tag, kind, count, value)
        head = (
            mark
            + struct.pack(self.order + "HI", 42, at)
            + struct.pack(f"{self.order}{samples}H", *self.bits).ljust(8, b"\0")
        )
        return head + pixels + bytes(len(pixels) % 2) + table + bytes(4)

    def _pixels(self, row: bytes) -> bytes:
        if len(row) != self.row:
            raise BadPicture("The picture ends before its last row.")
        size = len(self.bits) * self.bits[0] // 8
        return b"".join(row[at : at + size] for at in self.columns)


def sample_plan(read: Read, size: int) -> Sample:
    """Which rows of the TIFF to read. Raises BadPicture if it cannot be done, in words for the log."""
    windows = Windows(read, size, _WINDOWS)
    tiff = Tiff(windows)
    first, _ = tiff.directory(tiff.first)
    width, height = first.number(Tag.WIDTH), first.number(Tag.HEIGHT)
    samples = first.number(Tag.SAMPLES, 1)
    bits = first.numbers(Tag.BITS) or (1,)
    plain = (
        first.number(Tag.COMPRESSION, 1) == 1 and first.number(Tag.PLANAR, 1) == 1 and len(bits) == samples
        and len(set(bits)) == 1 and bits[0] in (8, 16) and first.number(Tag.PHOTOMETRIC) in _PHOTOMETRIC
        and first.count(Tag.STRIP_OFFSETS) > 0 and samples in (1, 3, 4) and width > 0 and height > 0
    )  # fmt: skip
    if not plain:
        raise BadPicture(f"It has {size} bytes, too many to read, and its pixels cannot be read in part.")
    pixel = samples * bits[0] // 8
    if width * pixel > ROW_MAX:
        raise BadPicture(f"Its rows of {width} pixels are too long to be read.")
    scale = max(1.0, max(width, height) / SIDE)
    columns = [int(index * scale) * pixel for index in range(max(1, int(width / scale)))]
    rows = [int(index * scale) for index in range(max(1, int(height / scale)))]
    places = _places(first, height, rows, width * pixel, size)
    orientation = first.number(Tag.ORIENTATION, 1)
    photometric = first.number(Tag.PHOTOMETRIC)
    return Sample(tiff.order, bits, photometric, orientation, places, width * pixel, columns)


def _places(first: Directory, height: int, rows: Sequence[int], row: int, size: int) -> Sequence[int]:
    per_strip = first.number(Tag.ROWS_PER_STRIP, height) or height
    strips = first.numbers(Tag.STRIP_OFFSETS, STRIPS_MAX)
    if len(strips) < -(-height // per_strip):
        raise BadPicture("The picture has fewer rows than it says.")
    places = [strips[each // per_strip] + each % per_strip * row for each in rows]
    if min(places) < 0 or max(places) + row > size:
        raise BadPicture("The picture points to rows past its end.")
    return places
