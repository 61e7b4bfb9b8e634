"""One multipart upload: parts sent, copied and composed by workers, hashed in their order, and completed or given up.

Owns: the upload at the store and its journal. Used by: uploader. Threading: the public methods belong to the uploader's
thread; what is submitted runs in the upload workers.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import ParamSpec

from archivia_fs.errors import FsError, ObjectMissing, StoreUnavailable
from archivia_fs.types import Beginning, CopySource, ObjectKey, Part, Revision, UploadId
from archivia_fs.vfs import resume
from archivia_fs.vfs.buffers import PartBuffer
from archivia_fs.vfs.resume import Opened
from archivia_fs.vfs.segments import Segment
from archivia_fs.vfs.transfers import Transfers, new_key

log = logging.getLogger(__name__)

P = ParamSpec("P")

PART_TIMEOUT = 900  # seconds one part may take, retries of the store included, before close() gives up


@dataclass(frozen=True, slots=True)
class Sent:
    """A part that the store has. `fresh`: the ranges of the file in it whose CRC-32 was asked for."""

    part: Part
    fresh: Sequence[Segment] = ()


@dataclass(frozen=True, slots=True)
class Completed:
    """The object is there. `sha256` (hex) is None if the server copied some of it, so nobody saw all bytes."""

    key: ObjectKey
    upload_id: UploadId
    parts: Sequence[Part]
    fresh: Sequence[Segment]
    sha256: str | None


class MultipartUpload:
    """Nothing is asked of the store before the first part is sent: copies are held back until then. `source`: what is copied."""

    def __init__(self, transfers: Transfers, target: str, source: ObjectKey | None) -> None:
        self.key = new_key()
        self._transfers = transfers
        self._target = target
        self._source = source
        self._opened: Future[Opened] | None = None
        self._tasks: list[Future[Sent]] = []
        self._copies: list[tuple[int, int, int]] = []
        self._copied = False
        self._sha = hashlib.sha256()
        self._turn = threading.Condition()
        self._hashed = 0  # parts that are in _sha
        self._given_up = False
        self._hopeless = False  # the store does not make an object of what it says it has
        self.failure: BaseException | None = None  # of any part

    @property
    def begun(self) -> bool:
        """Whether anything was handed to the workers."""
        return bool(self._tasks)

    def copy_later(self, number: int, offset: int, size: int) -> None:
        """Part `number` is `size` bytes of the source from `offset`. Asked of the store when other parts follow."""
        with self._turn:
            self._copied = True
            self._turn.notify_all()
        self._copies.append((number, offset, size))

    def send(self, number: int, buffer: PartBuffer, claimed: int, start: int, fresh: Sequence[tuple[int, int]]) -> None:
        """Hand over a part that begins at byte `start` of the file; its memory, and `claimed` bytes of the budget, are free when it
        is sent."""
        self._begin(number, buffer.view())
        self._submit(self._send, number, buffer, claimed, start, fresh)

    def held_composed(self, number: int) -> Part | None:
        """Such a part of the interrupted upload that is gone on with. Raises StoreError."""
        return None if self._opened is None else self._await_opened().holds_composed(number)

    def compose(self, number: int, whole: Revision) -> Part:
        """A part from a complete object; blocks until the server has copied it. Raises StoreError."""
        assert whole.key is not None
        assert whole.crc32 is not None
        self._begin()
        opened = self._await_opened()
        etag = self._transfers.store.copy_part(opened.key, opened.upload_id, number, whole.key, 0, whole.size)
        part = Part(number, whole.size, etag, whole.crc32, sha256=whole.sha256)
        self._transfers.journal.record_part(opened.upload_id, part)
        return part

    def composed(self, part: Part, fresh: Sequence[Segment]) -> None:
        """The store has this part, whose bytes were given to hash_now."""
        done: Future[Sent] = Future()
        done.set_result(Sent(part, fresh))
        self._tasks.append(done)
        self._hashed_up_to(part.number)

    def hash_now(self, number: int, data: memoryview) -> None:
        """Bytes of a composed part; waits until all parts before it are hashed."""
        if self._turn_of(number):
            self._sha.update(data)

    def complete(self) -> Completed:
        """Wait for all parts and make the object. Raises StoreError."""
        self._begin()
        sent = []
        for task in self._tasks:
            try:
                sent.append(task.result(PART_TIMEOUT))
            except FutureTimeout:
                raise StoreUnavailable(f"A part was not stored within {PART_TIMEOUT} s.") from None
        opened = self._await_opened()
        parts = tuple(each.part for each in sent)
        try:
            self._transfers.store.complete_upload(opened.key, opened.upload_id, parts)
        except ObjectMissing:
            self._hopeless = True
            raise
        fresh = tuple(segment for each in sent for segment in each.fresh)
        sha256 = None if self._copied else self._sha.hexdigest()
        return Completed(opened.key, opened.upload_id, parts, fresh, sha256)

    def abort(self) -> None:
        """Drop everything; the store forgets the parts. Never raises: what cannot be dropped now is left to gc."""
        opened = self._settle()
        if opened is None:
            return
        try:
            if self._transfers.journal.drop_upload(opened.upload_id):  # else somebody goes on with it
                self._transfers.store.abort_upload(opened.key, opened.upload_id)
        except FsError as error:
            log.warning("The upload for %s is left to gc: %s", self._target, error)

    def suspend(self) -> None:
        """Give up, but leave the parts to whoever sends the same bytes again (see resume); gc drops them when they are old."""
        if self._hopeless:
            self.abort()
            return
        opened = self._settle()
        if opened is None:
            return
        try:
            self._transfers.journal.release_upload(opened.upload_id)
        except FsError as error:
            log.warning("The upload for %s cannot be resumed before this process ends: %s", self._target, error)

    # --- in the workers ------------------------------------------------------------------------------------------

    def _send(
        self, number: int, buffer: PartBuffer, claimed: int, start: int, fresh: Sequence[tuple[int, int]]
    ) -> Sent:
        try:
            body = buffer.view()
            if self._turn_of(number):
                self._sha.update(body)
                self._hashed_up_to(number)
            crc32 = zlib.crc32(body)
            opened = self._await_opened()
            part = opened.holds(number, body, crc32)
            if part is None:
                part = self._transfers.store.upload_part(opened.key, opened.upload_id, number, body, crc32)
                self._transfers.journal.record_part(opened.upload_id, part)
            return Sent(part, [Segment(at, end, zlib.crc32(body[at - start : end - start])) for at, end in fresh])
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            buffer.free()
            self._transfers.write_budget.release(claimed)

    def _copy(self, number: int, offset: int, size: int) -> Sent:
        assert self._source is not None
        try:
            opened = self._await_opened()
            self._check_going_on()
            source = CopySource(self._source, offset)
            part = opened.holds_copy(number, source, size)
            if part is None:
                etag = self._transfers.store.copy_part(
                    opened.key, opened.upload_id, number, source.key, source.offset, size
                )
                part = Part(number, size, etag, 0, source)
                self._transfers.journal.record_part(opened.upload_id, part)
            return Sent(part)
        except BaseException as error:
            self._fail(error)
            raise

    def _open(self, number: int, first: memoryview | None) -> Opened:
        """`first`: the first part that is sent, by which an interrupted upload is known again."""
        store, journal = self._transfers.store, self._transfers.journal
        try:
            self._check_going_on()
            found = None
            if first is not None:
                source = self._source if number > 1 else None
                beginning = Beginning(number, first.nbytes, zlib.crc32(first), source)
                found = resume.resume(store, journal, beginning, self._target)
            return found or resume.begin(store, journal, self.key, self._target)
        except BaseException as error:
            self._fail(error)
            raise

    def _turn_of(self, number: int) -> bool:
        """SHA-256 goes over the parts in their order; workers take them in order, so the turn always comes. False once the
        server has copied something: then nobody hashes any more."""
        with self._turn:
            self._turn.wait_for(
                lambda: self._given_up or self._copied or self.failure is not None or self._hashed >= number - 1
            )
            self._check_going_on()
            return not self._copied

    def _check_going_on(self) -> None:
        if self.failure is not None:
            raise self.failure
        if self._given_up:
            raise StoreUnavailable("This upload was given up.")

    def _fail(self, error: BaseException) -> None:
        """The first failure is the one to tell; parts that wait for their turn need not wait any longer."""
        with self._turn:
            self.failure = self.failure or error
            self._turn.notify_all()

    def _hashed_up_to(self, number: int) -> None:
        with self._turn:
            self._hashed = max(self._hashed, number)
            self._turn.notify_all()

    # --- inside --------------------------------------------------------------------------------------------------

    def _begin(self, number: int = 0, first: memoryview | None = None) -> None:
        """Open the upload, if it is not, by what is sent first; then ask for the copies that were held back."""
        if self._opened is None:
            self._opened = self._transfers.uploads.submit(self._open, number, first)  # before those who wait for it
        copies, self._copies = self._copies, []
        for number, offset, size in copies:
            self._submit(self._copy, number, offset, size)

    def _submit(self, call: Callable[P, Sent], *args: P.args, **kwargs: P.kwargs) -> None:
        self._tasks.append(self._transfers.uploads.submit(call, *args, **kwargs))

    def _await_opened(self) -> Opened:
        assert self._opened is not None
        try:
            return self._opened.result(PART_TIMEOUT)
        except FutureTimeout:
            raise StoreUnavailable(f"The object store did not begin an upload within {PART_TIMEOUT} s.") from None

    def _settle(self) -> Opened | None:
        """Wait until the workers are done with it; the upload, if there is one."""
        with self._turn:
            self._given_up = True
            self._turn.notify_all()
        opened = self._opened
        if opened is None:
            return None
        wait([opened], timeout=PART_TIMEOUT)
        wait(self._tasks, timeout=PART_TIMEOUT)
        self._tasks, self._copies = [], []
        done = opened.done() and not opened.cancelled() and opened.exception() is None
        return opened.result() if done else None
