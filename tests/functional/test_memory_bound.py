"""The program under load: many streams at once stay within its memory, and a store that hangs stops no names.

`archivia-fs serve --mount` runs in a process of its own; the programs and clients are threads here. The bytes of each file are
those of its number, so none has to be kept.
"""

from __future__ import annotations

import http.client
import os
import random
import signal
import subprocess
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.app.program import PASSWORD, Program
from tests.functional.conftest import frozen
from tests.s3_servers import S3Server, free_ports

MIB = 1024**2
SIZE = 96 * MIB
RESIDENT_MAX = 300 * MIB  # of the gateway, with the default ARCHIVIA_MEMORY
HANGS_SECONDS = 6.0
ANSWERS_SECONDS = 2.0
NOISE = random.Random(5).randbytes(2 * MIB)


def block(number: int, at: int) -> bytes:
    """The MiB at `at` of the file `number`."""
    start = (number * 7919 + at // MIB * 104729) % MIB
    return b"%016d" % (number * SIZE + at) + NOISE[start : start + MIB - 16]


def blocks(number: int, size: int) -> Iterator[bytes]:
    return (block(number, at) for at in range(0, size, MIB))


@dataclass
class Gateway:
    """A running gateway and its two doors; `size` in bytes of each file."""

    process: subprocess.Popen[str]
    mount: Path
    port: int
    size: int = SIZE

    @property
    def folder(self) -> Path:
        return self.mount / "Documents" / "archive"

    def ask(self, method: str, name: str, body: Iterator[bytes] | None = None, **headers: str) -> int:
        """The status; a body that comes back is read and compared with the file of that number."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=90)
        login = "Basic " + b64encode(f"admin:{PASSWORD}".encode()).decode()
        try:
            connection.request(method, f"/Documents/archive/{name}", body, {"Authorization": login, **headers})
            answer = connection.getresponse()
            if method == "GET":
                number = int(name.partition(".")[0])
                for at in range(0, self.size, MIB):
                    assert answer.read(MIB) == block(number, at), (name, at)
            answer.read()
            return answer.status
        finally:
            connection.close()

    def put(self, number: int) -> None:
        assert self.ask("PUT", f"{number}.dng", blocks(number, self.size), **{"Content-Length": str(self.size)}) in (
            201,
            204,
        )

    def get(self, number: int) -> None:
        assert self.ask("GET", f"{number}.dng") == 200

    def write(self, number: int) -> None:
        file = os.open(self.folder / f"{number}.dng", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            for data in blocks(number, self.size):
                assert os.write(file, data) == MIB
        finally:
            os.close(file)

    def read(self, number: int) -> None:
        with self.uncached(number) as file:
            for at in range(0, self.size, MIB):
                assert os.pread(file, MIB, at) == block(number, at), (number, at)

    def peek(self, number: int, at: int) -> None:
        with self.uncached(number) as file:
            assert os.pread(file, MIB, at) == block(number, at), (number, at)

    @contextmanager
    def uncached(self, number: int) -> Iterator[int]:
        """Reads ask the gateway, and not the kernel's cache."""
        file = os.open(self.folder / f"{number}.dng", os.O_RDONLY)
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            yield file
        finally:
            os.close(file)

    def peak(self) -> int:
        """The most memory the gateway has had, in bytes (proc(5) VmHWM)."""
        return peak_of(self.process.pid)

    def children(self) -> dict[str, int]:
        """The same of its child processes, by command."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        pids = [int(child) for task in tasks for child in (task / "children").read_text().split()]
        return {Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "): peak_of(pid) for pid in pids}


def peak_of(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024


@pytest.fixture
def gateway(server: S3Server, tmp_path: Path) -> Iterator[Gateway]:
    program, (port,) = Program(tmp_path / "home", server), free_ports(1)
    mount = tmp_path / "mnt"
    process = program.start("serve", f"--listen=127.0.0.1:{port}", f"--mount={mount}")
    try:
        assert process.stdout is not None
        assert any("Copy in" in line for line in process.stdout), "it ended"
        yield Gateway(process, mount, port)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
        subprocess.run(["umount", "-l", str(mount)], check=False, capture_output=True)


def all_at_once(*acts: tuple[Callable[[int], None], int]) -> None:
    with ThreadPoolExecutor(len(acts)) as pool:
        tasks: list[Future[None]] = [pool.submit(act, number) for act, number in acts]
    for task in tasks:
        task.result()


@pytest.mark.timeout(240)  # it moves 2 GiB on two cores that may have other work
def test_eight_writers_and_eight_readers_stay_within_the_memory(gateway: Gateway) -> None:
    """[L1] All buffers and caches together stay within `ARCHIVIA_MEMORY`, however many files are written and read at once."""
    old, new = range(8), range(8, 16)
    writers = [gateway.write if number % 2 else gateway.put for number in old]
    readers = [gateway.get if number % 2 else gateway.read for number in old]
    all_at_once(*zip(writers, old, strict=True))
    all_at_once(*zip(writers, new, strict=True), *zip(readers, old, strict=True))
    assert gateway.peak() <= RESIDENT_MAX, f"{gateway.peak() / MIB:.0f} MiB"
    assert all(peak <= RESIDENT_MAX for peak in gateway.children().values()), gateway.children()
    gateway.get(new[1])  # what one door wrote, by the other
    gateway.read(new[0])


@pytest.mark.timeout(240)
def test_a_hanging_store_never_stops_names(gateway: Gateway, server: S3Server) -> None:
    """[L3] A slow or hanging store makes readers and writers wait; names and attributes are answered as fast as ever."""
    gateway.size = 48 * MIB
    old, new, folder = range(4), range(4, 8), gateway.folder
    all_at_once(*((gateway.put, number) for number in old))
    writers = [*((gateway.put, number) for number in new[::2]), *((gateway.write, number) for number in new[1::2])]
    # more programs wait for bytes than the mount has threads for them
    peeks: list[Callable[[int], None]] = [partial(gateway.peek, at=at) for at in range(0, gateway.size, 5 * MIB)]
    readers = [*((peek, number) for peek in peeks for number in old), *((gateway.get, number) for number in old)]
    names: list[Callable[[], object]] = [
        lambda: [path.stat() for path in folder.iterdir()],
        lambda: (folder / f"new {time.monotonic_ns()}").mkdir(),
        lambda: (folder / "0.dng").rename(folder / "moved.dng"),
        lambda: (folder / "moved.dng").rename(folder / "0.dng"),
        lambda: (folder / "1.dng").chmod(0o640),
        lambda: gateway.ask("PROPFIND", "", Depth="1") == 207 or pytest.fail("PROPFIND"),
        lambda: gateway.ask("HEAD", "2.dng") == 200 or pytest.fail("HEAD"),
        lambda: gateway.ask("MKCOL", f"new {time.monotonic_ns()}".replace(" ", "-")) == 201 or pytest.fail("MKCOL"),
    ]
    slowest = 0.0
    with ThreadPoolExecutor(len(writers) + len(readers)) as pool:
        with frozen(server):
            tasks: list[Future[None]] = [pool.submit(act, number) for act, number in (*writers, *readers)]
            end = time.monotonic() + HANGS_SECONDS
            while time.monotonic() < end:
                for ask in names:
                    start = time.monotonic()
                    ask()
                    slowest = max(slowest, time.monotonic() - start)
            assert not any(task.done() for task in tasks), "the store did not hang"
        for task in tasks:
            task.result()
    assert slowest <= ANSWERS_SECONDS
    all_at_once(*((gateway.get, number) for number in new))
