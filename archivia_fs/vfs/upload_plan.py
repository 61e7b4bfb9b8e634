"""How a file's bytes become the parts of a multipart upload. Pure arithmetic, no I/O.

Owns: part sizes. Used by: uploader, writer. Threading: values.

S3 allows 10,000 parts of 5 MiB to 5 GiB and objects of 5 TiB. A writer does not know how long its file becomes
(FUSE never says), so parts begin small, to start sending early and keep buffers small, and grow:

    parts     1 -  1,000     8 MiB        7.8 GiB
    parts 1,001 -  4,000    16 MiB       54.7 GiB
    parts 4,001 -  6,000    32 MiB      117.2 GiB
    parts 6,001 - 10,000     1.27 GiB     5 TiB and a bit

Parts over `buffered_max` are never held in memory: they are composed on the server (see uploader).

An edited file is a mixture: ranges that nobody touched are copied by the server from the old object into parts of the new one,
at most `copy_max` bytes each; only what is around the changes is read and sent again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from archivia_fs.store.base import PART_SIZE_MIN, PARTS_MAX
from archivia_fs.types import SIZE_MAX

MIB = 1024**2


@dataclass(frozen=True, slots=True)
class UploadPlan:
    """`schedule` holds (last part number, bytes per part); its first size is also the largest file that is one
    plain PUT. `buffered_max` is the largest part kept in memory while it is sent. `part_min`: the smallest part that need not
    be the last. `copy_max`: bytes one server-side copy takes at most, so that several run side by side (S3 allows 5 GiB)."""

    schedule: Sequence[tuple[int, int]] = (
        (1_000, 8 * MIB),
        (4_000, 16 * MIB),
        (6_000, 32 * MIB),
        (PARTS_MAX, 1300 * MIB),
    )
    buffered_max: int = 32 * MIB
    part_min: int = PART_SIZE_MIN
    copy_max: int = 1024 * MIB

    @property
    def first_part(self) -> int:
        """Bytes of part 1."""
        return self.schedule[0][1]

    def part_size(self, number: int, size_hint: int | None = None) -> int:
        """Size in bytes of part `number` (from 1); only the last part of a file may be smaller.

        A `size_hint` (bytes the writer announced and will not exceed) keeps all parts such that they can be buffered, where that is
        enough. Up to 242 GiB they are as those of a file whose size nobody knows, as far as these are buffered, so one door can
        go on where another was interrupted. Raises ValueError outside 1..10,000.
        """
        if not 1 <= number <= PARTS_MAX:
            raise ValueError(f"part {number} is outside 1..{PARTS_MAX}")
        scheduled = next(size for last, size in self.schedule if number <= last)
        if size_hint is None or size_hint > PARTS_MAX * self.buffered_max:
            return scheduled
        return min(scheduled, self.buffered_max) if size_hint <= self._buffered else self.buffered_max

    def capacity(self, size_hint: int | None = None) -> int:
        """How many bytes 10,000 parts hold: at least 5 TiB by the default schedule, or at least the hint."""
        return sum(self.part_size(number, size_hint) for number in range(1, PARTS_MAX + 1))

    def scheduled(self, number: int) -> int:
        """Bytes that the first `number` parts hold by the schedule."""
        return self._sum(number, SIZE_MAX)

    @property
    def _buffered(self) -> int:
        """Bytes that 10,000 parts hold, none larger than can be buffered."""
        return self._sum(PARTS_MAX, self.buffered_max)

    def _sum(self, number: int, largest: int) -> int:
        total = before = 0
        for last, size in self.schedule:
            total += max(0, min(number, last) - before) * min(size, largest)
            before = last
        return total

    def gap(self, number: int, position: int, buffered: int, gap: int, *, last: bool) -> Gap:
        """How to take over `gap` untouched bytes at `position`, with `buffered` bytes waiting in part `number`. `last`: nothing
        comes after them.

        Copies need part numbers, and a part before a copy needs `part_min` bytes: it is topped up. A copy is made only if the parts
        that are left still reach 5 TiB, so a file with changes everywhere is read and sent where it must be.
        """
        least = min(self.part_min, self.part_size(number))
        top_up = max(0, least - buffered) if buffered else 0
        rest = gap - top_up
        if rest <= 0 or (rest < least and not last):
            return Gap(gap, ())
        count = -(-rest // self.copy_max)
        used = number - 1 + (buffered > 0) + count
        total = self.scheduled(PARTS_MAX)
        if used >= PARTS_MAX or total - self.scheduled(used) < min(SIZE_MAX, total) - (position + gap):
            return Gap(gap, ())
        even, more = divmod(rest, count)
        return Gap(top_up, tuple(even + (each < more) for each in range(count)))


@dataclass(frozen=True, slots=True)
class Gap:
    """First `read` bytes are read and sent again, then `copies` (bytes each) made on the server."""

    read: int
    copies: Sequence[int]
