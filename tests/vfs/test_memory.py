"""Who writes when memory is short: nobody waits for ever, nothing is lost, and what comes in order never goes to the disk."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from typing_extensions import Buffer

from archivia_fs.store.base import ObjectStore
from archivia_fs.store.forward import ForwardingStore
from archivia_fs.types import InodeNo, ObjectKey, OpenFlags, Part, UploadId
from archivia_fs.vfs.budget import STUCK_SECONDS, Budget
from archivia_fs.vfs.handle import FileHandle
from archivia_fs.vfs.transfers import IDLE_SECONDS
from archivia_fs.vfs.upload_plan import UploadPlan
from tests.vfs.conftest import ADMIN, SMALL_PLAN, Core, Make

MIB = 1024**2
RW = OpenFlags.READ | OpenFlags.WRITE


class Slow(ForwardingStore):
    """Takes parts only while the gate is open."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.gate = threading.Event()

    def upload_part(self, key: ObjectKey, upload_id: UploadId, number: int, body: Buffer, crc32: int) -> Part:
        assert self.gate.wait(60)
        return self._inner.upload_part(key, upload_id, number, body, crc32)


def create(core: Core, name: str) -> FileHandle:
    handle = core.vfs.create(ADMIN, core.home, name, 0o644, RW)[1]
    assert isinstance(handle, FileHandle)
    return handle


def put(core: Core, name: str, data: bytes) -> InodeNo:
    handle = core.vfs.put(ADMIN, core.home, name)
    for at in range(0, len(data), MIB):
        handle.write(data[at : at + MIB])
    return handle.commit()[0].ino


def test_two_who_hold_a_little_do_not_wait_for_each_other(make_core: Make) -> None:
    core = make_core(plan=UploadPlan(), memory_limit=32 * MIB)  # 8 MiB for writers: one part
    data = [random.Random(number).randbytes(12 * MIB) for number in range(2)]
    first = [core.vfs.put(ADMIN, core.home, f"{number}.dng") for number in range(2)]
    for each, content in zip(first, data, strict=True):
        each.write(content[:MIB])  # now each has some, and neither can have a whole part

    def finish(number: int) -> InodeNo:
        for at in range(MIB, 12 * MIB, MIB):
            first[number].write(data[number][at : at + MIB])
        return first[number].commit()[0].ino

    with ThreadPoolExecutor(2) as pool:
        found = [each.result(20) for each in [pool.submit(finish, number) for number in range(2)]]
    assert [core.read(ino) for ino in found] == data
    assert core.vfs._transfers.write_budget.used == 0


def test_what_lies_idle_makes_room_and_comes_back(make_core: Make) -> None:
    core = make_core(plan=UploadPlan(), memory_limit=64 * MIB)  # 16 MiB for writers
    idle = [create(core, f"idle-{number}.dng") for number in range(2)]
    waiting = core.vfs.put(ADMIN, core.home, "waiting.dng")
    begun = [random.Random(number).randbytes(2 * MIB) for number in range(2)]
    for handle, data in zip(idle, begun, strict=True):
        handle.pwrite(0, data)
    waiting.write(begun[0][:MIB])
    time.sleep(IDLE_SECONDS)
    content = random.Random(9).randbytes(20 * MIB)
    with ThreadPoolExecutor(1) as pool:
        ino = pool.submit(put, core, "busy.dng", content).result(20)
    assert core.read(ino) == content
    assert bytes(idle[0].pread(MIB - 5, 10)) == begun[0][MIB - 5 : MIB + 5]
    for handle, data in zip(idle, begun, strict=True):
        handle.pwrite(len(data), data)
        handle.flush()
        handle.release()
        assert core.read(handle.ino) == data + data
    waiting.write(begun[0][MIB:])
    assert core.read(waiting.commit()[0].ino) == begun[0]
    assert core.vfs._transfers.write_budget.used == 0
    assert core.vfs._transfers.spill._used == 0


