"""Reading the bytes of a revision: exact ranges for random readers, a growing window of blocks for sequential ones.

Owns: read-ahead. Used by: handle, vfs (snapshots), writer (the base of an edit). Threading: a RevisionContent may be
read from any thread; its lock guards only the cursor and is never held across S3.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from typing_extensions import Buffer

from archivia_fs.types import Revision
from archivia_fs.vfs.block_cache import BLOCK, BlockCache
from archivia_fs.vfs.transfers import Transfers

SLACK = (
    4 * 1024**2
)  # bytes; the kernel's read-ahead keeps several READs of up to 1 MiB in flight, slightly out of order
SEQUENTIAL_AFTER = 2  # reads that continue each other before blocks are fetched ahead
LARGE = (
    256 * 1024
)  # bytes; who begins a file with so large a read (cp, cat, rsync by the kernel's read-ahead) wants all of it
WINDOW_MAX = 8  # blocks (32 MiB) ahead of one reader; the bandwidth-delay product of 3 Gbit/s at 80 ms
ZEROS_MAX = 1024**2  # bytes; zeros of holes are handed out from one shared buffer

_ZEROS = memoryview(bytes(ZEROS_MAX))


class RevisionContent:
    """A Content over one revision, with the cursor of one reader. `ahead` False: nothing but what is asked for is fetched.
    `on_close` is called once."""

    def __init__(
        self,
        transfers: Transfers,
        revision: Revision,
        *,
        ahead: bool = True,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self._store = transfers.store
        self._cache: BlockCache = transfers.cache
        self.revision = revision
        self._ahead = ahead
        self._on_close = on_close
        self._lock = threading.Lock()
        self._expected = 0  # where the next sequential read begins, about
        self._streak = 0
        self._window = 1  # blocks
        self._passed = 0  # blocks below this index are behind us
        self._streaming = False
        self._end = revision.stored  # nothing is fetched ahead beyond

    @property
    def size(self) -> int:
        return self.revision.size

    @property
    def etag(self) -> str:
        return self.revision.id

    def pread(self, offset: int, size: int) -> Buffer:
        """Up to `size` bytes from `offset`; shorter only at the end. Raises StoreError."""
        data = self._pread(offset, size, wait=True)
        assert data is not None
        return data

    def pread_nowait(self, offset: int, size: int) -> Buffer | None:
        """As pread if it is all in memory, else None. Starts fetching ahead."""
        return self._pread(offset, size, wait=False)

    def expect(self, start: int, end: int) -> None:
        """These bytes will be read in order: blocks are fetched from now on. A few bytes of a large object are not worth blocks."""
        end = min(end, self.revision.stored)
        if self._ahead and (end - start >= LARGE or (start == 0 and 0 < end == self.revision.stored)):
            with self._lock:
                self._expected, self._streak, self._window, self._end = start, SEQUENTIAL_AFTER, 2, end
                self._passed = start // BLOCK
            self._read_ahead(start // BLOCK, stalled=False)

    def close(self) -> None:
        with self._lock:
            self._stop_streaming()
            on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close()

    def _pread(self, offset: int, size: int, *, wait: bool) -> Buffer | None:
        end = min(offset + size, self.revision.size)
        if offset >= end:
            return b""
        stored_end = min(end, self.revision.stored)
        if offset >= stored_end:
            return _zeros(end - offset)
        data = self._stored(offset, stored_end, wait=wait)
        if data is None or stored_end == end:
            return data
        return b"".join((data, _zeros(end - stored_end)))

    def _stored(self, start: int, end: int, *, wait: bool) -> Buffer | None:
        key = self.revision.key
        assert key is not None
        sequential = self._advance(start, end) if wait else self._streak >= SEQUENTIAL_AFTER
        first, last = start // BLOCK, (end - 1) // BLOCK
        blocks = []
        for index in range(first, last + 1):
            block = self._cache.get_nowait(key, index)
            if block is None:
                if not wait:
                    return None
                if not sequential:
                    return self._exact(start, end)
                self._read_ahead(index, stalled=True)
                block = self._cache.get(key, index, self._block_length(index))
            blocks.append(block)
        if not wait:
            sequential = self._advance(start, end)
        if sequential:
            self._read_ahead(last + 1, stalled=False)
        if first == last:
            return blocks[0][start - first * BLOCK : end - first * BLOCK]
        pieces = [blocks[0][start - first * BLOCK :], *blocks[1:-1], blocks[-1][: end - last * BLOCK]]
        return b"".join(pieces)

    def _exact(self, start: int, end: int) -> Buffer:
        key = self.revision.key
        assert key is not None
        buffer = memoryview(bytearray(end - start))
        self._store.read_into(key, start, buffer)
        return buffer.toreadonly()

    def _advance(self, start: int, end: int) -> bool:
        """Note a read; True if this reader is sequential."""
        if not self._ahead:
            return False
        with self._lock:
            if start - SLACK <= self._expected <= start + SLACK and (self._streak or start == self._expected):
                self._streak += 1
                self._expected = max(self._expected, end)
                self._leave_behind(start)
            else:
                self._streak, self._expected, self._window, self._end = 0, end, 1, self.revision.stored
                self._passed = start // BLOCK
                self._stop_streaming()
            # A small object, read from its beginning, is one request anyway.
            if start == 0 and (self.revision.stored <= BLOCK or end >= LARGE):
                self._streak = max(self._streak, SEQUENTIAL_AFTER)
            return self._streak >= SEQUENTIAL_AFTER

    def _leave_behind(self, start: int) -> None:
        key = self.revision.key
        assert key is not None
        behind = max(0, start - SLACK) // BLOCK
        while self._passed < behind:
            self._cache.passed(key, self._passed)
            self._passed += 1

    def _read_ahead(self, index: int, *, stalled: bool) -> None:
        key = self.revision.key
        assert key is not None
        with self._lock:
            if not self._streaming:
                self._streaming = True
                self._cache.join()
            if stalled:
                self._window = min(self._window * 2, WINDOW_MAX)
            stop = min(index + min(self._window, self._cache.fair_window), -(-self._end // BLOCK))
        for ahead in range(index, stop):
            if not self._cache.prefetch(key, ahead, self._block_length(ahead)):
                break

    def _block_length(self, index: int) -> int:
        return min(BLOCK, self.revision.stored - index * BLOCK)

    def _stop_streaming(self) -> None:
        if self._streaming:
            self._streaming = False
            self._cache.leave()


def _zeros(size: int) -> Buffer:
    return _ZEROS[:size] if size <= ZEROS_MAX else bytes(size)
