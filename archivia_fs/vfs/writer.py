"""The uncommitted bytes of one open file.

Owns: where those bytes are until they are a revision. Used by: handle. Threading: all calls under the file's
writer turn (see handle); `size` may be read at any time.

Bytes that come in order stream straight into an Uploader; nothing touches the disk. What does not fit that (a write
elsewhere in a larger file, reading back what was already sent, many open files at once with no memory left) settles the
stream: what was sent becomes a complete but unnamed object, the base, and further bytes go to a spill file over it. At
`finish` base and spill are read in order into a new object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from typing_extensions import Buffer

from archivia_fs.errors import FileTooBig
from archivia_fs.types import SIZE_MAX, Revision
from archivia_fs.vfs.reader import RevisionContent
from archivia_fs.vfs.spill import SpillFile
from archivia_fs.vfs.transfers import Transfers
from archivia_fs.vfs.uploader import APPEND_MAX, Draft, Uploader

MEMORY_PATIENCE = 5.0  # seconds without memory for new bytes before a file turns to the spill area
COPY_STEP = 1024**2  # bytes read at once while base and spill are joined
GAP_MAX = 1024**2  # bytes; a smaller gap before a write is filled with zeros in the stream


class Writer:
    """Begins with the bytes of `base` (None: empty). `target` says in words for whom."""

    def __init__(self, transfers: Transfers, base: Revision | None, target: str) -> None:
        self._transfers = transfers
        self._target = target
        self._stream: Uploader | None = None
        self._spill: SpillFile | None = None
        self._base: RevisionContent | None = None
        self._base_end = 0  # bytes of the base that still show (truncate hides the rest for good)
        self._draft: Draft | None = None  # finished, waiting for the catalog to name it
        self._drafts: list[Uploader] = []  # settled streams: their objects go when a later one is complete
        self.size = 0
        if base is None or base.size == 0:
            self._stream = self._uploader()
        else:
            self._open_base(base)

    def pwrite(self, offset: int, data: Buffer) -> None:
        """Write; waits for memory. Raises NoSpace, FileTooBig, StoreError (of this or an earlier part)."""
        view = memoryview(data).cast("B")
        end = offset + len(view)
        if end > SIZE_MAX:
            raise FileTooBig("A file holds at most 5 TiB, the largest S3 object.")
        for at in range(0, len(view), APPEND_MAX):
            piece = view[at : at + APPEND_MAX]
            if not self._write_stream(offset + at, piece):
                self._to_spill()
                assert self._spill is not None
                self._spill.pwrite(offset + at, piece)
            self.size = max(self.size, offset + at + len(piece))

    def pwrite_nowait(self, offset: int, data: Buffer) -> bool:
        """Write if it can be done at once from memory; False (and nothing written) if not."""
        view = memoryview(data).cast("B")
        stream = self._stream
        if stream is None or offset != stream.size or offset != self.size:
            return False
        if self._draft is not None or stream.append(view, 0) == 0:
            return False
        self.size = stream.size
        return True

    def pread(self, offset: int, size: int) -> Buffer:
        """Read back uncommitted bytes; shorter only at the end. May settle the stream."""
        end = min(offset + size, self.size)
        if offset >= end:
            return b""
        stream = self._stream
        if stream is not None:
            if offset >= stream.size:
                return bytes(end - offset)
            if stream.patchable and offset >= stream.sealed and self._draft is None:
                return stream.peek(offset, end - offset).ljust(end - offset, b"\0")
            self._to_spill()
        buffer = memoryview(bytearray(end - offset))
        for start, stop, filled in self._sources(offset, end):
            filled(buffer[start - offset : stop - offset])
        return buffer

    def truncate(self, size: int) -> None:
        """Shorten, or lengthen with zeros (which cost nothing until something is written behind them)."""
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
                self._base_end = min(self._base_end, size)
        self.size = size

    def finish(self) -> Draft:
        """Complete the object: stored and verified. Afterwards only `committed` or `abort` may be called. Raises StoreError."""
        if self._draft is None:
            if self._stream is None:
                self._join()
            assert self._stream is not None
            self._draft = self._stream.finish()
        draft = self._draft
        if draft.revision.size == self.size:
            return draft
        return Draft(with_size(draft.revision, self.size), draft.upload_id)

    def committed(self) -> None:
        """The catalog names the draft: let go of what it was made from."""
        for draft in self._drafts:
            draft.discard()
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
        self._drafts = []
        self._base_end = 0

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
        if offset > stream.size:
            if offset - stream.size > GAP_MAX:
                return False
            gap = memoryview(bytes(offset - stream.size))
            if stream.append(gap, MEMORY_PATIENCE) < len(gap):
                return False
        return stream.append(view, MEMORY_PATIENCE) == len(view)

    # --- base and spill ----------------------------------------------------------------------------------------------

    def _open_base(self, base: Revision) -> None:
        """Edit existing bytes: in memory if they are few, else over a spill file."""
        self.size = base.size
        content = RevisionContent(self._transfers, base)
        if base.size < self._transfers.plan.first_part:
            stream = self._uploader()
            data = memoryview(content.pread(0, base.size)).cast("B")
            content.close()
            if all(
                stream.append(data[at : at + APPEND_MAX], MEMORY_PATIENCE) for at in range(0, len(data), APPEND_MAX)
            ):
                self._stream = stream
                return
            stream.abort()
        self._base, self._base_end = content, base.size
        self._spill = self._transfers.spill.open()

    def _to_spill(self) -> None:
        """Settle the stream, if there is one: its bytes become the base, or go to the spill file if none was sent."""
        stream = self._stream
        if stream is None:
            return
        spill = self._transfers.spill.open()
        if self._draft is None and stream.sealed == 0 and stream.patchable:
            spill.pwrite(0, stream.peek(0, stream.size))
            stream.abort()
        else:
            draft = self._draft or stream.finish()
            self._close_base()
            self._drafts.append(stream)
            self._base = RevisionContent(self._transfers, draft.revision)
            self._base_end = draft.revision.size
        self._spill, self._stream, self._draft = spill, None, None

    def _join(self) -> None:
        """Read base and spill in order into a new stream. Bytes beyond both stay a hole at the end."""
        assert self._spill is not None
        joined = Uploader(self._transfers, self._target, size_hint=self.size)
        try:
            end = min(self.size, max(self._base_end, self._spill.written.end))
            for at in range(0, end, COPY_STEP):
                buffer = memoryview(bytearray(min(COPY_STEP, end - at)))
                for start, stop, fill in self._sources(at, at + len(buffer)):
                    fill(buffer[start - at : stop - at])
                taken = 0
                while taken < len(buffer):
                    taken += joined.append(buffer[taken:], MEMORY_PATIENCE)
        except BaseException:
            joined.abort()
            raise
        self._stream = joined

    def _sources(self, start: int, end: int) -> Iterator[tuple[int, int, Callable[[memoryview], None]]]:
        """Cut [start, end) by where the bytes are; each piece with a function that fills a buffer with it."""
        assert self._spill is not None
        spill, base = self._spill, self._base
        for first, last, written in spill.written.pieces(start, end):
            if written:
                yield first, last, lambda into, at=first: spill.pread_into(at, into)  # type: ignore[misc]
                continue
            shown = max(first, min(last, self._base_end))
            if base is not None and first < shown:
                yield first, shown, lambda into, at=first: _fill(base, at, into)  # type: ignore[misc]
            # what is neither written nor of the base is a hole: the buffers begin as zeros

    def _close_base(self) -> None:
        if self._base is not None:
            self._base.close()
            self._base = None
        if self._spill is not None:
            self._spill.close()
            self._spill = None


def _fill(base: RevisionContent, offset: int, into: memoryview) -> None:
    while into:
        data = memoryview(base.pread(offset, len(into)))
        if not data:
            return  # a hole at the end of the base
        into[: len(data)] = data
        into, offset = into[len(data) :], offset + len(data)


def with_size(revision: Revision, size: int) -> Revision:
    """The same stored bytes with another logical size: a hole at the end, or a shorter file."""
    stored = min(revision.stored, size)
    return Revision(
        revision.id, revision.key if stored else None, size, stored, None, None, revision.created_ns, revision.parts
    )
