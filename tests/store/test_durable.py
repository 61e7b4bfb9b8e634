"""What the embedded store acknowledged is on the disk: nobody's data waits in the kernel's memory for a power cut."""

from __future__ import annotations

import ctypes
import platform
import random
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from archivia_fs.errors import CorruptData, StoreUnavailable
from archivia_fs.store.base import PART_SIZE_MIN
from archivia_fs.store.durable import DurableStore, SharedFlush, boot_ns, sync_filesystem
from archivia_fs.store.forward import ForwardingStore
from archivia_fs.store.memory import MemoryStore
from archivia_fs.store.s3 import S3Config, S3Store
from archivia_fs.types import CopySource, ObjectKey, Part
from tests.s3_servers import seaweedfs

CACHESTAT = 451  # cachestat(2), since Linux 6.5, the same number on all architectures
SOURCE = ObjectKey("source")
A_FEW = 64  # pages that weed's own bookkeeping may write meanwhile; the object has 1,281


class _CacheStat(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("cache", "dirty", "writeback", "evicted", "recently_evicted")]


def unwritten_pages(folder: Path) -> int:
    """Pages of the files under `folder` that are in memory and not yet on the disk."""
    libc = ctypes.CDLL(None, use_errno=True)
    everything = (ctypes.c_uint64 * 2)(0, 0)
    found = 0
    for path in folder.rglob("*"):
        if path.is_file():
            stat = _CacheStat()
            with path.open("rb") as file:
                assert libc.syscall(CACHESTAT, file.fileno(), everything, ctypes.byref(stat), 0) == 0
            found += stat.dirty + stat.writeback
    return found


@pytest.mark.skipif(
    tuple(map(int, platform.release().split(".")[:2])) < (6, 5), reason="cachestat(2), which tells, came with Linux 6.5"
)
def test_an_acknowledged_object_is_on_the_disk(tmp_path: Path) -> None:
    """[D8] What was acknowledged survives a power cut; the embedded store's disk is flushed before the catalog says stored."""
    with seaweedfs(tmp_path) as server:
        plain = S3Store(S3Config(server.endpoint, server.bucket, server.access_key, server.secret_key))
        store = DurableStore(plain, tmp_path)
        try:
            body = random.Random(1).randbytes(PART_SIZE_MIN + 1)
            crc = zlib.crc32(body)
            data = tmp_path / "data"

            plain.put(ObjectKey("without"), body, crc)
            assert unwritten_pages(data) > 1000, "the measure works: without us weed leaves it to the kernel"

            store.put(ObjectKey("put"), body, crc)
            assert unwritten_pages(data) < A_FEW

            upload = store.create_upload(ObjectKey("parts"))
            parts = [store.upload_part(ObjectKey("parts"), upload, number, body, crc) for number in (1, 2)]
            store.complete_upload(ObjectKey("parts"), upload, parts)
            assert unwritten_pages(data) < A_FEW
        finally:
            store.close()


def test_each_caller_waits_for_a_flush_that_began_after_its_call_and_many_share_one() -> None:
    flushes: list[tuple[float, float]] = []
    chance = random.Random(2)

    def flush() -> None:
        began = time.perf_counter()
        time.sleep(chance.uniform(0.0, 0.004))
        flushes.append((began, time.perf_counter()))

    shared = SharedFlush(flush)

    def call(number: int) -> tuple[float, float]:
        time.sleep(number % 7 * 0.001)
        called = time.perf_counter()
        shared()
        return called, time.perf_counter()

    with ThreadPoolExecutor(32) as pool:
        calls = list(pool.map(call, range(1000)))
    for called, returned in calls:
        assert any(called <= began and ended <= returned for began, ended in flushes)
    assert len(flushes) < len(calls) / 2


def test_a_flush_that_fails_fails_its_caller_and_the_next_tries_again() -> None:
    outcomes: list[Exception | None] = [StoreUnavailable("The disk is gone."), None]
    entered, go_on = threading.Event(), threading.Event()

    def flush() -> None:
        entered.set()
        go_on.wait(10)
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome

    shared = SharedFlush(flush)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(shared)
        assert entered.wait(10)
        second = pool.submit(shared)
        go_on.set()
        with pytest.raises(StoreUnavailable, match="gone"):
            first.result(10)
        second.result(10)
    assert outcomes == []


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"disk of .*/gone did not take"):
        sync_filesystem(tmp_path / "gone")


@pytest.mark.parametrize("damage", ["none", "a part", "a copied part"])
def test_parts_from_before_a_power_cut_are_read_back(tmp_path: Path, damage: str) -> None:
    """An upload goes on after the machine has started again: what its list of parts promises may never have come to the disk."""
    memory = MemoryStore()
    body = random.Random(2).randbytes(PART_SIZE_MIN)
    crc32 = zlib.crc32(body)
    memory.put(SOURCE, body, crc32)
    key = ObjectKey("objects/u")
    upload = memory.create_upload(key)
    first = memory.upload_part(key, upload, 1, body, crc32)
    copied = Part(2, len(body), memory.copy_part(key, upload, 2, SOURCE, 0, len(body)), 0, CopySource(SOURCE, 0))
    store = DurableStore(Broken(memory, {"none": -1, "a part": 0, "a copied part": len(body)}[damage]), tmp_path)
    store._booted_ns = time.time_ns()
    assert [part.number for part in store.list_parts(key, upload)] == [1, 2]
    last = store.upload_part(key, upload, 3, b"new", zlib.crc32(b"new"))
    if damage == "none":
        assert store.complete_upload(key, upload, [first, copied, last]).size == 2 * len(body) + 3
    else:
        with pytest.raises(CorruptData):
            store.complete_upload(key, upload, [first, copied, last])


def test_parts_of_this_boot_are_not_read_back(tmp_path: Path) -> None:
    memory = MemoryStore()
    key = ObjectKey("objects/u")
    upload = memory.create_upload(key)
    part = memory.upload_part(key, upload, 1, b"bytes", zlib.crc32(b"bytes"))
    store = DurableStore(Broken(memory, 0), tmp_path)
    store.list_parts(key, upload)
    assert store.complete_upload(key, upload, [part]).size == 5
    assert boot_ns() < time.time_ns()


class Broken(ForwardingStore):
    """Bytes of an object at `lost` cannot be read."""

    def __init__(self, inner: MemoryStore, lost: int) -> None:
        super().__init__(inner)
        self._lost = lost

    def read_into(self, key: ObjectKey, offset: int, buffer: memoryview) -> None:
        if offset <= self._lost < offset + len(buffer):
            raise CorruptData("The disk has it not.")
        super().read_into(key, offset, buffer)
