"""Uploads that survive, in the core: whatever was interrupted, of new files, edits and appends, only what is missing is sent."""

from __future__ import annotations

import hashlib
import random
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from typing_extensions import Buffer

from archivia_fs.errors import ObjectMissing, StoreError, StoreRejected, StoreUnavailable
from archivia_fs.maintenance.gc import Gc
from archivia_fs.store.base import PARTS_MAX, ObjectStore
from archivia_fs.store.faults import Fault, Kind
from archivia_fs.store.forward import ForwardingStore
from archivia_fs.types import ObjectKey, OpenFlags, Part, UploadId
from archivia_fs.vfs.targets import target_of
from archivia_fs.vfs.upload_plan import UploadPlan
from tests.vfs.conftest import ADMIN, KIB, Core, Make

PLAN = UploadPlan(
    schedule=((20, 4 * KIB), (10_000, 8 * KIB)), buffered_max=8 * KIB, part_min=1 * KIB, copy_max=16 * KIB
)
BASE = random.Random(1).randbytes(61 * KIB + 100)
TAIL = random.Random(2).randbytes(80 * KIB)
FOREVER = 1_000_000
WRITE = OpenFlags.READ | OpenFlags.WRITE


class Wire(ForwardingStore):
    """Numbers of the parts that were sent and copied. From number `limit` on they fail, when all before are stored. So does the one
    that is `doomed`: (its upload, counted from 0 as they begin; its number; how many parts are moved before it)."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.sent: list[int] = []
        self.copied: list[int] = []
        self.limit = PARTS_MAX + 1
        self.doomed = (0, 0, 0)
        self._uploads: list[UploadId] = []

    def create_upload(self, key: ObjectKey) -> UploadId:
        upload_id = super().create_upload(key)
        self._uploads.append(upload_id)
        return upload_id

    def upload_part(self, key: ObjectKey, upload_id: UploadId, number: int, body: Buffer, crc32: int) -> Part:
        self._check(number)
        upload, doomed, before = self.doomed
        if number == doomed and self._uploads.index(upload_id) == upload:
            self._fail_after(before)
        part = super().upload_part(key, upload_id, number, body, crc32)
        self.sent.append(number)
        return part

    def copy_part(
        self, key: ObjectKey, upload_id: UploadId, number: int, source: ObjectKey, offset: int, size: int
    ) -> str:
        etag = super().copy_part(key, upload_id, number, source, offset, size)
        self.copied.append(number)
        return etag

    def _check(self, number: int) -> None:
        if number >= self.limit:
            self._fail_after(self.limit - 1)

    def _fail_after(self, stored: int) -> None:
        while len(self.sent) + len(self.copied) < stored:
            time.sleep(0.001)  # pytest's timeout bounds it
        raise StoreUnavailable("The store went away.")

    def moved(self) -> tuple[int, int]:
        """How many parts were sent and copied since this was last asked."""
        counts = len(self.sent), len(self.copied)
        self.sent.clear()
        self.copied.clear()
        return counts


@dataclass
class Bench:
    """A core whose gateway can be lost and another started."""

    make: Callable[[], tuple[Core, Wire]]

    def __post_init__(self) -> None:
        self.core, self.wire = self.make()

    def another_gateway(self) -> None:
        """This one dies: nobody releases its uploads, and whoever looks at its row sees that it is gone."""
        self.core.catalog.close()
        self.core, self.wire = self.make()

    def write(self, name: str, offset: int, data: bytes, flags: OpenFlags = WRITE) -> None:
        _, handle = self.core.vfs.create(ADMIN, self.core.home, name, 0o644, flags, exclusive=False)
        try:
            for at in range(0, len(data), 3 * KIB):
                handle.pwrite(offset + at, data[at : at + 3 * KIB])
            handle.flush()
        finally:
            handle.release()

    def read(self, name: str) -> bytes:
        return self.core.read(self.core.vfs.lookup(ADMIN, self.core.home, name).ino)

    def break_off(self, number: int, write: Callable[[], None]) -> None:
        """`write` ends because part `number` cannot be stored."""
        self.wire.moved()
        self.wire.limit = number
        with pytest.raises(StoreUnavailable):
            write()
        self.wire.limit = PARTS_MAX + 1

    def recorded(self, parts: int) -> None:
        """Wait until an upload of a living gateway has that many parts in the journal."""
        while not any(each.alive and each.parts >= parts for each in self.core.catalog.open_uploads()):
            time.sleep(0.001)  # pytest's timeout bounds it

    def refuse_to_list(self, error: StoreError) -> None:
        self.core.faults.inject(Fault(Kind.FAIL, "list_parts", times=FOREVER, error=error))


@pytest.fixture
def bench(make_core: Make) -> Bench:
    def make() -> tuple[Core, Wire]:
        wires: list[Wire] = []

        def counting(store: ObjectStore) -> ObjectStore:
            wires.append(Wire(store))
            return wires[0]

        core = make_core(plan=PLAN, wrap=counting)
        return core, wires[0]

    return Bench(make)


def test_a_new_file_goes_on_where_it_was(bench: Bench) -> None:
    bench.break_off(13, lambda: bench.write("a", 0, TAIL))
    assert bench.wire.moved() == (12, 0)
    bench.another_gateway()
    bench.write("b", 0, TAIL)
    assert bench.wire.moved() == (20 - 12, 0)
    assert bench.read("b") == TAIL
    assert bench.core.catalog.uploads() == []


@pytest.mark.parametrize("same_gateway", [True, False])
def test_an_append_goes_on_where_it_was(bench: Bench, same_gateway: bool) -> None:
    """What `rsync --append-verify` does after its first try broke off: the base is not copied again, nor sent what is stored."""
    bench.write("a", 0, BASE)
    bench.break_off(14, lambda: bench.write("a", len(BASE), TAIL))
    assert bench.wire.moved() == (9, 4)
    assert bench.read("a") == BASE
    if not same_gateway:
        bench.another_gateway()
    bench.write("a", len(BASE), TAIL)
    sent, copied = bench.wire.moved()
    assert copied == 0
    assert sent == 18 - 9  # 16 parts of 4 KiB after 4 copies, then 2 of 8 KiB
    assert bench.read("a") == BASE + TAIL
    assert bench.core.catalog.uploads() == []
    assert list(bench.core.memory.list_uploads("")) == []
    assert len(list(bench.core.memory.list("objects/"))) == 2  # the old one is left to gc


def test_an_edit_in_the_middle_goes_on_where_it_was(bench: Bench) -> None:
    bench.write("a", 0, TAIL)
    bench.break_off(8, lambda: bench.write("a", 20 * KIB, BASE[: 40 * KIB]))
    assert len(bench.wire.sent) == 5
    before = set(bench.wire.copied)
    assert before >= {1, 2}
    bench.another_gateway()
    bench.write("a", 20 * KIB, BASE[: 40 * KIB])
    assert sorted(bench.wire.sent) == [8, 9, 10, 11, 12]
    assert set(bench.wire.copied) == {1, 2, 13, 14} - before
    assert bench.read("a") == TAIL[: 20 * KIB] + BASE[: 40 * KIB] + TAIL[60 * KIB :]


def test_an_edit_out_of_order_goes_on_where_it_was(bench: Bench) -> None:
    """Joined with the old bytes when the file is closed."""

    def edit() -> None:
        handle = bench.core.vfs.open(ADMIN, bench.core.vfs.lookup(ADMIN, bench.core.home, "a").ino, WRITE)
        try:
            for at in reversed(range(20 * KIB, 60 * KIB, 2 * KIB)):
                handle.pwrite(at, BASE[at : at + 2 * KIB])
            handle.flush()
        finally:
            handle.release()

    bench.write("a", 0, TAIL)
    bench.break_off(8, edit)
    assert len(bench.wire.sent) == 5
    bench.another_gateway()
    edit()
    assert sorted(bench.wire.sent) == [8, 9, 10, 11, 12]
    assert bench.read("a") == TAIL[: 20 * KIB] + BASE[20 * KIB : 60 * KIB] + TAIL[60 * KIB :]


def test_copies_alone_are_of_use(bench: Bench) -> None:
    bench.write("a", 0, BASE)
    bench.break_off(5, lambda: bench.write("a", len(BASE), TAIL))
    assert bench.wire.moved() == (0, 4)
    bench.another_gateway()
    bench.write("a", len(BASE), TAIL[::-1])
    assert bench.wire.moved()[1] == 0
    assert bench.read("a") == BASE + TAIL[::-1]


def test_copies_of_other_bytes_are_not_taken(bench: Bench) -> None:
    """The file was replaced between the two appends by one of the same size."""
    bench.write("a", 0, BASE)
    bench.break_off(14, lambda: bench.write("a", len(BASE), TAIL))
    bench.another_gateway()
    bench.write("a", 0, BASE[::-1], WRITE | OpenFlags.TRUNCATE)
    bench.wire.moved()
    bench.write("a", len(BASE), TAIL)
    assert bench.wire.moved() == (18, 4)
    assert bench.read("a") == BASE[::-1] + TAIL


def test_a_copy_that_the_store_lists_otherwise_is_made_again(bench: Bench) -> None:
    bench.write("a", 0, BASE)
    bench.break_off(14, lambda: bench.write("a", len(BASE), TAIL))
    record = bench.core.catalog.uploads()[0]
    assert [part.source is not None for part in record.parts[:5]] == [True] * 4 + [False]
    bench.core.memory._uploads[record.upload_id].parts[2] = b"damaged"
    bench.core.memory._uploads[record.upload_id].parts[6] = b"damaged"
    bench.another_gateway()
    bench.write("a", len(BASE), TAIL)
    assert bench.wire.copied == [2]
    assert len(bench.wire.sent) == 18 - 9 + 1
    assert bench.read("a") == BASE + TAIL


@pytest.mark.parametrize("door", ["put with a size", "put without", "open file"])
@pytest.mark.parametrize("other", ["put with a size", "put without", "open file"])
def test_another_door_goes_on(bench: Bench, door: str, other: str) -> None:
    """[D13] What a dead gateway had stored is taken over by whoever sends the same bytes again, through any door."""
    data = TAIL * 3  # parts of both sizes of the plan

    def send(how: str) -> None:
        if how == "open file":
            bench.write("a", 0, data)
            return
        hint = len(data) if how == "put with a size" else None
        put = bench.core.vfs.put(ADMIN, bench.core.home, "a", size_hint=hint)
        try:
            for at in range(0, len(data), 3 * KIB):
                put.write(data[at : at + 3 * KIB])
            put.commit()
        finally:
            put.abort()

    bench.break_off(31, lambda: send(door))
    assert bench.wire.moved() == (30, 0)
    bench.another_gateway()
    send(other)
    assert bench.wire.moved() == (40 - 30, 0)
    assert bench.read("a") == data


def test_a_store_that_cannot_list_parts_just_now_is_no_lost_upload(bench: Bench) -> None:
    bench.break_off(13, lambda: bench.write("a", 0, TAIL))
    bench.another_gateway()
    bench.refuse_to_list(StoreUnavailable("Not now."))
    with pytest.raises(StoreUnavailable):
        bench.write("a", 0, TAIL)
    bench.core.faults.heal()
    assert bench.wire.moved() == (0, 0)
    bench.write("a", 0, TAIL)
    assert bench.wire.moved() == (20 - 12, 0)


def test_a_store_that_lists_no_parts_gets_them_again(bench: Bench) -> None:
    """A key that may write but not list: nothing can be resumed with it, and nothing is refused for that."""
    bench.break_off(13, lambda: bench.write("a", 0, TAIL))
    bench.another_gateway()
    bench.refuse_to_list(StoreRejected("You may not list parts."))
    bench.write("a", 0, TAIL)
    assert bench.wire.moved() == (20, 0)
    assert bench.read("a") == TAIL
    assert [record.origin for record in bench.core.catalog.uploads()] == [""], "another gateway may have the right"


def test_what_the_store_makes_no_object_of_is_not_gone_on_with(bench: Bench) -> None:
    """Or whoever sends these bytes would be told so for a week."""
    lost = ObjectMissing("Not all of these parts are here.")
    bench.core.faults.inject(Fault(Kind.FAIL, "complete_upload", error=lost))
    with pytest.raises(ObjectMissing):
        bench.write("a", 0, TAIL)
    assert bench.core.catalog.uploads() == []
    assert list(bench.core.memory.list_uploads("")) == []
    bench.write("a", 0, TAIL)
    assert bench.read("a") == TAIL


def test_what_is_gone_at_the_store_is_passed_over(bench: Bench) -> None:
    bench.break_off(13, lambda: bench.write("a", 0, TAIL))
    record = bench.core.catalog.uploads()[0]
    bench.core.memory.abort_upload(record.key, record.upload_id)
    bench.another_gateway()
    bench.wire.moved()
    bench.write("a", 0, TAIL)
    assert bench.read("a") == TAIL
    assert bench.core.catalog.uploads() == []


def test_who_goes_on_with_an_upload_is_told_as_its_target(bench: Bench) -> None:
    bench.break_off(13, lambda: bench.write("a", 0, TAIL))
    bench.another_gateway()
    bench.wire.sent[:] = range(12)  # these are there
    bench.wire.limit = 16
    with pytest.raises(StoreUnavailable):
        bench.write("b", 0, TAIL)
    record = bench.core.catalog.uploads()[0]
    assert record.target == target_of(bench.core.vfs.lookup(ADMIN, bench.core.home, "b").ino)
    assert len(record.parts) == 15


def state(core: Core, name: str) -> str:
    return core.vfs.state(ADMIN, core.vfs.lookup(ADMIN, core.home, name).ino).safety


def test_only_what_somebody_writes_is_uploading(bench: Bench) -> None:
    """What was interrupted is not: the file is as safe as before. Another gateway's open file and PUT count."""
    bench.write("a", 0, BASE)
    assert state(bench.core, "a") == "stored"
    bench.break_off(14, lambda: bench.write("a", len(BASE), TAIL))
    assert len(bench.core.catalog.uploads()) == 1
    assert state(bench.core, "a") == "stored"

    watching, _ = bench.make()
    put = bench.core.vfs.put(ADMIN, bench.core.home, "a")
    assert state(bench.core, "a") == "uploading"
    put.write(TAIL[: 12 * KIB])
    bench.recorded(1)
    assert state(watching, "a") == "uploading"
    watching.vfs.rename(ADMIN, watching.home, "a", watching.home, "b")
    assert state(watching, "b") == "stored", "it is the old name that the PUT goes to"
    put.abort()
    watching.vfs.rename(ADMIN, watching.home, "b", watching.home, "a")
    assert state(watching, "a") == "stored"

    _, handle = bench.core.vfs.create(ADMIN, bench.core.home, "a", 0o644, WRITE | OpenFlags.TRUNCATE, exclusive=False)
    handle.pwrite(0, TAIL[::-1])
    bench.recorded(1)
    watching.vfs.rename(ADMIN, watching.home, "a", watching.home, "b")
    assert state(watching, "b") == "uploading"
    bench.another_gateway()
    assert state(watching, "b") == "stored"


