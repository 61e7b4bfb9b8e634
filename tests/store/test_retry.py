"""Patience: the schedule, its bounds, and what is never repeated."""

from __future__ import annotations

import threading
import time
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archivia_fs.errors import CorruptData, ObjectMissing, StoreError, StoreRejected, StoreUnavailable
from archivia_fs.store.base import Capabilities
from archivia_fs.store.faults import Fault, FaultyStore, Kind
from archivia_fs.store.memory import MemoryStore
from archivia_fs.store.retry import RetryingStore, RetryPolicy, backoff
from archivia_fs.types import ObjectKey

KEY = ObjectKey("a")
BODY = b"picture"
CRC = zlib.crc32(BODY)
POLICY = RetryPolicy()


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.naps: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> bool:
        self.naps.append(seconds)
        self.now += seconds
        return False


def patient(inner: FaultyStore, at: Time, policy: RetryPolicy = POLICY, jitter: float = 1.0) -> RetryingStore:
    return RetryingStore(inner, policy, clock=at.clock, sleep=at.sleep, rng=lambda: jitter)


def faulty(*faults: Fault) -> FaultyStore:
    store = FaultyStore(MemoryStore())
    store.put(KEY, BODY, CRC)
    store.calls.clear()
    store.inject(*faults)
    return store


policies = st.builds(
    RetryPolicy,
    first=st.floats(0.001, 1.0),
    cap=st.floats(0.001, 30.0),
    read_deadline=st.floats(0.0, 300.0),
    write_deadline=st.floats(0.0, 300.0),
)


@settings(max_examples=2000, deadline=None)
@given(policy=policies, attempt=st.integers(0, 10_000), jitter=st.floats(0.0, 1.0))
def test_backoff_is_bounded_and_never_shrinks(policy: RetryPolicy, attempt: int, jitter: float) -> None:
    delay = backoff(policy, attempt, jitter)
    full = min(policy.cap, policy.first * 2.0 ** min(attempt, 60))
    assert full / 2 <= delay <= full
    assert backoff(policy, attempt + 1, jitter) >= delay


def test_backoff_doubles_from_20_ms_to_5_s() -> None:
    assert [backoff(POLICY, attempt, 1.0) for attempt in range(10)] == pytest.approx(
        [0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.0, 5.0]
    )


@settings(max_examples=500, deadline=None)
@given(policy=policies, jitter=st.floats(0.0, 1.0), failures=st.integers(0, 40))
def test_a_call_ends_by_its_deadline(policy: RetryPolicy, jitter: float, failures: int) -> None:
    at = Time()
    inner = faulty(Fault(Kind.FAIL, "head", times=failures)) if failures else faulty()
    store = patient(inner, at, policy, jitter)
    needed = sum(backoff(policy, attempt, jitter) for attempt in range(failures))
    if needed <= policy.read_deadline - 1e-9:
        assert store.head(KEY).size == len(BODY)
        assert len(at.naps) == failures
    elif needed > policy.read_deadline + 1e-9:
        with pytest.raises(StoreUnavailable):
            store.head(KEY)
    assert at.now <= policy.read_deadline + 1e-9


@pytest.mark.parametrize("error", [StoreRejected("no"), ObjectMissing("gone")])
def test_what_cannot_succeed_is_not_repeated(error: StoreError) -> None:
    at = Time()
    inner = faulty(Fault(Kind.FAIL, times=100, error=error))
    store = patient(inner, at)
    with pytest.raises(type(error)):
        store.head(KEY)
    with pytest.raises(type(error)):
        list(store.list(""))
    assert at.naps == []


def test_corrupt_data_is_asked_for_four_times() -> None:
    at = Time()
    inner = faulty(Fault(Kind.TRUNCATE, "read_into", times=3))
    buffer = bytearray(len(BODY))
    patient(inner, at).read_into(KEY, 0, memoryview(buffer))
    assert bytes(buffer) == BODY
    inner.inject(Fault(Kind.TRUNCATE, "read_into", times=100))
    with pytest.raises(CorruptData):
        patient(inner, at).read_into(KEY, 0, memoryview(buffer))
    assert inner.calls["read_into"] == 8


