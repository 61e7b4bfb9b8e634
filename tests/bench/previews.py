"""Previews of pictures: made at the first look, shown again, decoded from raw data, listed.

Owns: the rows `previews`, and the pictures they need. Used by: __main__. Threading: the main thread.
The first look is at files whose names do not say that they are pictures, so nothing was made of them when they were stored; their
content decides then, as always. exiftool and rawpy read a local copy that is in memory.
"""

from __future__ import annotations

import io
import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy
import PIL
import rawpy
from PIL import Image

from tests.bench.contenders import OursDav, RcloneDav, RcloneMount
from tests.bench.doors import Contender, Place, Unavailable, ls, watch
from tests.bench.measures import Measure, Row, behind_wire, opened
from tests.bench.processes import BenchError, run, timed
from tests.bench.rows import mib
from tests.bench.steps import Step, View
from tests.views.pictures import dng, jpeg

LOOKS = 10  # pictures that are timed in each round
COUNTED = 5  # ... and those whose bytes are counted
RAWS = 2
MANY = 1000
RAW = (2400, 1600)  # pixels of those with a preview inside
PREVIEW = (1620, 1080)
LARGE_RAW = (8192, 5464)  # pixels of those without
SETTLED = 5.0  # seconds; then a gateway has tried its decoder and ended it
LISTED = "listed"


class Pictures(View):
    """Pictures in our archive; each round has its own."""

    name = "previews"

    def __init__(self, work: Path, own: Place, plain: Place, size: int) -> None:
        super().__init__(work, own, plain, size)
        self.ours = OursDav(own)
        self.rclones: tuple[RcloneDav, RcloneMount] = (RcloneDav(plain), RcloneMount(plain))

    @classmethod
    def rows(cls, size: int) -> list[Row]:
        raw, large = mib(2 * RAW[0] * RAW[1]), mib(2 * LARGE_RAW[0] * LARGE_RAW[1])
        megapixels = f"{LARGE_RAW[0] * LARGE_RAW[1] / 1e6:.0f} megapixels"
        return [
            Row("look", f"first look at {raw} of raw data with a preview of {PREVIEW[0]} pixels inside"),
            Row("look-start", "the same, the first after a start"),
            Row("again", "the same again, from memory"),
            Row("stored", "made before, after a restart from the bucket"),
            Row("decode", f"first look at {megapixels} of raw data ({large}) without a preview"),
            Row("list-previews", f"list {MANY:,} previews (rclone: files), cold"),
            Row("list-pictures", f"list their {MANY:,} pictures, cold"),
        ]

    @classmethod
    def versions(cls) -> list[str]:
        exif = [f"exiftool {run(['exiftool', '-ver'], 60).strip()}"] if shutil.which("exiftool") else []
        return [*exif, f"LibRaw {'.'.join(map(str, rawpy.libraw_version))}", f"Pillow {PIL.__version__}"]

    def prepare(self) -> list[Step]:
        return [
            Step("ours", "WebDAV", "list-previews", self._fill),
            Step("rclone", "WebDAV", "list-previews", self._fill_plain),
        ]

    def steps(self, number: int) -> list[Step]:
        folder = self.work / f"pictures-{number}"
        shutil.rmtree(self.work / f"pictures-{number - 1}", ignore_errors=True)
        make_pictures(folder, number)
        local = self.own.seconds
        looks, raws = ([*map(str, sorted((folder / name).iterdir()))] for name in ("look", "raw"))
        found = [
            Step("ours", "WebDAV", "look", lambda: self._looks(folder)),
            Step("exiftool", "local", "look", lambda: exiftool(looks, self.work / "extracted.jpg", local)),
            Step("rawpy", "local", "look", lambda: rawpy_look("look", "libraw_embedded", looks, local)),
            Step("rawpy", "local", "decode", lambda: rawpy_look("decode", "libraw_half", raws, local)),
            Step("ours", "WebDAV", "list-previews", self._list),
            Step("ours", "FUSE", "list-previews", self._ls),
            *(
                Step("rclone", each.door, "list-previews", lambda each=each: self._list_plain(each))  # type: ignore[misc]
                for each in self.rclones
            ),
        ]
        first = number % len(found)
        return found[first:] + found[:first]

    def _looks(self, folder: Path) -> list[Measure]:
        kept = {name: f"{folder.name}-{name}" for name in ("look", "counted", "raw")}
        try:
            self.ours.start()
            for name, there in kept.items():
                self.ours.write_many(folder / name, there)
        finally:
            self.ours.stop()

        def look(name: str) -> Sequence[float]:
            base = f"{self.ours.url_of('Thumbnails')}{kept[name]}/"
            return self.ours.watch(
                "previews", *(f"{base}{path.name}.jpg" for path in sorted((folder / name).iterdir()))
            )

        with behind_wire(self.ours) as wire:
            requests, received = wire.requests, wire.received
            look("counted")
            requests, received = wire.requests - requests, wire.received - received
        inside = sum(each.stat().st_size for each in (folder / "inside").iterdir())
        with opened(self.ours):
            time.sleep(SETTLED)
            first, *seconds = look("look")
            again = look("look")
            decoded = look("raw")
        with opened(self.ours):
            stored = look("look")
        return [
            Measure(
                "look", statistics.median(seconds), requests=requests / COUNTED, read=(received - inside) // COUNTED
            ),
            Measure("look-start", first),
            _median("again", again),
            _median("stored", stored),
            _median("decode", decoded),
        ]

    def _fill(self) -> list[Measure]:
        source = self.work / LISTED
        make_small(source)
        try:
            self.ours.start()
            self.ours.write_many(source, LISTED)
        finally:
            self.ours.stop()
        self.ours.archivia("thumbnails", f"/Documents/archive/{LISTED}")
        return []

    def _fill_plain(self) -> list[Measure]:
        self.rclones[0].fill(LISTED, MANY)
        return []

    def _list(self) -> list[Measure]:
        found = []
        for row, tree in (("list-previews", "Thumbnails"), ("list-pictures", "Documents")):
            with opened(self.ours):
                found.append(Measure(row, self.ours.list_url(f"{self.ours.url_of(tree)}{LISTED}/", MANY)))
        return found

    def _ls(self) -> list[Measure]:
        found = []
        for row, tree in (("list-previews", "Thumbnails"), ("list-pictures", "Documents")):
            with opened(self.ours):
                found.append(Measure(row, ls(self.ours.mounted_of(tree) / LISTED, MANY, self.own.seconds)))
        return found

    def _list_plain(self, rclone: Contender) -> list[Measure]:
        with opened(rclone):
            return [Measure("list-previews", rclone.list(LISTED, MANY))]


