"""Which ways there are to a preview of a file, in the order of trying.

Owns: the choice, and how much of a file each way may read. Used by: maker. Threading: pure but for the reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from archivia_fs.errors import BadPicture
from archivia_fs.views.thumbnails import PIXELS_MAX, SIDES
from archivia_fs.views.thumbnails.ifd import PictureFacts, Preview, Tiff, orientation_of
from archivia_fs.views.thumbnails.parts import Part, Range
from archivia_fs.views.thumbnails.pool import Job
from archivia_fs.views.thumbnails.reduced import reduced_of
from archivia_fs.views.thumbnails.sampling import sample_of
from archivia_fs.views.thumbnails.windows import Read, Windows
from catalog.previews import PreviewState

ENOUGH = 1000  # pixels of the longer side; DNGs carry previews of 1024, and decoding 50 megapixels takes a second
RAW_MAX = 2**31 - 1  # bytes; LibRaw refuses larger files
WHOLE_MAX = 512 * 1024**2  # bytes of a TIFF
SMALL_MAX = 256 * 1024**2  # bytes of a JPEG, PNG, WebP or HEIF
MODEST_MAX = 32 * 1024**2  # bytes of a TIFF that is decoded as a whole, without a look for something smaller
TABLES = 256  # windows, 4 MiB, for tables of strips and tiles
TRIES_MAX = 4  # ways that are tried for one file

Ways = tuple[Sequence["Way"], str]  # and, if the picture itself is not among them, why


@dataclass(frozen=True, slots=True)
class Way:
    """One way to a preview: a part of the file is given to a decoder."""

    state: PreviewState
    job: Job
    part: Part


def best(previews: Sequence[Preview]) -> Sequence[Preview]:
    """The smallest that is large enough first, then the others from large to small."""
    by_size = sorted(previews, key=_side)
    large = [each for each in by_size if _side(each) >= SIDES[-1]]
    return [*large[:1], *(each for each in reversed(by_size) if each not in large[:1])]


def plain_ways(kind: str, size: int) -> Ways:
    """For a JPEG, PNG, WebP or HEIF of `size` bytes."""
    if size > SMALL_MAX:
        return [], f"It has {size} bytes; of this kind at most {SMALL_MAX} are decoded."
    return [_decoded(kind, Range(0, size))], ""


def raw_ways(size: int) -> Ways:
    """For a raw file of `size` bytes."""
    if size > RAW_MAX:
        return [], f"It has {size} bytes; raw data of at most {RAW_MAX} are decoded."
    return [_decoded("raw", Range(0, size))], ""


def tiff_ways(read: Read, size: int, facts: PictureFacts) -> Ways:
    """For TIFF and its relatives. Of one with a preview that is large enough, nothing is read; else where it is worth it, the
    tables of its strips or tiles. Raises what `read` raises."""
    inside = [(_side(each), _embedded(each)) for each in best(facts.previews)]
    good = [way for side, way in inside if side >= ENOUGH][:2]
    small = [each for each in inside if each[0] < ENOUGH]
    itself, reason = raw_ways(size) if facts.raw else _whole_ways(size, facts)
    modest = size <= MODEST_MAX and facts.width * facts.height <= PIXELS_MAX
    if not good and (facts.raw or not modest):
        reduced, itself, reason = _part_ways(Windows(read, size, TABLES), facts, itself, reason)
        good = [way for side, way in reduced if side >= ENOUGH]
        small = sorted([*small, *(each for each in reduced if each[0] < ENOUGH)], key=lambda each: -each[0])
    return [*good, *itself, *(way for _, way in small[:1])][:TRIES_MAX], reason


def _whole_ways(size: int, facts: PictureFacts) -> Ways:
    if size > WHOLE_MAX or facts.width * facts.height > PIXELS_MAX:
        return [], f"It has {size} bytes and {facts.width} x {facts.height} pixels, too many to read."
    ways = [_decoded("tiff", Range(0, size))]
    if facts.make:  # perhaps a raw format that only LibRaw knows
        ways += raw_ways(size)[0]
    return ways, ""


def _part_ways(
    windows: Windows, facts: PictureFacts, itself: Sequence[Way], reason: str
) -> tuple[Sequence[tuple[int, Way]], Sequence[Way], str]:
    """(smaller forms of the picture by their longer side, the ways to the picture itself with a sample, why there is none)."""
    try:
        tiff = Tiff(windows)
        first, _ = tiff.directory(tiff.first)
        reduced = reduced_of(tiff, first, windows.size)
        orientation = orientation_of(first) or 1
        smaller = []
        if reduced is not None:
            job = Job("tiff", orientation, reduced.colour_space)
            smaller.append((reduced.side, Way(PreviewState.DECODED, job, reduced)))
        if facts.raw:
            return smaller, itself, reason
        try:
            sample = sample_of(tiff, first, windows.size)
        except BadPicture as error:
            return smaller, itself, reason and f"{reason} {error}"
        way = Way(PreviewState.DECODED, Job("tiff", orientation), sample)
        return smaller, [*itself, way] if sample.coarse else [way, *itself], ""
    except BadPicture as error:
        return [], itself, reason and f"{reason} {error}"


def _decoded(kind: str, part: Part) -> Way:
    return Way(PreviewState.DECODED, Job(kind), part)


def _embedded(preview: Preview) -> Way:
    job = Job("jpeg", preview.orientation, preview.colour_space)
    return Way(PreviewState.EMBEDDED, job, Range(preview.offset, preview.length))


def _side(preview: Preview) -> int:
    return max(preview.width, preview.height)
