"""The CRC-32 of an edited file without reading what nobody touched. Pure but for the reader it is given.

Owns: segments, the ranges of a file whose CRC-32 is known. Used by: uploader. Threading: pure functions.

A revision's parts are its segments. Where an edit covers a segment whole, the new bytes' CRC-32 is all that is needed. Where it
covers a piece, CRC-32 is linear: the segment's new CRC-32 follows from its old one and the old and new CRC-32 of the piece
alone, so only the old bytes of that piece are read. CRC-32s of segments combine to that of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from archivia_fs.types import Part, Revision
from archivia_fs.vfs import crc


@dataclass(frozen=True, slots=True)
class Segment:
    """Bytes [start, end) of a file; `crc32` None: not known."""

    start: int
    end: int
    crc32: int | None


def segments_of(revision: Revision) -> Sequence[Segment]:
    """The stored bytes of a revision: its parts, or all of it as one if the parts are not known."""
    if revision.parts and sum(part.size for part in revision.parts) == revision.stored:
        found, at = [], 0
        for part in revision.parts:
            found.append(Segment(at, at + part.size, part.crc32))
            at += part.size
        return found
    if not revision.stored:
        return ()
    return (Segment(0, revision.stored, revision.crc32 if revision.stored == revision.size else None),)


def derive(
    old: Sequence[Segment], fresh: Sequence[Segment], size: int, old_crc32: Callable[[int, int], int]
) -> Sequence[Segment]:
    """The segments of the edited file.

    `old`: those of the base, without gaps from 0. `fresh`: what was written, sorted, disjoint, none across the border of an old
    segment, all with their CRC-32 if it is known; between them the base shows through, and zeros beyond its end.
    `size`: bytes of the edited object. `old_crc32(start, end)` reads the base.
    """
    made: list[Segment] = []
    at = 0
    pending = list(reversed(fresh))
    for segment in old:
        if segment.start >= size:
            break
        inside = []
        while pending and pending[-1].start < segment.end:
            inside.append(pending.pop())
        made.append(_edited(segment, inside, size, old_crc32))
        at = made[-1].end
    for piece in reversed(pending):
        if piece.start > at:
            made.append(Segment(at, piece.start, crc.zeros(piece.start - at)))
        made.append(piece)
        at = piece.end
    if at < size:
        made.append(Segment(at, size, crc.zeros(size - at)))
    return made


def _edited(segment: Segment, inside: Sequence[Segment], size: int, old_crc32: Callable[[int, int], int]) -> Segment:
    end = min(segment.end, size)
    if sum(piece.end - piece.start for piece in inside) == end - segment.start:
        return Segment(segment.start, end, combined(inside))
    if not inside and end == segment.end:
        return segment
    result = segment.crc32
    if result is None or end < segment.end:  # what is left of a segment that was cut is not known
        return Segment(segment.start, end, None)
    for piece in inside:
        if piece.crc32 is None:
            return Segment(segment.start, end, None)
        result = crc.replace(result, old_crc32(piece.start, piece.end), piece.crc32, end - piece.end)
    return Segment(segment.start, end, result)


def combined(segments: Iterable[Segment]) -> int | None:
    """The CRC-32 of segments that follow each other; None if one is not known."""
    result = 0
    for segment in segments:
        if segment.crc32 is None:
            return None
        result = crc.combine(result, segment.crc32, segment.end - segment.start)
    return result


def parts_of(segments: Sequence[Segment]) -> Sequence[Part]:
    """As a revision keeps them; nothing if one is not known."""
    if any(segment.crc32 is None for segment in segments):
        return ()
    return tuple(
        Part(number, segment.end - segment.start, "", segment.crc32 or 0)
        for number, segment in enumerate(segments, start=1)
    )
