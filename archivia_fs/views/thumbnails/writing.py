"""The head of a small TIFF, for what is handed to a decoder instead of a huge one.

Owns: how it is written (TIFF 6.0, one directory). Used by: sampling, reduced. Threading: pure.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from archivia_fs.views.thumbnails.ifd import KIND_BYTES, LONG, Tag, Value

HEAD_MAX = 512  # bytes beside the values: no directory here has 40 entries
_HEADER = 8
_ENTRY = 12


def tiff_head(
    order: str, values: Mapping[int, Value], sizes: Sequence[int], *, tiled: bool = False
) -> tuple[bytes, Sequence[int]]:
    """(all that stands before the pixels, where each strip or tile has to stand). `values`: all other tags, in the byte order
    `order`; `sizes`: bytes of the strips or tiles."""
    offsets, counts = (Tag.TILE_OFFSETS, Tag.TILE_SIZES) if tiled else (Tag.STRIP_OFFSETS, Tag.STRIP_SIZES)
    table = bytes(4 * len(sizes))  # once the length of the head is known, it is filled in
    entries = {**values, offsets: (LONG, table), counts: (LONG, struct.pack(f"{order}{len(sizes)}I", *sizes))}
    outside = sum(_even(len(data)) for _, data in entries.values() if len(data) > 4)
    at = _HEADER + 2 + _ENTRY * len(entries) + 4 + outside
    places = []
    for size in sizes:
        places.append(at)
        at += _even(size)
    entries[offsets] = LONG, struct.pack(f"{order}{len(places)}I", *places)
    return _directory(order, entries), places


def _directory(order: str, entries: Mapping[int, Value]) -> bytes:
    rows, data = b"", b""
    start = _HEADER + 2 + _ENTRY * len(entries) + 4
    for tag, (kind, value) in sorted(entries.items()):
        rows += struct.pack(order + "HHI", tag, kind, len(value) // KIND_BYTES[kind])
        if len(value) > 4:
            rows += struct.pack(order + "I", start + len(data))
            data += value.ljust(_even(len(value)), b"\0")
        else:
            rows += value.ljust(4, b"\0")
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(order + "HIH", 42, _HEADER, len(entries)) + rows + bytes(4) + data


def _even(size: int) -> int:
    return size + size % 2