def test_an_upload_that_others_go_on_with_is_not_aborted(bench: Bench) -> None:
    """A gateway that was frozen for long wakes up and gives up what another one has claimed meanwhile."""
    _, handle = bench.core.vfs.create(ADMIN, bench.core.home, "a", 0o644, WRITE)
    for at in range(0, 48 * KIB, 3 * KIB):
        handle.pwrite(at, TAIL[at : at + 3 * KIB])
    bench.recorded(12)
    record = bench.core.catalog.uploads()
    frozen = bench.core
    frozen.catalog.release_upload(record[0].upload_id)  # as if it had been taken for dead
    bench.core, bench.wire = bench.make()
    put = bench.core.vfs.put(ADMIN, bench.core.home, "b")
    put.write(TAIL[: 60 * KIB])
    bench.recorded(15)
    handle.truncate(0)  # the frozen one drops what it had
    handle.flush()
    handle.release()
    put.write(TAIL[60 * KIB :])
    put.commit()
    assert bench.wire.moved() == (20 - 12, 0)
    assert bench.read("b") == TAIL


HUGE_PLAN = UploadPlan(schedule=((5, 4 * KIB), (10_000, 24 * KIB)), buffered_max=8 * KIB, part_min=1 * KIB)


def test_what_was_settled_when_the_gateway_died_is_left_to_gc(bench: Bench) -> None:
    """A program that writes a file and then changes its beginning: the parts are an object already, which nothing names."""
    _, handle = bench.core.vfs.create(ADMIN, bench.core.home, "a", 0o644, WRITE)
    for at in range(0, 48 * KIB, 3 * KIB):
        handle.pwrite(at, TAIL[at : at + 3 * KIB])
    handle.pwrite(0, b"header")
    store = bench.core.memory
    assert len(list(store.list("objects/"))) == 1
    assert list(store.list_uploads("")) == []
    bench.another_gateway()
    bench.write("b", 0, TAIL)
    assert bench.read("b") == TAIL
    soon = {"grace": -60.0, "upload_age": -60.0}
    for _ in range(2):  # what the first run takes from the journal is unknown to the second at the latest
        Gc(bench.core.catalog, store, **soon).run(force=True)
    assert bench.core.catalog.uploads() == []
    assert len(list(store.list("objects/"))) == 1
    assert bench.read("b") == TAIL


