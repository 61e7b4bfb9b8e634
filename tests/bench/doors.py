"""How a contender is used: through a mount, through WebDAV, or as plain S3.

Owns: the client side of each measurement, the same programs for everyone. Used by: contenders (as base classes), rows.
Every wait is bounded by `Place.seconds`. One contender is measured at a time, in one thread.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal
from urllib.parse import quote

import boto3

from tests.bench.processes import BenchError, Service, is_mounted, run, timed
from tests.s3_servers import S3Server

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

Door = Literal["FUSE", "WebDAV", "S3", "local"]
RSYNC_PARTIAL = 23  # files arrived, attributes not: s3fs has no directory yet when rsync sets its time
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Place:
    """Where one contender works in one round. `server.bucket` is its own and was empty; `seconds`: patience per command."""

    server: S3Server
    directory: Path
    seconds: float


class Unavailable(Exception):
    """The contender is not installed here; the message says so in the table."""


class Contender(ABC):
    """One program under measurement. `start` and `stop` may alternate: what was stored stays, caches do not."""

    name: ClassVar[str]
    door: ClassVar[Door]
    close: ClassVar[str]  # when a finished write is durable, for the table's notes

    def __init__(self, place: Place) -> None:
        self.place = place
        self._service: Service | None = None
        self._peak = 0

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """What is installed. Raises Unavailable."""

    def prepare(self) -> None:  # noqa: B027 - most have nothing to prepare
        """Once per round, before the first start, untimed."""

    @abstractmethod
    def start(self) -> None:
        """Returns when it answers. Raises BenchError."""

    def stop(self) -> None:
        """Returns when its processes are gone and its local caches deleted."""
        if self._service is not None:
            self._peak = max(self._peak, self._service.peak_bytes())
            self._service.stop()
            self._service = None

    def wait_stored(self) -> None:  # noqa: B027 - for most, a finished write is stored
        """Returns when all that was written is in S3."""

    @abstractmethod
    def fill(self, folder: str, count: int) -> None:
        """Make a folder with `count` empty files in the cheapest way it has, untimed."""

    @abstractmethod
    def write(self, source: Path, name: str) -> float:
        """Seconds until the writing program has ended well."""

    @abstractmethod
    def read(self, name: str, size: int) -> float:
        """Seconds for the whole file, to nowhere."""

    @abstractmethod
    def read_random(self, name: str, source: Path, count: int) -> float:
        """Seconds for `count` reads of 128 KiB, compared with `source` afterwards."""

    def write_many(self, source: Path, folder: str) -> tuple[float, int]:
        """Seconds to bring a local folder of small files in, and how many files were sent."""
        raise NotImplementedError

    def list(self, folder: str, count: int) -> float:
        """Seconds for names and attributes of a folder's `count` files."""
        raise NotImplementedError

    def rename(self, old: str, new: str) -> float:
        """Seconds."""
        raise NotImplementedError

    def redirect(self, server: S3Server) -> None:
        """From the next start on, S3 is there. For counting on the way."""
        self.place = replace(self.place, server=server)

    def peak_bytes(self) -> int:
        """Peak resident memory of its processes, over all starts of this round."""
        if self._service is not None:
            self._peak = max(self._peak, self._service.peak_bytes())
        return self._peak

    def cpu_seconds(self) -> float:
        """CPU time of its processes since the last start."""
        return self._service.cpu_seconds() if self._service else 0.0

    @property
    def service(self) -> Service:
        """What runs between `start` and `stop`."""
        assert self._service is not None
        return self._service

    def _launch(self, *command: str, **environment: str) -> Service:
        """Becomes `_service` before it is ready, so that `stop` ends it whatever happens."""
        self._service = Service.start(command, self.place.directory, environment)
        return self._service

    def _probe(self, *arguments: str, **environment: str) -> float:
        return float(_python("tests.bench.probe", arguments, self.place.seconds, environment))


