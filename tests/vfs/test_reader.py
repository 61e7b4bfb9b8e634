"""How many requests and bytes reading costs: what is read in order comes in blocks, each once; other reads cost themselves."""

from __future__ import annotations

import random
import threading

import pytest

from archivia_fs.store.base import ObjectStore
from archivia_fs.store.forward import ForwardingStore
from archivia_fs.types import InodeNo, ObjectKey, OpenFlags
from archivia_fs.vfs.block_cache import BLOCK
from archivia_fs.vfs.reader import LARGE
from archivia_fs.vfs.upload_plan import UploadPlan
from tests.vfs.conftest import ADMIN, Core, Make

MIB = 1024**2
SIZE = 2 * BLOCK + 3 * MIB


class Counting(ForwardingStore):
    """Knows what was read."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.lock = threading.Lock()
        self.reads: list[tuple[int, int]] = []

    def read_into(self, key: ObjectKey, offset: int, buffer: memoryview) -> None:
        with self.lock:
            self.reads.append((offset, len(buffer)))
        self._inner.read_into(key, offset, buffer)


@pytest.fixture
def archive(make_core: Make) -> tuple[Core, Counting, InodeNo, bytes]:
    counting: list[Counting] = []

    def wrap(store: ObjectStore) -> ObjectStore:
        counting.append(Counting(store))
        return counting[0]

    core = make_core(plan=UploadPlan(), wrap=wrap)
    data = random.Random(1).randbytes(SIZE)
    ino = core.write("a.dng", data)
    counting[0].reads.clear()
    return core, counting[0], ino, data


def test_a_whole_file_costs_its_blocks(archive: tuple[Core, Counting, InodeNo, bytes]) -> None:
    core, store, ino, data = archive
    content = core.vfs.snapshot(ADMIN, ino)
    content.expect(0, content.size)
    assert b"".join(bytes(content.pread(at, MIB)) for at in range(0, SIZE, MIB)) == data
    content.close()
    assert sorted(store.reads) == [(0, BLOCK), (BLOCK, BLOCK), (2 * BLOCK, 3 * MIB)]


def test_whoever_begins_with_a_large_read_is_taken_to_want_all(archive: tuple[Core, Counting, InodeNo, bytes]) -> None:
    core, store, ino, data = archive
    handle = core.vfs.open(ADMIN, ino, OpenFlags.READ)
    assert b"".join(bytes(handle.pread(at, LARGE)) for at in range(0, SIZE, LARGE)) == data
    handle.release()
    assert sorted(store.reads) == [(0, BLOCK), (BLOCK, BLOCK), (2 * BLOCK, 3 * MIB)]


def test_of_a_range_no_block_beyond_is_fetched(archive: tuple[Core, Counting, InodeNo, bytes]) -> None:
    core, store, ino, data = archive
    content = core.vfs.snapshot(ADMIN, ino)
    content.expect(MIB, BLOCK)
    assert b"".join(bytes(content.pread(at, MIB)) for at in range(MIB, BLOCK, MIB)) == data[MIB:BLOCK]
    content.close()
    assert store.reads == [(0, BLOCK)]


def test_a_few_bytes_cost_themselves(archive: tuple[Core, Counting, InodeNo, bytes]) -> None:
    core, store, ino, data = archive
    content = core.vfs.snapshot(ADMIN, ino)
    content.expect(5, 105)
    assert bytes(content.pread(5, 100)) == data[5:105]
    handle = core.vfs.open(ADMIN, ino, OpenFlags.READ)
    assert bytes(handle.pread(0, 65536)) == data[:65536]  # as programs do that look at the head of a file
    assert bytes(handle.pread(SIZE - 7, 100)) == data[-7:]
    handle.release()
    content.close()
    assert store.reads == [(5, 100), (0, 65536), (SIZE - 7, 7)]
