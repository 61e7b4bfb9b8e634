"""The bytes of a ZIP: members are opened when they are read, a few stay open, all are closed; computed texts wait packed."""

from __future__ import annotations

import hashlib
import random
import threading
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from typing_extensions import Buffer

from archivia_fs.content import BytesContent, Content, FileObject
from archivia_fs.errors import BadHandle, CorruptData
from archivia_fs.types import RevisionId
from archivia_fs.views.downloads.content import MEMBERS_MAX, Source, ZipContent
from archivia_fs.views.downloads.layout import Layout, Member
from archivia_fs.views.downloads.text import BLOCK, Packer, Text


class Spied(BytesContent):
    """Knows whether it is open, and refuses to be read after it was closed."""

    def __init__(self, shelf: Shelf, data: bytes) -> None:
        super().__init__(data, "")
        self._shelf = shelf
        self._closed = False
        with shelf.lock:
            shelf.open += 1
            shelf.opened += 1
            shelf.most = max(shelf.most, shelf.open)

    def pread(self, offset: int, size: int) -> Buffer:
        assert not self._closed
        with self._shelf.lock:
            self._shelf.log.append(("read", self.size))
        return super().pread(offset, min(size, 10_000))  # never all at once

    def expect(self, start: int, end: int) -> None:
        assert not self._closed
        with self._shelf.lock:
            self._shelf.log.append(("expect", self.size))
            self._shelf.expected.append((start, end, self.size))

    def close(self) -> None:
        assert not self._closed
        self._closed = True
        with self._shelf.lock:
            self._shelf.open -= 1


class Shelf:
    """Revisions."""

    def __init__(self, bodies: dict[str, bytes]) -> None:
        self.bodies = bodies
        self.lock = threading.Lock()
        self.open = self.opened = self.most = 0
        self.log: list[tuple[str, int]] = []  # what, of the member of that size
        self.expected: list[tuple[int, int, int]] = []  # start, end, size of the member

    def __call__(self, revision: RevisionId) -> Content:
        return Spied(self, self.bodies[revision])


def make(count: int = 20) -> tuple[Shelf, ZipContent, dict[str, bytes]]:
    rng = random.Random(count)
    bodies = {f"r{index}": rng.randbytes(rng.choice((1, 1000, 50_000))) for index in range(count)}
    text = b"<mets/>" * 1000
    files = {"mets.xml": text, "empty": b"", **bodies}
    sources: list[Source] = [Text.of(text), None, *map(RevisionId, bodies)]
    members = [Member(name, len(data), 0, 0o100644, zlib.crc32(data), name) for name, data in files.items()]
    shelf = Shelf(bodies)
    return shelf, ZipContent(Layout(members), sources, shelf), files


def test_reading_all_opens_each_member_once_and_keeps_few() -> None:
    shelf, content, files = make()
    assert shelf.opened == 0
    archive = zipfile.ZipFile(FileObject(content))
    assert shelf.opened <= 2  # the tail that zipfile looks at first reaches into the last ones
    assert {name: archive.read(name) for name in archive.namelist()} == files
    assert shelf.opened <= 20 + 2
    assert shelf.most <= MEMBERS_MAX + 1
    archive.close()
    content.close()
    assert shelf.open == 0


def shelf_of(*sizes: int) -> tuple[Shelf, ZipContent]:
    bodies = {f"r{size}": bytes(size) for size in sizes}
    members = [Member(name, len(data), 0, 0o100644, zlib.crc32(data), name) for name, data in bodies.items()]
    shelf = Shelf(bodies)
    return shelf, ZipContent(Layout(members), list(map(RevisionId, bodies)), shelf)


def test_who_reads_in_order_finds_what_follows_on_its_way() -> None:
    sizes = [300_000 + number for number in range(30)]
    shelf, content = shelf_of(*sizes)
    for offset in range(0, content.size, 1 << 20):
        content.pread(offset, 1 << 20)
    assert shelf.expected == [(0, size, size) for size in sizes]
    for number, size in enumerate(sizes[1:]):  # each was expected before the one before it was read
        assert shelf.log.index(("expect", size)) < shelf.log.index(("read", sizes[number]))
    assert shelf.opened == len(sizes)
    content.close()
    assert shelf.open == 0


def test_of_a_range_nothing_beyond_is_expected() -> None:
    sizes = [300_000 + number for number in range(30)]
    shelf, content = shelf_of(*sizes)
    content.expect(100_000, 1_000_000)
    for offset in range(100_000, 1_000_000, 100_000):
        content.pread(offset, 100_000)
    first, *_, last = shelf.expected
    assert first[0] > 99_000
    assert len(shelf.expected) == 4
    assert last[1] < last[2]
    content.close()


def test_who_jumps_about_gets_what_he_asks_for() -> None:
    shelf, content = shelf_of(*(3_000_000 + number for number in range(30)))
    rng = random.Random(1)
    for _ in range(100):
        content.pread(rng.randrange(content.size), 4096)
    content.pread(content.size - 1_000_000, 1_000_000)
    assert not shelf.expected
    content.close()


def test_readers_at_once() -> None:
    shelf, content, _ = make()
    whole = bytes(content.pread(0, content.size))
    rng = random.Random(6)
    ranges = [(rng.randrange(content.size), rng.choice((1, 500, 100_000))) for _ in range(600)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda each: bytes(content.pread(*each)), ranges))
    assert found == [whole[offset : offset + size] for offset, size in ranges]
    assert shelf.most <= MEMBERS_MAX + 8
    assert shelf.open <= MEMBERS_MAX
    content.close()
    assert shelf.open == 0


def test_closing_while_somebody_reads_closes_when_he_is_done() -> None:
    shelf, content, _ = make()
    inside, go_on = threading.Event(), threading.Event()
    plain = Spied.pread

    def slowly(self: Spied, offset: int, size: int) -> Buffer:
        inside.set()
        assert go_on.wait(10)
        return plain(self, offset, size)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as pool:
        patch.setattr(Spied, "pread", slowly)
        reading = pool.submit(content.pread, 0, content.size)
        assert inside.wait(10)
        content.close()
        assert shelf.open == 1
        go_on.set()
        with pytest.raises(BadHandle, match="closed"):  # the next member is not opened any more
            reading.result(10)
    assert shelf.open == 0
    content.close()


def test_a_member_that_is_too_short_is_an_error_and_not_zeros() -> None:
    shelf, content, _ = make()
    shelf.bodies["r3"] = shelf.bodies["r3"][:-1]
    with pytest.raises(CorruptData, match="shorter"):
        content.pread(0, content.size)
    content.close()
    assert shelf.open == 0


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_a_packed_text_is_itself(size: int) -> None:
    rng = random.Random(size)
    data = (b"abc\n" * size)[:size]
    packer = Packer()
    at = 0
    while at < size:
        at += (
            packer.write(data[at : at + rng.choice((1, 1000, BLOCK))])
            if size < 10
            else packer.write(data[at : at + 99_999])
        )
    text = packer.text()
    assert text == Text.of(data)
    assert (text.size, text.crc32, text.sha256) == (size, zlib.crc32(data), hashlib.sha256(data).hexdigest())
    assert text.data() == data
    assert text.memory <= size // 50 + 50
    for _ in range(100):
        offset, count = rng.randrange(size + 3), rng.choice((0, 1, 1000, BLOCK, size))
        assert bytes(text.pread(offset, count)) == data[offset : offset + count]
