"""Bytes in order become one object: buffered into parts, which are sent while more arrive.

Owns: the buffer and which byte goes into which part. Used by: writer, put. Threading: all belongs to one thread at a time (the
file's writer turn); parts are hashed and sent in the upload workers (multipart).

A file of at most one part is one PUT at the end. An edit has a base: ranges that nobody touched are taken over from it, by
server-side copies where they are large enough (upload_plan says how). Parts larger than can be buffered (from about
117 GiB on) are composed (see composed): their bytes become a temporary object of their own, through an inner uploader, which the
server then copies into the part.
"""

from __future__ import annotations

import hashlib
import logging
import time
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from archivia_fs.errors import FileTooBig, FsError, StoreUnavailable
from archivia_fs.store.base import PARTS_MAX
from archivia_fs.types import SIZE_MAX, ObjectKey, Part, Revision, UploadId
from archivia_fs.vfs.base import Base
from archivia_fs.vfs.composed import ComposedPart
from archivia_fs.vfs.crc import combine
from archivia_fs.vfs.intervals import IntervalSet
from archivia_fs.vfs.multipart import Completed, MultipartUpload
from archivia_fs.vfs.part_memory import MEMORY_TIMEOUT, PartMemory
from archivia_fs.vfs.segments import Segment, combined, derive, parts_of, segments_of
from archivia_fs.vfs.transfers import Transfers, new_revision, revision_of
from archivia_fs.vfs.upload_plan import Gap

log = logging.getLogger(__name__)

APPEND_MAX = 1024**2  # bytes of one append


@dataclass(frozen=True, slots=True)
class Draft:
    """A complete object that the catalog does not name yet, and the journal row to clear when it does."""

    revision: Revision
    upload_id: UploadId | None


