"""The walk through TIFF directories: the same as tifffile finds, from files of every kind, in few and bounded reads."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from archivia_fs.errors import BadPicture
from archivia_fs.views.thumbnails.facts import picture_facts
from archivia_fs.views.thumbnails.ifd import ColourSpace, PictureFacts
from archivia_fs.views.thumbnails.windows import WINDOW, WINDOWS_MAX
from tests.views.pictures import LONG, LONG8, SHORT, Sketch, Sparse, dng, jpeg, text

SAMPLES = Path(__file__).parents[3] / "shared" / "samples"
READ_MAX = 256 * 1024  # bytes, the promise for a file of any size
KINDS = [(order, big) for order in "<>" for big in (False, True)]


def facts_of(file: Sparse) -> PictureFacts:
    found = picture_facts(file.read, file.size)
    assert found is not None
    return found


@pytest.mark.parametrize(("order", "big"), KINDS)
def test_previews_are_where_tifffile_sees_them(order: str, big: bool) -> None:
    pictures = [jpeg(256, 192), jpeg(1600, 1200), jpeg(320, 240)]
    file = dng(order=order, big=big, previews=pictures, orientation=6, colour_space=3)
    facts = facts_of(file)
    whole = file.whole()
    with tifffile.TiffFile(io.BytesIO(whole)) as oracle:
        first = oracle.pages[0]
        assert isinstance(first, tifffile.TiffPage)
        pages = [first, *(page for page in first.pages or () if page.compression == 7)]
        expected = {(page.dataoffsets[0], page.databytecounts[0], page.imagewidth, page.imagelength) for page in pages}
        assert oracle.is_bigtiff == big
    assert {(each.offset, each.length, each.width, each.height) for each in facts.previews} == expected
    assert [whole[each.offset : each.offset + each.length] for each in facts.previews] == pictures
    assert {(each.orientation, each.colour_space) for each in facts.previews} == {(6, ColourSpace.ADOBE_RGB)}
    assert (facts.dng, facts.raw, facts.make, facts.model) == (True, True, "Archivia", "Model One")
    assert (facts.taken, facts.width, facts.height) == ("2026-01-02T03:04:05", 64, 48)


@pytest.mark.parametrize("where", [100_000, 40 << 30, (80 << 30) - 200_000])
def test_80_gb_cost_a_few_windows(where: int) -> None:
    file = dng(big=True, previews=[jpeg(64, 48), jpeg(1600, 1200)], size=80 << 30, preview_at=where)
    facts = facts_of(file)
    assert max(facts.previews, key=lambda each: each.width).offset >= where
    assert file.bytes_read <= 4 * WINDOW <= READ_MAX


def test_real_samples() -> None:
    if not SAMPLES.is_dir():
        pytest.skip(
            "no package ships a camera's own files, and none lie beside the checkout; generated ones are tested above"
        )
    facts = _of_file(SAMPLES / "nikon_z9_jpegxl.dng")
    assert facts.dng
    assert [(each.width, each.height, each.orientation) for each in facts.previews] == [(256, 171, 1)]
    assert (facts.model, facts.taken, facts.width, facts.height) == ("NIKON Z 9", "2025-08-10T19:02:53", 5392, 3592)
    facts = _of_file(SAMPLES / "sony_a7iii_head.arw")
    assert (facts.make, facts.model, facts.previews) == ("SONY", "ILCE-7M3", ())


def _of_file(path: Path) -> PictureFacts:
    data = path.read_bytes()
    return facts_of(Sparse({0: data}, len(data)))


def test_raw_data_that_says_jpeg_is_no_preview() -> None:
    """Cameras write raw data as lossless JPEG, compression 7 too; a liar may even call it a reduced picture."""
    lossless = jpeg(64, 48).replace(b"\xff\xc0", b"\xff\xc3", 1)
    sketch = Sketch()
    place = sketch.blob(jpeg(64, 48))
    liar = sketch.blob(lossless)
    sizes = {256: (LONG, (64,)), 257: (LONG, (48,)), 259: (SHORT, (7,))}
    jpeg_as_raw = sizes | {254: (LONG, (0,)), 262: (SHORT, (34892,)), 273: (LONG, (place,)), 279: (LONG, (500,))}
    masked = sizes | {254: (LONG, (0x10004,)), 262: (SHORT, (6,)), 273: (LONG, (place,)), 279: (LONG, (500,))}
    raw_as_jpeg = sizes | {254: (LONG, (1,)), 262: (SHORT, (6,)), 273: (LONG, (liar,)), 279: (LONG, (len(lossless),))}
    children = tuple(map(sketch.directory, (jpeg_as_raw, masked, raw_as_jpeg)))
    file = sketch.finish(sketch.directory({254: (LONG, (0,)), 50706: (1, (1, 4, 0, 0)), 330: (LONG, children)}))
    assert facts_of(file).previews == ()


def test_nef_and_cr2_say_it_with_other_tags() -> None:
    sketch = Sketch()
    data = jpeg(1600, 1200)
    place = sketch.blob(data)
    child = sketch.directory({254: (LONG, (1,)), 259: (SHORT, (6,)), 513: (LONG, (place,)), 514: (LONG, (len(data),))})
    raw = sketch.directory({254: (LONG, (0,)), 259: (SHORT, (34713,)), 262: (SHORT, (32803,))})
    first = {271: text("NIKON CORPORATION"), 274: (SHORT, (8,)), 330: (LONG, (child, raw))}
    facts = facts_of(sketch.finish(sketch.directory(first)))
    assert (facts.media_type, facts.raw) == ("image/x-nikon-nef", True)
    assert [(each.offset, each.width, each.orientation) for each in facts.previews] == [(place, 1600, 8)]

    sketch = Sketch()
    place = sketch.blob(data)
    one = {
        259: (SHORT, (6,)),
        273: (LONG, (place,)),
        279: (LONG, (len(data),)),
        256: (SHORT, (1600,)),
        257: (SHORT, (1200,)),
    }
    file = sketch.finish(sketch.directory(one))
    facts = facts_of(file)
    assert [each.length for each in facts.previews] == [len(data)]


def test_the_exif_of_a_jpeg_tells_camera_and_date() -> None:
    exif = Image.Exif()
    exif[271], exif[272] = "Archivia", "Model Two"
    exif.get_ifd(34665)[36867] = "2025:12:31 23:59:58"
    data = jpeg(300, 200, exif=exif)
    facts = picture_facts(lambda offset, size: data[offset : offset + size], len(data))
    assert facts == PictureFacts("image/jpeg", "Archivia", "Model Two", "2025-12-31T23:59:58", 300, 200)


@pytest.mark.parametrize("data", [b"", b"I", b"plain text", b"\0" * 64, b"%PDF-1.7 and so on"])
def test_other_files_are_none_of_ours(data: bytes) -> None:
    assert picture_facts(lambda offset, size: data[offset : offset + size], len(data)) is None


# --- hostile files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("order", "big"), KINDS)
def test_loops_end(order: str, big: bool) -> None:
    sketch = Sketch(order, big)
    at = 4096
    kind = LONG8 if big else LONG
    sketch.directory({330: (kind, (at,)), 34665: (kind, (at,)), 271: text("Lo")}, following=at, at=at)
    loop = max(sketch.chunks)
    sketch.chunks[at] = sketch.chunks[loop]
    file = sketch.finish(loop)
    assert facts_of(file).make == "Lo"
    assert file.bytes_read <= READ_MAX


@pytest.mark.parametrize(("order", "big"), KINDS)
def test_a_long_chain_ends(order: str, big: bool) -> None:
    sketch = Sketch(order, big)
    following = 0
    for _ in range(300):
        following = sketch.directory({271: text("Chain of directories"), 256: (LONG, (7,))}, following)
    file = sketch.finish(following)
    assert facts_of(file).make == "Chain of directories"
    assert file.bytes_read <= READ_MAX


@pytest.mark.parametrize("count", [0xFFFF, 10**9, 2**64 - 1])
def test_huge_directories_are_refused_unread(count: int) -> None:
    big = count > 0xFFFF
    sketch = Sketch(big=big)
    place = sketch.blob(count.to_bytes(8 if big else 2, "little"))
    file = sketch.finish(place, size=80 << 30 if big else 1 << 31)
    with pytest.raises(BadPicture, match="entries"):
        facts_of(file)
    assert file.bytes_read <= 2 * WINDOW


@pytest.mark.parametrize("count", [0x3FFFFFFF, 2**32 - 1])
def test_huge_values_are_not_read(count: int) -> None:
    sketch = Sketch()
    first = sketch.directory(
        {271: text("M"), 330: (LONG, (8,)), 34665: (LONG, (8,)), 274: (SHORT, (3,)), 306: text("x" * 9)}
    )
    block = bytearray(sketch.chunks[first])
    for index in (0, 2, 4):
        block[2 + 12 * index + 4 : 2 + 12 * index + 8] = count.to_bytes(4, "little")
    sketch.chunks[first] = bytes(block)
    file = sketch.finish(first, size=1 << 31)
    facts_of(file)
    assert file.bytes_read <= READ_MAX


def test_offsets_past_the_end_hide_only_what_they_point_to() -> None:
    small = jpeg(200, 150)
    sketch = Sketch()
    place = sketch.blob(small)
    child = sketch.directory({254: (LONG, (1,)), 513: (LONG, (1 << 30,)), 514: (LONG, (5000,))})
    first = {
        254: (LONG, (1,)), 259: (SHORT, (7,)), 262: (SHORT, (6,)), 273: (LONG, (place,)), 279: (LONG, (len(small),)),
        330: (LONG, (child, 0xFFFFFF00)), 34665: (LONG, (0xFFFFFFF0,)), 50706: (1, (1, 4, 0, 0)),
    }  # fmt: skip
    facts = facts_of(sketch.finish(sketch.directory(first)))
    assert [each.offset for each in facts.previews] == [place]
    for offset in (0xFFFFFFF0, 1 << 20):
        with pytest.raises(BadPicture):
            facts_of(Sketch().finish(offset))


def test_a_truncated_file_is_an_error_or_has_less() -> None:
    whole = dng(previews=[jpeg(256, 192), jpeg(1200, 900)]).whole()
    for length in range(0, len(whole), 97):
        data = whole[:length]
        try:
            found = picture_facts(lambda offset, size, data=data: data[offset : offset + size], length)
        except BadPicture:
            continue
        assert found is None or all(each.offset + each.length <= length for each in found.previews)


@settings(max_examples=400, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(KINDS),
    hits=st.integers(1, 40),
    size=st.sampled_from([0, 80 << 30]),
)
def test_whatever_is_broken_there_is_one_error_and_a_limit(
    seed: int, kind: tuple[str, bool], hits: int, size: int
) -> None:
    order, big = kind
    file = dng(order=order, big=big, previews=PREVIEWS, size=size if big else 0)
    chance = random.Random(seed)
    chunks = {start: bytearray(data) for start, data in file._chunks if len(data) < 1000}
    for _ in range(hits):
        chunk = chunks[chance.choice(list(chunks))]
        at = chance.randrange(len(chunk))
        width = chance.choice((1, 2, 4))
        chunk[at : at + width] = chance.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", chance.randbytes(4)))[:width]
    broken = Sparse(dict(file._chunks) | {start: bytes(data) for start, data in chunks.items()}, file.size)
    try:
        found = picture_facts(broken.read, broken.size)
    except BadPicture:
        found = None
    assert broken.bytes_read <= WINDOW * WINDOWS_MAX <= READ_MAX
    if found is not None:
        assert all(each.offset + each.length <= broken.size for each in found.previews)


@settings(max_examples=300, deadline=None)
@given(
    data=st.binary(max_size=600),
    head=st.sampled_from([b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\xff\xd8\xff\xe1", b""]),
)
def test_noise_is_one_error(data: bytes, head: bytes) -> None:
    data = head + data
    try:
        picture_facts(lambda offset, size: data[offset : offset + size], len(data))
    except BadPicture:
        return


PREVIEWS = [jpeg(64, 48), jpeg(160, 120)]
