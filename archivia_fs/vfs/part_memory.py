"""The part that is being filled, and the memory it may take.

Owns: its bytes, its share of the write budget, and the file they wait in while others need the memory. Used by: uploader.
Threading: what its thread does is done inside `in_use`; `put_aside` may be called by any thread and never waits for that.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator

from archivia_fs.errors import FsError, StoreUnavailable
from archivia_fs.vfs.buffers import SMALL, PartBuffer
from archivia_fs.vfs.spill import SpillFile
from archivia_fs.vfs.transfers import Transfers

log = logging.getLogger(__name__)

MEMORY_TIMEOUT = 300.0  # seconds that bytes which must be kept wait for memory while other uploads have it
STEP = 64 * 1024  # bytes; the grain of a small part's memory
PIECE = 1024**2  # bytes read at once from where a part was put aside


class PartMemory:
    """Of one uploader."""

    def __init__(self, transfers: Transfers) -> None:
        self._transfers = transfers
        self._buffer = PartBuffer(transfers.buffers)
        self._claimed = 0  # bytes of the budget that are ours
        self._ahead = 0  # of these, bytes for the part after the current one
        self._full = 0  # bytes of the whole part, as far as they are claimed
        self._lock = threading.Lock()  # before the budget's and the buffers'
        self._used = time.monotonic()
        self._aside: SpillFile | None = None
        self._aside_size = 0
        transfers.know(self)

    @property
    def size(self) -> int:
        """Bytes of the part so far."""
        return self._buffer.size if self._aside is None else self._aside_size

    @contextlib.contextmanager
    def in_use(self, timeout: float = MEMORY_TIMEOUT) -> Iterator[bool]:
        """Nobody else touches it, and it is in memory; False if that was not to be had within `timeout` seconds (0: at once)."""
        if not self._lock.acquire(blocking=timeout > 0):
            yield False
            return
        try:
            yield self._bring_back(timeout)
        finally:
            self._used = time.monotonic()
            self._lock.release()

    @contextlib.contextmanager
    def needed(self) -> Iterator[None]:
        """As in_use, waiting long. Raises StoreUnavailable."""
        with self.in_use() as ready:
            if not ready:
                raise StoreUnavailable("The gateway is busy with other uploads; try again.")
            yield

    # --- inside `in_use` ---------------------------------------------------------------------------------------------

    def claim(self, size: int, room: int, following: int, limit: int | None, timeout: float) -> bool:
        """Make sure of the memory for `size` more bytes: up to `room` of them fill the part, the rest begins one of `following`
        bytes. `limit`: there will be no more in the part than that, if it is known.

        A part of more than `SMALL` bytes claims its full size at once: whoever has begun to fill one can always send it. Those who
        wait with a smaller one in hand may wait for each other, which the budget sees to.
        """
        first = min(size, room)
        self._full = _memory_of(self.size + first, self.size + room, limit)
        ahead = _memory_of(size - first, following, limit) if size > first else 0
        short = self._full + ahead - self._claimed
        if short > 0:
            if not self._transfers.write_budget.acquire(short, timeout):
                return False
            self._claimed += short
        self._ahead = ahead
        return True

    def append(self, data: memoryview, whole: int) -> None:
        """Bytes that were claimed, of a part that will have `whole` of them if it does not end earlier."""
        self._buffer.append(data, whole if self._full == whole else 0)

    def patch(self, at: int, data: memoryview) -> None:
        """Overwrite bytes that are there."""
        self._buffer.patch(at, data)

    def cut(self, size: int) -> None:
        """Shorten."""
        self._buffer.cut(size)

    def view(self) -> memoryview:
        """All of it."""
        return self._buffer.view()

    def hand_over(self) -> tuple[PartBuffer, int]:
        """The part, and how much of the budget whoever has it now must give back; the next one begins."""
        buffer, self._buffer = self._buffer, PartBuffer(self._transfers.buffers)
        claimed, self._claimed = self._claimed - self._ahead, self._ahead
        self._full, self._ahead = self._ahead, 0
        return buffer, claimed

    def free(self) -> None:
        """Drop it."""
        self._give_back()
        if self._aside is not None:
            self._aside.close()
            self._aside = None

    # --- outside of it -----------------------------------------------------------------------------------------------

    def drop(self) -> None:
        """As free, wherever it is."""
        with self._lock:
            self.free()

    # --- for others ----------------------------------------------------------------------------------------------------

    def put_aside(self, idle_seconds: float) -> None:
        """Move a part that nobody goes on filling to the spill area, until somebody does."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._buffer.size and time.monotonic() - self._used >= idle_seconds:
                self._spill()
        except (FsError, OSError) as error:
            log.warning("The spill area does not take what lies idle in memory: %s", error)
        finally:
            self._lock.release()

    def _spill(self) -> None:
        aside = self._transfers.spill.open()
        try:
            aside.pwrite(0, self._buffer.view())
        except BaseException:
            aside.close()
            raise
        self._aside, self._aside_size = aside, self._buffer.size
        self._give_back()

    def _bring_back(self, timeout: float) -> bool:
        if self._aside is None:
            return True
        if not self._transfers.write_budget.acquire(self._full, timeout):
            return False
        self._claimed += self._full
        for at in range(0, self._aside_size, PIECE):
            piece = memoryview(bytearray(min(PIECE, self._aside_size - at)))
            self._aside.pread_into(at, piece)
            self._buffer.append(piece, 0)
        self._aside.close()
        self._aside = None
        return True

    def _give_back(self) -> None:
        self._buffer.free()
        self._transfers.write_budget.release(self._claimed)
        self._claimed = self._ahead = 0


def _memory_of(filled: int, planned: int, limit: int | None) -> int:
    """What a part that will have `planned` bytes takes when `filled` are there; `limit`: it ends there at the latest."""
    if filled <= SMALL:
        return -(-filled // STEP) * STEP
    return planned if limit is None else min(planned, max(filled, limit))
