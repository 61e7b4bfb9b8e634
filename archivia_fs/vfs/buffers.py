"""Memory for parts and blocks that is used again, and the part that is being filled.

Owns: spare buffers. Used by: uploader, multipart, block_cache. Threading: `Buffers` any thread, a leaf lock; a `PartBuffer`
belongs to its uploader's thread until it is sent.

Large buffers come from the system and go back to it (see app.bound_allocator), and each fresh page of 4 KiB costs a fault:
262,144 of them in 1 GiB, a quarter of the processor time of a whole GET (2026-11).
"""

from __future__ import annotations

import threading
from collections import deque

SMALL = 1024**2  # bytes; up to here the memory of a part grows with it


class Buffers:
    """Spare buffers. How many there may be at once is bounded by the budgets of those who take and give: a new one is made
    only after spare ones of that size in all have been let go."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spare: deque[bytearray] = deque()  # the last given is the first taken: the least of them is touched
        self._least = 0  # how many were spare all the time since the last trim

    @property
    def spare(self) -> int:
        """Bytes that nobody uses."""
        with self._lock:
            return sum(len(memory) for memory in self._spare)

    def take(self, size: int) -> bytearray:
        """A buffer of `size` bytes with anything in it."""
        with self._lock:
            found = None
            dropped = 0
            while self._spare and found is None and dropped < size:
                memory = self._spare.pop()
                if len(memory) == size and _unused(memory):
                    found = memory
                dropped += len(memory)
            self._least = min(self._least, len(self._spare))
        return bytearray(size) if found is None else found

    def give(self, memory: bytearray) -> None:
        """Done with it; views of it that others still have keep it from being taken."""
        with self._lock:
            self._spare.append(memory)

    def trim(self) -> None:
        """Let go of what nobody has needed since the last trim."""
        with self._lock:
            for _ in range(min(self._least, len(self._spare))):
                self._spare.popleft()
            self._least = len(self._spare)


class PartBuffer:
    """The bytes of one part as they come."""

    def __init__(self, buffers: Buffers) -> None:
        self._buffers = buffers
        self._memory = bytearray()
        self._whole = False  # whether _memory is as large as the part will be, from the buffers
        self.size = 0

    def append(self, data: memoryview, size: int) -> None:
        """Bytes of a part that will have `size` of them, if nobody knows that it ends earlier (0)."""
        end = self.size + len(data)
        if not self._whole and end > SMALL and size:
            memory = self._buffers.take(size)
            memoryview(memory)[: self.size] = self._memory
            self._memory, self._whole = memory, True
        if self._whole:
            memoryview(self._memory)[self.size : end] = data  # a bytearray's own slice would copy the data twice
        else:
            self._memory += data
        self.size = end

    def view(self) -> memoryview:
        """All of it."""
        return memoryview(self._memory)[: self.size]

    def patch(self, at: int, data: memoryview) -> None:
        """Overwrite bytes that are there."""
        memoryview(self._memory)[at : at + len(data)] = data

    def cut(self, size: int) -> None:
        """Shorten."""
        if not self._whole:
            del self._memory[size:]
        self.size = size

    def free(self) -> None:
        """Done with it."""
        if self._whole:
            self._buffers.give(self._memory)
        self._memory, self._whole, self.size = bytearray(), False, 0


def _unused(memory: bytearray) -> bool:
    """Whether nobody has a view of it: a bytearray does not change its size while somebody has."""
    try:
        memory.append(0)
    except BufferError:
        return False
    memory.pop()
    return True
