"""TIFFs that are too large to be read: smaller forms in them, samples of their pixels, and why there is nothing."""

from __future__ import annotations

import functools
import io
import os
import zlib
from collections.abc import Callable, Sequence

import numpy
import pytest
from PIL import Image

from archivia_fs.errors import BadPicture
from archivia_fs.types import RevisionId
from archivia_fs.views.thumbnails import icc, sampling
from archivia_fs.views.thumbnails.facts import picture_facts
from archivia_fs.views.thumbnails.ifd import ColourSpace, Tiff
from archivia_fs.views.thumbnails.parts import Part, Range
from archivia_fs.views.thumbnails.placeholder import PLACEHOLDER
from archivia_fs.views.thumbnails.pool import Job, Pool, handed_over
from archivia_fs.views.thumbnails.reduced import reduced_of
from archivia_fs.views.thumbnails.sampling import Sample, sample_of
from archivia_fs.views.thumbnails.windows import Windows
from catalog.previews import PreviewRecord, PreviewState
from tests.views.drive import READ_MAX, Drive, adopt, size_of
from tests.views.pictures import LONG, LONG8, SHORT, Sketch, Sparse, tiled, tiles

ORDERS = [(order, big) for order in "<>" for big in (False, True)]


def record_of(drive: Drive, etag: str) -> PreviewRecord:
    found = drive.catalog.previews.get(RevisionId(etag))
    assert found is not None
    return found


def opened(part: Part, file: Sparse) -> Image.Image:
    """What a decoder gets."""
    with handed_over(part, file.read) as descriptor:
        data = os.pread(descriptor, 1 << 30, 0)
    assert len(data) <= part.size
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def sample(file: Sparse) -> Sample:
    tiff = Tiff(Windows(file.read, file.size, 256))
    return sample_of(tiff, tiff.directory(tiff.first)[0], file.size)