def test_every_method_outlives_two_failures() -> None:
    at = Time()
    inner = FaultyStore(MemoryStore())
    store = patient(inner, at)
    operations = [
        "put",
        "head",
        "read_into",
        "create_upload",
        "upload_part",
        "copy_part",
        "list_parts",
        "complete_upload",
    ]
    operations += ["abort_upload", "delete", "list", "list_uploads"]
    inner.inject(*(Fault(Kind.FAIL, operation, times=2) for operation in operations))
    store.put(KEY, BODY, CRC)
    assert store.head(KEY).size == len(BODY)
    store.read_into(KEY, 0, memoryview(bytearray(3)))
    assert [found.key for found in store.list("")] == [KEY]
    upload = store.create_upload(ObjectKey("u"))
    part = store.upload_part(ObjectKey("u"), upload, 1, BODY, CRC)
    store.copy_part(ObjectKey("u"), upload, 2, KEY, 0, 3)
    assert [each.number for each in store.list_parts(ObjectKey("u"), upload)] == [1, 2]
    assert [each.upload_id for each in store.list_uploads("")] == [upload]
    store.complete_upload(ObjectKey("u"), upload, [part])
    store.abort_upload(ObjectKey("u"), upload)
    store.delete(KEY)
    assert all(inner.calls[operation] == 3 for operation in operations if operation != "list"), inner.calls
    assert len(at.naps) == 2 * len(operations)


@pytest.mark.parametrize("operation", ["put", "upload_part", "complete_upload", "abort_upload", "delete"])
def test_a_lost_answer_is_made_good(operation: str) -> None:
    at = Time()
    inner = faulty(Fault(Kind.LOSE_ANSWER, operation))
    store = patient(inner, at)
    store.put(KEY, BODY, CRC)
    upload = store.create_upload(ObjectKey("u"))
    part = store.upload_part(ObjectKey("u"), upload, 1, BODY, CRC)
    assert store.complete_upload(ObjectKey("u"), upload, [part]).size == len(BODY)
    store.abort_upload(ObjectKey("u"), upload)
    store.delete(KEY)
    assert [found.key for found in store.list("")] == ["u"]
    assert len(at.naps) == 1


@settings(max_examples=300, deadline=None)
@given(size=st.integers(0, 30), fails=st.lists(st.tuples(st.integers(0, 29), st.integers(1, 3)), max_size=6))
def test_listing_goes_on_where_it_broke_off(size: int, fails: list[tuple[int, int]]) -> None:
    at = Time()
    inner = FaultyStore(MemoryStore())
    names = [f"k{number:02}" for number in range(size)]
    for name in names:
        inner.put(ObjectKey(name), b"", 0)
    inner.inject(*(Fault(Kind.FAIL, "list", times=times, after=after) for after, times in fails))
    assert [found.key for found in patient(inner, at).list("")] == names


def test_closing_ends_the_waits_at_once() -> None:
    inner = faulty(Fault(Kind.FAIL, times=1000))
    store = RetryingStore(inner, RetryPolicy(first=30.0, cap=30.0))
    raised: list[StoreError] = []

    def read() -> None:
        try:
            store.head(KEY)
        except StoreError as error:
            raised.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    while not inner.calls:
        time.sleep(0.001)
    started = time.monotonic()
    store.close()
    thread.join(10)
    assert not thread.is_alive()
    assert time.monotonic() - started < 5
    assert len(raised) == 1


def test_probe_is_not_repeated() -> None:
    class Down(MemoryStore):
        probes = 0

        def probe(self) -> Capabilities:
            Down.probes += 1
            raise StoreUnavailable("down")

    with pytest.raises(StoreUnavailable):
        RetryingStore(Down()).probe()
    assert Down.probes == 1
