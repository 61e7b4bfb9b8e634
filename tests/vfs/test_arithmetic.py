"""The pure parts, each against a plain model, thousands of random cases."""

from __future__ import annotations

import itertools
import random
import zlib

import pytest

from archivia_fs.errors import InvalidName, NameTooLong, NotUtf8
from archivia_fs.store.base import PART_SIZE_MAX, PART_SIZE_MIN, PARTS_MAX
from archivia_fs.types import SIZE_MAX
from archivia_fs.vfs import crc
from archivia_fs.vfs.intervals import IntervalSet
from archivia_fs.vfs.names import check_name, check_target
from archivia_fs.vfs.upload_plan import UploadPlan


def test_crc32_of_a_concatenation() -> None:
    chance = random.Random(1)
    for _ in range(3000):
        first, second = chance.randbytes(chance.randrange(60)), chance.randbytes(chance.randrange(60))
        assert crc.combine(zlib.crc32(first), zlib.crc32(second), len(second)) == zlib.crc32(first + second)


def test_crc32_of_zeros_and_of_a_replaced_range() -> None:
    chance = random.Random(2)
    for _ in range(3000):
        data = bytearray(chance.randbytes(chance.randrange(1, 80)))
        start = chance.randrange(len(data))
        end = chance.randrange(start, len(data) + 1)
        before, old = zlib.crc32(data), zlib.crc32(data[start:end])
        data[start:end] = chance.randbytes(end - start)
        assert crc.replace(before, old, zlib.crc32(data[start:end]), len(data) - end) == zlib.crc32(data)
        assert crc.zeros(start) == zlib.crc32(bytes(start))


def test_crc32_of_80_gib_takes_no_reading() -> None:
    part = zlib.crc32(bytes(range(256)))
    whole = 0
    for _ in range(320):  # 80 GiB in pieces of 256 MiB of zeros, each with another beginning
        whole = crc.combine(whole, part, 256 * 2**20)
    assert crc.combine(0, part, 80 * 2**30) == part
    assert 0 <= whole < 2**32


def test_intervals_against_a_set() -> None:
    chance = random.Random(3)
    for _ in range(2000):
        ranges, model = IntervalSet(), set[int]()
        for _ in range(chance.randrange(12)):
            start = chance.randrange(50)
            end = start + chance.randrange(12)
            ranges.add(start, end)
            model.update(range(start, end))
            if chance.random() < 0.2:
                size = chance.randrange(60)
                ranges.clip(size)
                model = {byte for byte in model if byte < size}
        assert set(itertools.chain.from_iterable(itertools.starmap(range, ranges))) == model
        assert ranges.total == len(model)
        assert ranges.end == max(model, default=-1) + 1
        assert all(end < start for (_, end), (start, _) in itertools.pairwise(ranges))  # merged
        start, end = chance.randrange(60), chance.randrange(60)
        seen = []
        for first, last, is_in in ranges.pieces(start, end):
            assert first < last
            assert all((byte in model) == is_in for byte in range(first, last))
            seen += range(first, last)
        assert seen == list(range(start, end))


def test_parts_are_legal_and_reach_5_tib() -> None:
    """[L5] Parts of legal sizes always cover 5 TiB in 10,000, and any announced size in no more than that."""
    plan, chance = UploadPlan(), random.Random(4)
    sizes = [plan.part_size(number) for number in range(1, PARTS_MAX + 1)]
    assert all(PART_SIZE_MIN <= size <= PART_SIZE_MAX for size in sizes)
    assert sum(sizes) >= SIZE_MAX
    assert sizes == sorted(sizes)
    for number in (1, 999, 1000, 1001, 4000, 6001, 10_000):
        assert plan.scheduled(number) == sum(sizes[:number])
    for _ in range(300):
        hint = int(10 ** chance.uniform(0, 12.7))
        number = chance.randrange(1, PARTS_MAX + 1)
        assert PART_SIZE_MIN <= plan.part_size(number, hint) <= PART_SIZE_MAX
        assert plan.capacity(hint) >= hint
    for _ in range(3000):
        hint = int(10 ** chance.uniform(0, 12.7))
        number = chance.randrange(1, 6001)
        if hint <= 242 * 2**30:  # a size that is known changes no part that could be buffered without
            assert plan.part_size(number, hint) == plan.part_size(number)
        if hint <= PARTS_MAX * plan.buffered_max:
            assert plan.part_size(number + 4000, hint) <= plan.buffered_max
    for outside in (0, PARTS_MAX + 1):
        with pytest.raises(ValueError, match="outside"):
            plan.part_size(outside)


def test_names() -> None:
    """[N1] Any UTF-8 name of 1 to 255 bytes is accepted, except `.`, `..` and names with `/` or NUL."""
    chance = random.Random(5)
    for _ in range(3000):
        name = "".join(chance.choice("aä€😀 .-\n\t\\:*?") for _ in range(chance.randrange(1, 130)))
        if name in (".", ".."):
            continue
        if len(name.encode()) <= 255:
            check_name(name)
        else:
            with pytest.raises(NameTooLong):
                check_name(name)
    check_name("x" * 255)
    check_target("x" * 4095)
    for wrong in ("", ".", "..", "a/b", "a\0b"):
        with pytest.raises(InvalidName):
            check_name(wrong)
    for wrong in ("x" * 256, "ä" * 128, "😀" * 64):
        with pytest.raises(NameTooLong):
            check_name(wrong)
    with pytest.raises(NotUtf8):
        check_name(b"\xff\xfe".decode(errors="surrogateescape"))
    with pytest.raises(NameTooLong):
        check_target("x" * 4096)
    with pytest.raises(InvalidName):
        check_target("")
