"""A document of many files as one ZIP: beside the same files, rclone's ZIP of a folder, and Python's zipfile.

Owns: the rows `zip`. Used by: __main__. Threading: the main thread.
"""

from __future__ import annotations

import os
import statistics
import zipfile
import zlib
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

from tests.bench.contenders import Direct, OursDav, RcloneDav
from tests.bench.doors import DavDoor, Place, fill_bucket_from, watch
from tests.bench.measures import Measure, Row, behind_wire, opened
from tests.bench.processes import BenchError
from tests.bench.rows import mib
from tests.bench.steps import Step, View

FILES = 100
BYTES = 50  # that are read one by one
FOLDER = "document"


class Documents(View):
    """One document in our archive and in a bucket."""

    name = "zip"

    def __init__(self, work: Path, own: Place, plain: Place, size: int) -> None:
        super().__init__(work, own, plain, size - size % FILES)
        self.ours = OursDav(own)
        self.rclone = RcloneDav(plain)
        self.direct = Direct(plain)
        self._filled = False

    @classmethod
    def rows(cls, size: int) -> list[Row]:
        return [
            Row("zip-plain", f"{FILES} files of together {mib(size)}, cold"),
            Row("zip", "the same as one ZIP, cold"),
            Row("zip-byte-plain", f"1 byte at a random place of the files, {BYTES} times"),
            Row("zip-byte", "the same of the ZIP (direct: of the files)"),
        ]

    def prepare(self) -> list[Step]:
        make_document(self.work / FOLDER, self.size)
        return [
            Step("ours", "WebDAV", "zip", self._fill_ours),
            Step("rclone", "WebDAV", "zip", self._keep_rclone),
        ]

    def steps(self, number: int) -> list[Step]:
        found = [
            Step("ours", "WebDAV", "zip", lambda: self._webdav(self.ours, self._ours_zip)),
            Step("ours", "FUSE", "zip", self._fuse),
            Step("rclone", "WebDAV", "zip", lambda: self._webdav(self.rclone, self._rclone_zip)),
            Step("zipfile", "S3", "zip", self._zipfile),
            Step("ours", "WebDAV", "zip-byte", self._bytes),
            Step("direct", "S3", "zip-byte", self._direct_bytes),
        ]
        first = number % len(found)
        return found[first:] + found[:first]

    def _fill_ours(self) -> list[Measure]:
        try:
            self.ours.start()
            self.ours.write_many(self.work / FOLDER, FOLDER)
        finally:
            self.ours.stop()
        return self._keep(self.ours, self._ours_zip)

    def _keep_rclone(self) -> list[Measure]:
        self._fill_bucket()
        return self._keep(self.rclone, self._rclone_zip)

    def _fill_bucket(self) -> None:
        """Once, for whoever comes first."""
        if not self._filled:
            fill_bucket_from(self.plain.server, FOLDER, self.work / FOLDER)
            self._filled = True

    def _keep(self, gateway: DavDoor, url: Callable[[], str]) -> list[Measure]:
        """A copy of its ZIP on the local disk, every byte checked."""
        with opened(gateway):
            gateway.save(url(), self._kept(gateway))
        check_zip(self._kept(gateway), self.work / FOLDER)
        return []

    def _kept(self, gateway: DavDoor) -> Path:
        return self.work / f"{gateway.name}.zip"

    def _ours_zip(self) -> str:
        return f"{self.ours.url_of('Downloads')}{FOLDER}.zip"

    def _rclone_zip(self) -> str:
        return f"{self.rclone.url}{FOLDER}/?download=zip"

    def _webdav(self, gateway: DavDoor, url: Callable[[], str]) -> list[Measure]:
        """curl over one connection."""
        names = [f"{FOLDER}/{path.name}" for path in self._files()]

        def fetch(size: int, *urls: str) -> float:
            seconds, found = gateway.fetch(*urls)
            if found != size:
                raise BenchError(f"{found} bytes came instead of {size}")
            return seconds

        return self._both(
            gateway,
            lambda: fetch(self.size, *(gateway.url + name for name in names)),
            lambda: fetch(self._kept(gateway).stat().st_size, url()),
        )

    def _fuse(self) -> list[Measure]:
        """read(2) of 1 MiB."""
        folder = self.ours.mounted_of("Documents") / FOLDER
        whole = self.ours.mounted_of("Downloads") / f"{FOLDER}.zip"

        def read(size: int, *paths: Path) -> float:
            return self.ours.watch("read_all", str(size), *map(str, paths))[0]

        return self._both(
            self.ours,
            lambda: read(self.size, *(folder / path.name for path in self._files())),
            lambda: read(self._kept(self.ours).stat().st_size, whole),
        )

    def _both(self, gateway: DavDoor, plain: Callable[[], float], whole: Callable[[], float]) -> list[Measure]:
        """The files, and then the ZIP in the same process for its memory (ours only); the ZIP again cold for its time."""
        added = None
        with opened(gateway):
            cpu = gateway.cpu_seconds()
            seconds = plain()
            files = Measure("zip-plain", seconds, self.size, cpu=gateway.cpu_seconds() - cpu)
            if gateway is self.ours:
                before = gateway.service.own_peak_bytes()
                gateway.service.forget_peak()
                whole()
                added = gateway.service.own_peak_bytes() - before
        with opened(gateway):
            cpu = gateway.cpu_seconds()
            seconds = whole()
            return [files, Measure("zip", seconds, self.size, cpu=gateway.cpu_seconds() - cpu, added=added)]

    def _zipfile(self) -> list[Measure]:
        self._fill_bucket()
        server = self.plain.server
        keys = {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}
        names = [f"{FOLDER}/{path.name}" for path in self._files()]
        with opened(self.direct):
            where = (server.endpoint, server.bucket, str(self.size))
            (seconds,) = watch(self.plain.seconds, "zip_stream", *where, *names, **keys)
        return [Measure("zip", seconds, self.size)]

    def _bytes(self) -> list[Measure]:
        def read(count: int) -> Sequence[float]:
            return self.ours.watch("first_bytes", str(count), self._ours_zip(), str(self._kept(self.ours)))

        with opened(self.ours):
            pairs = [(f"{self.ours.url}{FOLDER}/{path.name}", str(path)) for path in self._files()]
            plain = self.ours.watch("first_bytes", str(BYTES), *chain.from_iterable(pairs))
        with opened(self.ours):
            seconds = statistics.median(read(BYTES))
        with behind_wire(self.ours) as wire:
            read(0)  # it is opened once
            requests, received = wire.requests, wire.received
            read(BYTES)
            requests, received = wire.requests - requests, wire.received - received
        return [
            Measure("zip-byte-plain", statistics.median(plain)),
            Measure("zip-byte", seconds, requests=requests / BYTES, read=received // BYTES - 1),
        ]

    def _direct_bytes(self) -> list[Measure]:
        self._fill_bucket()
        with opened(self.direct):
            pairs = [(self.direct.presigned(f"{FOLDER}/{path.name}"), str(path)) for path in self._files()]
            each = watch(self.plain.seconds, "first_bytes", str(BYTES), *chain.from_iterable(pairs))
        return [Measure("zip-byte", statistics.median(each))]

    def _files(self) -> list[Path]:
        return sorted((self.work / FOLDER).iterdir())


def make_document(folder: Path, size: int) -> None:
    """FILES incompressible files of `size` bytes together."""
    folder.mkdir()
    for number in range(FILES):
        (folder / f"page-{number:03}.dng").write_bytes(os.urandom(size // FILES))


def check_zip(path: Path, source: Path) -> None:
    """Raises BenchError unless it is whole and has every file of `source`."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
            found = {Path(each.filename).name: each.CRC for each in archive.infolist()}
    except zipfile.BadZipFile as error:
        raise BenchError(f"its ZIP is none: {error}") from error
    if broken is not None:
        raise BenchError(f"in its ZIP {broken} is broken")
    for each in source.iterdir():
        if found.get(each.name) != zlib.crc32(each.read_bytes()):
            raise BenchError(f"in its ZIP {each.name} is missing or another one")