def test_a_store_that_stands_still_slows_its_writers_and_nothing_goes_to_the_disk(make_core: Make) -> None:
    """[L2] Bytes that come in order go to the store as they come; none are staged on the local disk, but one part at a time of a
    file beyond 117 GiB whose interrupted upload goes on."""
    slow: list[Slow] = []

    def wrap(store: ObjectStore) -> ObjectStore:
        slow.append(Slow(store))
        return slow[0]

    core = make_core(plan=UploadPlan(), memory_limit=64 * MIB, spill_limit=0, wrap=wrap)
    data = [random.Random(number).randbytes(10 * MIB) for number in range(8)]
    handles = [create(core, f"{number}.dng") for number in range(8)]

    def write(number: int) -> None:
        for at in range(0, 10 * MIB, MIB):
            handles[number].pwrite(at, data[number][at : at + MIB])
        handles[number].flush()

    with ThreadPoolExecutor(8) as pool:
        writers = [pool.submit(write, number) for number in range(8)]
        time.sleep(6)  # longer than anybody would buffer elsewhere instead
        assert not any(each.done() for each in writers)
        slow[0].gate.set()
        for each in writers:
            each.result(30)
    for handle, content in zip(handles, data, strict=True):
        handle.release()
        assert core.read(handle.ino) == content


@pytest.mark.parametrize("step", [10_001, 300_000])
def test_what_is_acknowledged_at_the_border_to_composed_parts_is_there(make_core: Make, step: int) -> None:
    """Without waiting all of a write is taken or none, though memory is short just where the parts become larger."""
    core = make_core(plan=SMALL_PLAN, memory_limit=4 * MIB)
    budget = core.vfs._transfers.write_budget
    chance = random.Random(step)
    handle, model = create(core, "a.dng"), bytearray()
    while len(model) < 4 * MIB:
        data = chance.randbytes(step)
        with _Shortage(budget, chance):
            taken = handle.pwrite_nowait(len(model), data)
        if taken is None:
            taken = handle.pwrite(len(model), data)
        assert taken == len(data)
        model += data
    handle.flush()
    handle.release()
    assert core.read(handle.ino) == model


class _Shortage:
    """Somebody else has all the memory for a moment, sometimes."""

    def __init__(self, budget: Budget, chance: random.Random) -> None:
        self._budget = budget
        self._size = 10**9 if chance.random() < 0.5 else 0

    def __enter__(self) -> None:
        with self._budget._changed:
            self._budget._used += self._size

    def __exit__(self, *_: object) -> None:
        self._budget.release(self._size)


# --- the budget alone --------------------------------------------------------------------------------------------------


def test_the_first_to_come_is_the_first_served() -> None:
    budget, served = Budget(10), []
    assert budget.acquire(10, 0)

    def take(number: int, size: int) -> None:
        assert budget.acquire(size, 20)
        served.append(number)

    threads = []
    for number, size in enumerate((10, 1, 1)):  # the large one is not overtaken by small ones for ever
        threads.append(threading.Thread(target=take, args=(number, size)))
        threads[-1].start()
        _until(lambda count=number + 1: len(budget._line) == count)  # type: ignore[misc]
    assert not budget.acquire(1, 0)
    budget.release(10)
    threads[0].join(5)
    assert served == [0]
    assert not budget.acquire(1, 0.05)
    budget.release(10)
    for thread in threads:
        thread.join(5)
    assert sorted(served) == [0, 1, 2]


def test_only_one_goes_beyond_the_total_and_only_when_nothing_moves() -> None:
    asked = threading.Event()
    budget = Budget(10, asked.set)
    assert budget.acquire(6, 0)
    start = time.monotonic()
    assert budget.acquire(6, 20)
    assert time.monotonic() - start >= STUCK_SECONDS
    assert asked.is_set()
    assert budget.used == 12
    assert not budget.acquire(1, 2.5 * STUCK_SECONDS)
    budget.release(6)
    assert budget.acquire(4, 0)


def test_without_relief_nobody_goes_beyond() -> None:
    budget = Budget(0)  # one at a time
    assert budget.acquire(5, 0)
    assert not budget.acquire(1, 2.5 * STUCK_SECONDS)


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