def exiftool(paths: Sequence[str], target: Path, patience: float) -> list[Measure]:
    """`exiftool -b -PreviewImage`: the JPEG as it is inside. A process each."""
    if shutil.which("exiftool") is None:
        raise Unavailable("exiftool is not installed")
    warm(paths)
    seconds = []
    for path in paths:
        took, _ = timed(["sh", "-c", 'exec exiftool -b -PreviewImage "$1" >"$2"', "sh", path, str(target)], patience)
        seconds.append(took)
        if not target.stat().st_size or Image.open(target).size != PREVIEW:
            raise BenchError("exiftool found another preview")
    return [_median("look", seconds)]


def rawpy_look(row: str, probe: str, paths: Sequence[str], patience: float) -> list[Measure]:
    """All in one process, after its start."""
    warm(paths)
    return [_median(row, watch(patience, probe, *paths))]


def warm(paths: Sequence[str]) -> None:
    """The local copy is in memory."""
    for path in paths:
        Path(path).read_bytes()


def make_pictures(folder: Path, seed: int) -> None:
    """Folders of DNGs: `look` and `counted` with a preview inside, `raw` without; in `inside` the previews of the counted ones."""
    random = numpy.random.default_rng(seed)
    for name in ("look", "counted", "raw", "inside"):
        (folder / name).mkdir(parents=True)
    for number in range(LOOKS + COUNTED):
        image = _scene(random, *PREVIEW)
        large, small = _encoded(image), _encoded(image.resize((256, 171)))
        name = "look" if number < LOOKS else "counted"
        raw = random.integers(600, 12000, RAW[0] * RAW[1], "u2").tobytes()
        dng(previews=[small, large], raw=RAW, raw_bytes=raw).write(folder / name / f"page-{number:02}")
        if name == "counted":
            (folder / "inside" / f"page-{number:02}").write_bytes(large)
    for number in range(RAWS):
        raw = random.integers(600, 12000, LARGE_RAW[0] * LARGE_RAW[1], "u2").tobytes()
        dng(raw=LARGE_RAW, raw_bytes=raw).write(folder / "raw" / f"page-{number:02}")


def make_small(folder: Path) -> None:
    """MANY small DNGs with different previews inside."""
    folder.mkdir()
    for number in range(MANY):
        preview = jpeg(1024, 16, colour=(number % 250, number // 250 * 60, 90))
        dng(previews=[jpeg(256, 16), preview]).write(folder / f"page-{number:04}.dng")


def _scene(random: numpy.random.Generator, width: int, height: int) -> Image.Image:
    """Soft shapes with some grain: its JPEG is as large as that of a photograph."""
    shapes = Image.fromarray(random.integers(0, 256, (height // 40, width // 40, 3), "u1"))
    soft = numpy.asarray(shapes.resize((width, height), Image.Resampling.BICUBIC)).astype("i2")
    return Image.fromarray((soft + random.integers(-8, 9, (height, width, 1), "i2")).clip(0, 255).astype("u1"))


def _encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _median(row: str, seconds: Sequence[float]) -> Measure:
    return Measure(row, statistics.median(seconds))