# 5 parts of 4 KiB; 4 of 24 KiB, each composed of 3 of 8 KiB; and one of 4 KiB
HUGE = random.Random(3).randbytes(120 * KIB)


@pytest.mark.parametrize("how", ["the same", "other bytes", "shorter", "longer", "no room", "inner"])
def test_composed_parts_go_on_where_they_were(make_core: Make, how: str) -> None:
    """Beyond 117 GiB: what cannot be compared part by part waits in the spill area until it is known whether it must be sent."""

    def make() -> tuple[Core, Wire]:
        wires: list[Wire] = []

        def counting(store: ObjectStore) -> ObjectStore:
            wires.append(Wire(store))
            return wires[0]

        room = {"spill_limit": 10 * KIB} if how == "no room" else {}
        core = make_core(plan=HUGE_PLAN, wrap=counting, **room)
        return core, wires[0]

    bench = Bench(make)
    data = HUGE
    if how == "inner":
        bench.wire.doomed = (3, 3, 5 + 3 + 3 + 2 + 2)  # two composed parts are copied by then
    else:
        bench.core.faults.inject(Fault(Kind.FAIL, "copy_part", times=FOREVER, after=2))
    with pytest.raises(StoreError):
        bench.write("a", 0, HUGE)
    bench.core.faults.heal()
    expected = {"the same": (3 + 3, 3), "no room": (4 * 3, 5), "inner": (1 + 3, 3)}
    if how == "other bytes":
        data = HUGE[: 50 * KIB] + b"other" + HUGE[50 * KIB + 5 :]
        expected[how] = 3 * 3, 4
    elif how == "shorter":
        data = HUGE[: 60 * KIB]
        expected[how] = 2, 1
    elif how == "longer":
        data = HUGE * 2
        expected[how] = len(HUGE) // (8 * KIB) + 3 + 3, 3 + 5
    bench.another_gateway()
    bench.write("b", 0, data)
    sent, copied = bench.wire.moved()
    assert (sent, copied) == expected[how]
    assert bench.read("b") == data
    state = bench.core.vfs.state(ADMIN, bench.core.vfs.lookup(ADMIN, bench.core.home, "b").ino)
    assert (state.sha256, state.crc32) == (hashlib.sha256(data).hexdigest(), zlib.crc32(data))
    assert bench.core.vfs._transfers.spill._used == 0
