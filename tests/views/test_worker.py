"""Decoders in their process: what a preview looks like, what hostile bytes cost, and what the process may not do."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy
import pytest
import rawpy
from PIL import Image, ImageCms

from archivia_fs.errors import BadPicture, Busy
from archivia_fs.views.thumbnails import icc, worker
from archivia_fs.views.thumbnails import pool as pool_module
from archivia_fs.views.thumbnails.failures import DecoderDied, Failure, NoPreview
from archivia_fs.views.thumbnails.ifd import ColourSpace
from archivia_fs.views.thumbnails.parts import Range
from archivia_fs.views.thumbnails.pool import Job, Pool, handed_over
from tests.views.pictures import dng, jpeg

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT.parent / "shared" / "samples"
WHITE, RED = (255, 255, 255), (200, 40, 40)


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    pool = Pool()
    yield pool
    pool.close()


def made(pool: Pool, data: bytes, job: Job) -> Sequence[Image.Image]:
    with handed_over(Range(0, len(data)), lambda offset, size: data[offset : offset + size]) as picture:
        pictures = [Image.open(io.BytesIO(each)) for each in pool.decode(job, picture).pictures]
    assert {each.format for each in pictures} == {"JPEG"}
    assert all(not each.getexif() and "icc_profile" not in each.info for each in pictures)
    return pictures


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def near(image: Image.Image, x: float, y: float, colour: tuple[int, ...], tolerance: int = 12) -> bool:
    found = image.convert("RGB").getpixel((int(x * image.width), int(y * image.height)))
    assert isinstance(found, tuple)
    return all(abs(a - b) <= tolerance for a, b in zip(found, colour, strict=True))


@pytest.mark.parametrize(
    ("kind", "name"), [("jpeg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("tiff", "TIFF"), ("heif", "AVIF")]
)
def test_every_kind_in_three_sizes(pool: Pool, kind: str, name: str) -> None:
    picture = Image.open(io.BytesIO(jpeg(1600, 1000)))
    pictures = made(pool, encoded(picture, name), Job(kind))
    assert [each.size for each in pictures] == [(256, 160), (512, 320), (1200, 750)]
    assert all(near(each, 0.2, 0.2, WHITE) and near(each, 0.8, 0.8, RED) for each in pictures)


def test_heic(pool: Pool) -> None:
    heif = pytest.importorskip("pillow_heif", reason="HEIC is read where pillow-heif is installed")
    heif.register_heif_opener()
    data = encoded(Image.open(io.BytesIO(jpeg(640, 480))), "HEIF")
    assert [each.size for each in made(pool, data, Job("heif"))] == [(256, 192), (512, 384), (640, 480)]


def test_small_ones_stay_small(pool: Pool) -> None:
    assert [each.size for each in made(pool, jpeg(300, 200), Job("jpeg"))] == [(256, 171), (300, 200), (300, 200)]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("told_by", ["job", "exif", "tiff"])
def test_upright(pool: Pool, orientation: int, told_by: str) -> None:
    """The upper left quarter of the upright picture is white; it is stored as the orientation says."""
    upright = Image.open(io.BytesIO(jpeg(600, 400, subsampling=0, quality=95)))
    back = {6: 8, 8: 6}.get(orientation, orientation)
    stored = upright.transpose(worker._TURNS[back]) if back in worker._TURNS else upright
    exif = Image.Exif()
    exif[274] = orientation
    if told_by == "tiff":
        data, job = encoded(stored, "TIFF", exif=exif), Job("tiff")
    elif told_by == "exif":
        data, job = encoded(stored, "JPEG", exif=exif), Job("jpeg")
    else:
        exif[274] = 3  # the file around a preview knows better
        data, job = encoded(stored, "JPEG", exif=exif), Job("jpeg", orientation)
    for each in made(pool, data, job):
        assert each.size[0] > each.size[1]
        assert near(each, 0.25, 0.25, WHITE, 30)
        assert near(each, 0.75, 0.25, RED, 30)
        assert near(each, 0.25, 0.75, RED, 30)


def test_adobe_rgb_becomes_srgb(pool: Pool) -> None:
    """(0, 255, 0) and (128, 128, 128) of sRGB in Adobe RGB are (144, 255, 60) and (127, 127, 127)."""
    data = encoded(Image.new("RGB", (64, 64), (144, 255, 60)), "JPEG", quality=95, subsampling=0)
    assert near(made(pool, data, Job("jpeg"))[0], 0.5, 0.5, (144, 255, 60))
    assert near(made(pool, data, Job("jpeg", 1, ColourSpace.ADOBE_RGB))[0], 0.5, 0.5, (0, 255, 0), 14)
    own = icc.profile(ColourSpace.ADOBE_RGB)
    embedded = encoded(Image.new("RGB", (64, 64), (144, 255, 60)), "JPEG", quality=95, subsampling=0, icc_profile=own)
    assert near(made(pool, embedded, Job("jpeg", 1, ColourSpace.SRGB))[0], 0.5, 0.5, (0, 255, 0), 14)
    grey = encoded(Image.new("RGB", (64, 64), (127, 127, 127)), "JPEG", quality=95)
    for space in (ColourSpace.ADOBE_RGB, ColourSpace.PROPHOTO):
        pixel = made(pool, grey, Job("jpeg", 1, space))[0].getpixel((9, 9))
        assert isinstance(pixel, tuple)
        assert max(pixel) - min(pixel) <= 2


@pytest.mark.parametrize("space", [ColourSpace.ADOBE_RGB, ColourSpace.PROPHOTO])
def test_profiles_are_read_by_littlecms(space: ColourSpace) -> None:
    data = icc.profile(space)
    assert data is not None
    assert int.from_bytes(data[:4], "big") == len(data)
    profile = ImageCms.ImageCmsProfile(io.BytesIO(data)).profile
    assert (profile.xcolor_space.strip(), profile.profile_description) == ("RGB", space.name)


def test_a_broken_profile_is_left_out(pool: Pool) -> None:
    data = encoded(Image.new("RGB", (64, 64), RED), "JPEG", icc_profile=b"no profile" * 30)
    assert near(made(pool, data, Job("jpeg"))[0], 0.5, 0.5, RED)


def test_grey_of_many_bits_is_scaled_and_not_cut_off(pool: Pool) -> None:
    ramp = numpy.tile(numpy.linspace(0, 65535, 512), (64, 1))
    for array in (ramp.astype("<u2"), ramp.astype(">u2"), (ramp / 65535).astype("f4"), (ramp * 1e3 - 7).astype("f4")):
        picture = made(pool, encoded(Image.fromarray(array), "TIFF"), Job("tiff"))[0]
        assert near(picture, 0.5, 0.5, (128, 128, 128), 4)
        assert near(picture, 0.1, 0.5, (26, 26, 26), 6)


def test_what_is_transparent_is_white(pool: Pool) -> None:
    clear = Image.new("RGBA", (64, 64), (10, 10, 10, 0))
    assert near(made(pool, encoded(clear, "PNG"), Job("png"))[0], 0.5, 0.5, WHITE)
    palette = clear.quantize(4)
    assert near(
        made(pool, encoded(palette, "PNG", transparency=palette.getpixel((0, 0))), Job("png"))[0], 0.5, 0.5, WHITE
    )
    inks = encoded(Image.new("CMYK", (64, 64), (0, 0, 0, 255)), "JPEG")
    assert near(made(pool, inks, Job("jpeg"))[0], 0.5, 0.5, (0, 0, 0), 40)


def test_raw_data_are_developed(pool: Pool) -> None:
    data = dng(raw=(2600, 1900), orientation=6).whole()
    assert [each.size for each in made(pool, data, Job("raw"))] == [(187, 256), (374, 512), (877, 1200)]


def test_the_preview_in_a_raw_file_goes_before_its_data(pool: Pool) -> None:
    data = dng(previews=[jpeg(160, 120), jpeg(1400, 1050)], raw=(64, 48)).whole()
    assert made(pool, data, Job("raw"))[2].size == (1200, 900)


def test_real_samples_end_in_words(pool: Pool) -> None:
    if not SAMPLES.is_dir():
        pytest.skip(
            "no package ships a camera's own files, and none lie beside the checkout; generated ones are tested above"
        )
    for name in ("nikon_z9_jpegxl.dng", "sony_a7iii_head.arw"):
        with pytest.raises(BadPicture, match="LibRaw"):
            made(pool, (SAMPLES / name).read_bytes(), Job("raw"))


# --- hostile bytes -------------------------------------------------------------------------------------------------------


def bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    data = jpeg(64, 48)
    frame = data.index(b"\xff\xc0")
    return data[: frame + 5] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[frame + 9 :]


HOSTILE = {
    "a JPEG of 60,000 x 60,000": ("jpeg", bomb(), "limits"),
    "a PNG of 280 megapixels in 34 KB": ("png", encoded(Image.new("1", (20_000, 14_000)), "PNG"), "limits"),
    "a truncated JPEG": ("jpeg", jpeg(900, 700)[:3000], "corrupt"),
    "a truncated DNG": ("raw", dng(raw=(640, 480)).whole()[:200_000], "unsupported"),  # says LibRaw
    "text": ("jpeg", b"This is no picture at all.\n" * 20, "unsupported"),
    "text as raw": ("raw", b"This is no picture at all.\n" * 20, "unsupported"),
    "nothing": ("raw", b"", "corrupt"),
    "a truncated PNG": ("png", encoded(Image.open(io.BytesIO(jpeg(400, 300))), "PNG")[:-500], "corrupt"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes_are_an_error_and_the_next_picture_works(pool: Pool, name: str) -> None:
    kind, data, failure = HOSTILE[name]
    start = time.monotonic()
    with pytest.raises(NoPreview, match=r"decoded|decoder") as caught:
        made(pool, data, Job(kind))
    assert caught.value.failure == failure
    assert time.monotonic() - start < 20
    assert made(pool, jpeg(64, 48), Job("jpeg"))[0].size == (64, 48)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that is sound, and needs 108 MB: with the limit it is made, with a lower one it is not, for its memory."""
    data = encoded(Image.new("RGB", (6000, 6000), RED), "PNG")
    for limit, expected in ((worker.MEMORY, "made"), (64 * 1024**2, "memory")):
        booting(monkeypatch, f"worker.MEMORY = {limit}")
        pool = Pool()
        try:
            assert _said(pool, data, Job("png")) == expected
        finally:
            pool.close()
    assert worker.MEMORY + worker.FILE_MAX < 4 * 1024**3


