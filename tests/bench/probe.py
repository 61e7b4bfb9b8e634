"""Small clients that run in a process of their own, so that a hanging mount can be given up.

`python -m tests.bench.probe NAME ARGUMENT…` prints the seconds of its own work, without the start of Python.
Used by: doors. Every answer is compared with the source: a wrong byte is a failure, not a time.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import sys
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path

READ_BYTES = 128 * 1024  # what the kernel asks of a FUSE mount at once
SEED = 20240229
_TIMEOUT = 60.0


def offsets(size: int, count: int) -> list[int]:
    """The same places for everyone, aligned to 4 KiB."""
    chosen = random.Random(SEED)
    return [chosen.randrange((size - READ_BYTES) // 4096) * 4096 for _ in range(count)]


def random_file(path: str, source: str, count: str) -> float:
    """pread(2) of READ_BYTES at each offset."""
    places = offsets(Path(source).stat().st_size, int(count))
    start = time.perf_counter()
    file = os.open(path, os.O_RDONLY)
    got = [os.pread(file, READ_BYTES, offset) for offset in places]
    os.close(file)
    seconds = time.perf_counter() - start
    _compare(source, places, got)
    return seconds


def random_http(url: str, source: str, count: str) -> float:
    """GET with Range over one kept-alive connection; `BENCH_AUTHORIZATION` may hold the header's value."""
    places = offsets(Path(source).stat().st_size, int(count))
    parts = urllib.parse.urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    connection = http.client.HTTPConnection(parts.netloc, timeout=_TIMEOUT)
    start = time.perf_counter()
    got = []
    for offset in places:
        headers = {"Range": f"bytes={offset}-{offset + READ_BYTES - 1}", **authorization()}
        connection.request("GET", target, headers=headers)
        answer = connection.getresponse()
        got.append(answer.read())
        if answer.status != 206:
            raise SystemExit(f"GET with Range answered {answer.status}")
    connection.close()
    seconds = time.perf_counter() - start
    _compare(source, places, got)
    return seconds


def propfind(url: str, count: str) -> float:
    """PROPFIND with Depth 1 (RFC 4918) of a collection with `count` members."""
    parts = urllib.parse.urlsplit(url)
    start = time.perf_counter()
    connection = http.client.HTTPConnection(parts.netloc, timeout=_TIMEOUT)
    connection.request("PROPFIND", parts.path, headers={"Depth": "1", **authorization()})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    seconds = time.perf_counter() - start
    found = body.count(b"response>") // 2
    if answer.status != 207 or found != int(count) + 1:
        raise SystemExit(f"PROPFIND answered {answer.status} with {found} responses")
    return seconds


def create(directory: str, count: str) -> float:
    """Make a directory of `count` empty files."""
    start = time.perf_counter()
    folder = Path(directory)
    folder.mkdir()
    for number in range(int(count)):
        os.close(os.open(folder / f"page-{number:05}.dng", os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o644))
    return time.perf_counter() - start


def stat_all(directory: str, count: str) -> float:
    """lstat(2) of each of them, by name."""
    return _each(directory, count, lambda path: path.lstat())


def rename_all(directory: str, count: str) -> float:
    """rename(2) of each of them within the directory."""
    return _each(directory, count, lambda path: path.rename(path.with_suffix(".tif")))


def unlink_all(directory: str, count: str) -> float:
    """unlink(2) of each of them, after `rename_all`."""
    return _each(directory, count, lambda path: path.with_suffix(".tif").unlink())


def create_tree(directory: str, count: str) -> float:
    """Folders of 1,000 empty files each, `count` files in all."""
    start = time.perf_counter()
    Path(directory).mkdir()
    for first in range(0, int(count), 1000):
        create(f"{directory}/roll-{first // 1000:03}", str(min(1000, int(count) - first)))
    return time.perf_counter() - start


def _each(directory: str, count: str, act: Callable[[Path], object]) -> float:
    folder = Path(directory)
    start = time.perf_counter()
    for number in range(int(count)):
        act(folder / f"page-{number:05}.dng")
    return time.perf_counter() - start


def random_4k(path: str, source: str, count: str) -> float:
    """pread(2) of 4 KiB at each offset."""
    places = offsets(Path(source).stat().st_size, int(count))
    start = time.perf_counter()
    file = os.open(path, os.O_RDONLY)
    got = [os.pread(file, 4096, offset) for offset in places]
    os.close(file)
    seconds = time.perf_counter() - start
    _compare(source, places, got)
    return seconds


def edit(path: str, offset: str) -> float:
    """pwrite(2) of 4 KiB in place and close(2)."""
    data = random.Random(SEED).randbytes(4096)
    start = time.perf_counter()
    file = os.open(path, os.O_WRONLY)
    os.pwrite(file, data, int(offset))
    os.fsync(file)
    os.close(file)
    seconds = time.perf_counter() - start
    file = os.open(path, os.O_RDONLY)
    if os.pread(file, 4096, int(offset)) != data:
        raise SystemExit(f"wrong bytes at {offset}")
    os.close(file)
    return seconds


def upload(endpoint: str, bucket: str, key: str, source: str) -> float:
    """boto3's upload_file with its default TransferConfig; keys from the AWS_ environment."""
    import boto3

    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    start = time.perf_counter()
    client.upload_file(source, bucket, key)
    return time.perf_counter() - start


def authorization() -> dict[str, str]:
    """What `BENCH_AUTHORIZATION` holds, as a header."""
    value = os.environ.get("BENCH_AUTHORIZATION")
    return {"Authorization": value} if value else {}


def _compare(source: str, places: list[int], got: list[bytes]) -> None:
    with Path(source).open("rb") as file:
        for offset, data in zip(places, got, strict=True):
            file.seek(offset)
            if file.read(len(data)) != data:
                raise SystemExit(f"wrong bytes at {offset}")


_PROBES: dict[str, Callable[..., float]] = {
    each.__name__: each
    for each in (
        random_file, random_4k, random_http, propfind, create, stat_all, rename_all, unlink_all, create_tree, edit, upload,
    )
}  # fmt: skip

if __name__ == "__main__":
    print(json.dumps(_PROBES[sys.argv[1]](*sys.argv[2:])))