@functools.cache
def scene(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Something that is different everywhere."""
    y, x = numpy.mgrid[0:height, 0:width]
    pixels = numpy.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], axis=2)
    return Image.fromarray(pixels.astype("u1")).convert(mode)


def same(one: Image.Image, other: Image.Image, tolerance: float = 0) -> bool:
    assert one.size == other.size
    a, b = (numpy.asarray(each.convert("RGB"), "f4") for each in (one, other))
    return bool(abs(a - b).mean() <= tolerance)


# --- smaller forms in them -------------------------------------------------------------------------------------------------


def deflated(image: Image.Image) -> bytes:
    return zlib.compress(image.tobytes(), 1)


def abbreviated(image: Image.Image) -> bytes:
    return encoded(image, streamtype=2)


def encoded(image: Image.Image, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90, subsampling=0, **options)
    return buffer.getvalue()


TABLES = encoded(Image.new("RGB", (16, 16)), streamtype=1)
WAYS: dict[str, tuple[Callable[[Image.Image], bytes], dict[str, Sequence[int] | bytes]]] = {
    "plain": (Image.Image.tobytes, {}),
    "deflate": (deflated, {"t259": (8,)}),
    "JPEG with tables": (abbreviated, {"t259": (7,), "t262": (6,), "t347": TABLES, "t530": (1, 1)}),
}


def pyramid(
    how: str, order: str = "<", *, big: bool = True, sides: Sequence[tuple[int, int]] = ((625, 469), (1600, 1200), (2500, 1875)),
    size: int = 1 << 30, profile: bytes = b"", children: bool = False,
) -> Sparse:  # fmt: skip
    """A scan of 20,000 x 15,000 pixels whose own tiles cannot be read, and its smaller forms."""
    encode, tags = WAYS[how]
    sketch = Sketch(order, big)
    following, found = 0, []
    for width, height in sides:
        image = scene(width, height)
        entries = tiled(sketch, image, 256, tiles(image, 256, encode), t254=(1,), **tags)
        following = sketch.directory(entries, 0 if children else following)
        found.append(following)
    itself = tiled(sketch, Image.new("RGB", (1, 1)), 256, [], t254=(0,), t259=(8,), t256=(20_000,), t257=(15_000,))
    itself |= {324: (LONG, (16,)), 325: (LONG, (1 << 29,))}
    if profile:
        itself[34675] = 7, profile
    if children:
        itself[330] = LONG, found
    return sketch.finish(sketch.directory(itself, 0 if children else following), size)


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize(("order", "big"), ORDERS)
def test_of_a_pyramid_the_form_of_the_right_size_is_taken(how: str, order: str, big: bool) -> None:
    file = pyramid(how, order, big=big, children=order == "<")
    tiff = Tiff(Windows(file.read, file.size, 256))
    found = reduced_of(tiff, tiff.directory(tiff.first)[0], file.size)
    assert found is not None
    assert (found.width, found.height) == (1600, 1200)
    assert same(opened(found, file), scene(1600, 1200), 3 if "JPEG" in how else 0)
    assert file.bytes_read <= sum(found.sizes) * 1.2 + 5 * READ_MAX


@pytest.mark.parametrize("how", ["deflate", "JPEG with tables"])
def test_a_pyramid_of_a_gigabyte_has_a_preview(drive: Drive, how: str) -> None:
    """[T7] Of a TIFF of any size a smaller form inside it is shown, else, if it is not compressed, a sample of its pixels."""
    file = pyramid(how)
    stat = adopt(drive, "scan.tif", file)
    data = drive.read("/Thumbnails/scans/scan.tif.jpg")
    assert size_of(data) == (1200, 900)
    assert same(Image.open(io.BytesIO(data)), scene(1200, 900), 4)
    assert record_of(drive, stat.etag).state is PreviewState.DECODED


def test_the_largest_is_taken_if_none_is_large_enough(drive: Drive) -> None:
    adopt(drive, "scan.tif", pyramid("deflate", sides=((300, 225), (900, 675))))
    assert size_of(drive.read("/Thumbnails/scans/scan.tif.jpg")) == (900, 675)


def test_the_profile_of_the_scan_is_that_of_its_smaller_forms(drive: Drive) -> None:
    own = icc.profile(ColourSpace.ADOBE_RGB)
    assert own is not None
    adopt(drive, "plain.tif", pyramid("deflate"))
    adopt(drive, "adobe.tif", pyramid("deflate", profile=own))
    plain, adobe = (
        Image.open(io.BytesIO(drive.read(f"/Thumbnails/scans/{name}.tif.jpg"))) for name in ("plain", "adobe")
    )
    assert same(plain, scene(1200, 900), 4)
    assert not same(adobe, scene(1200, 900), 4)


def test_smaller_forms_that_make_no_sense_are_passed_over() -> None:
    sketch = Sketch(big=True)
    image = scene(1300, 900)
    good = sketch.directory(tiled(sketch, image, 256, tiles(image, 256, deflated), t254=(1,), t259=(8,)))
    bad: list[dict[int, tuple[int, bytes | Sequence[int]]]] = [
        {325: (LONG, (1 << 27,))}, {324: (LONG8, (1 << 50,))}, {324: (LONG, (16, 16))}, {324: (LONG, ())},
        {254: (LONG, (5,))}, {262: (SHORT, (32803,))},
    ]  # fmt: skip
    broken = {254: (LONG, (1,)), 256: (LONG, (1250,)), 257: (LONG, (900,)), 324: (LONG, (16,)), 325: (LONG, (99,))}
    places = [sketch.directory(broken | each) for each in bad]
    file = sketch.finish(sketch.directory({254: (LONG, (0,)), 330: (LONG, [*places, good])}), 1 << 30)
    tiff = Tiff(Windows(file.read, file.size, 256))
    found = reduced_of(tiff, tiff.directory(tiff.first)[0], file.size)
    assert found is not None
    assert found.width == 1300


# --- samples of their pixels -------------------------------------------------------------------------------------------------


def uncompressed(
    array: numpy.ndarray[tuple[int, ...], numpy.dtype[numpy.generic]], order: str, *, tile: int = 0, rows: int = 0,
    photometric: int = 0, profile: bytes = b"", big: bool = True,
) -> Sparse:  # fmt: skip
    """A TIFF of these pixels (rows, columns, channels), in tiles or in strips of so many rows."""
    sketch = Sketch(order, big)
    height, width, channels = array.shape
    array = array.astype(array.dtype.newbyteorder(order))
    if tile:
        padded = numpy.pad(array, ((0, -height % tile), (0, -width % tile), (0, 0)))
        pieces = [
            padded[y : y + tile, x : x + tile].tobytes() for y in range(0, height, tile) for x in range(0, width, tile)
        ]
    else:
        pieces = [array[y : y + rows].tobytes() for y in range(0, height, rows)]
    offsets, sizes = [sketch.blob(each) for each in pieces], [len(each) for each in pieces]
    entries: dict[int, tuple[int, bytes | Sequence[int]]] = {
        256: (LONG, (width,)), 257: (LONG, (height,)), 258: (SHORT, (array.itemsize * 8,) * channels), 259: (SHORT, (1,)),
        262: (SHORT, (photometric,)), 277: (SHORT, (channels,)), 278: (LONG, (rows or height,)),
    }  # fmt: skip
    if tile:
        entries |= {322: (SHORT, (tile,)), 323: (SHORT, (tile,)), 324: (LONG, offsets), 325: (LONG, sizes)}
    else:
        entries |= {273: (LONG, offsets), 279: (LONG, sizes)}
    if profile:
        entries[34675] = 7, profile
    return sketch.finish(sketch.directory(entries))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("layout", [{"tile": 64}, {"rows": 7}, {"rows": 1}, {"rows": 333}])
def test_a_sample_is_every_nth_pixel(
    order: str, bits: int, channels: int, layout: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "SIDE", 100)
    array = numpy.random.default_rng(7).integers(0, 1 << bits, (333, 411, channels)).astype(f"u{bits // 8}")
    file = uncompressed(array, order, photometric=2 if channels > 2 else 1, **layout)
    found = sample(file)
    image = opened(found, file)
    shown = (array >> (bits - 8)).astype("u1")[::5, ::5, : 3 if channels > 2 else 1]
    assert numpy.array_equal(numpy.asarray(image).reshape(shown.shape), shown)
    assert not found.coarse or found.step > 1


def test_whatever_is_read_for_a_sample_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    array = numpy.zeros((1000, 800, 3), "u1")
    for name, value in (("SIDE", 500), ("BYTES_MAX", 300_000), ("READS_MAX", 400)):
        monkeypatch.setattr(sampling, name, value)
    for layout in ({"tile": 64}, {"rows": 10}):
        file = uncompressed(array, "<", photometric=2, **layout)
        found = sample(file)
        file.reads.clear()
        image = opened(found, file)
        assert file.bytes_read <= 300_000
        assert len(file.reads) <= 400
        assert max(image.size) >= 20
        assert found.coarse


class Halves(Sparse):
    """A scan whose left half is white and whose right half is black, from byte `start`; nothing else of it exists. `row`: bytes of
    a row, in tiles 0; then all white tiles stand before `middle`, all black ones behind."""

    def __init__(self, head: Sparse, start: int, row: int, middle: int, white: int) -> None:
        super().__init__(dict(head._chunks), head.size)
        self._start, self._row, self._middle = start, row, middle
        self._white, self._black = bytes([white]), bytes([255 - white])

    def read(self, offset: int, size: int) -> bytes:
        if offset < self._start:
            head = super().read(offset, min(size, self._start - offset))
            return head + (self.read(self._start, size - len(head)) if size > len(head) else b"")
        size = min(size, self.size - offset)
        self.reads.append((offset, size))
        if not self._row:
            left = max(0, min(size, self._middle - offset))
            return self._white * left + self._black * (size - left)
        half, at = self._row // 2, (offset - self._start) % self._row
        return ((self._white * half + self._black * half) * (size // self._row + 2))[at : at + size]


def halves(
    width: int, height: int, channels: int, bits: int, *, order: str = "<", tile: int = 0, photometric: int = 1,
    profile: bytes = b"",
) -> Halves:  # fmt: skip
    start = 1 << 21
    pixel = channels * bits // 8
    sketch = Sketch(order, big=True)
    entries: dict[int, tuple[int, bytes | Sequence[int]]] = {
        256: (LONG, (width,)), 257: (LONG, (height,)), 258: (SHORT, (bits,) * channels), 259: (SHORT, (1,)),
        262: (SHORT, (2 if channels == 3 else photometric,)), 277: (SHORT, (channels,)), 278: (LONG, (height,)),
    }  # fmt: skip
    if profile:
        entries[34675] = 7, profile
    row, middle, end = width * pixel, 0, start + width * height * pixel
    if tile:
        across, down, size = -(-width // tile), -(-height // tile), tile * tile * pixel
        row, middle, end = 0, start + across // 2 * down * size, start + across * down * size
        offsets = [start + (x * down + y) * size for y in range(down) for x in range(across)]
        entries |= {
            322: (LONG, (tile,)),
            323: (LONG, (tile,)),
            324: (LONG8, offsets),
            325: (LONG, (size,) * len(offsets)),
        }
    else:
        entries |= {273: (LONG8, (start,)), 279: (LONG8, (end - start,))}
    return Halves(sketch.finish(sketch.directory(entries), end), start, row, middle, 255 if photometric else 0)


BIG = {
    "400 megapixels of grey": (20_000, 20_000, 1, 8, 0),
    "150 megapixels of grey with 16 bits": (15_000, 10_000, 1, 16, 0),
    "1.2 GB in tiles": (20_480, 20_480, 3, 8, 512),
    "300 MB in tiles": (10_240, 10_240, 3, 8, 256),
    "80 GB": (200_000, 70_000, 3, 16, 0),
}


@pytest.mark.parametrize("name", BIG)
def test_large_scans_that_are_not_compressed(drive: Drive, name: str) -> None:
    *form, tile = BIG[name]
    file = halves(*form, tile=tile)
    adopt(drive, "scan.tif", file)
    image = Image.open(io.BytesIO(drive.read("/Thumbnails/scans/scan.tif.jpg"))).convert("L")
    assert image.width > (300 if "GB" in name else 1100)
    assert (image.getpixel((image.width // 4, 9)), image.getpixel((image.width * 3 // 4, 9))) == (255, 0)
    assert file.bytes_read <= (file.size if "MB" in name else sampling.BYTES_MAX) + 2 * READ_MAX


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("samples", "bits"), [(1, 8), (3, 8), (3, 16), (1, 16)])
def test_of_a_huge_scan_a_sample_is_shown(drive: Drive, order: str, samples: int, bits: int) -> None:
    """[T7] Of a TIFF of any size a smaller form inside it is shown, else, if it is not compressed, a sample of its pixels."""
    file = halves(20_000, 40_000, samples, bits, order=order)
    adopt(drive, "scan.tif", file)
    data = drive.read("/Thumbnails/scans/scan.tif.jpg")
    assert size_of(data) == (600, 1200)
    image = Image.open(io.BytesIO(data)).convert("L")
    assert (image.getpixel((80, 600)), image.getpixel((520, 600))) == (255, 0)
    assert file.bytes_read <= sampling.BYTES_MAX + READ_MAX


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("side", [200, 6000])  # as a whole, and in part
def test_negatives_are_shown_as_they_are_meant(drive: Drive, bits: int, side: int) -> None:
    file = halves(side, side, 1, bits, photometric=0)
    adopt(drive, "scan.tif", file)
    image = Image.open(io.BytesIO(drive.read("/Thumbnails/scans/scan.tif.jpg"))).convert("L")
    assert (image.getpixel((image.width // 4, 9)), image.getpixel((image.width * 3 // 4, 9))) == (255, 0)


def test_the_profile_of_a_scan_goes_with_its_sample() -> None:
    own = icc.profile(ColourSpace.ADOBE_RGB)
    assert own is not None
    for profile, expected in ((own, own), (bytes((1 << 20) + 1), None), (b"", None)):
        file = halves(9000, 5000, 3, 8, profile=profile)
        assert opened(sample(file), file).info.get("icc_profile") == expected


@pytest.mark.parametrize(
    "odd",
    [
        {259: (SHORT, (5,))}, {284: (SHORT, (2,))}, {258: (SHORT, (8, 16, 8))}, {258: (SHORT, (32,) * 3)}, {256: (LONG, (0,))},
        {339: (SHORT, (3,) * 3)}, {262: (SHORT, (5,))}, {277: (SHORT, (2,))}, {256: (LONG, (9_000_000,))},
        {322: (LONG, (0,)), 324: (LONG, (16,))}, {278: (LONG, (2,))}, {273: (LONG8, (1 << 50,))},
    ],
)  # fmt: skip
def test_what_cannot_be_read_in_part_is_told(odd: dict[int, tuple[int, bytes | Sequence[int]]]) -> None:
    sketch = Sketch(big=True)
    entries: dict[int, tuple[int, bytes | Sequence[int]]] = {
        256: (LONG, (9000,)), 257: (LONG, (90,)), 258: (SHORT, (8,) * 3), 259: (SHORT, (1,)), 262: (SHORT, (2,)),
        273: (LONG8, (1 << 20,)), 277: (SHORT, (3,)), 279: (LONG8, (9000 * 90 * 3,)),
    }  # fmt: skip
    good = sketch.finish(sketch.directory(entries), 1 << 30)
    assert sample(good).columns == 2250
    with pytest.raises(BadPicture):
        sample(sketch.finish(sketch.directory(entries | odd), 1 << 30))


def test_a_huge_compressed_scan_is_grey_and_says_why(drive: Drive) -> None:
    sketch = Sketch(big=True)
    first = sketch.directory({256: (LONG, (9,)), 257: (LONG, (9,)), 259: (3, (5,)), 273: (16, (9,)), 279: (16, (9,))})
    stat = adopt(drive, "scan.tif", sketch.finish(first, 2 << 30))
    assert drive.read("/Thumbnails/scans/scan.tif.jpg") == PLACEHOLDER
    assert "too many to read" in record_of(drive, stat.etag).reason


# --- compressed ones that are decoded as a whole -----------------------------------------------------------------------------


def test_many_grey_pixels_of_16_bits_fit_into_the_memory_of_a_decoder(pool: Pool) -> None:
    """150 megapixels, deflated to some hundred kilobytes."""
    rows = numpy.tile(numpy.repeat(numpy.array([65535, 0], "<u2"), 7500), (100, 1)).tobytes()
    strip = zlib.compress(rows, 1)
    sketch = Sketch()
    place = sketch.blob(strip)
    first = sketch.directory(
        {
            256: (LONG, (15_000,)), 257: (LONG, (10_000,)), 258: (SHORT, (16,)), 259: (SHORT, (8,)), 262: (SHORT, (1,)),
            273: (LONG, (place,) * 100), 277: (SHORT, (1,)), 278: (LONG, (100,)), 279: (LONG, (len(strip),) * 100),
        }
    )  # fmt: skip
    file = sketch.finish(first)
    with handed_over(Range(0, file.size), file.read) as picture:
        image = Image.open(io.BytesIO(pool.decode(Job("tiff"), picture).pictures[2])).convert("L")
    assert image.size == (1200, 800)
    assert (image.getpixel((300, 400)), image.getpixel((900, 400))) == (255, 0)


def test_a_grey_preview_in_a_monochrome_dng_is_a_preview() -> None:
    grey = encoded_grey(1600, 1200)
    sketch = Sketch()
    place = sketch.blob(grey)
    entries: dict[int, tuple[int, bytes | Sequence[int]]] = {
        256: (LONG, (1600,)), 257: (LONG, (1200,)), 258: (SHORT, (8,)), 259: (SHORT, (7,)), 262: (SHORT, (1,)),
        273: (LONG, (place,)), 277: (SHORT, (1,)), 279: (LONG, (len(grey),)),
    }  # fmt: skip
    for reduced, expected in ((1, [(1600, 1200)]), (0, [])):
        first = sketch.directory(entries | {254: (LONG, (reduced,)), 50706: (1, (1, 4, 0, 0))})
        file = sketch.finish(first)
        facts = picture_facts(file.read, file.size)
        assert facts is not None
        assert [(each.width, each.height) for each in facts.previews] == expected


def encoded_grey(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    scene(width, height, "L").save(buffer, "JPEG")
    return buffer.getvalue()