def test_each_job_has_the_memory_for_its_file(pool: Pool) -> None:
    """The kernel's own words, after a file of 40 MB and after a small one."""
    most = []
    for size in (40_000_000, 0):
        made(pool, jpeg(64, 48) + bytes(size), Job("jpeg"))
        limits = Path(f"/proc/{pool.workers()[0]}/limits").read_text().splitlines()
        most.append(int(next(line for line in limits if "address space" in line).split()[3]))
        assert any(line.split()[3].isdigit() for line in limits if line.startswith("Max cpu time"))
    assert most[0] - most[1] == 40_000_000
    assert worker.MEMORY < most[1] < worker.MEMORY + 1024**3


def test_cpu_time_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    booting(monkeypatch, "worker.CPU_SECONDS = 1\nstart = worker.start\ndef started():\n    found = start()\n"
            "    worker.decode = lambda *job: [None for _ in iter(int, 1)]\n    return found\nworker.start = started")  # fmt: skip
    pool = Pool()
    try:
        with pytest.raises(DecoderDied, match="reached its limits"):
            made(pool, jpeg(64, 48), Job("jpeg"))
    finally:
        pool.close()


def _said(pool: Pool, data: bytes, job: Job) -> str:
    try:
        made(pool, data, job)
    except NoPreview as error:
        return error.failure
    return "made"


