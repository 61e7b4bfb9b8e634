"""A set of half-open byte ranges, kept sorted and merged. Pure arithmetic, no I/O.

Owns: which bytes of a file were written out of order. Used by: spill. Threading: guard it from outside.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class IntervalSet:
    """Disjoint, non-touching ranges [start, end) of non-negative integers."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, start: int, end: int) -> None:
        """Add [start, end); merges with what overlaps or touches. An empty range changes nothing."""
        if start >= end:
            return
        first = bisect_left(self._ends, start)  # the first range that ends at or after our start
        last = bisect_right(self._starts, end)  # one past the last range that begins at or before our end
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def clip(self, size: int) -> None:
        """Drop everything at and beyond `size`."""
        keep = bisect_left(self._starts, size)
        del self._starts[keep:], self._ends[keep:]
        if self._ends and self._ends[-1] > size:
            self._ends[-1] = size

    def pieces(self, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """Cut [start, end) into consecutive (start, end, inside?) pieces."""
        at = start
        index = bisect_right(self._ends, start)
        while at < end:
            if index == len(self._starts) or self._starts[index] >= end:
                yield at, end, False
                return
            if self._starts[index] > at:
                yield at, self._starts[index], False
                at = self._starts[index]
            stop = min(end, self._ends[index])
            yield at, stop, True
            at = stop
            index += 1

    @property
    def end(self) -> int:
        """One past the last byte inside; 0 for the empty set."""
        return self._ends[-1] if self._ends else 0

    @property
    def total(self) -> int:
        """How many bytes are inside."""
        return sum(self._ends) - sum(self._starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._starts, self._ends, strict=True))
