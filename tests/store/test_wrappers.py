"""Verification finds every lie the faulty store tells; limits bound transfers and nothing else."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable

import pytest

from archivia_fs.errors import CorruptData, ObjectMissing, StoreError, StoreUnavailable
from archivia_fs.store.base import Capabilities, ObjectStore
from archivia_fs.store.faults import Fault, FaultyStore, Kind
from archivia_fs.store.limit import LimitedStore, Limits
from archivia_fs.store.memory import MemoryStore
from archivia_fs.store.retry import RetryPolicy
from archivia_fs.store.stack import stack
from archivia_fs.store.verify import VerifyingStore
from archivia_fs.types import ObjectKey

KEY = ObjectKey("a")
BODY = bytes(range(256)) * 9000  # 2.3 MB: more than one block of reading back
CRC = zlib.crc32(BODY)


def faulty(checksum: str) -> FaultyStore:
    """`checksum`: as in Capabilities; with " and etag" behind it, objects have their MD5 for an ETag too."""
    proof, _, etag = checksum.partition(" and ")
    able = Capabilities(part_copy=True, conditional_put=True, checksum=proof, md5_etag=bool(etag))
    return FaultyStore(MemoryStore(able, part_size_min=1))


def put(store: ObjectStore) -> None:
    store.put(KEY, BODY, CRC)


def multipart(store: ObjectStore) -> None:
    upload = store.create_upload(KEY)
    parts = [store.upload_part(KEY, upload, number, BODY, CRC) for number in (1, 2)]
    store.complete_upload(KEY, upload, parts)


@pytest.mark.parametrize("checksum", ["crc32", "md5", "etag", "none"])
@pytest.mark.parametrize("write", [put, multipart])
def test_honest_stores_pass(write: Callable[[ObjectStore], None], checksum: str) -> None:
    store = VerifyingStore(faulty(checksum))
    write(store)
    assert store.head(KEY).size % len(BODY) == 0


# (what the store does, to which method, how it proves bytes) -> the write fails and says so
@pytest.mark.parametrize(
    ("kind", "write", "checksum"),
    [
        (kind, write, checksum)
        for write in (put, multipart)
        for kind in (Kind.LOSE_DATA, Kind.TRUNCATE, Kind.FLIP, Kind.WRONG_ETAG)
        for checksum in ("etag", "none", "crc32 and etag", "md5 and etag")
        # reading back looks at bytes; an ETag that is wrong from the start for a single object does not matter there
        if (kind, write, checksum) != (Kind.WRONG_ETAG, put, "none")
        # a server that checks what comes, and then turns a bit of a part: only reading it finds that
        and (kind, write, " and " in checksum) != (Kind.FLIP, multipart, True)
    ],
)
def test_lies_are_found(kind: Kind, write: Callable[[ObjectStore], None], checksum: str) -> None:
    inner = faulty(checksum)
    store = VerifyingStore(inner)
    inner.inject(Fault(kind, "put" if write is put else "upload_part"))
    with pytest.raises((CorruptData, ObjectMissing)):
        write(store)


@pytest.mark.parametrize("checksum", ["crc32", "md5", "etag", "none"])
def test_lost_and_short_parts_never_become_an_object(checksum: str) -> None:
    for kind in (Kind.LOSE_DATA, Kind.TRUNCATE):
        inner = faulty(checksum)
        inner.inject(Fault(kind, "upload_part", after=1))
        with pytest.raises(StoreError):
            multipart(VerifyingStore(inner))


def test_the_stack_repairs_what_can_be_repaired() -> None:
    for kind in (Kind.TRUNCATE, Kind.FLIP, Kind.LOSE_DATA, Kind.WRONG_ETAG, Kind.FAIL, Kind.LOSE_ANSWER):
        inner = faulty("etag")
        store = stack(inner, retry=RetryPolicy(first=0.001))
        inner.inject(Fault(kind, "upload_part", times=2), Fault(kind, "put", times=2))
        multipart(store)
        buffer = bytearray(2 * len(BODY))
        store.read_into(KEY, 0, memoryview(buffer))
        assert bytes(buffer) == BODY * 2
        put(store)
        assert store.head(KEY).size == len(BODY)
        assert inner.calls["upload_part"] == 4
        assert inner.calls["put"] == 3
        store.close()


def test_no_more_transfers_than_allowed() -> None:
    class Counting(MemoryStore):
        lock = threading.Lock()
        now = 0
        most = 0

        def read_into(self, key: ObjectKey, offset: int, buffer: memoryview) -> None:
            with self.lock:
                self.now += 1
                self.most = max(self.most, self.now)
            time.sleep(0.005)
            super().read_into(key, offset, buffer)
            with self.lock:
                self.now -= 1

    inner = Counting()
    inner.put(KEY, BODY, CRC)
    store = LimitedStore(inner, Limits(downloads=3))
    threads = [threading.Thread(target=store.read_into, args=(KEY, 0, memoryview(bytearray(9)))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inner.most == 3


def test_hanging_transfers_stop_neither_metadata_nor_the_other_direction_nor_waiters_for_ever() -> None:
    inner = faulty("crc32")
    put(inner)
    store = LimitedStore(inner, Limits(downloads=1, uploads=1, wait=0.05))
    inner.inject(Fault(Kind.HANG, "read_into"))
    buffer = memoryview(bytearray(9))
    hung: list[StoreError] = []

    def hang() -> None:
        try:
            store.read_into(KEY, 0, buffer)
        except StoreError as error:
            hung.append(error)

    thread = threading.Thread(target=hang)
    thread.start()
    assert inner.hanging.wait(10)
    assert store.head(KEY).size == len(BODY)
    put(store)
    multipart(store)
    with pytest.raises(StoreUnavailable, match="busy"):
        store.read_into(KEY, 0, buffer)
    inner.release()
    thread.join(10)
    assert len(hung) == 1
    store.read_into(KEY, 0, buffer)
    assert bytes(buffer) == BODY[:9], "the slot is free again"