class Uploader:
    """`target` says in words for whom the bytes are; `size_hint` is the size if it is known (it is then a limit)."""

    def __init__(
        self,
        transfers: Transfers,
        target: str,
        *,
        size_hint: int | None = None,
        part_bytes: int = 0,
        base: Base | None = None,
    ) -> None:
        self._transfers = transfers
        self._plan = transfers.plan
        self._target = target
        self._size_hint = size_hint
        self._part_bytes = part_bytes  # fixed size of parts, for the inner uploader of a composed part
        self._base = base
        self._fresh = IntervalSet()  # of an edit: which bytes since `sealed` are not the base's
        self._borders = [0] if base is None else [0, *(segment.end for segment in segments_of(base.revision))]
        self._multipart = MultipartUpload(transfers, target, None if base is None else base.revision.key)
        self._part = PartMemory(transfers)
        self._next = 1
        self._room = self._planned(1)
        self._composed: ComposedPart | None = None
        self._inner: Uploader | None = None  # sends what is composed
        self._named: ObjectKey | None = None  # the complete object
        self._upload_id: UploadId | None = None
        self.size = 0
        self.sealed = 0  # bytes that left the buffer; what is beyond may still be changed

    @property
    def begun(self) -> bool:
        """Whether the store has heard of it. If not, all that was appended is in the buffer and the base."""
        return self._multipart.begun or self._composed is not None

    def append(self, data: memoryview, timeout: float) -> int:
        """Take bytes (at most 1 MiB) at the end and return how many: all of them, or fewer when memory was not to be
        had within `timeout` seconds. With timeout 0 it is all or none, and nothing waits. Raises the error of an earlier
        part, FileTooBig."""
        start = self.size
        with self._part.in_use(timeout) as ready:
            taken = self._append(data, timeout, fresh=self._base is not None) if ready else 0
        assert self.size == start + taken
        return taken

    def append_all(self, data: memoryview) -> None:
        """As append, of any size, waiting long. Raises StoreUnavailable if no memory was to be had."""
        while data:
            taken = self.append(data[:APPEND_MAX], MEMORY_TIMEOUT)
            if not taken:
                raise StoreUnavailable("The gateway is busy with other uploads; try again.")
            data = data[taken:]

    def take_over(self, end: int, *, last: bool = False) -> None:
        """Go on with the base's bytes up to `end` (within what it has stored): large ranges are copied by the server, small ones
        read and sent. `last`: nothing will be appended. Raises StoreError."""
        with self._part.needed():
            while self.size < end:
                left = end - self.size
                if self._transfers.store.capabilities.part_copy and self._next <= PARTS_MAX:
                    gap = self._plan.gap(self._next, self.size, self.size - self.sealed, left, last=last)
                else:
                    gap = Gap(left, ())
                self._read_over(self.size + gap.read)
                if gap.copies and self.size > self.sealed:
                    self._seal()
                for size in gap.copies:
                    self._multipart.copy_later(self._next, self.size, size)
                    self.size += size
                    self._next_part()

    def patch(self, offset: int, data: memoryview) -> None:
        """Overwrite bytes that are still in the buffer (`offset` at or beyond `sealed`, the end within `size`)."""
        with self._part.needed():
            self._part.patch(offset - self.sealed, data)
        if self._base is not None:
            self._fresh.add(offset, offset + len(data))

    def peek(self, offset: int, size: int) -> bytes:
        """Bytes that are still in the buffer."""
        at = offset - self.sealed
        with self._part.needed():
            return bytes(self._part.view()[at : at + size])

    def cut(self, size: int) -> None:
        """Shorten to `size`, which is at or beyond `sealed`."""
        with self._part.needed():
            self._part.cut(size - self.sealed)
        self._fresh.clip(size)
        self._room += self.size - size
        self.size = size

    @property
    def patchable(self) -> bool:
        """Whether what is beyond `sealed` is in memory."""
        return self._composed is None

    def finish(self) -> Draft:
        """Send the rest and complete the object: stored and verified when this returns. Raises StoreError."""
        if self.size == 0:
            return Draft(self._revision(None, hashlib.sha256().hexdigest(), 0, ()), None)
        with self._part.needed():
            if self._next == 1:
                return self._finish_single()
            if self._composed is not None or self._part.size:
                self._seal()
            self._part.free()
        done = self._multipart.complete()
        self._named, self._upload_id = done.key, done.upload_id
        return Draft(self._checked(done), done.upload_id)

    def abort(self) -> None:
        """Drop everything; the store forgets the parts. Never raises: what cannot be dropped now is left to gc."""
        self._multipart.abort()
        self._let_go()

    def suspend(self) -> None:
        """Drop everything here, but leave the parts that were sent to whoever sends these bytes again. Never raises."""
        self._multipart.suspend()
        self._let_go(suspend=True)

    def discard(self) -> None:
        """After finish: delete the object again, as nothing will name it. Never raises: gc finds what is left."""
        try:
            if self._upload_id is not None and not self._transfers.journal.drop_upload(self._upload_id):
                return  # somebody has taken it over, and may have named the object
            if self._named is not None:
                self._transfers.store.delete(self._named)
        except FsError as error:
            log.warning("The object %s is left to gc: %s", self._named, error)

    # --- buffered parts ------------------------------------------------------------------------------------------

    def _append(self, data: memoryview, timeout: float, *, fresh: bool) -> int:
        if self._multipart.failure is not None:
            raise self._multipart.failure
        if self.size + len(data) > SIZE_MAX:
            raise FileTooBig("A file holds at most 5 TiB, the largest S3 object.")
        if self._next > PARTS_MAX:
            raise FileTooBig("More bytes came than were announced; the 10,000 parts of the upload are used up.")
        composed = self._is_composed or (
            len(data) > self._room and self._planned(self._next + 1) > self._plan.buffered_max
        )
        if composed and timeout == 0:
            return 0  # a composed part begins and ends with requests to the store
        limit = None if self._size_hint is None else self._size_hint - self.sealed
        if not self._part.claim(len(data), self._room, self._planned(self._next + 1), limit, timeout):
            return 0
        taken = 0
        while taken < len(data):
            piece = data[taken : taken + self._room]
            count = self._append_composed(piece, timeout) if self._is_composed else self._append_buffer(piece)
            if count == 0:
                break
            if fresh:
                self._fresh.add(self.size, self.size + count)
            taken += count
            self.size += count
            self._room -= count
            if self._room == 0:
                self._seal()
        return taken

    def _read_over(self, end: int) -> None:
        """Append the base's bytes up to `end`."""
        assert self._base is not None
        while self.size < end:
            data = memoryview(self._base.reread(self.size, min(APPEND_MAX, end - self.size)))
            if not self._append(data, MEMORY_TIMEOUT, fresh=False):
                raise StoreUnavailable("The gateway is busy with other uploads; try again.")

    def _append_buffer(self, piece: memoryview) -> int:
        self._part.append(piece, self._part.size + self._room)
        return len(piece)

    def _seal(self) -> None:
        """Hand the collected part to the workers."""
        if self._composed is not None:
            self._seal_composed()
            return
        buffer, claimed = self._part.hand_over()
        self._multipart.send(self._next, buffer, claimed, self.sealed, self._cuts())
        self._next_part()

    def _next_part(self) -> None:
        self._next += 1
        self.sealed = self.size
        self._fresh = IntervalSet()
        self._room = self._planned(self._next)

    def _finish_single(self) -> Draft:
        body = self._part.view()
        crc32 = zlib.crc32(body)
        stored = self._transfers.store.put(
            self._multipart.key, body, crc32
        )  # if that fails, the caller may try once more
        self._named = self._multipart.key
        part = Part(1, len(body), stored.etag, crc32)
        draft = Draft(self._revision(self._named, hashlib.sha256(body).hexdigest(), crc32, (part,)), None)
        self._part.free()
        return draft

    # --- composed parts ------------------------------------------------------------------------------------------

    @property
    def _is_composed(self) -> bool:
        return self._planned(self._next) > self._plan.buffered_max

    def _append_composed(self, piece: memoryview, timeout: float) -> int:
        if self._composed is None:
            if not self._transfers.store.capabilities.part_copy:
                raise FileTooBig("This store cannot copy parts (UploadPartCopy), so a file ends at 117 GiB.")
            held = self._multipart.held_composed(self._next)
            self._composed = ComposedPart(held, self._transfers.spill, self._compose)
        count = self._composed.append(piece, timeout)
        self._multipart.hash_now(self._next, piece[:count])
        return count

    def _compose(self) -> Uploader:
        self._inner = Uploader(self._transfers, self._target, part_bytes=self._plan.buffered_max)
        return self._inner

    def _seal_composed(self) -> None:
        """Complete the temporary object, have the server copy it into the part, and delete it; unless the store has the part."""
        assert self._composed is not None
        part = self._composed.held()
        if part is None:
            assert self._inner is not None
            part = self._multipart.compose(self._next, self._inner.finish().revision)
            self._inner.discard()
        whole = self._cuts() == [(self.sealed, self.size)]
        fresh = [Segment(start, end, part.crc32 if whole else None) for start, end in self._cuts()]
        self._multipart.composed(part, fresh)
        self._composed.close()
        self._composed = self._inner = None
        self._next_part()

    # --- checksums and the rest ----------------------------------------------------------------------------------

    def _cuts(self) -> Sequence[tuple[int, int]]:
        """The fresh ranges since `sealed`, cut where the base's segments end."""
        found: list[tuple[int, int]] = []
        for start, end in self._fresh:
            inside = self._borders[bisect_right(self._borders, start) : bisect_left(self._borders, end)]
            found.extend(pairwise([start, *inside, end]))
        return found

    def _checked(self, done: Completed) -> Revision:
        """The revision with all checksums that can be known without reading what nobody touched."""
        if done.sha256 is not None:
            crc32 = 0
            for part in done.parts:
                crc32 = combine(crc32, part.crc32, part.size)
            return self._revision(done.key, done.sha256, crc32, done.parts)
        assert self._base is not None
        try:
            segments = derive(self._base.segments(), done.fresh, self.size, self._base.crc32)
        except FsError as error:
            log.warning("The CRC-32 of %s is left to scrub: %s", self._target, error)
            return self._revision(done.key, None, None, ())
        return self._revision(done.key, None, combined(segments), parts_of(segments))

    def _planned(self, number: int) -> int:
        if number > PARTS_MAX:
            return 0
        return self._part_bytes or self._plan.part_size(number, self._size_hint)

    def _let_go(self, *, suspend: bool = False) -> None:
        self._part.drop()
        if self._composed is not None:
            self._composed.close()
        if self._inner is not None:
            if suspend:
                self._inner.suspend()
            else:
                self._inner.abort()
        self._composed = self._inner = None

    def _revision(
        self, key: ObjectKey | None, sha256: str | None, crc32: int | None, parts: Sequence[Part]
    ) -> Revision:
        revision = new_revision() if key is None else revision_of(key)
        return Revision(revision, key, self.size, self.size, sha256, crc32, time.time_ns(), tuple(parts))
