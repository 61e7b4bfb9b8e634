"""Small clients of downloads and previews, each in a process of its own so that it can be given up.

`python -m tests.bench.view_probes NAME ARGUMENT…` prints the seconds of each of its steps as a JSON list, without the start of
Python. Used by: doors. Every answer is looked at, after its time was taken.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import random
import shutil
import sys
import time
import urllib.parse
import zipfile
from collections.abc import Callable
from pathlib import Path

import rawpy
from PIL import Image

from tests.bench.probe import SEED, authorization

SIDES = (1200, 512, 256)  # pixels: what our gateway makes of each picture, so who is beside it makes these too
QUALITY = 85
_READ = 1 << 20
_TIMEOUT = 60.0


def read_all(size: str, *paths: str) -> list[float]:
    """read(2) of 1 MiB, one file after the other; one step. `size`: bytes of all together."""
    start = time.perf_counter()
    found = 0
    for path in paths:
        file = os.open(path, os.O_RDONLY)
        while data := os.read(file, _READ):
            found += len(data)
        os.close(file)
    seconds = time.perf_counter() - start
    if found != int(size):
        raise SystemExit(f"{found} bytes instead of {size}")
    return [seconds]


def first_bytes(count: str, *pairs: str) -> list[float]:
    """GETs of one byte at random places of random files over one connection, after one of a first byte that is not a step.
    `pairs`: URLs, each with the local file that has the same bytes."""
    chosen = random.Random(SEED)
    files = [(url, Path(source)) for url, source in zip(pairs[::2], pairs[1::2], strict=True)]
    places = [(*files[0], 0)]
    for _ in range(int(count)):
        url, source = chosen.choice(files)
        places.append((url, source, chosen.randrange(source.stat().st_size)))
    connection = _connect(files[0][0])
    seconds, got = [], []
    for url, _, place in places:
        start = time.perf_counter()
        status, data = _get(connection, url, {"Range": f"bytes={place}-{place}"})
        seconds.append(time.perf_counter() - start)
        got.append(data)
        if status != 206:
            raise SystemExit(f"GET with Range answered {status}")
    for (_, source, place), data in zip(places, got, strict=True):
        with source.open("rb") as file:
            file.seek(place)
            if file.read(1) != data:
                raise SystemExit(f"wrong byte at {place} of {source.name}")
    return seconds[1:]


def previews(*urls: str) -> list[float]:
    """GETs of JPEGs over one connection; each must be a preview of its own and have the largest of SIDES."""
    connection = _connect(urls[0])
    seconds, got = [], []
    for url in urls:
        start = time.perf_counter()
        status, data = _get(connection, url, {})
        seconds.append(time.perf_counter() - start)
        if status != 200:
            raise SystemExit(f"GET of a preview answered {status}")
        got.append(data)
    if len(set(got)) != len(got):
        raise SystemExit("two pictures have the same preview")
    for data in got:
        _check(data)
    return seconds


def zip_stream(endpoint: str, bucket: str, size: str, *keys: str) -> list[float]:
    """Python's zipfile over boto3, to nowhere; one step. `size`: bytes of the files; keys of S3 from the AWS_ environment."""
    import boto3

    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    sink = _Sink()
    start = time.perf_counter()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for key in keys:
            body = client.get_object(Bucket=bucket, Key=key)["Body"]
            with archive.open(zipfile.ZipInfo(key), "w", force_zip64=True) as member:
                shutil.copyfileobj(body, member, _READ)
    seconds = time.perf_counter() - start
    if sink.written < int(size):
        raise SystemExit(f"{sink.written} bytes instead of {size}")
    return [seconds]


def libraw_embedded(*paths: str) -> list[float]:
    """LibRaw's own extraction of the preview, and our sizes by Pillow."""

    def make(path: str) -> bytes:
        with rawpy.imread(path) as raw:
            data = raw.extract_thumb().data
        image = Image.open(io.BytesIO(bytes(data)))
        image.draft(None, (SIDES[0], SIDES[0]))
        return _shrink(image)

    return _each(make, paths)


def libraw_half(*paths: str) -> list[float]:
    """LibRaw's raw decoding at half size, and our sizes by Pillow."""

    def make(path: str) -> bytes:
        with rawpy.imread(path) as raw:
            return _shrink(Image.fromarray(raw.postprocess(use_camera_wb=True, half_size=True, output_bps=8)))

    return _each(make, paths)


class _Sink(io.RawIOBase):
    """Counts and forgets; it cannot seek, as a connection cannot."""

    written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        count = memoryview(data).nbytes  # type: ignore[arg-type]
        self.written += count
        return count


def _each(make: Callable[[str], bytes], paths: tuple[str, ...]) -> list[float]:
    seconds = []
    for path in paths:
        start = time.perf_counter()
        data = make(path)
        seconds.append(time.perf_counter() - start)
        _check(data)
    return seconds


def _shrink(image: Image.Image) -> bytes:
    """The largest JPEG; the others are made too."""
    made = []
    for side in SIDES:
        image.thumbnail((side, side))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=QUALITY)
        made.append(buffer.getvalue())
    return made[0]


def _check(data: bytes) -> None:
    image = Image.open(io.BytesIO(data), formats=["JPEG"])
    image.load()
    if max(image.size) != SIDES[0]:
        raise SystemExit(f"a preview has {image.size} pixels")


def _connect(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=_TIMEOUT)


def _get(connection: http.client.HTTPConnection, url: str, headers: dict[str, str]) -> tuple[int, bytes]:
    parts = urllib.parse.urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    connection.request("GET", target, headers={**headers, **authorization()})
    answer = connection.getresponse()
    return answer.status, answer.read()


_PROBES: dict[str, Callable[..., list[float]]] = {
    each.__name__: each for each in (read_all, first_bytes, previews, zip_stream, libraw_embedded, libraw_half)
}

if __name__ == "__main__":
    print(json.dumps(_PROBES[sys.argv[1]](*sys.argv[2:])))
