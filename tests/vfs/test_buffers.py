"""Memory that is used again: never while somebody still looks at it, and never more of it than its users may have."""

from __future__ import annotations

import random

from archivia_fs.vfs.buffers import SMALL, Buffers, PartBuffer


def test_what_is_given_is_taken_again() -> None:
    buffers = Buffers()
    memory = buffers.take(100)
    assert (len(memory), memory.count(0)) == (100, 100)
    buffers.give(memory)
    assert buffers.take(100) is memory
    assert len(memory) == 100


def test_what_somebody_looks_at_is_not_taken() -> None:
    buffers = Buffers()
    memory = buffers.take(100)
    seen = memoryview(memory).toreadonly()[10:20]
    buffers.give(memory)
    fresh = buffers.take(100)
    fresh[:] = b"x" * 100
    assert fresh is not memory
    assert bytes(seen) == bytes(10)


def test_there_are_never_more_than_were_in_use_at_once() -> None:
    chance, buffers, limit = random.Random(7), Buffers(), 1000
    used: list[bytearray] = []
    for _ in range(5_000):
        size = chance.choice((50, 100, 200))
        if sum(map(len, used)) + size <= limit:
            used.append(buffers.take(size))
        else:
            buffers.give(used.pop(chance.randrange(len(used))))
        assert sum(map(len, used)) + buffers.spare <= limit


def test_trim_drops_what_nobody_needed() -> None:
    buffers = Buffers()
    used = [buffers.take(100) for _ in range(4)]
    for memory in used:
        buffers.give(memory)
    buffers.trim()
    assert buffers.spare == 400  # they were in use since the last one
    buffers.give(buffers.take(100))
    buffers.trim()
    assert buffers.spare == 100
    buffers.trim()
    assert buffers.spare == 0


def test_a_part_holds_what_was_written() -> None:
    chance, buffers = random.Random(8), Buffers()
    for _ in range(30):
        size, part, model = 3 * SMALL, PartBuffer(buffers), bytearray()
        while len(model) < size:
            data = chance.randbytes(min(chance.choice((1, 65_536, 700_000, SMALL)), size - len(model)))
            part.append(memoryview(data), chance.choice((size, 0)))
            model += data
            if chance.random() < 0.2:
                at = chance.randrange(len(model))
                model[at : at + 5] = patch = chance.randbytes(len(model[at : at + 5]))
                part.patch(at, memoryview(patch))
            if chance.random() < 0.2:
                model = model[: chance.randrange(len(model))]
                part.cut(len(model))
            assert part.size == len(model)
        assert part.view() == model
        part.free()
        assert (part.size, bytes(part.view())) == (0, b"")
