"""Pictures for tests, made here: TIFFs and DNGs of every kind, also broken and huge ones, and a content that counts.

A Sketch keeps only the bytes that were put into it, wherever they stand; between them a file has zeros. So a DNG of 80 GB is a
few hundred bytes of memory.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy
from PIL import Image

SHORT, LONG, ASCII, RATIONAL, UNDEFINED, LONG8, IFD = 3, 4, 2, 5, 7, 16, 13
_CODES = {1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 7: "B", 13: "I", 16: "Q", 18: "Q"}
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 10: 8, 13: 4, 16: 8, 18: 8}

Values = bytes | Sequence[int]


@dataclass
class Sketch:
    """A TIFF in the making. `order` "<" or ">"; `big`: BigTIFF."""

    order: str = "<"
    big: bool = False
    chunks: dict[int, bytes] = field(default_factory=dict)
    at: int = 16

    def blob(self, data: bytes, at: int | None = None) -> int:
        """Put bytes at the end, or farther behind; returns where."""
        self.at = max(self.at + self.at % 2, at or 0)
        self.chunks[self.at] = data
        self.at += len(data)
        return self.at - len(data)

    def directory(self, entries: Mapping[int, tuple[int, Values]], following: int = 0, at: int | None = None) -> int:
        """Put an IFD, its values before it; returns where it stands."""
        word = 8 if self.big else 4
        rows = []
        for tag, (kind, values) in sorted(entries.items()):
            data = values if isinstance(values, bytes) else self.pack(kind, values)
            count = len(data) // _BYTES[kind]
            inline = data.ljust(word, b"\0") if len(data) <= word else struct.pack(self.word, self.blob(data, at))
            rows.append(struct.pack(self.order + ("HHQ" if self.big else "HHI"), tag, kind, count) + inline)
        head = struct.pack(self.order + ("Q" if self.big else "H"), len(rows))
        return self.blob(head + b"".join(rows) + struct.pack(self.word, following), at)

    @property
    def word(self) -> str:
        return self.order + ("Q" if self.big else "I")

    def pack(self, kind: int, values: Sequence[int]) -> bytes:
        return struct.pack(self.order + _CODES[kind] * (len(values) // (2 if kind == RATIONAL else 1)), *values)

    def finish(self, first: int, size: int = 0) -> Sparse:
        """Write the header; `size` in bytes if the file is longer than what stands in it."""
        mark = b"II" if self.order == "<" else b"MM"
        if self.big:
            head = mark + struct.pack(self.order + "HHHQ", 43, 8, 0, first)
        else:
            head = mark + struct.pack(self.order + "HI", 42, first)
        self.chunks[0] = head
        return Sparse(self.chunks, max(size, self.at))


class Sparse:
    """Bytes that are mostly zeros; counts what is read."""

    def __init__(self, chunks: Mapping[int, bytes], size: int) -> None:
        self._chunks = sorted(chunks.items())
        self.size = size
        self.reads: list[tuple[int, int]] = []

    @property
    def bytes_read(self) -> int:
        return sum(size for _, size in self.reads)

    def read(self, offset: int, size: int) -> bytes:
        size = max(0, min(size, self.size - offset))
        self.reads.append((offset, size))
        found = bytearray(size)
        for start, data in self._chunks:
            low, high = max(start, offset), min(start + len(data), offset + size)
            if low < high:
                found[low - offset : high - offset] = data[low - start : high - start]
        return bytes(found)

    def whole(self) -> bytes:
        return self.read(0, self.size)

    def write(self, path: Path) -> None:
        """As a file with holes."""
        with path.open("wb") as file:
            for start, data in self._chunks:
                file.seek(start)
                file.write(data)
            file.truncate(self.size)


def jpeg(width: int, height: int, *, colour: tuple[int, int, int] = (200, 40, 40), **options: object) -> bytes:
    """A picture whose upper left quarter is white, so that one sees which side is up."""
    image = Image.new("RGB", (width, height), colour)
    image.paste((255, 255, 255), (0, 0, width // 2, height // 2))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **({"quality": 80} | options))  # type: ignore[arg-type]
    return buffer.getvalue()


def text(value: str) -> tuple[int, bytes]:
    return ASCII, value.encode() + b"\0"


def dng(
    *,
    order: str = "<",
    big: bool = False,
    previews: Sequence[bytes] = (),
    sides: Sequence[tuple[int, int]] = (),
    raw: tuple[int, int] = (64, 48),
    orientation: int = 1,
    colour_space: int = 2,
    size: int = 0,
    preview_at: int | None = None,
    raw_bytes: bytes | None = None,
) -> Sparse:
    """A DNG as cameras and Adobe make them: a first directory with a small preview, the raw data and more previews in
    SubIFDs. `previews`: JPEGs, the first for the first directory; `preview_at`: where the others stand."""
    sketch = Sketch(order, big)
    width, height = raw
    long = LONG8 if big else LONG
    if raw_bytes is None:
        raw_bytes = numpy.linspace(600, 12000, width * height).astype(order + "u2").tobytes()
    camera = {271: text("Archivia"), 272: text("Model One"), 306: text("2026:01:02 03:04:05")}
    develop = {
        50706: (1, (1, 4, 0, 0)), 50707: (1, (1, 1, 0, 0)), 50708: text("Archivia Model One"),
        50721: (10, struct.pack(order + "18i", *(c for v in (1, 0, 0, 0, 1, 0, 0, 0, 1) for c in (v, 1)))),
        50728: (RATIONAL, (1, 1, 1, 1, 1, 1)), 50778: (SHORT, (21,)),
    }  # fmt: skip
    exif = sketch.directory({36867: text("2026:01:02 03:04:05")})
    strip = sketch.blob(raw_bytes)
    children = [
        sketch.directory(
            {
                254: (LONG, (0,)), 256: (LONG, (width,)), 257: (LONG, (height,)), 258: (SHORT, (16,)), 259: (SHORT, (1,)),
                262: (SHORT, (32803,)), 273: (long, (strip,)), 277: (SHORT, (1,)), 278: (LONG, (height,)),
                279: (long, (len(raw_bytes),)), 33421: (SHORT, (2, 2)), 33422: (1, (0, 1, 1, 2)),
                50714: (SHORT, (512,)), 50717: (LONG, (16383,)),
            }
        )
    ]  # fmt: skip
    dimensions = [sides[i] if i < len(sides) else Image.open(io.BytesIO(data)).size for i, data in enumerate(previews)]

    def preview(data: bytes, side: tuple[int, int], at: int | None) -> dict[int, tuple[int, Values]]:
        place = sketch.blob(data, at)
        return {
            254: (LONG, (1,)), 256: (LONG, (side[0],)), 257: (LONG, (side[1],)), 258: (SHORT, (8, 8, 8)), 259: (SHORT, (7,)),
            262: (SHORT, (6,)), 273: (long, (place,)), 277: (SHORT, (3,)), 278: (LONG, (side[1],)),
            279: (long, (len(data),)), 50970: (LONG, (colour_space,)),
        }  # fmt: skip

    for data, side in list(zip(previews, dimensions, strict=True))[1:]:
        children.append(sketch.directory(preview(data, side, preview_at)))
    first: dict[int, tuple[int, Values]] = {254: (LONG, (1,)), 256: (LONG, (1,)), 257: (LONG, (1,)), 258: (SHORT, (8,))}
    if previews:
        first = preview(previews[0], dimensions[0], None)
    first |= camera | develop | {274: (SHORT, (orientation,)), 34665: (long, (exif,))}
    first[330] = (18 if big else LONG, tuple(children))
    return sketch.finish(sketch.directory(first), size)


def tiles(image: Image.Image, side: int, encode: Callable[[Image.Image], bytes]) -> list[bytes]:
    """A picture cut into squares, row by row, those at the edges filled up with black."""
    boxes = ((x, y, x + side, y + side) for y in range(0, image.height, side) for x in range(0, image.width, side))
    return [encode(image.crop(box)) for box in boxes]


def tiled(
    sketch: Sketch, image: Image.Image, side: int, pieces: Sequence[bytes], **more: Values
) -> dict[int, tuple[int, Values]]:
    """The entries of a directory for `pieces`, which are put into the sketch; `more`: `t<tag>`, numbers as LONG, or bytes."""
    offsets = [sketch.blob(piece) for piece in pieces]
    channels = len(image.getbands())
    entries: dict[int, tuple[int, Values]] = {
        256: (LONG, (image.width,)), 257: (LONG, (image.height,)), 258: (SHORT, (8,) * channels), 259: (SHORT, (1,)),
        262: (SHORT, (2 if channels == 3 else 1,)), 277: (SHORT, (channels,)), 322: (LONG, (side,)), 323: (LONG, (side,)),
        324: (LONG8 if sketch.big else LONG, offsets), 325: (LONG, [len(piece) for piece in pieces]),
    }  # fmt: skip
    return entries | {int(tag[1:]): (UNDEFINED if isinstance(v, bytes) else LONG, v) for tag, v in more.items()}
