"""The directories of a TIFF: what a DNG, another camera's raw file or a scan says of itself, and where its previews are.

Owns: the walk through classic TIFF and BigTIFF (TIFF 6.0; DNG 1.7, which allows BigTIFF) of either byte order, and the choice of
what is a preview. Used by: facts, sampling, reduced, writing, ways. Threading: pure but for the reading. Every count, offset and
loop is bounded, so a hostile file costs at most what Windows reads. What is broken beyond the first directory hides only itself.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from archivia_fs.errors import BadPicture
from archivia_fs.views.thumbnails.jpeg import Source, jpeg_head

DIRECTORIES_MAX = 64
ENTRIES_MAX = 1024  # of one directory; a DNG has about 100
VALUES_MAX = 64  # of one tag that is looked at; tables of 40,000 tiles are not
TEXT_MAX = 256  # bytes
PREVIEWS_MAX = 8
PREVIEW_BYTES_MAX = 64 * 1024**2
PROFILE_MAX = 1024**2  # bytes of an ICC profile; those of printers have half of it

SHORT, LONG, UNDEFINED = 3, 4, 7  # types of values
KIND_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 13: 4, 16: 8, 17: 8, 18: 8}  # bytes by type
_CODES = {1: "B", 3: "H", 4: "I", 5: "II", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_RATIONAL = 5
_CLASSIC = frozenset({42, 0x55, 0x4F52, 0x5352})  # TIFF; Panasonic's RW2; Olympus' ORF, two kinds
_BIG = 43
_RAW_COMPRESSIONS = frozenset(
    {34713, 32767, 32769, 32770, 32772, 65000, 65535, 52546}
)  # Nikon, Sony, Samsung, ..., JPEG XL
_REDUCED = 1  # bit of NewSubfileType: another, smaller form of the picture
_NOT_THE_PICTURE = 4 | 8  # transparency and semantic masks, depth maps

Value = tuple[int, bytes]  # the type and the values of a tag


class Tag(enum.IntEnum):
    JPG_FROM_RAW = 0x2E  # Panasonic
    NEW_SUBFILE_TYPE = 254
    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    FILL_ORDER = 266
    MAKE = 271
    MODEL = 272
    STRIP_OFFSETS = 273
    ORIENTATION = 274
    SAMPLES = 277
    ROWS_PER_STRIP = 278
    STRIP_SIZES = 279
    PLANAR = 284
    DATE = 306
    PREDICTOR = 317
    COLOUR_MAP = 320
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    TILE_OFFSETS = 324
    TILE_SIZES = 325
    SUB_IFDS = 330
    EXTRA_SAMPLES = 338
    SAMPLE_FORMAT = 339
    JPEG_TABLES = 347
    JPEG_OFFSET = 513
    JPEG_SIZE = 514
    YCBCR_SUBSAMPLING = 530
    REFERENCE_BLACK_WHITE = 532
    EXIF = 34665
    ICC_PROFILE = 34675
    DATE_TAKEN = 36867
    DNG_VERSION = 50706
    CROP_SIZE = 50720
    PREVIEW_COLOUR = 50970


class ColourSpace(enum.IntEnum):
    """With the numbers of PreviewColorSpace in DNG. An ICC profile in the picture itself goes before."""

    UNKNOWN = 0
    GREY = 1
    SRGB = 2
    ADOBE_RGB = 3
    PROPHOTO = 4


class Photometric(enum.IntEnum):
    WHITE_IS_ZERO = 0
    BLACK_IS_ZERO = 1
    RGB = 2
    YCBCR = 6
    COLOUR_FILTERS = 32803
    LINEAR_RAW = 34892


@dataclass(frozen=True, slots=True)
class Preview:
    """A JPEG inside a file, in bytes from its beginning, with its size in pixels as stored. `orientation` 1..8 as in TIFF;
    0: the file around it says nothing, the JPEG's own Exif data may."""

    offset: int
    length: int
    width: int
    height: int
    orientation: int = 0
    colour_space: ColourSpace = ColourSpace.UNKNOWN


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """What a picture says of itself; "" and 0 where it says nothing. `taken` is local time, "2026-11-23T17:30:00". `raw`: pixels
    that need developing. `width` and `height` in pixels, as stored."""

    media_type: str
    make: str = ""
    model: str = ""
    taken: str = ""
    width: int = 0
    height: int = 0
    raw: bool = False
    previews: tuple[Preview, ...] = ()

    @property
    def dng(self) -> bool:
        return self.media_type == "image/x-adobe-dng"

    def completed(self, other: PictureFacts) -> PictureFacts:
        """With what `other` knows of camera, date and size where this says nothing."""
        size = (self.width, self.height) if self.width and self.height else (other.width, other.height)
        return replace(
            self, make=self.make or other.make, model=self.model or other.model, taken=self.taken or other.taken,
            width=size[0], height=size[1],
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Value:
    """Where the values of a tag stand."""

    kind: int
    count: int
    offset: int


class Directory:
    """One IFD; tags that are not there, or make no sense, have no values."""

    def __init__(self, source: Source, order: str, values: dict[int, _Value]) -> None:
        self._source = source
        self._order = order
        self._values = values

    def __contains__(self, tag: Tag) -> bool:
        return tag in self._values

    def count(self, tag: Tag) -> int:
        """How many values the tag has, without reading them."""
        value = self._values.get(tag)
        return 0 if value is None else value.count

    def numbers(self, tag: Tag, limit: int = VALUES_MAX) -> tuple[int, ...]:
        """All values of a tag, or none if there are more than `limit`. Raises BadPicture for those past the end."""
        value = self._values.get(tag)
        if value is None or value.kind not in _CODES or not 0 < value.count <= limit:
            return ()
        data = self._source.get(value.offset, value.count * KIND_BYTES[value.kind])
        numbers = struct.unpack(self._order + _CODES[value.kind] * value.count, data)
        if value.kind == _RATIONAL:
            return tuple(above // max(1, below) for above, below in zip(numbers[::2], numbers[1::2], strict=True))
        return numbers

    def number(self, tag: Tag, default: int = 0) -> int:
        """The only value of a tag."""
        numbers = self.numbers(tag)
        return numbers[0] if len(numbers) == 1 else default

    def text(self, tag: Tag) -> str:
        """An ASCII value; of a longer one the beginning."""
        value = self._values.get(tag)
        if value is None or value.kind != 2:
            return ""
        data = self._source.get(value.offset, min(value.count, TEXT_MAX))
        text = data.partition(b"\0")[0].decode("utf-8", "replace").strip()
        return "".join(c for c in text if c.isprintable())

    def value(self, tag: Tag, limit: int) -> Value | None:
        """The values as they stand in the file; None without, or with more than `limit` bytes. Raises BadPicture as numbers."""
        value = self._values.get(tag)
        size = 0 if value is None else value.count * KIND_BYTES.get(value.kind, 0)
        return (value.kind, self._source.get(value.offset, size)) if value is not None and 0 < size <= limit else None

    def place(self, tag: Tag) -> tuple[int, int]:
        """(offset, bytes) of the values of a tag."""
        value = self._values.get(tag)
        return (0, 0) if value is None else (value.offset, value.count * KIND_BYTES.get(value.kind, 0))


class Tiff:
    """A file's header. Raises BadPicture if it is no TIFF."""

    def __init__(self, source: Source) -> None:
        self._source = source
        head = source.get(0, min(16, source.size))
        self.order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        if not self.order or len(head) < 8:
            raise BadPicture("That is no TIFF.")
        self.magic = struct.unpack(f"{self.order}H", head[2:4])[0]
        self._big = self.magic == _BIG
        self.canon = head[8:10] == b"CR"
        if self._big:
            if len(head) < 16 or head[4:8] != struct.pack(f"{self.order}HH", 8, 0):
                raise BadPicture("The header of the BigTIFF is broken.")
            self.first = struct.unpack(f"{self.order}Q", head[8:16])[0]
        elif self.magic in _CLASSIC:
            self.first = struct.unpack(f"{self.order}I", head[4:8])[0]
        else:
            raise BadPicture("That is no TIFF.")

    def directory(self, offset: int) -> tuple[Directory, int]:
        """(the IFD at `offset`, the offset of the next or 0). Raises BadPicture."""
        count_size, count_code, size, code = (8, "Q", 20, "HHQ") if self._big else (2, "H", 12, "HHI")
        word = 8 if self._big else 4
        count = struct.unpack(self.order + count_code, self._source.get(offset, count_size))[0]
        if count > ENTRIES_MAX:
            raise BadPicture(f"A directory of the picture has {count} entries, which no camera writes.")
        start = offset + count_size
        table = self._source.get(start, count * size)
        values: dict[int, _Value] = {}
        for position in range(0, count * size, size):
            tag, kind, number = struct.unpack_from(self.order + code, table, position)
            place = position + size - word
            if number * KIND_BYTES.get(kind, 8) <= word:
                at = start + place
            else:
                at = struct.unpack_from(self.order + code[-1], table, place)[0]
            values.setdefault(tag, _Value(kind, number, at))
        try:
            link = self._source.get(start + count * size, word)
        except BadPicture:  # some writers leave it out at the end of the file
            link = bytes(word)
        return Directory(self._source, self.order, values), struct.unpack(self.order + code[-1], link)[0]

    def directories(self) -> Iterator[Directory]:
        """The first one, its children, then the rest of the chain. Raises BadPicture only if the first is broken."""
        waiting, seen = [self.first], set[int]()
        while waiting and len(seen) < DIRECTORIES_MAX:
            offset = waiting.pop(0)
            if offset in seen or offset == 0:
                continue
            seen.add(offset)
            children: tuple[int, ...] = ()
            try:
                found, following = self.directory(offset)
                children = found.numbers(Tag.SUB_IFDS)
            except BadPicture:
                if len(seen) == 1:
                    raise
                continue
            waiting += [*children, following]
            yield found


def walk(source: Source) -> PictureFacts:
    """What a TIFF says of itself. Raises BadPicture if that cannot be told at all."""
    tiff = Tiff(source)
    first: Directory | None = None
    facts = PictureFacts("image/tiff")
    largest = (False, 0)
    previews: dict[int, Preview] = {}
    for each in tiff.directories():
        try:
            width, height = _dimensions(each)
            rank = (not each.number(Tag.NEW_SUBFILE_TYPE) & _REDUCED, width * height)
            if width * height and rank > largest:
                largest, facts = rank, replace(facts, width=width, height=height)
            facts = replace(facts, raw=facts.raw or is_raw(each))
            if len(previews) < PREVIEWS_MAX:
                for found in _previews(source, each, first=first is None):
                    previews.setdefault(found.offset, found)
        except BadPicture:  # of this directory nothing more
            pass
        first = first or each
    if first is None:
        raise BadPicture("The TIFF has no directory.")
    return _with_first(facts, tiff, first, tuple(previews.values()))


def _with_first(facts: PictureFacts, tiff: Tiff, first: Directory, previews: tuple[Preview, ...]) -> PictureFacts:
    """What only the first directory tells: the camera, and which side of all pictures is up."""
    make, model = _text(first, Tag.MAKE), _text(first, Tag.MODEL)
    media_type, raw = _media_type(tiff, first, make, facts)
    orientation = orientation_of(first)
    if orientation:
        previews = tuple(replace(each, orientation=orientation) for each in previews)
    taken = date_of(tiff, first)
    return replace(facts, media_type=media_type, raw=raw, make=make, model=model, taken=taken, previews=previews)


def _media_type(tiff: Tiff, first: Directory, make: str, facts: PictureFacts) -> tuple[str, bool]:
    if Tag.DNG_VERSION in first:
        return "image/x-adobe-dng", True
    if tiff.magic == 0x55:
        return "image/x-panasonic-rw2", True
    if tiff.magic in (0x4F52, 0x5352):
        return "image/x-olympus-orf", True
    if tiff.canon:
        return "image/x-canon-cr2", True
    kinds = {
        "NIKON": "nikon-nef",
        "SONY": "sony-arw",
        "PENTAX": "pentax-pef",
        "RICOH": "pentax-pef",
        "SAMSUNG": "samsung-srw",
    }
    kind = kinds.get(make.upper().partition(" ")[0]) if facts.raw else None
    return (f"image/x-{kind}" if kind else facts.media_type), facts.raw


def _text(directory: Directory, tag: Tag) -> str:
    try:
        return directory.text(tag)
    except BadPicture:
        return ""


def orientation_of(directory: Directory) -> int:
    """1..8, or 0 if it says nothing."""
    try:
        orientation = directory.number(Tag.ORIENTATION)
    except BadPicture:
        return 0
    return orientation if 1 <= orientation <= 8 else 0


def date_of(tiff: Tiff, first: Directory) -> str:
    """When it was taken, else when it was written, as "2026-11-23T17:30:00"; "" if nobody says (Exif has zeros or blanks then)."""
    text = ""
    try:
        exif = first.number(Tag.EXIF)
        text = tiff.directory(exif)[0].text(Tag.DATE_TAKEN) if exif else ""
    except BadPicture:
        pass
    return exif_date(text or _text(first, Tag.DATE))


def exif_date(text: str) -> str:
    """A date of Exif or ISO 8601 as date_of gives it."""
    digits = "".join(c for c in text[:19] if c in "0123456789")
    if len(digits) != 14 or digits.startswith("0000"):
        return ""
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:8]}T{digits[8:10]}:{digits[10:12]}:{digits[12:]}"


