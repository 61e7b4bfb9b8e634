"""Bytes in order become one object: buffered into parts, hashed and sent by workers while more arrive.

Owns: one object's multipart upload and its hashes. Used by: writer, put. Threading: append, finish and abort belong to
one thread at a time (the file's writer turn); hashing and sending happen in the upload workers.

A file of at most one part is one PUT at the end. Parts larger than can be buffered (from about 117 GiB on, see
upload_plan) are composed: their bytes become a temporary object of their own, through an inner uploader,
which the server then copies into the part.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
import zlib
from concurrent.futures import Future, wait
from dataclasses import dataclass

from archivia_fs.errors import FileTooBig, FsError, StoreUnavailable
from archivia_fs.store.base import PARTS_MAX
from archivia_fs.types import SIZE_MAX, ObjectKey, Part, Revision, RevisionId, UploadId
from archivia_fs.vfs.crc import combine
from archivia_fs.vfs.transfers import Transfers, new_revision

log = logging.getLogger(__name__)

APPEND_MAX = 1024**2  # bytes of one append
SMALL = 1024**2  # bytes; up to here a part takes memory as it grows
STEP = 64 * 1024  # bytes; the grain of that
PART_TIMEOUT = 900  # seconds one part may take, retries of the store included, before close() gives up


@dataclass(frozen=True, slots=True)
class Draft:
    """A complete object that the catalog does not name yet, and the journal row to clear when it does."""

    revision: Revision
    upload_id: UploadId | None


class Uploader:
    """`target` says in words for whom the bytes are; `size_hint` is the size if it is known (it is then a limit)."""

    def __init__(self, transfers: Transfers, target: str, *, size_hint: int | None = None, part_bytes: int = 0) -> None:
        self._transfers = transfers
        self._plan = transfers.plan
        self._target = target
        self._size_hint = size_hint
        self._part_bytes = part_bytes  # fixed size of parts, for the inner uploader of a composed part
        self._id, self._key = new_revision()
        self._buffer = bytearray()
        self._claimed = 0  # bytes of the budget that are ours
        self._claimed_ahead = 0  # of these, bytes for the part after the current one
        self._next = 1
        self._room = self._planned(1)
        self._sent: list[Future[Part]] = []
        self._upload: Future[UploadId] | None = None
        self._sha = hashlib.sha256()
        self._turn = threading.Condition()
        self._hashed = 0  # parts that are in self._sha
        self._composed: Uploader | None = None
        self._failure: BaseException | None = None
        self._aborted = False
        self.size = 0
        self.sealed = 0  # bytes that left the buffer; what is beyond may still be changed

    def append(self, data: memoryview, timeout: float) -> int:
        """Take bytes (at most 1 MiB) at the end and return how many: all of them, or none when memory was not to be
        had within `timeout` seconds (0 never waits). Raises the error of an earlier part, FileTooBig."""
        if self._failure is not None:
            raise self._failure
        if self.size + len(data) > SIZE_MAX:
            raise FileTooBig("A file holds at most 5 TiB, the largest S3 object.")
        if self._next > PARTS_MAX:
            raise FileTooBig("More bytes came than were announced; the 10,000 parts of the upload are used up.")
        if timeout == 0 and self._is_composed:
            return 0  # a composed part begins and ends with requests to the store
        if not self._claim(data.nbytes, timeout):
            return 0
        taken = 0
        while taken < len(data):
            piece = data[taken : taken + self._room]
            count = self._append_composed(piece, timeout) if self._is_composed else self._append_buffer(piece)
            if count == 0:
                break
            taken += count
            self.size += count
            self._room -= count
            if self._room == 0:
                self._seal()
        return taken

    def patch(self, offset: int, data: memoryview) -> None:
        """Overwrite bytes that are still in the buffer (`offset` at or beyond `sealed`, the end within `size`)."""
        at = offset - self.sealed
        self._buffer[at : at + len(data)] = data

    def peek(self, offset: int, size: int) -> bytes:
        """Bytes that are still in the buffer."""
        at = offset - self.sealed
        return bytes(memoryview(self._buffer)[at : at + size])

    def cut(self, size: int) -> None:
        """Shorten to `size`, which is at or beyond `sealed`."""
        del self._buffer[size - self.sealed :]
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
        if self._next == 1:
            return self._finish_single()
        if self._composed is not None or self._buffer:
            self._seal()
        self._release()
        parts = []
        for future in self._sent:
            try:
                parts.append(future.result(PART_TIMEOUT))
            except TimeoutError:
                raise StoreUnavailable(f"A part was not stored within {PART_TIMEOUT} s.") from None
        assert self._upload is not None
        upload_id = self._upload.result()
        self._transfers.store.complete_upload(self._key, upload_id, parts)
        crc32 = 0
        for part in parts:
            crc32 = combine(crc32, part.crc32, part.size)
        return Draft(self._revision(self._key, self._sha.hexdigest(), crc32, tuple(parts)), upload_id)

    def abort(self) -> None:
        """Drop everything; the store forgets the parts. Never raises: what cannot be dropped now is left to gc."""
        with self._turn:
            self._aborted = True
            self._turn.notify_all()
        wait(self._sent, timeout=PART_TIMEOUT)
        self._release()
        if self._composed is not None:
            self._composed.abort()
        if self._upload is not None:
            try:
                upload_id = self._upload.result(0)
                self._transfers.store.abort_upload(self._key, upload_id)
                self._transfers.journal.drop_upload(upload_id)
            except (FsError, TimeoutError) as error:
                log.warning("The upload for %s is left to gc: %s", self._target, error)
        self._sent, self._upload = [], None

    def discard(self) -> None:
        """After finish: delete the object again, as nothing will name it. Never raises: gc finds what is left."""
        try:
            if self._upload is not None:
                self._transfers.journal.drop_upload(self._upload.result(0))
            self._transfers.store.delete(self._key)
        except (FsError, TimeoutError) as error:
            log.warning("The object %s is left to gc: %s", self._key, error)

    # --- buffered parts ------------------------------------------------------------------------------------------

    def _claim(self, size: int, timeout: float) -> bool:
        """Make sure of the memory for `size` more bytes.

        A part of more than `SMALL` bytes claims its full size at once: whoever fills a part can always send it, so
        writers that wait for memory never wait for each other.
        """
        first = min(size, self._room)
        need = self._memory_of(len(self._buffer) + first, len(self._buffer) + self._room)
        following = self._memory_of(size - first, self._planned(self._next + 1)) if size > first else 0
        short = need + following - self._claimed
        if short > 0:
            if not self._transfers.write_budget.acquire(short, timeout):
                return False
            self._claimed += short
        self._claimed_ahead = following
        return True

    def _memory_of(self, filled: int, planned: int) -> int:
        if filled <= SMALL:
            return -(-filled // STEP) * STEP
        return planned if self._size_hint is None else min(planned, max(filled, self._size_hint - self.sealed))

    def _append_buffer(self, piece: memoryview) -> int:
        self._buffer += piece
        return len(piece)

    def _seal(self) -> None:
        """Hand the collected part to the workers."""
        if self._composed is not None:
            self._seal_composed()
            return
        buffer, self._buffer = self._buffer, bytearray()
        held = self._claimed - self._claimed_ahead
        self._claimed, self._claimed_ahead = self._claimed_ahead, 0
        if self._upload is None:
            self._upload = self._transfers.uploads.submit(self._begin)
        self._sent.append(self._transfers.uploads.submit(self._send, self._next, buffer, held))
        self._next_part()

    def _next_part(self) -> None:
        self._next += 1
        self.sealed = self.size
        self._room = self._planned(self._next) if self._next <= PARTS_MAX else 0

    def _begin(self) -> UploadId:
        upload_id = self._transfers.store.create_upload(self._key)
        self._transfers.journal.begin_upload(upload_id, self._key, self._target)
        return upload_id

    def _send(self, number: int, buffer: bytearray, held: int) -> Part:
        assert self._upload is not None
        try:
            self._hash(number, buffer)
            crc32 = zlib.crc32(buffer)
            upload_id = self._upload.result(PART_TIMEOUT)
            part = self._transfers.store.upload_part(self._key, upload_id, number, buffer, crc32)
            self._transfers.journal.record_part(upload_id, part)
            return part
        except BaseException as error:
            self._failure = error
            raise
        finally:
            self._transfers.write_budget.release(held)

    def _hash(self, number: int, buffer: bytearray) -> None:
        """SHA-256 goes over the parts in their order; workers take them in order, so the turn always comes."""
        with self._turn:
            self._turn.wait_for(lambda: self._aborted or self._hashed >= number - 1)
            if self._aborted:
                raise StoreUnavailable("This upload was given up.")
        self._sha.update(buffer)
        with self._turn:
            self._hashed = max(self._hashed, number)
            self._turn.notify_all()

    def _finish_single(self) -> Draft:
        buffer, self._buffer = self._buffer, bytearray()
        try:
            crc32 = zlib.crc32(buffer)
            stored = self._transfers.store.put(self._key, buffer, crc32)
            part = Part(1, len(buffer), stored.etag, crc32)
            return Draft(self._revision(self._key, hashlib.sha256(buffer).hexdigest(), crc32, (part,)), None)
        except BaseException:
            self._buffer = buffer  # the caller may try once more
            raise
        finally:
            if not self._buffer:
                self._release()

    # --- composed parts ------------------------------------------------------------------------------------------

    @property
    def _is_composed(self) -> bool:
        return self._planned(self._next) > self._plan.buffered_max

    def _append_composed(self, piece: memoryview, timeout: float) -> int:
        if self._composed is None:
            if not self._transfers.store.capabilities.part_copy:
                raise FileTooBig("This store cannot copy parts (UploadPartCopy), so a file ends at 117 GiB.")
            self._composed = Uploader(
                self._transfers, f"{self._target} (part {self._next})", part_bytes=self._plan.buffered_max
            )
            with self._turn:  # all that came before is hashed; from here on hashing goes on in this thread
                self._turn.wait_for(lambda: self._hashed >= self._next - 1)
        count = self._composed.append(piece, timeout)
        self._sha.update(piece[:count])
        return count

    def _seal_composed(self) -> None:
        """Complete the temporary object, have the server copy it into the part, and delete it."""
        assert self._upload is not None
        assert self._composed is not None
        inner = self._composed.finish().revision
        assert inner.key is not None
        assert inner.crc32 is not None
        store, upload_id = self._transfers.store, self._upload.result(PART_TIMEOUT)
        etag = store.copy_part(self._key, upload_id, self._next, inner.key, 0, inner.size)
        part = Part(self._next, inner.size, etag, inner.crc32)
        self._transfers.journal.record_part(upload_id, part)
        self._composed.discard()
        self._composed = None
        done: Future[Part] = Future()
        done.set_result(part)
        self._sent.append(done)
        with self._turn:
            self._hashed = self._next
        self._next_part()

    # --- the rest ------------------------------------------------------------------------------------------------

    def _planned(self, number: int) -> int:
        return self._part_bytes or self._plan.part_size(number, self._size_hint)

    def _release(self) -> None:
        self._transfers.write_budget.release(self._claimed)
        self._claimed = self._claimed_ahead = 0
        self._buffer = bytearray()

    def _revision(self, key: ObjectKey | None, sha256: str, crc32: int, parts: tuple[Part, ...]) -> Revision:
        return Revision(RevisionId(self._id), key, self.size, self.size, sha256, crc32, time.time_ns(), parts)
