"""Edits of large files: what is read, sent and copied, and what is known of the result."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typing_extensions import Buffer

from archivia_fs.store.base import PART_SIZE_MAX, PART_SIZE_MIN, PARTS_MAX
from archivia_fs.store.forward import ForwardingStore
from archivia_fs.store.memory import MemoryStore
from archivia_fs.types import SIZE_MAX, ObjectKey, Part, Revision, RevisionId, UploadId
from archivia_fs.vfs import crc
from archivia_fs.vfs.reader import RevisionContent
from archivia_fs.vfs.segments import Segment, combined, derive, segments_of
from archivia_fs.vfs.transfers import Transfers
from archivia_fs.vfs.upload_plan import UploadPlan
from archivia_fs.vfs.writer import Writer, with_size
from tests.vfs.test_writer import ListJournal

MIB = 1024**2
GIB = 1024**3


class CountingStore(ForwardingStore):
    """Bytes that crossed the wire, and bytes that the server copied."""

    read = sent = copied = 0

    def read_into(self, key: ObjectKey, offset: int, buffer: memoryview) -> None:
        self.read += buffer.nbytes
        super().read_into(key, offset, buffer)

    def upload_part(self, key: ObjectKey, upload_id: UploadId, number: int, body: Buffer, crc32: int) -> Part:
        self.sent += memoryview(body).nbytes
        return super().upload_part(key, upload_id, number, body, crc32)

    def copy_part(
        self, key: ObjectKey, upload_id: UploadId, number: int, source: ObjectKey, offset: int, size: int
    ) -> str:
        self.copied += size
        return super().copy_part(key, upload_id, number, source, offset, size)


class Bench:
    """A store that counts, and files on it."""

    def __init__(self, spill: Path) -> None:
        self.store = CountingStore(MemoryStore())
        self.store.probe()
        self.journal = ListJournal()
        self.transfers = Transfers(self.store, self.journal, memory=256 * MIB, spill_dir=spill, spill_limit=40 * MIB)

    def stored(self, data: bytes) -> Revision:
        writer = Writer(self.transfers, None, "a test")
        writer.pwrite(0, data)
        made = writer.finish().revision
        writer.committed()
        self.store.read = self.store.sent = self.store.copied = 0
        return made

    def content(self, revision: Revision) -> bytes:
        reader = RevisionContent(self.transfers, revision)
        data = b"".join(bytes(reader.pread(at, MIB)) for at in range(0, revision.size, MIB))
        reader.close()
        return data


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.transfers.close()


SIZE = 64 * MIB + 12_345


@pytest.fixture(scope="module")
def data() -> bytes:
    return random.Random(1).randbytes(SIZE)


@pytest.mark.parametrize(
    "offset",
    [0, 1, 5 * MIB - 1, 8 * MIB - 2048, 50 * MIB + 77, SIZE - 12 * MIB, SIZE - 10 * MIB, SIZE - 6 * MIB, SIZE - 4096],
)
def test_changing_4_kib_moves_at_most_16_mib(bench: Bench, data: bytes, offset: int) -> None:
    """[D11] A change of 4 KiB in a large file moves at most 16 MiB to and from the store, wherever it is."""
    base = bench.stored(data)
    writer = Writer(bench.transfers, base, "a test")
    change = random.Random(2).randbytes(4096)
    writer.pwrite(offset, change)
    revision = writer.finish().revision
    writer.committed()
    assert bench.store.read + bench.store.sent <= 16 * MIB
    assert bench.store.copied >= SIZE - 16 * MIB
    expected = data[:offset] + change + data[offset + 4096 :]
    assert bench.content(revision) == expected
    assert revision.crc32 == zlib.crc32(expected)
    assert revision.sha256 is None


def test_appending_in_order_copies_what_is_there_and_needs_no_room(bench: Bench, data: bytes) -> None:
    base = bench.stored(data)
    writer = Writer(bench.transfers, base, "a test")
    tail = random.Random(3).randbytes(50 * MIB)  # more than the spill area holds
    for at in range(0, len(tail), MIB):
        writer.pwrite(SIZE + at, tail[at : at + MIB])
    revision = writer.finish().revision
    writer.committed()
    assert bench.store.read == 0
    assert bench.store.sent == len(tail)
    assert bench.store.copied == SIZE
    assert revision.crc32 == zlib.crc32(data + tail)
    assert bench.content(revision) == data + tail


def test_rewriting_in_order_needs_no_room_and_knows_all_checksums(bench: Bench, data: bytes) -> None:
    base = bench.stored(data)
    writer = Writer(bench.transfers, base, "a test")
    new = random.Random(4).randbytes(SIZE)
    for at in range(0, SIZE, MIB):
        writer.pwrite(at, new[at : at + MIB])
    revision = writer.finish().revision
    writer.committed()
    assert bench.store.copied == 0
    assert bench.store.sent == SIZE
    assert revision.sha256 is not None
    assert bench.content(revision) == new


def test_rewriting_forwards_with_gaps_streams(bench: Bench, data: bytes) -> None:
    """What `rsync --inplace` does: only some ranges, each behind the last."""
    base = bench.stored(data)
    writer = Writer(bench.transfers, base, "a test")
    expected = bytearray(data)
    at, chance = 0, random.Random(5)
    while at < SIZE - 9 * MIB:
        change = chance.randbytes(chance.randrange(1, 9 * MIB))
        for piece in range(0, len(change), MIB):
            writer.pwrite(at + piece, change[piece : piece + MIB])
        expected[at : at + len(change)] = change
        assert bytes(writer.pread(SIZE - 10, 10)) == expected[-10:]  # what is not reached yet is the old
        at += len(change) + chance.randrange(20 * MIB)
    revision = writer.finish().revision
    writer.committed()
    assert revision.size == SIZE
    assert revision.crc32 == zlib.crc32(expected)
    assert bench.content(revision) == expected


def test_a_store_that_cannot_copy_parts_gets_everything_again(tmp_path: Path, data: bytes) -> None:
    bench = Bench(tmp_path)
    without = replace(bench.store.capabilities, part_copy=False)
    bench.store = CountingStore(MemoryStore(capabilities=without))
    bench.transfers.store = bench.transfers.cache._store = bench.store
    base = bench.stored(data)
    writer = Writer(bench.transfers, base, "a test")
    writer.pwrite(30 * MIB, b"changed")
    revision = writer.finish().revision
    writer.committed()
    expected = data[: 30 * MIB] + b"changed" + data[30 * MIB + 7 :]
    assert bench.store.copied == 0
    assert revision.sha256 is not None
    assert bench.content(revision) == expected
    bench.transfers.close()


def test_gaps_become_legal_parts_up_to_5_tib() -> None:
    """The pure plan: whatever is edited, parts are legal, there are at most 10,000, and 5 TiB are reached."""
    plan, chance = UploadPlan(), random.Random(6)
    for _ in range(300):
        end = int(10 ** chance.uniform(7, 12.74))
        number, position, buffered = 1, 0, 0
        density = max(1.0, end / 10 ** chance.uniform(0, 3))
        while position < end:
            change = min(end - position, 1 + int(chance.expovariate(1 / 20_000)))
            position, buffered = position + change, buffered + change
            number, buffered = _sealed(plan, number, buffered)
            left = end - position
            gap = min(left, int(chance.expovariate(1 / density)))
            found = plan.gap(number, position, buffered, gap, last=gap == left)
            assert found.read + sum(found.copies) == gap
            buffered += found.read
            number, buffered = _sealed(plan, number, buffered)
            if found.copies:
                assert not buffered or buffered >= PART_SIZE_MIN
                assert max(found.copies) <= PART_SIZE_MAX
                assert min(found.copies) >= PART_SIZE_MIN or gap == left
                number, buffered = number + (buffered > 0) + len(found.copies), 0
            position += gap
            assert number <= PARTS_MAX + 1
            assert plan.scheduled(PARTS_MAX) - plan.scheduled(number - 1) >= min(SIZE_MAX, end) - (position - buffered)


def _sealed(plan: UploadPlan, number: int, buffered: int) -> tuple[int, int]:
    while number <= PARTS_MAX and buffered >= plan.part_size(number):
        buffered -= plan.part_size(number)
        number += 1
    return number, buffered


def test_segments_of_an_edit_against_zlib() -> None:
    chance = random.Random(7)
    for _ in range(2000):
        sizes = [chance.randrange(1, 40) for _ in range(chance.randrange(1, 8))]
        old = chance.randbytes(sum(sizes))
        segments, at = [], 0
        for size in sizes:
            known = chance.random() < 0.9
            segments.append(Segment(at, at + size, zlib.crc32(old[at : at + size]) if known else None))
            at += size
        size = chance.randrange(1, len(old) + 60)
        new = bytearray(old[:size].ljust(size, b"\0"))
        borders = {segment.end for segment in segments}
        fresh, at = [], 0
        while at < size:
            end = min([size, at + chance.randrange(1, 30), *(border for border in borders if border > at)])
            if chance.random() < 0.4:
                new[at:end] = chance.randbytes(end - at)
                fresh.append(Segment(at, end, zlib.crc32(new[at:end])))
            at = end
        shown = [
            segment if segment.end <= size else Segment(segment.start, size, None)
            for segment in segments
            if segment.start < size
        ]
        made = derive(shown, fresh, size, lambda start, end, old=old: zlib.crc32(old[start:end]))  # type: ignore[misc]
        assert [segment.start for segment in made] == [0, *(segment.end for segment in made[:-1])]
        assert made[-1].end == size
        for segment in made:
            assert segment.crc32 in (None, zlib.crc32(new[segment.start : segment.end]))
        if all(segment.crc32 is not None for segment in segments) and size >= len(old):
            assert combined(made) == zlib.crc32(new)


def test_a_new_size_keeps_the_crc_where_it_can() -> None:
    chance = random.Random(8)
    for _ in range(1000):
        sizes = [chance.randrange(1, 50) for _ in range(chance.randrange(1, 6))]
        old = chance.randbytes(sum(sizes))
        parts, at = [], 0
        for number, size in enumerate(sizes, start=1):
            parts.append(Part(number, size, "", zlib.crc32(old[at : at + size])))
            at += size
        revision = Revision(
            RevisionId("r"), ObjectKey("k"), len(old), len(old), "sha", zlib.crc32(old), 0, tuple(parts)
        )
        for _ in range(3):
            size = chance.choice([chance.randrange(len(old) + 50), sum(sizes[: chance.randrange(len(sizes))])])
            new = with_size(revision, size)
            assert new.crc32 in (None, zlib.crc32(old[:size].ljust(size, b"\0")))
            if size >= len(old) or size in {sum(sizes[:count]) for count in range(len(sizes))}:
                assert new.crc32 is not None
            assert sum(segment.end - segment.start for segment in segments_of(new)) == new.stored
    assert crc.zeros(0) == 0
