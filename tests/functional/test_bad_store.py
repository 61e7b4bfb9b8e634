"""Bad days of a real S3 server as programs and WebDAV clients see them: whoever wrote is told, and the old content stays.

The faults are injected between the S3 server and everything of ours; what the core makes of them is in tests/vfs.
"""

from __future__ import annotations

import errno
import http.client
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from archivia_fs.errors import QuotaReached, StoreFull
from archivia_fs.store.base import ObjectStore
from archivia_fs.store.faults import Fault, FaultyStore, Kind
from archivia_fs.store.retry import RetryPolicy
from archivia_fs.store.stack import stack
from archivia_fs.types import SIZE_MAX
from tests.functional.conftest import House, open_house
from tests.s3_servers import S3Server

MIB = 1024**2
FOREVER = 1_000_000
HASTY = RetryPolicy(first=0.001, cap=0.01, read_deadline=0.3, write_deadline=0.3)
SPILL = 4 * MIB
OLD = random.Random(7).randbytes(9 * MIB)  # two parts
LARGE = random.Random(8).randbytes(20 * MIB)  # three parts
SMALL = LARGE[: 3 * MIB]  # one PUT


@dataclass
class BadHouse:
    """A house whose store fails as told, with little patience and little disk for what comes out of order."""

    house: House
    faults: FaultyStore


@pytest.fixture(scope="module")
def bad(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BadHouse]:
    made: list[FaultyStore] = []

    def wrap(store: ObjectStore) -> ObjectStore:
        made.append(FaultyStore(store))
        return stack(made[0], retry=HASTY)

    with open_house(tmp_path_factory.mktemp("bad"), server, wrap=wrap, spill_limit=SPILL) as house:
        yield BadHouse(house, made[0])
        made[0].heal()


@pytest.fixture
def house(bad: BadHouse) -> House:
    return bad.house


@pytest.fixture
def faults(bad: BadHouse) -> Iterator[FaultyStore]:
    yield bad.faults
    bad.faults.heal()


@pytest.fixture
def folder(house: House, roll: str) -> Path:
    return house.mount / "Documents" / "archive" / roll


def errno_of(act: Callable[[], object]) -> str | None:
    """The name of the error; None if there was none."""
    try:
        act()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return None