def test_a_worker_that_hangs_is_replaced() -> None:
    pool = Pool(seconds=0.5)
    try:
        made(pool, jpeg(64, 48), Job("jpeg"))
        (pid,) = pool.workers()
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(DecoderDied, match="too long"):
            made(pool, jpeg(64, 48), Job("jpeg"))
        assert not Path(f"/proc/{pid}").exists()
        made(pool, jpeg(64, 48), Job("jpeg"))
        assert pool.workers() != [pid]
    finally:
        pool.close()


def test_a_worker_that_dies_costs_one_picture() -> None:
    pool = Pool()
    try:
        made(pool, jpeg(64, 48), Job("jpeg"))
        (pid,) = pool.workers()
        os.kill(pid, signal.SIGSTOP)
        killer = threading.Timer(0.2, os.kill, (pid, signal.SIGKILL))
        killer.start()
        with pytest.raises(DecoderDied):
            made(pool, jpeg(64, 48), Job("jpeg"))
        killer.join()
        assert made(pool, jpeg(64, 48), Job("jpeg"))[0].size == (64, 48)
        pool.trim(idle=0)
        assert pool.workers() == []
    finally:
        pool.close()


def test_closing_is_no_failure_of_the_picture() -> None:
    pool = Pool()
    pool.check()
    os.kill(pool.workers()[0], signal.SIGSTOP)
    closer = threading.Timer(0.2, pool.close)
    closer.start()
    assert _outcome(pool) == "Busy"
    closer.join()
    assert _outcome(pool) == "Busy"
    assert pool.workers() == []


def _outcome(pool: Pool) -> str:
    try:
        made(pool, jpeg(64, 48), Job("jpeg"))
    except (Busy, DecoderDied) as error:
        return type(error).__name__
    return "made"


# --- what the process may not do -----------------------------------------------------------------------------------------