class MountDoor(Contender):
    """A FUSE mount, used by dd, rsync, ls and mv (coreutils)."""

    door = "FUSE"

    @property
    def mountpoint(self) -> Path:
        return self.place.directory / f"mnt-{self.name}"

    @property
    def root(self) -> Path:
        """The writable folder below the mountpoint."""
        return self.mountpoint

    def _mount(self, *command: str, **environment: str) -> Service:
        with contextlib.suppress(FileExistsError):
            self.mountpoint.mkdir()
        service = self._launch(*command, **environment)
        service.wait_until(lambda: is_mounted(self.mountpoint), f"{self.name} does not mount")
        return service

    def stop(self) -> None:
        super().stop()
        if is_mounted(self.mountpoint):
            run(["fusermount3", "-u", "-z", str(self.mountpoint)], self.place.seconds)

    def fill(self, folder: str, count: int) -> None:
        self._probe("create", str(self.root / folder), str(count))

    def write(self, source: Path, name: str) -> float:
        target = self.root / name
        command = ["dd", f"if={source}", f"of={target}", "bs=1M", "conv=fsync", "status=none"]
        return timed(command, self.place.seconds)[0]

    def read(self, name: str, size: int) -> float:
        command = ["dd", f"if={self.root / name}", "of=/dev/null", "bs=1M"]
        seconds, output = timed(["sh", "-c", 'exec "$@" 2>&1', "sh", *command], self.place.seconds)
        if f"{size} bytes" not in output:
            raise BenchError(f"short read: {output.strip()}")
        return seconds

    def read_random(self, name: str, source: Path, count: int) -> float:
        return self._probe("random_file", str(self.root / name), str(source), str(count))

    def fill_tree(self, folder: str, count: int) -> None:
        """Folders of 1,000 empty files each, untimed, in the cheapest way it has."""
        self._probe("create_tree", str(self.root / folder), str(count))

    def probe(self, what: str, name: str, *arguments: str) -> float:
        """Seconds for one of the probes on a path below the root."""
        return self._probe(what, str(self.root / name), *arguments)

    def command(self, *command: str) -> float:
        """Seconds for a program."""
        return timed(command, self.place.seconds)[0]

    def write_many(self, source: Path, folder: str) -> tuple[float, int]:
        command = ["rsync", "-a", "--stats", f"{source}/", f"{self.root / folder}/"]
        start = time.perf_counter()
        output = run(command, self.place.seconds, codes=(0, RSYNC_PARTIAL))
        seconds = time.perf_counter() - start
        sent = next(line for line in output.splitlines() if "files transferred:" in line)
        return seconds, int(sent.rpartition(":")[2].strip().replace(",", ""))

    def list(self, folder: str, count: int) -> float:
        return ls(self.root / folder, count, self.place.seconds)

    def rename(self, old: str, new: str) -> float:
        return timed(["mv", str(self.root / old), str(self.root / new)], self.place.seconds)[0]