def _dimensions(directory: Directory) -> tuple[int, int]:
    if directory.number(Tag.NEW_SUBFILE_TYPE) & _NOT_THE_PICTURE:
        return 0, 0
    crop = directory.numbers(Tag.CROP_SIZE)  # what is left of the sensor's pixels
    if len(crop) == 2 and all(side > 0 for side in crop):
        return crop[0], crop[1]
    return max(0, directory.number(Tag.WIDTH)), max(0, directory.number(Tag.HEIGHT))


def is_raw(directory: Directory) -> bool:
    """Whether its pixels need developing."""
    return (
        directory.number(Tag.PHOTOMETRIC) in (Photometric.COLOUR_FILTERS, Photometric.LINEAR_RAW)
        or directory.number(Tag.COMPRESSION) in _RAW_COMPRESSIONS
    )


def is_reduced(directory: Directory) -> bool:
    """Whether it says that it is a smaller form of the picture."""
    kind = directory.number(Tag.NEW_SUBFILE_TYPE)
    return bool(kind & _REDUCED) and not kind & _NOT_THE_PICTURE


def colour_space_of(directory: Directory) -> ColourSpace:
    """Of a preview."""
    colour = directory.number(Tag.PREVIEW_COLOUR)
    return ColourSpace(colour) if colour in ColourSpace.__members__.values() else ColourSpace.UNKNOWN


