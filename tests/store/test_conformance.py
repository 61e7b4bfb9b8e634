"""What every object store has to do: one suite for memory, the wrappers, SeaweedFS, rclone and JuiceFS' MinIO.

Differences between servers are asserted by capability; nothing is skipped.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from archivia_fs.errors import CorruptData, NotSupported, ObjectMissing, StoreError, StoreRejected
from archivia_fs.store.base import PART_SIZE_MIN, ObjectStore, StoredObject, multipart_etag
from archivia_fs.types import ObjectKey, Part, UploadId

BIG = memoryview(os.urandom(PART_SIZE_MIN))
SMALL = memoryview(b"the end of a picture" * 100)


def key(name: str) -> ObjectKey:
    return ObjectKey(name)


def put(store: ObjectStore, name: str, body: bytes | memoryview) -> StoredObject:
    return store.put(key(name), body, zlib.crc32(body))


def upload_part(store: ObjectStore, name: str, upload: UploadId, number: int, body: bytes | memoryview) -> Part:
    return store.upload_part(key(name), upload, number, body, zlib.crc32(body))


def read(store: ObjectStore, name: str, offset: int, size: int) -> bytes:
    buffer = bytearray(size)
    store.read_into(key(name), offset, memoryview(buffer))
    return bytes(buffer)


def test_put_is_readable_at_any_range(store: ObjectStore) -> None:
    stored = put(store, "a", SMALL)
    assert (stored.key, stored.size) == ("a", len(SMALL))
    assert stored.etag
    assert read(store, "a", 0, len(SMALL)) == SMALL
    assert read(store, "a", 7, 5) == SMALL[7:12]
    assert read(store, "a", 0, 1) == SMALL[:1]
    assert read(store, "a", len(SMALL) - 1, 1) == SMALL[-1:]


def test_head_tells_size_and_time(store: ObjectStore) -> None:
    before = time.time_ns()
    put(store, "a", SMALL)
    found = store.head(key("a"))
    assert (found.key, found.size) == ("a", len(SMALL))
    assert abs(found.modified_ns - before) < 120 * 10**9


def test_put_replaces(store: ObjectStore) -> None:
    put(store, "a", b"old and longer")
    put(store, "a", b"new")
    assert store.head(key("a")).size == 3
    assert read(store, "a", 0, 3) == b"new"


def test_empty_object(store: ObjectStore) -> None:
    assert put(store, "empty", b"").size == 0
    assert store.head(key("empty")).size == 0
    assert read(store, "empty", 0, 0) == b""


@pytest.mark.parametrize("name", ["with space", "plus+and%25", "ümlaut/中文.dng", "a=b&c?d#e", "deep/er/and/deeper"])
def test_keys_may_hold_anything(store: ObjectStore, name: str) -> None:
    put(store, name, SMALL)
    assert read(store, name, 1, 9) == SMALL[1:10]
    assert [found.key for found in store.list("")] == [name]
    store.delete(key(name))
    assert list(store.list("")) == []


def test_missing_object(store: ObjectStore) -> None:
    for size in (0, 1):
        with pytest.raises(ObjectMissing):
            read(store, "nothing", 0, size)
    with pytest.raises(ObjectMissing):
        store.head(key("nothing"))
    store.delete(key("nothing"))


def test_reading_past_the_end_never_gives_bytes(store: ObjectStore) -> None:
    put(store, "a", SMALL)
    for offset, size in [(len(SMALL) - 1, 2), (len(SMALL), 1), (len(SMALL) + 1000, 10), (0, len(SMALL) + 1)]:
        with pytest.raises(CorruptData):
            read(store, "a", offset, size)
    assert read(store, "a", 0, len(SMALL)) == SMALL, "the store goes on"


def test_a_body_with_another_checksum_is_refused(store: ObjectStore) -> None:
    put(store, "a", SMALL)
    wrong = zlib.crc32(SMALL) ^ 1
    upload = store.create_upload(key("b"))
    if store.capabilities.checksum == "crc32":
        with pytest.raises(CorruptData):
            store.upload_part(key("b"), upload, 1, SMALL, wrong)
        with pytest.raises(CorruptData):
            store.put(key("c"), SMALL, wrong)
        with pytest.raises(ObjectMissing):
            store.head(key("c"))
    else:  # the caller's CRC-32 is not looked at; other proofs are computed from the bytes themselves
        assert store.capabilities.checksum in {"md5", "etag", "none"}
    assert read(store, "a", 0, len(SMALL)) == SMALL


def test_list_is_in_key_order_from_any_place(store: ObjectStore) -> None:
    names = [*(f"l/{n:03}" for n in range(25)), "m/1"]
    for name in reversed(names):
        put(store, name, b"x")
    assert [found.key for found in store.list("")] == names
    assert [found.key for found in store.list("l/")] == names[:25]
    assert [found.key for found in store.list("l/", start_after="l/009")] == names[10:25]
    assert [found.size for found in store.list("m/")] == [1]
    assert list(store.list("nothing/")) == []


def test_upload_of_parts(store: ObjectStore) -> None:
    upload = store.create_upload(key("u"))
    parts = [upload_part(store, "u", upload, 1, BIG), upload_part(store, "u", upload, 2, BIG)]
    assert upload_part(store, "u", upload, 2, BIG) == parts[1], "a part may be repeated"
    parts.append(upload_part(store, "u", upload, 3, SMALL))
    assert [(p.number, p.size, p.crc32) for p in parts] == [
        (1, len(BIG), zlib.crc32(BIG)),
        (2, len(BIG), zlib.crc32(BIG)),
        (3, len(SMALL), zlib.crc32(SMALL)),
    ]
    with pytest.raises(ObjectMissing):
        store.head(key("u"))
    listed = store.list_parts(key("u"), upload)
    assert [(p.number, p.size, p.etag) for p in listed] == [(p.number, p.size, p.etag) for p in parts]
    assert {p.crc32 for p in listed} <= {0, zlib.crc32(BIG), zlib.crc32(SMALL)}

    stored = store.complete_upload(key("u"), upload, parts)
    assert (stored.key, stored.size) == ("u", 2 * len(BIG) + len(SMALL))
    assert read(store, "u", len(BIG) - 3, 6) == bytes(BIG[-3:]) + bytes(BIG[:3])
    assert read(store, "u", 2 * len(BIG), len(SMALL)) == SMALL
    with pytest.raises(ObjectMissing):
        store.list_parts(key("u"), upload)
    store.abort_upload(key("u"), upload)
    assert store.head(key("u")).size == stored.size, "aborting what is complete changes nothing"


def test_a_part_sent_again_with_other_bytes_is_replaced_or_refused(store: ObjectStore) -> None:
    upload = store.create_upload(key("u"))
    first = upload_part(store, "u", upload, 1, BIG)
    upload_part(store, "u", upload, 2, b"old bytes")
    try:
        second = upload_part(store, "u", upload, 2, b"new bytes!")
    except StoreRejected:
        return  # rclone has passed part 2 on already and says so
    store.complete_upload(key("u"), upload, [first, second])
    assert read(store, "u", len(BIG), 10) == b"new bytes!"


def test_parts_that_are_not_named_are_not_in_it(store: ObjectStore) -> None:
    """Who goes on with an interrupted upload may have fewer bytes than were sent before."""
    upload = store.create_upload(key("u"))
    first = upload_part(store, "u", upload, 1, BIG)
    second = upload_part(store, "u", upload, 2, SMALL)
    upload_part(store, "u", upload, 3, BIG)
    try:
        assert store.complete_upload(key("u"), upload, [first, second]).size == len(BIG) + len(SMALL)
    except ObjectMissing:  # rclone wants them all
        return
    assert read(store, "u", 0, len(BIG) + len(SMALL)) == bytes(BIG) + bytes(SMALL)


def test_parts_in_any_order_and_at_once(store: ObjectStore) -> None:
    upload = store.create_upload(key("u"))
    bodies = {1: BIG, 2: BIG, 3: BIG, 4: SMALL}
    with ThreadPoolExecutor(4) as pool:
        sent = pool.map(lambda number: upload_part(store, "u", upload, number, bodies[number]), [4, 2, 3, 1])
        parts = sorted(sent, key=lambda part: part.number)
    store.complete_upload(key("u"), upload, parts)
    whole = read(store, "u", 0, 3 * len(BIG) + len(SMALL))
    assert whole == bytes(BIG) * 3 + bytes(SMALL)


def test_completing_again_after_a_lost_answer(store: ObjectStore) -> None:
    upload = store.create_upload(key("u"))
    parts = [upload_part(store, "u", upload, 1, SMALL)]
    first = store.complete_upload(key("u"), upload, parts)
    if store.head(key("u")).etag != multipart_etag(parts):
        with pytest.raises(ObjectMissing):  # rclone and JuiceFS do not tell of what parts it was made
            store.complete_upload(key("u"), upload, parts)
        return
    assert store.complete_upload(key("u"), upload, parts).size == first.size == len(SMALL)


def test_an_upload_that_was_completed_with_other_parts_is_not_ours(store: ObjectStore) -> None:
    """By a gateway that was frozen and taken for dead, while another one went on."""
    upload = store.create_upload(key("u"))
    first = upload_part(store, "u", upload, 1, SMALL)
    store.complete_upload(key("u"), upload, [first])
    changed = bytes(SMALL)[::-1]
    ours = Part(1, len(changed), hashlib.md5(changed).hexdigest(), zlib.crc32(changed))
    encrypted = Part(1, len(SMALL), "another thing", first.crc32)
    for part in (ours, encrypted):
        with pytest.raises(ObjectMissing):
            store.complete_upload(key("u"), upload, [part])
    assert read(store, "u", 0, len(SMALL)) == SMALL


def test_completing_again_with_copied_parts_after_a_lost_answer(store: ObjectStore) -> None:
    if not store.capabilities.part_copy:
        pytest.skip("it copies no parts")
    put(store, "source", BIG)
    upload = store.create_upload(key("u"))
    etags = [store.copy_part(key("u"), upload, number, key("source"), 0, len(BIG)) for number in (1, 2)]
    parts = [Part(number, len(BIG), etag, 0) for number, etag in enumerate(etags, start=1)]
    assert [(part.size, part.etag) for part in store.list_parts(key("u"), upload)] == [
        (len(BIG), etag) for etag in etags
    ]
    assert store.complete_upload(key("u"), upload, parts).size == 2 * len(BIG)
    if store.head(key("u")).etag == multipart_etag(parts):
        assert store.complete_upload(key("u"), upload, parts).size == 2 * len(BIG)


def test_an_aborted_upload_is_gone(store: ObjectStore) -> None:
    upload = store.create_upload(key("u"))
    part = upload_part(store, "u", upload, 1, SMALL)
    assert [(p.key, p.upload_id) for p in store.list_uploads("")] == [("u", upload)]
    store.abort_upload(key("u"), upload)
    store.abort_upload(key("u"), upload)
    assert list(store.list_uploads("")) == []
    for call in (
        lambda: store.list_parts(key("u"), upload),
        lambda: upload_part(store, "u", upload, 1, SMALL),
        lambda: store.complete_upload(key("u"), upload, [part]),
        lambda: store.head(key("u")),
    ):
        with pytest.raises(ObjectMissing):
            call()


def test_pending_uploads_are_listed_by_prefix(store: ObjectStore) -> None:
    uploads = {name: store.create_upload(key(name)) for name in ("p/1", "p/2", "q/1")}
    for name, upload in uploads.items():
        upload_part(store, name, upload, 1, SMALL)
    pending = {found.key: found for found in store.list_uploads("p/")}
    assert sorted(pending) == ["p/1", "p/2"]
    assert pending[key("p/1")].upload_id == uploads["p/1"]
    assert abs(pending[key("p/1")].started_ns - time.time_ns()) < 120 * 10**9


def test_a_part_that_was_never_sent_cannot_be_completed(store: ObjectStore) -> None:
    upload = store.create_upload(key("u"))
    part = upload_part(store, "u", upload, 1, BIG)
    invented = Part(2, part.size, part.etag, part.crc32)
    with pytest.raises(StoreError):
        store.complete_upload(key("u"), upload, [part, invented])
    with pytest.raises(ObjectMissing):
        store.head(key("u"))


def test_copied_parts(store: ObjectStore) -> None:
    put(store, "source", BIG)
    upload = store.create_upload(key("u"))
    first = upload_part(store, "u", upload, 1, BIG)
    if not store.capabilities.part_copy:
        with pytest.raises(NotSupported):
            store.copy_part(key("u"), upload, 2, key("source"), 1, 1000)
        return
    etag = store.copy_part(key("u"), upload, 2, key("source"), 1, len(BIG) - 1)
    copied = Part(2, len(BIG) - 1, etag, 0)
    stored = store.complete_upload(key("u"), upload, [first, copied])
    assert stored.size == 2 * len(BIG) - 1
    assert read(store, "u", len(BIG), len(BIG) - 1) == BIG[1:]


def test_copying_from_nothing(store: ObjectStore) -> None:
    upload = store.create_upload(key("u"))
    with pytest.raises(ObjectMissing if store.capabilities.part_copy else NotSupported):
        store.copy_part(key("u"), upload, 1, key("nothing"), 0, 10)


def test_probe_leaves_nothing_behind(store: ObjectStore) -> None:
    assert store.probe() == store.capabilities
    assert list(store.list("")) == []
    assert list(store.list_uploads("")) == []


def test_many_threads_read_what_was_written(store: ObjectStore) -> None:
    put(store, "r", BIG)
    wrong: list[int] = []
    size = 64 * 1024

    def reader(start: int) -> None:
        offsets = range(start, len(BIG) - size, 8 * size)
        wrong.extend(at for at in offsets if read(store, "r", at, size) != BIG[at : at + size])

    threads = [threading.Thread(target=reader, args=(n * size + n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