class DavDoor(Contender):
    """A WebDAV server, used by curl and http.client."""

    door = "WebDAV"
    user = ""  # "name:password"
    _port = 0

    @property
    def url(self) -> str:
        """The writable collection, with a slash at the end."""
        return f"http://127.0.0.1:{self._port}/"

    def _serve(self, port: int, *command: str, **environment: str) -> Service:
        self._port = port
        service = self._launch(*command, **environment)
        service.wait_until(self._answers, f"{self.name} does not answer")
        return service

    def _answers(self) -> bool:
        try:
            run(["curl", "-s", "-o", "/dev/null", "-m", "5", self.url], self.place.seconds)
        except BenchError:
            return False
        return True

    def _curl(self, *arguments: str) -> tuple[float, str]:
        user = ["-u", self.user] if self.user else []
        return timed(["curl", "-sS", "--fail", *user, *arguments], self.place.seconds)

    def _authorization(self) -> dict[str, str]:
        if not self.user:
            return {}
        return {"BENCH_AUTHORIZATION": "Basic " + base64.b64encode(self.user.encode()).decode()}

    def write(self, source: Path, name: str) -> float:
        return self._curl("-T", str(source), self.url + quote(name))[0]

    def read(self, name: str, size: int) -> float:
        seconds, output = self._curl("-o", "/dev/null", "-w", "%{size_download}", self.url + quote(name))
        if int(output) != size:
            raise BenchError(f"short read: {output} bytes")
        return seconds

    def read_random(self, name: str, source: Path, count: int) -> float:
        return self._probe("random_http", self.url + quote(name), str(source), str(count), **self._authorization())

    def write_many(self, source: Path, folder: str) -> tuple[float, int]:
        target = f"{self.url}{quote(folder)}/"
        files = sorted(source.iterdir())
        config = self.place.directory / "curl.conf"
        config.write_text(
            "".join(f'upload-file="{file}"\nurl="{target}{file.name}"\noutput="/dev/null"\n' for file in files)
        )
        self._curl("-X", "MKCOL", target)
        return self._curl("-K", str(config))[0], len(files)

    def list(self, folder: str, count: int) -> float:
        return self.list_url(f"{self.url}{quote(folder)}/", count)

    def list_url(self, url: str, count: int) -> float:
        """Seconds for names and attributes of a collection's `count` members."""
        return self._probe("propfind", url, str(count), **self._authorization())

    def fetch(self, *urls: str) -> tuple[float, int]:
        """Seconds to GET all of them over one connection, to nowhere, and how many bytes came."""
        config = self.place.directory / "curl.conf"
        config.write_text("".join(f'url="{url}"\noutput="/dev/null"\n' for url in urls))
        seconds, output = self._curl("-w", "%{size_download}\n", "-K", str(config))
        return seconds, sum(map(int, output.split()))

    def save(self, url: str, target: Path) -> None:
        """GET it into a local file."""
        self._curl("-o", str(target), url)

    def watch(self, probe: str, *arguments: str) -> Sequence[float]:
        """Seconds of each step of one of tests.bench.view_probes, with its user's rights."""
        return watch(self.place.seconds, probe, *arguments, **self._authorization())

    def rename(self, old: str, new: str) -> float:
        target = self.url + quote(new)
        return self._curl("-X", "MOVE", "-H", f"Destination: {target}", self.url + quote(old))[0]


def ls(folder: Path, count: int, patience: float) -> float:
    """Seconds of `ls -l` of a folder with `count` members."""
    seconds, output = timed(["ls", "-l", str(folder)], patience)
    if (found := len(output.splitlines()) - 1) != count:
        raise BenchError(f"ls shows {found} of {count} files")
    return seconds


def fill_bucket(server: S3Server, folder: str, count: int) -> None:
    """Put `count` empty objects below `folder/`, for contenders that show objects as files."""
    _put_empty(server, [f"{folder}/", *(f"{folder}/page-{number:05}.dng" for number in range(count))])


def fill_bucket_tree(server: S3Server, folder: str, count: int) -> None:
    """As fill_bucket, in folders of 1,000."""
    names = [f"{folder}/"]
    for number in range(count):
        if number % 1000 == 0:
            names.append(f"{folder}/roll-{number // 1000:03}/")
        names.append(f"{folder}/roll-{number // 1000:03}/page-{number % 1000:05}.dng")
    _put_empty(server, names)


def fill_bucket_from(server: S3Server, folder: str, source: Path) -> None:
    """Put the files of a local folder below `folder/`."""
    client = s3_client(server)
    files = sorted(source.iterdir())
    with contextlib.closing(client), ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda file: client.upload_file(str(file), server.bucket, f"{folder}/{file.name}"), files))


def watch(patience: float, probe: str, *arguments: str, **environment: str) -> Sequence[float]:
    """Seconds of each step of one of tests.bench.view_probes, in a process of its own. Raises BenchError."""
    return [
        float(each)
        for each in json.loads(_python("tests.bench.view_probes", [probe, *arguments], patience, environment))
    ]


def _python(module: str, arguments: Sequence[str], seconds: float, environment: Mapping[str, str]) -> str:
    path = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return run([sys.executable, "-m", module, *arguments], seconds, {"PYTHONPATH": path, **environment})


def _put_empty(server: S3Server, names: Sequence[str]) -> None:
    client = s3_client(server)
    with contextlib.closing(client), ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: client.put_object(Bucket=server.bucket, Key=key, Body=b""), names))


def s3_client(server: S3Server) -> S3Client:
    """A boto3 client for the server."""
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name=server.region,
    )
