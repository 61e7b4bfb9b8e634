"""SIGKILL of the gateway at random moments, while files are written through the mount and by PUT, on one archive that lives on."""

from __future__ import annotations

import base64
import http.client
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from archivia_fs.maintenance.check import Check
from archivia_fs.maintenance.gc import Gc
from archivia_fs.store.s3 import S3Config, S3Store
from archivia_fs.store.stack import stack
from catalog.catalog import Catalog
from tests.app.drive import free_port
from tests.app.program import PASSWORD, Program
from tests.s3_servers import S3Server, seaweedfs

MIB = 1024**2
ROUNDS = 8
SECONDS = 30.0  # no round begins after these
SIZES = (1, 70_000, 3 * MIB, 17 * MIB)  # of one PUT each, and one of three parts
NAMES = 3  # of each writer: most writes are over something


@pytest.fixture
def server(tmp_path: Path) -> Iterator[S3Server]:
    with seaweedfs(tmp_path / "s3") as server:
        yield server


class Writer:
    """Writes one file after the other until it cannot. `stored`: what was acknowledged; `begun`: the write that was not yet."""

    def __init__(self, prefix: str, chance: random.Random, write: Callable[[str, bytes], None]) -> None:
        self.prefix = prefix
        self._chance = chance
        self._write = write
        self.stored: dict[str, bytes] = {}
        self.begun: tuple[str, bytes] | None = None
        self.writes = 0

    def run(self) -> None:
        with suppress(OSError, http.client.HTTPException):
            while True:
                name = f"{self.prefix}-{self._chance.randrange(NAMES)}.dng"
                self.begun = name, self._chance.randbytes(self._chance.choice(SIZES))
                self._write(*self.begun)
                self.stored[name] = self.begun[1]
                self.begun = None
                self.writes += 1

    def check(self, folder: Path) -> None:
        """Every acknowledged file is as it was written; the one that was being written is the old or the new one, complete. A name
        that was new may also be missing, or be the empty file that open(2) has made."""
        if self.begun is not None:
            name, new = self.begun
            with suppress(FileNotFoundError):
                found = (folder / name).read_bytes()
                allowed = (new, self.stored[name]) if name in self.stored else (new, b"")
                assert found in allowed, f"{name}: {len(found)} bytes are neither the old content nor the new one"
                self.stored[name] = found
            self.begun = None
        for name, data in self.stored.items():
            assert (folder / name).read_bytes() == data, name


def write_by_mount(folder: Path) -> Callable[[str, bytes], None]:
    def write(name: str, data: bytes) -> None:
        with (folder / name).open("wb", buffering=0) as file:
            for start in range(0, len(data), MIB):
                file.write(data[start : start + MIB])

    return write


def write_by_put(port: int) -> Callable[[str, bytes], None]:
    def write(name: str, data: bytes) -> None:
        token = base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            connection.request("PUT", f"/Documents/archive/{name}", data, {"Authorization": f"Basic {token}"})
            status = connection.getresponse().status
        if status not in (201, 204):
            raise ConnectionError(status)

    return write


@pytest.fixture
def serve(server: S3Server, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Start the gateway; the mount of a killed one is recovered by the next."""
    program, mount, port = Program(tmp_path / "home", server), tmp_path / "mnt", free_port()
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        process = program.start("serve", f"--listen=127.0.0.1:{port}", f"--mount={mount}")
        started.append(process)
        assert process.stdout is not None
        said = iter(process.stdout.readline, "")
        assert any("Copy in" in line for line in said), process.wait()
        return process

    start.mount, start.port = mount, port  # type: ignore[attr-defined]
    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    subprocess.run(["umount", "-l", str(mount)], check=False, capture_output=True)


def test_at_any_moment_of_a_write(serve: Callable[[], subprocess.Popen[str]], server: S3Server, tmp_path: Path) -> None:
    """[D3] SIGKILL of the gateway at any moment of a write leaves the old content, readable."""
    seed = random.randrange(2**32)
    print("seed", seed)  # shown if it fails
    chance = random.Random(seed)
    mount: Path = serve.mount  # type: ignore[attr-defined]
    folder = mount / "Documents/archive"
    writers = [
        Writer("mount", random.Random(chance.random()), write_by_mount(folder)),
        Writer("put", random.Random(chance.random()), write_by_put(serve.port)),  # type: ignore[attr-defined]
    ]
    end, rounds = time.monotonic() + SECONDS, 0
    while rounds < ROUNDS and time.monotonic() < end:
        gateway = serve()
        for writer in writers:
            writer.check(folder)
        threads = [threading.Thread(target=writer.run) for writer in writers]
        for thread in threads:
            thread.start()
        while rounds == 0 and not all(writer.writes for writer in writers):  # there are old contents
            assert time.monotonic() < end
            time.sleep(0.05)
        time.sleep(chance.uniform(0.01, 1.2))
        gateway.kill()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        gateway.wait()
        rounds += 1
    nothing_is_left_over(server, tmp_path / "home")
    gateway = serve()
    for writer in writers:
        writer.check(folder)
    gateway.send_signal(signal.SIGINT)
    assert gateway.wait(60) == 0


def nothing_is_left_over(server: S3Server, home: Path) -> None:
    """After gc without grace the store has what the catalog names, and nothing is being uploaded."""
    store = stack(
        S3Store(S3Config(server.endpoint, server.bucket, server.access_key, server.secret_key, server.region))
    )
    store.probe()
    with closing(Catalog.open(f"sqlite:///{home}/catalog.db")) as catalog:
        time.sleep(1.1)  # the store's times are in seconds
        report = Gc(catalog, store, grace=0, upload_age=0).run(force=True)
        assert report.failed == []
        assert catalog.uploads() == []
        assert list(store.list_uploads("objects/")) == []
        keys = {found.key for found in store.list("objects/")}
        assert catalog.unknown_objects(keys) == set()
        assert len(keys) == catalog.counts().files, "each file has an object of its own"
        assert Check(catalog, store).run().sound
    store.close()
