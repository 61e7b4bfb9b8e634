"""How a file's bytes become the parts of a multipart upload. Pure arithmetic, no I/O.

Owns: part sizes. Used by: uploader. Threading: values.

S3 allows 10,000 parts of 5 MiB to 5 GiB and objects of 5 TiB. A writer does not know how long its file becomes
(FUSE never says), so parts begin small, to start sending early and keep buffers small, and grow:

    parts     1 -  1,000     8 MiB        7.8 GiB
    parts 1,001 -  4,000    16 MiB       54.7 GiB
    parts 4,001 -  6,000    32 MiB      117.2 GiB
    parts 6,001 - 10,000     1.25 GiB     5 TiB and a bit

Parts over `BUFFERED_MAX` are never held in memory: they are composed on the server (see uploader).
"""

from __future__ import annotations

from archivia_fs.store.base import PART_SIZE_MAX, PARTS_MAX
from archivia_fs.types import SIZE_MAX

MIB = 1024**2
FIRST_PART = 8 * MIB  # also the largest file that is one plain PUT
BUFFERED_MAX = 32 * MIB  # the largest part kept in memory while it is sent

_SCHEDULE = ((1_000, 8 * MIB), (4_000, 16 * MIB), (6_000, 32 * MIB), (PARTS_MAX, 1280 * MIB))


def part_size(number: int, size_hint: int | None = None) -> int:
    """Size in bytes of part `number` (from 1); only the last part of a file may be smaller.

    A `size_hint` (bytes the writer announced and will not exceed) makes all parts even and just big enough, where such
    parts can be buffered. Raises ValueError outside 1..10,000.
    """
    if not 1 <= number <= PARTS_MAX:
        raise ValueError(f"part {number} is outside 1..{PARTS_MAX}")
    if size_hint is not None and size_hint <= PARTS_MAX * BUFFERED_MAX:
        even = -(-size_hint // PARTS_MAX)
        return max(FIRST_PART, -(-even // MIB) * MIB)
    return next(size for last, size in _SCHEDULE if number <= last)


def capacity(size_hint: int | None = None) -> int:
    """How many bytes 10,000 parts hold: at least 5 TiB, or at least the hint."""
    return sum(part_size(number, size_hint) for number in range(1, PARTS_MAX + 1))


assert capacity() >= SIZE_MAX
assert max(size for _, size in _SCHEDULE) <= PART_SIZE_MAX
