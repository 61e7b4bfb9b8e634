"""What a drive does, whatever the door."""

from __future__ import annotations

import random

import pytest

from tests.functional.conftest import House
from tests.functional.drives import Drive, No, refused

MIB = 1024**2
BIG = random.Random(1).randbytes(20 * MIB + 12_345)  # three parts


@pytest.mark.parametrize("size", [0, 1, 4096, 131_072, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, len(BIG)])
def test_what_goes_in_comes_out(drive: Drive, roll: str, size: int) -> None:
    data = BIG[:size]
    drive.write(roll + "a.dng", data)
    assert drive.size(roll + "a.dng") == size
    assert drive.read(roll + "a.dng") == data
    assert drive.names(roll) == ["a.dng"]


def test_ranges(drive: Drive, roll: str) -> None:
    drive.write(roll + "a.dng", BIG)
    size, chance = len(BIG), random.Random(2)
    edges = [0, 1, 4095, 4096, 4 * MIB - 1, 4 * MIB, 8 * MIB - 1, 8 * MIB, size - 1, size]
    cases = [(a, b) for a in edges for b in (a + 1, a + 100_000) if b <= size]
    cases += [(a := chance.randrange(size), min(size, a + chance.randrange(1, 300_000))) for _ in range(20)]
    for start, end in cases:
        assert drive.read(roll + "a.dng", start, end) == BIG[start:end]
    assert drive.read(roll + "a.dng", size - 5) == BIG[-5:]
    assert drive.read(roll + "a.dng", size) == b""


def test_overwriting(drive: Drive, roll: str) -> None:
    path = roll + "a.dng"
    for data in (BIG, b"short", b"", BIG[: 9 * MIB]):
        drive.write(path, data)
        assert drive.read(path) == data


def test_renames(drive: Drive, roll: str) -> None:
    drive.write(roll + "a.dng", b"a")
    drive.write(roll + "b.dng", b"b")
    drive.mkdir(roll + "sub")
    drive.rename(roll + "a.dng", roll + "b.dng")  # over what is there
    drive.rename(roll + "b.dng", roll + "sub/c.dng")  # into another document
    assert drive.names(roll) == ["sub"]
    assert drive.read(roll + "sub/c.dng") == b"a"
    drive.rename(roll + "sub", roll + "box")
    assert drive.read(roll + "box/c.dng") == b"a"
    assert refused(lambda: drive.rename(roll + "none", roll + "x")) is No.MISSING
    assert refused(lambda: drive.rename(roll + "box", roll + "box/inside")) is not None
    assert drive.names(roll + "box") == ["c.dng"]


def test_copies(drive: Drive, roll: str, house: House) -> None:
    drive.write(roll + "a.dng", BIG)
    before = house.objects()
    drive.copy(roll + "a.dng", roll + "b.dng")
    if drive.name != "mount":
        assert house.objects() == before  # no byte moves
    drive.write(roll + "a.dng", b"changed")
    assert drive.read(roll + "b.dng") == BIG


def test_removing(drive: Drive, roll: str) -> None:
    drive.mkdir(roll + "sub")
    drive.write(roll + "sub/a.dng", b"a")
    assert refused(lambda: drive.remove(roll + "sub")) is No.NOT_EMPTY
    drive.remove(roll + "sub/a.dng")
    assert refused(lambda: drive.read(roll + "sub/a.dng")) is No.MISSING
    assert refused(lambda: drive.remove(roll + "sub/a.dng")) is No.MISSING
    drive.remove(roll + "sub")
    assert drive.names(roll) == []


def test_deep_folders(drive: Drive, roll: str) -> None:
    path = roll.rstrip("/")
    for depth in range(20):
        path += f"/level {depth}"
        drive.mkdir(path)
    drive.write(path + "/a.dng", b"deep")
    assert drive.read(path + "/a.dng") == b"deep"


def test_many_files(drive: Drive, roll: str) -> None:
    names = [f"page-{number:03}.dng" for number in range(120)]
    for name in names:
        drive.write(roll + name, name.encode())
    assert drive.names(roll) == names
    assert all(drive.read(roll + name) == name.encode() for name in names)


@pytest.mark.parametrize(
    "name", ["Blatt ä.dng", "日本.tif", "😀.jpg", "a b%20c&d'e\"f#g?h.dng", "-rf", ".hidden", "x" * 255, "ü" * 127]
)
def test_names(drive: Drive, roll: str, name: str) -> None:
    drive.write(roll + name, b"x")
    assert drive.names(roll) == [name]
    assert drive.read(roll + name) == b"x"
    drive.remove(roll + name)


def test_two_spellings_are_one_name(drive: Drive, roll: str) -> None:
    drive.write(roll + "Ma\u0308rz.dng", b"as Finder spells it")
    assert drive.read(roll + "März.dng") == b"as Finder spells it"
    drive.write(roll + "März.dng", b"as Linux spells it")
    assert drive.read(roll + "Ma\u0308rz.dng") == b"as Linux spells it"
    assert len(drive.names(roll)) == 1


@pytest.mark.parametrize("name", ["x" * 256, "ü" * 128, "a\0b", b"\xff\xfe.dng".decode(errors="surrogateescape")])
def test_names_that_cannot_be(drive: Drive, roll: str, name: str) -> None:
    assert refused(lambda: drive.write(roll + name, b"x")) is No.NAME
    assert refused(lambda: drive.mkdir(roll + name)) is No.NAME
    assert drive.names(roll) == []


def test_refusals(drive: Drive, roll: str) -> None:
    drive.mkdir(roll + "sub")
    assert refused(lambda: drive.mkdir(roll + "sub")) is No.EXISTS
    assert refused(lambda: drive.write(roll + "sub", b"x")) is No.FOLDER
    assert refused(lambda: drive.write(roll + "none/a.dng", b"x")) is No.MISSING
    assert refused(lambda: drive.mkdir(roll + "none/sub")) is No.MISSING
    assert refused(lambda: drive.read(roll + "none")) is No.MISSING