def write_and_close(path: Path, data: bytes) -> tuple[set[str], str | None, str | None]:
    """(errors of write(2), error of fsync(2), error of close(2)) of a program that goes on whatever it is told."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    written = {errno_of(lambda at=at: os.write(file, data[at : at + MIB])) for at in range(0, len(data), MIB)}  # type: ignore[misc]
    synced = errno_of(lambda: os.fsync(file))
    return {told for told in written if told}, synced, errno_of(lambda: os.close(file))


FAULTS = {
    "the first part is lost": (LARGE, Fault(Kind.LOSE_DATA, "upload_part", FOREVER)),
    "a later part is lost": (LARGE, Fault(Kind.LOSE_DATA, "upload_part", FOREVER, after=2)),
    "parts lack a byte": (LARGE, Fault(Kind.TRUNCATE, "upload_part", FOREVER)),
    "parts have another ETag": (LARGE, Fault(Kind.WRONG_ETAG, "upload_part", FOREVER)),
    "parts are refused": (LARGE, Fault(Kind.FAIL, "upload_part", FOREVER, after=1)),
    "the upload cannot be completed": (LARGE, Fault(Kind.FAIL, "complete_upload", FOREVER)),
    "a small file is lost": (SMALL, Fault(Kind.LOSE_DATA, "put", FOREVER)),
    "a small file lacks a byte": (SMALL, Fault(Kind.TRUNCATE, "put", FOREVER)),
    "a small file has another ETag": (SMALL, Fault(Kind.WRONG_ETAG, "put", FOREVER)),
    "a small file is refused": (SMALL, Fault(Kind.FAIL, "put", FOREVER)),
    "a bit of a small file is wrong": (SMALL, Fault(Kind.FLIP, "put", FOREVER)),
}


@pytest.mark.parametrize("what", FAULTS)
def test_whoever_waits_in_close_is_told(house: House, faults: FaultyStore, roll: str, folder: Path, what: str) -> None:
    """EIO, by a mount; 502 or 503 by WebDAV. The old content is there through both doors, and a better day takes the new one."""
    data, fault = FAULTS[what]
    path = roll + "a.dng"
    house.dav.write(path, OLD)
    faults.inject(fault)
    told, synced, closed = write_and_close(folder / "a.dng", data)
    assert told <= {"EIO"}  # write(2) may hear of it before
    assert (synced, closed) == ("EIO", "EIO")
    status, _ = house.dav.ask("PUT", path, data)
    assert status in (502, 503)
    assert house.dav.ask("PUT", roll + "new.dng", data)[0] == status
    faults.heal()
    assert house.dav.read(path) == (folder / "a.dng").read_bytes() == OLD
    assert [each.name for each in folder.iterdir()] == house.dav.names(roll) == ["a.dng"]
    assert write_and_close(folder / "a.dng", data) == (set(), None, None)
    assert house.dav.ask("PUT", roll + "new.dng", data)[0] == 201
    assert house.dav.read(path) == (folder / "new.dng").read_bytes() == data


ROOM = {"EDQUOT": QuotaReached("The quota is reached."), "ENOSPC": StoreFull("The store is full.")}


@pytest.mark.parametrize("name", ROOM)
@pytest.mark.parametrize("operation", ["put", "upload_part"])
def test_a_store_without_room(
    house: House, faults: FaultyStore, roll: str, folder: Path, operation: str, name: str
) -> None:
    """[L7] A store that is full is ENOSPC, one whose quota is reached EDQUOT, for whoever waits in `close()`; over WebDAV both are
    507."""
    data, path = LARGE if operation == "upload_part" else SMALL, roll + "a.dng"
    house.dav.write(path, OLD)
    faults.inject(Fault(Kind.FAIL, operation, FOREVER, error=ROOM[name]))
    told, synced, closed = write_and_close(folder / "a.dng", data)
    assert told <= {name}
    assert (synced, closed) == (name, name)
    status, body = house.dav.ask("PUT", path, data)
    assert status == 507
    assert str(ROOM[name]).encode() in body
    faults.heal()
    assert house.dav.read(path) == (folder / "a.dng").read_bytes() == OLD


def test_a_spill_area_without_room(house: House, roll: str, folder: Path) -> None:
    """[L4] Bytes written out of order wait in the spill area; when it is full, the writer gets ENOSPC and the old content stays."""
    path = roll + "a.dng"
    house.dav.write(path, OLD)
    file = os.open(folder / "a.dng", os.O_WRONLY)
    backwards = range(len(OLD) - MIB, 0, -MIB)
    told = {errno_of(lambda at=at: os.pwrite(file, SMALL[:MIB], at)) for at in backwards}  # type: ignore[misc]
    assert told == {None, "ENOSPC"}
    assert errno_of(lambda: os.fsync(file)) == "ENOSPC"
    assert errno_of(lambda: os.close(file)) == "ENOSPC"
    assert house.dav.read(path) == (folder / "a.dng").read_bytes() == OLD
    with (folder / "a.dng").open("r+b") as again:  # what had been spilled has made room
        for at in (5 * MIB, 3 * MIB):
            again.seek(at)
            again.write(SMALL[:MIB])
    assert house.dav.read(path, 3 * MIB, 4 * MIB) == house.dav.read(path, 5 * MIB, 6 * MIB) == SMALL[:MIB]


def test_nothing_is_larger_than_5_tib(house: House, roll: str, folder: Path) -> None:
    """[R1] A file ends at 5 TiB, the largest S3 object: beyond it a write or truncate is EFBIG."""
    path = roll + "a.dng"
    house.dav.write(path, OLD)
    assert errno_of(lambda: os.truncate(folder / "a.dng", SIZE_MAX + 1)) == "EFBIG"
    too_far: list[Callable[[int], object]] = [
        lambda file: os.ftruncate(file, SIZE_MAX + 1),
        lambda file: os.pwrite(file, b"x", SIZE_MAX),
        lambda file: os.pwrite(file, b"xx", SIZE_MAX - 1),
    ]
    for act in too_far:
        file = os.open(folder / "a.dng", os.O_WRONLY)
        assert errno_of(lambda: act(file)) == "EFBIG"  # noqa: B023
        assert errno_of(lambda: os.close(file)) == "EFBIG"  # noqa: B023 - with one write missing, none is kept
    status, _ = house.dav.ask("PUT", path, None, Content_Length=str(SIZE_MAX + 1))
    assert status == 413
    assert house.dav.read(path) == (folder / "a.dng").read_bytes() == OLD


def test_a_sparse_file_of_absurd_size(house: House, faults: FaultyStore, roll: str, folder: Path) -> None:
    """[D9] Lengthening a file with truncate costs neither time nor space; the new bytes read as zeros."""
    house.dav.write(roll + "a.dng", b"bytes")
    stored, before = house.objects(), dict(faults.calls)
    sparse = folder / "a.dng"
    os.truncate(sparse, SIZE_MAX)
    assert sparse.stat().st_size == house.dav.size(roll + "a.dng") == SIZE_MAX
    file = os.open(sparse, os.O_RDONLY)
    for at in (4 * MIB, SIZE_MAX // 2, SIZE_MAX - MIB):
        assert os.pread(file, MIB, at) == house.dav.read(roll + "a.dng", at, at + MIB) == bytes(MIB)
    assert os.pread(file, 10, SIZE_MAX - 3) == bytes(3)
    os.close(file)
    assert house.dav.ask("GET", roll + "a.dng", Range="bytes=0-9") == (206, b"bytes" + bytes(5))
    writes = {name: count for name, count in faults.calls.items() if name != "read_into"}
    assert (house.objects(), writes) == (stored, {name: before[name] for name in writes})
    os.truncate(sparse, 100 * MIB)
    with sparse.open("r+b") as edited:  # now they are stored
        edited.seek(70 * MIB)
        edited.write(b"more")
    assert house.dav.read(roll + "a.dng") == b"bytes".ljust(70 * MIB, b"\0") + b"more".ljust(30 * MIB, b"\0")


def test_a_hole_that_nobody_can_store(house: House, roll: str, folder: Path) -> None:
    """[R5] A write that would leave a hole of more than 64 GiB before it is EFBIG: S3 objects have no holes, so the zeros would
    have to be stored."""
    house.dav.write(roll + "a.dng", OLD)
    file = os.open(folder / "a.dng", os.O_WRONLY)
    assert errno_of(lambda: os.pwrite(file, b"x", SIZE_MAX // 2)) == "EFBIG"
    assert errno_of(lambda: os.close(file)) == "EFBIG"
    assert house.dav.read(roll + "a.dng") == OLD


@pytest.mark.parametrize("kind", [Kind.TRUNCATE, Kind.FAIL])
def test_readers_get_the_bytes_or_an_error(
    house: House, faults: FaultyStore, roll: str, folder: Path, kind: Kind
) -> None:
    """[D7] A reader gets the bytes that were written or an error, never a short or wrong answer from the network."""
    house.dav.write(roll + "a.dng", OLD)
    faults.inject(Fault(kind, "read_into", times=2))
    assert (folder / "a.dng").read_bytes() == OLD  # patience helps
    house.dav.write(roll + "b.dng", LARGE)
    faults.inject(Fault(kind, "read_into", FOREVER))
    file = os.open(folder / "b.dng", os.O_RDONLY)
    assert errno_of(lambda: os.pread(file, MIB, 0)) == "EIO"
    with pytest.raises((http.client.HTTPException, OSError)):  # the answer had begun, so it breaks off
        house.dav.ask("GET", roll + "b.dng")
    faults.heal()
    assert os.pread(file, MIB, 0) == LARGE[:MIB]
    os.close(file)
    assert house.dav.read(roll + "b.dng") == LARGE