def test_a_worker_has_nothing_but_its_socket(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHIVIA_S3_SECRET_KEY", "not for decoders")
    pool.trim(idle=0)
    pool.check()
    process = Path(f"/proc/{pool.workers()[0]}")
    assert b"not for decoders" not in (process / "environ").read_bytes()
    opened = sorted(os.readlink(each).partition(":")[0] for each in (process / "fd").iterdir())  # noqa: PTH115
    assert opened == ["/dev/null", "/dev/null", "/dev/null", "socket"]
    limits = (process / "limits").read_text()
    assert [line.split()[3:5] for line in limits.splitlines() if line.startswith("Max open files")] == [["16", "16"]]
    assert int(next(line for line in limits.splitlines() if "address space" in line).split()[3]) < 5 * 1024**3
    assert (process / "oom_score_adj").read_text() == "1000\n"


# --- what it answers -------------------------------------------------------------------------------------------------------


def test_the_libraw_here_is_new_enough(pool: Pool) -> None:
    assert tuple(rawpy.libraw_version) >= worker.LIBRAW_MIN
    assert pool.check().no_raw == ""


def booting(monkeypatch: pytest.MonkeyPatch, lines: str) -> None:
    """Workers that run these lines before they begin."""
    monkeypatch.setattr(
        pool_module, "_BOOT", "import sys; sys.path.insert(0, sys.argv[1])\n"
        f"from archivia_fs.views.thumbnails import worker\n{lines}\nworker.main(int(sys.argv[2]))\n",
    )  # fmt: skip


def test_an_old_libraw_gets_no_raw_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """All else is decoded."""
    booting(monkeypatch, "worker.LIBRAW_MIN = (99, 0, 0)")
    pool = Pool()
    try:
        assert "install a rawpy with 99.0.0 or newer" in pool.check().no_raw
        with pytest.raises(NoPreview, match="known holes") as caught:
            made(pool, dng(raw=(64, 48)).whole(), Job("raw"))
        assert caught.value.failure is Failure.UNSUPPORTED
        assert made(pool, jpeg(64, 48), Job("jpeg"))[0].size == (64, 48)
    finally:
        pool.close()


FACTS = {"make": "", "model": "", "taken": "", "width": 1, "height": 1}
GOOD = [jpeg(256, 192), jpeg(512, 384), jpeg(1200, 900)]
LARGE = jpeg(300, 200, quality=5)
NONSENSE = {
    "a greeting": ({"layers": [], "no_raw": ""}, b""),
    "nothing": ({}, b""),
    "no object": ([], b""),
    "a number": (7, b""),
    "an error of no kind": ({"error": "x"}, b""),
    "an error of another kind": ({"error": "x", "failure": "bad luck"}, b""),
    "an error that is no text": ({"error": {}, "failure": "corrupt"}, b""),
    "two pictures": ({"sizes": [len(GOOD[0]), len(GOOD[1])], "facts": FACTS}, GOOD[0] + GOOD[1]),
    "sizes that do not fit": ({"sizes": [1, 1, 1], "facts": FACTS}, b"".join(GOOD)),
    "a size below nothing": ({"sizes": [-5, 3, 5], "facts": FACTS}, b"abc"),
    "no pictures": ({"sizes": [3, 3, 3], "facts": FACTS}, b"abcdefghi"),
    "a page": ({"sizes": [9, 9, 9], "facts": FACTS}, b"<script/>" * 3),
    "pictures that are too large": ({"sizes": [len(LARGE)] * 3, "facts": FACTS}, LARGE * 3),
    "half a picture": ({"sizes": [400, len(GOOD[1]), len(GOOD[2])], "facts": FACTS}, GOOD[0][:400] + GOOD[1] + GOOD[2]),
    "no facts": ({"sizes": [len(each) for each in GOOD]}, b"".join(GOOD)),
    "facts of other kinds": ({"sizes": [len(each) for each in GOOD], "facts": FACTS | {"width": "9"}}, b"".join(GOOD)),
    "a size without an end": (
        {"sizes": [len(each) for each in GOOD], "facts": FACTS | {"width": 1 << 70}},
        b"".join(GOOD),
    ),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_a_failure_and_another_worker_goes_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that was taken over answers what it likes."""
    answer, body = NONSENSE[name]
    booting(
        monkeypatch,
        f"worker.start = lambda: ({{'layers': [], 'no_raw': ''}}, 1 << 40)\nsend, said = worker.send, []\n"
        f"def lie(channel, head, more=b''):\n"
        f"    send(channel, *((head, more) if not said else ({answer!r}, {body!r})))\n    said.append(1)\n"
        f"worker.send = lie",
    )
    pool = Pool()
    try:
        with pytest.raises(DecoderDied, match="nonsense") as caught:
            made(pool, jpeg(64, 48), Job("jpeg"))
        assert caught.value.failure is Failure.CRASHED
        assert pool.workers() == []
        monkeypatch.undo()
        assert made(pool, jpeg(64, 48), Job("jpeg"))[0].size == (64, 48)
    finally:
        pool.close()
