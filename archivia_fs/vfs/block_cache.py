"""The block cache: (object, block) -> bytes, for all readers of all doors.

Owns: the memory of read blocks, bounded in bytes. Used by: reader. Threading: any thread; one leaf lock, never held
across S3. Objects are immutable, so what is cached never goes stale.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Executor, Future
from concurrent.futures import TimeoutError as FutureTimeout

from archivia_fs.errors import StoreUnavailable
from archivia_fs.store.base import ObjectStore
from archivia_fs.types import ObjectKey
from archivia_fs.vfs.buffers import Buffers

BLOCK = 4 * 1024**2  # bytes
FETCH_TIMEOUT = 300  # seconds; the store's own retries give up long before

BlockId = tuple[ObjectKey, int]


class BlockCache:
    """LRU by bytes with single flight: one fetch per block however many ask. Blocks in flight count as used."""

    def __init__(self, store: ObjectStore, workers: Executor, capacity: int) -> None:
        self._store = store
        self._workers = workers
        self.capacity = max(capacity, 2 * BLOCK)
        self._lock = threading.Lock()
        self._blocks: OrderedDict[BlockId, memoryview] = OrderedDict()
        self._flights: dict[BlockId, Future[memoryview]] = {}
        self._used = 0
        self._streams = 0
        self.buffers = Buffers()

    def join(self) -> None:
        """A reader became sequential: from now on it shares the capacity."""
        with self._lock:
            self._streams += 1

    def leave(self) -> None:
        """The counterpart of `join`."""
        with self._lock:
            self._streams -= 1

    @property
    def fair_window(self) -> int:
        """Blocks that one sequential reader may fetch ahead: half its share, as the other half is being read."""
        return max(1, self.capacity // BLOCK // (2 * max(1, self._streams)))

    def get_nowait(self, key: ObjectKey, index: int) -> memoryview | None:
        """The block if it is here."""
        with self._lock:
            block = self._blocks.get((key, index))
            if block is not None:
                self._blocks.move_to_end((key, index))
            return block

    def get(self, key: ObjectKey, index: int, length: int) -> memoryview:
        """The block of `length` bytes, fetched if it is not here. Raises StoreError."""
        ready = self.get_nowait(key, index)
        if ready is not None:
            return ready
        flight = self._start((key, index), length, demand=True)
        assert flight is not None
        try:
            return flight.result(FETCH_TIMEOUT)
        except FutureTimeout:
            raise StoreUnavailable(f"The object store did not deliver a block within {FETCH_TIMEOUT} s.") from None

    def prefetch(self, key: ObjectKey, index: int, length: int) -> bool:
        """Start fetching unless it is here, on its way, or there is no room. False: no room, ask again later."""
        return self._start((key, index), length, demand=False) is not None

    def passed(self, key: ObjectKey, index: int) -> None:
        """A sequential reader is done with the block: it is the first to go."""
        with self._lock:
            if (key, index) in self._blocks:
                self._blocks.move_to_end((key, index), last=False)

    def _start(self, block: BlockId, length: int, *, demand: bool) -> Future[memoryview] | None:
        with self._lock:
            flight = self._flights.get(block)
            if flight is not None:
                return flight
            if block in self._blocks:
                done: Future[memoryview] = Future()
                done.set_result(self._blocks[block])
                return done
            self._evict(length)
            if not demand and self._used + length > self.capacity:
                return None
            self._used += length
            flight = self._flights[block] = Future()
        try:
            self._workers.submit(self._fetch, block, length, flight)
        except RuntimeError:  # the pool is shut down
            self._land(block, length, flight, StoreUnavailable("The gateway is shutting down."))
        return flight

    def _evict(self, room: int) -> None:
        while self._blocks and self._used + room > self.capacity:
            _, old = self._blocks.popitem(last=False)
            self._used -= old.nbytes
            if old.nbytes == BLOCK and isinstance(old.obj, bytearray):
                self.buffers.give(old.obj)

    def _fetch(self, block: BlockId, length: int, flight: Future[memoryview]) -> None:
        try:
            buffer = memoryview(self.buffers.take(length) if length == BLOCK else bytearray(length))
            self._store.read_into(block[0], block[1] * BLOCK, buffer)
        except BaseException as error:  # noqa: BLE001 - whoever waits must hear of it
            self._land(block, length, flight, error)
        else:
            self._land(block, length, flight, buffer.toreadonly())

    def _land(
        self, block: BlockId, length: int, flight: Future[memoryview], result: memoryview | BaseException
    ) -> None:
        with self._lock:
            del self._flights[block]
            if isinstance(result, memoryview):
                self._blocks[block] = result
            else:
                self._used -= length
        if isinstance(result, memoryview):
            flight.set_result(result)
        else:
            flight.set_exception(result)
