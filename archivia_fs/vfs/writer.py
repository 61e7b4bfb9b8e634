"""The uncommitted bytes of one open file.

Owns: where those bytes are until they are a revision. Used by: handle. Threading: all calls under the file's
writer turn (see handle); `size` may be read at any time.

Three regimes. *Streaming*: bytes that come in order go straight into an Uploader; nothing touches the disk. What was there
before and is not written yet shows through behind the stream, from the base. *Spilling*: bytes that do not continue the stream go
to a spill file over the base. A stream that has begun is settled for that: it becomes a complete but unnamed object, the new
base. *Streaming again*: when many bytes in order have been spilled and nothing lies beyond them, what was spilled is
joined with the base into a new stream. At `finish` whatever is left is joined. Joining sends only what is around
the changes; untouched ranges are copied by the server (see uploader).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from typing_extensions import Buffer

from archivia_fs.errors import FileTooBig
from archivia_fs.types import SIZE_MAX, Revision
from archivia_fs.vfs.base import Base
from archivia_fs.vfs.crc import combine, zeros
from archivia_fs.vfs.spill import SpillFile
from archivia_fs.vfs.transfers import Transfers
from archivia_fs.vfs.uploader import APPEND_MAX, Draft, Uploader

log = logging.getLogger(__name__)

GAP_MAX = 1024**2  # bytes; a smaller gap beyond the end before a write is filled with zeros in the stream
HOLE_MAX = 64 * 1024**3  # bytes of zeros that may have to be sent before a write; minutes, and not days
RUN_PARTS = 2  # bytes in order, in first parts (16 MiB), after which a spilling file streams again; with gaps, if all is ascending


class Writer:
    """Begins with the bytes of `base` (None: empty), with its parts. `target` says in words for whom."""

    def __init__(self, transfers: Transfers, base: Revision | None, target: str) -> None:
        self._transfers = transfers
        self._target = target
        self._stream: Uploader | None = None
        self._spill: SpillFile | None = None
        self._base: Base | None = None
        self._draft: Draft | None = None  # finished, waiting for the catalog to name it
        self._drafts: list[Uploader] = []  # settled streams: their objects go when a later one is complete
        self._run = (0, 0)  # the last bytes in order that were spilled: [start, end)
        self._ordered = True  # all that was spilled came in ascending order, with gaps perhaps
        self.untouched = True  # nothing was written or truncated yet
        self.size = 0
        if base is None or base.size == 0:
            self._stream = self._uploader()
        else:
            self._open_base(base)

    def pwrite(self, offset: int, data: Buffer) -> None:
        """Write; waits for memory, so a slow store slows its writers. Raises NoSpace, FileTooBig (also for a hole of more
        than 64 GiB), StoreError (of this or an earlier part)."""
        self.untouched = False
        view = memoryview(data).cast("B")
        end = offset + len(view)
        if end > SIZE_MAX:
            raise FileTooBig("A file holds at most 5 TiB, the largest S3 object.")
        hole = offset - self._data_end
        if hole > HOLE_MAX:
            raise FileTooBig(
                f"S3 objects have no holes: {hole >> 30} GiB of zeros would have to be stored before this."
            )
        for at in range(0, len(view), APPEND_MAX):
            piece = view[at : at + APPEND_MAX]
            if not self._write_stream(offset + at, piece):
                self._to_spill()
                self._write_spill(offset + at, piece)
            self.size = max(self.size, offset + at + len(piece))

    def pwrite_nowait(self, offset: int, data: Buffer) -> bool:
        """Write if it can be done at once from memory; False (and nothing written) if not."""
        view = memoryview(data).cast("B")
        stream = self._stream
        if stream is None or offset != stream.size or (offset != self.size and self._base is None):
            return False
        if self._draft is not None or stream.append(view, 0) == 0:
            return False
        self.untouched = False
        self.size = max(self.size, stream.size)
        return True

    def pread(self, offset: int, size: int) -> Buffer:
        """Read back uncommitted bytes; shorter only at the end. May settle the stream."""
        end = min(offset + size, self.size)
        if offset >= end:
            return b""
        stream = self._stream
        if stream is not None and (offset < stream.sealed or not stream.patchable or self._draft is not None):
            self._to_spill()
        buffer = memoryview(bytearray(end - offset))
        for start, stop, fill in self._sources(offset, end):
            fill(buffer[start - offset : stop - offset])
        return buffer

    def truncate(self, size: int) -> None:
        """Shorten, or lengthen with zeros (which cost nothing until something is written behind them)."""
        self.untouched = False
        if size > SIZE_MAX:
            raise FileTooBig("A file holds at most 5 TiB, the largest S3 object.")
        if size == 0:
            self.abort()
            self._stream = self._uploader()
        elif size < self.size:
            stream = self._stream
            if stream is not None and (size < stream.sealed or not stream.patchable or self._draft is not None):
                self._to_spill()
                stream = None
            if stream is not None:
                if size < stream.size:
                    stream.cut(size)
            else:
                assert self._spill is not None
                self._spill.clip(size)
            if self._base is not None:
                self._base.end = min(self._base.end, size)
        self.size = size

    def finish(self) -> Draft:
        """Complete the object: stored and verified. Afterwards only `committed` or `abort` may be called. Raises StoreError."""
        if self._draft is None:
            stream = self._stream
            if stream is None:
                stream = self._stream = self._join(last=True)
            elif self._base is not None and stream.size < self._base.stored:
                stream.take_over(self._base.stored, last=True)
            self._draft = stream.finish()
        draft = self._draft
        if draft.revision.size == self.size:
            return draft
        return Draft(with_size(draft.revision, self.size), draft.upload_id)

    def committed(self) -> None:
        """The catalog names the draft: let go of what it was made from."""
        for draft in self._drafts:
            draft.discard()
        self._drafts = []
        self._close_base()

    def abort(self) -> None:
        """Drop all uncommitted bytes. Never raises."""
        if self._stream is not None:
            if self._draft is None:
                self._stream.abort()
            else:
                self._drafts.append(self._stream)
        self._stream = self._draft = None
        self.committed()

    def fail(self, *, keep_draft: bool) -> None:
        """Drop all uncommitted bytes after an error, but leave parts that were sent to whoever sends them again. `keep_draft`: the
        catalog may have named the object before its answer was lost, so it is left to gc. Never raises."""
        if self._draft is None and self._stream is not None:
            self._stream.suspend()
        elif self._stream is not None and not keep_draft:
            self._drafts.append(self._stream)
        self._stream = self._draft = None
        self.committed()

    @property
    def _data_end(self) -> int:
        """Behind this there are only holes, which cost nothing."""
        stream = 0 if self._stream is None else self._stream.size
        spilled = 0 if self._spill is None else self._spill.written.end
        return max(stream, spilled, 0 if self._base is None else self._base.stored)

    # --- streaming -------------------------------------------------------------------------------------------------

    def _uploader(self) -> Uploader:
        return Uploader(self._transfers, self._target)

    def _write_stream(self, offset: int, view: memoryview) -> bool:
        """True if the stream took it all; what it took of a write that it refuses does no harm."""
        stream = self._stream
        if stream is None or self._draft is not None:
            return False
        if offset < stream.size:
            if offset < stream.sealed or not stream.patchable:
                return False
            inside = min(len(view), stream.size - offset)
            stream.patch(offset, view[:inside])
            offset, view = offset + inside, view[inside:]
        if not view:
            return True
        if offset > stream.size and not self._fill_gap(stream, offset):
            return False
        stream.append_all(view)
        return True

    def _fill_gap(self, stream: Uploader, offset: int) -> bool:
        """Bring the stream to `offset`: by the base, then by zeros if they are few."""
        if self._base is not None and stream.size < self._base.stored:
            stream.take_over(min(offset, self._base.stored))
        gap = offset - stream.size
        if gap > GAP_MAX:
            return False
        stream.append_all(memoryview(bytes(gap)))
        return True

    # --- base and spill ----------------------------------------------------------------------------------------------

    def _open_base(self, revision: Revision) -> None:
        """Edit existing bytes: in memory if they are few, else over a spill file."""
        self.size = revision.size
        base = Base(self._transfers, revision)
        if revision.size >= self._transfers.plan.first_part:
            self._spill = self._transfers.spill.open()
            self._base = base
            return
        stream = self._uploader()
        try:
            stream.append_all(memoryview(base.pread(0, revision.size)).cast("B"))
        except BaseException:
            stream.abort()
            raise
        finally:
            base.close()
        self._stream = stream

    def _to_spill(self) -> None:
        """Settle the stream, if there is one. If it has not begun, its bytes go to the spill file; else it becomes the base."""
        stream = self._stream
        if stream is None:
            return
        if self._draft is None and not stream.begun and stream.patchable:
            spill = self._transfers.spill.open()
            try:
                spill.pwrite(stream.sealed, stream.peek(stream.sealed, stream.size - stream.sealed))
            except BaseException:
                spill.close()
                raise
            stream.abort()
        else:
            if self._draft is None and self._base is not None and stream.size < self._base.stored:
                stream.take_over(self._base.stored, last=True)
            draft = self._draft or stream.finish()
            self._close_base()
            self._drafts.append(stream)
            self._base = Base(self._transfers, draft.revision)
            spill = self._transfers.spill.open()
        self._spill, self._stream, self._draft = spill, None, None
        self._run = (spill.written.end, spill.written.end)
        self._ordered = False

    def _write_spill(self, offset: int, piece: memoryview) -> None:
        assert self._spill is not None
        self._spill.pwrite(offset, piece)
        end = offset + len(piece)
        self._ordered = self._ordered and offset >= self._run[1]
        self._run = (self._run[0] if offset == self._run[1] else offset, end)
        in_order = self._spill.used if self._ordered else end - self._run[0]
        enough = in_order >= RUN_PARTS * self._transfers.plan.first_part
        if enough and self._spill.written.end == end:
            self._stream_again(end)

    def _stream_again(self, end: int) -> None:
        """What is spilled ends at `end`, and more seems to follow in order."""
        if end > (self._base.stored if self._base else 0) and self._has_large_hole(end):
            return
        stream = self._join(end)
        assert self._spill is not None
        self._spill.close()
        self._spill, self._stream = None, stream

    def _has_large_hole(self, end: int) -> bool:
        """Beyond the base, zeros would have to be sent: better later, when the file may have become shorter."""
        assert self._spill is not None
        start = self._base.stored if self._base else 0
        return any(not inside and stop - at > GAP_MAX for at, stop, inside in self._spill.written.pieces(start, end))

    def _join(self, end: int | None = None, *, last: bool = False) -> Uploader:
        """A stream of base and spill up to `end` (default: all; bytes beyond both stay a hole)."""
        assert self._spill is not None
        spill, base = self._spill, self._base
        stored = 0 if base is None else base.stored
        if end is None:
            end = max(stored, spill.written.end)
        joined = Uploader(self._transfers, self._target, base=base)
        try:
            for start, stop, written in spill.written.pieces(0, end):
                if not written and start < stored:
                    joined.take_over(min(stop, stored), last=last and stop >= end)
                for at in range(joined.size, stop, APPEND_MAX):
                    buffer = memoryview(bytearray(min(APPEND_MAX, stop - at)))
                    if written:
                        spill.pread_into(at, buffer)
                    joined.append_all(buffer)
        except BaseException:
            joined.suspend()
            raise
        return joined

    def _sources(self, start: int, end: int) -> Iterator[tuple[int, int, Callable[[memoryview], None]]]:
        """Cut [start, end) by where the bytes are; each piece with a function that fills a buffer with it."""
        stream, spill = self._stream, self._spill
        if stream is not None:
            if start < stream.size:
                stop = min(end, stream.size)
                yield start, stop, lambda into, at=start: _put(into, stream.peek(at, len(into)))  # type: ignore[misc]
                start = stop
            yield from self._shown(start, end)
            return
        assert spill is not None
        for first, last, written in spill.written.pieces(start, end):
            if written:
                yield first, last, lambda into, at=first: spill.pread_into(at, into)  # type: ignore[misc]
            else:
                yield from self._shown(first, last)

    def _shown(self, start: int, end: int) -> Iterator[tuple[int, int, Callable[[memoryview], None]]]:
        """Of the base; what is behind it is a hole: the buffers begin as zeros."""
        base = self._base
        if base is not None and start < min(end, base.end):
            yield start, min(end, base.end), lambda into, at=start: _fill(base, at, into)  # type: ignore[misc]

    def _close_base(self) -> None:
        if self._base is not None:
            self._base.close()
            self._base = None
        if self._spill is not None:
            self._spill.close()
            self._spill = None


def _put(into: memoryview, data: bytes) -> None:
    into[:] = data


def _fill(base: Base, offset: int, into: memoryview) -> None:
    while into:
        data = memoryview(base.pread(offset, len(into)))
        if not data:
            return  # a hole at the end of the base
        into[: len(data)] = data
        into, offset = into[len(data) :], offset + len(data)


def with_size(revision: Revision, size: int) -> Revision:
    """The same stored bytes with another logical size: a hole at the end, or a shorter file. Zeros keep the CRC-32 known; what a
    cut leaves is to be read again, unless it is cut between parts."""
    stored = min(revision.stored, size)
    known = revision.crc32 if revision.size == revision.stored == stored else _cut_crc32(revision, stored)
    if known is not None:
        known = combine(known, zeros(size - stored), size - stored)
    return Revision(
        revision.id, revision.key if stored else None, size, stored, None, known, revision.created_ns, revision.parts
    )


def _cut_crc32(revision: Revision, stored: int) -> int | None:
    result = at = 0
    for part in revision.parts:
        if at == stored:
            break
        result, at = combine(result, part.crc32, part.size), at + part.size
    return result if at == stored else None
