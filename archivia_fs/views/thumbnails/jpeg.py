"""The head of a JPEG: its size in pixels, and where its Exif data stand.

Owns: markers (ITU-T T.81, annex B). Used by: ifd, facts. Threading: pure but for the reading.
Whether bytes are a JPEG that a viewer shows is told by their frame header alone: raw data of cameras is lossless JPEG under
the same compression tag, but has another one (SOF3).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Protocol

SEGMENTS_MAX = 128  # before the frame header; an 8 MiB preview picture format (MPF) has about 20
_SHOWN = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended, progressive
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # DHT, JPG and DAC are no frames
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length


class Source(Protocol):
    """Bytes that are read in few places; `get` raises BadPicture for what is not there."""

    size: int

    def get(self, offset: int, size: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class JpegHead:
    """`exif`: (offset, size) of the TIFF structure in it, counted as the Source counts."""

    width: int
    height: int
    components: int
    exif: tuple[int, int] | None


def jpeg_head(source: Source, offset: int, length: int) -> JpegHead | None:
    """None for what is no JPEG that viewers show: 8 bits, one, three or four components. Raises BadPicture."""
    end = offset + length
    if length < 4 or source.get(offset, 2) != b"\xff\xd8":
        return None
    at = offset + 2
    exif = None
    for _ in range(SEGMENTS_MAX):
        while at < end and source.get(at, 1) != b"\xff":
            return None
        at += 1
        marker = 0xFF
        while marker == 0xFF and at < end:  # fill bytes
            marker = source.get(at, 1)[0]
            at += 1
        if marker in _ALONE:
            continue
        if marker in (0xFF, 0x00, 0xD9, 0xDA) or at + 2 > end:  # ends, or image data without a frame
            return None
        size = int.from_bytes(source.get(at, 2), "big")
        if size < 2 or at + size > end:
            return None
        if marker in _FRAMES:
            return _frame(source, at, size, marker, exif)
        if marker == 0xE1 and size >= 16 and source.get(at + 2, 6) == b"Exif\0\0":
            exif = exif or (at + 8, size - 8)
        at += size
    return None


def _frame(source: Source, at: int, size: int, marker: int, exif: tuple[int, int] | None) -> JpegHead | None:
    if marker not in _SHOWN or size < 8:
        return None
    precision, height, width, components = struct.unpack(">BHHB", source.get(at + 2, 6))
    if precision != 8 or components not in (1, 3, 4) or not width or not height:
        return None
    return JpegHead(width, height, components, exif)