def profile_place(directory: Directory, size: int) -> tuple[int, int]:
    """(offset, bytes) of the ICC profile in a file of `size` bytes; (0, 0) without one of a size that makes sense."""
    offset, length = directory.place(Tag.ICC_PROFILE)
    return (offset, length) if 0 < length <= PROFILE_MAX and offset + length <= size else (0, 0)


def _previews(source: Source, directory: Directory, *, first: bool) -> Iterator[Preview]:
    """The JPEGs of one directory. A strip is one if it says that it is a smaller form of the picture, or stands in the first
    directory, and is no raw data; whatever its compression tag says, only a JPEG's own header proves it. Grey ones have to say
    it: a monochrome camera's raw data may look the same."""
    kind = directory.number(Tag.NEW_SUBFILE_TYPE)
    photometric = directory.number(Tag.PHOTOMETRIC, Photometric.YCBCR)
    colours = photometric in (Photometric.RGB, Photometric.YCBCR)
    places = [directory.place(Tag.JPG_FROM_RAW)]
    if not kind & _NOT_THE_PICTURE and (colours or (photometric == Photometric.BLACK_IS_ZERO and kind & _REDUCED)):
        places.append((directory.number(Tag.JPEG_OFFSET), directory.number(Tag.JPEG_SIZE)))
        jpeg = directory.number(Tag.COMPRESSION) in (6, 7) and Tag.JPEG_TABLES not in directory
        if jpeg and (kind & _REDUCED or first):
            for offsets, sizes in ((Tag.STRIP_OFFSETS, Tag.STRIP_SIZES), (Tag.TILE_OFFSETS, Tag.TILE_SIZES)):
                if directory.count(offsets) == 1:
                    places.append((directory.number(offsets), directory.number(sizes)))
    space = colour_space_of(directory)
    for offset, length in places:
        if offset > 0 and 0 < length <= PREVIEW_BYTES_MAX and offset + length <= source.size:
            head = jpeg_head(source, offset, length)
            if head is not None:
                yield Preview(offset, length, head.width, head.height, orientation_of(directory), space)
