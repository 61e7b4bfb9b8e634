"""Uploads that survive: what a dead gateway or a broken connection left in the store is taken over, part by part.

Owns: opening a multipart upload, anew or by taking one over. Used by: uploader. Threading: called in upload workers.

Nobody has to say that a copy goes on: whoever sends bytes again is recognized by them. The first part that a stream sends is
looked up in the journal; if an upload without a living owner has the same bytes there, and before them, where a file is edited or
appended to, copies of the same object, it is claimed and its parts are listed at the store. A part whose size, CRC-32 and MD5 (the
ETag of a part) are those of the bytes in hand is not sent again; a part that was copied from where it would be copied from now,
and is listed as the store answered then, is not copied again; a composed part is known by its SHA-256 (see composed).
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from typing_extensions import Buffer

from archivia_fs.errors import FsError, ObjectMissing, StoreError
from archivia_fs.store.base import ObjectStore
from archivia_fs.types import Beginning, CopySource, ObjectKey, Part, UploadId, UploadRecord
from archivia_fs.vfs.transfers import Journal

log = logging.getLogger(__name__)

_MD5 = re.compile(r"[0-9a-f]{32}")  # an encrypting store's ETags are something else; its parts are sent again


@dataclass(frozen=True, slots=True)
class Opened:
    """A multipart upload of ours. `held`: parts that the store has already, by number."""

    key: ObjectKey
    upload_id: UploadId
    held: Mapping[int, Part] = field(default_factory=dict)

    def holds(self, number: int, body: Buffer, crc32: int) -> Part | None:
        """The part, if the store has exactly these bytes under this number."""
        part = self.held.get(number)
        if part is None or part.source is not None or (part.size, part.crc32) != (memoryview(body).nbytes, crc32):
            return None
        return part if part.etag == hashlib.md5(body, usedforsecurity=False).hexdigest() else None

    def holds_copy(self, number: int, source: CopySource, size: int) -> Part | None:
        """The part, if the store has copied it from there already."""
        part = self.held.get(number)
        return part if part is not None and (part.source, part.size) == (source, size) else None

    def holds_composed(self, number: int) -> Part | None:
        """A part that the store has composed, of whatever bytes."""
        part = self.held.get(number)
        return part if part is not None and part.sha256 is not None else None


def begin(store: ObjectStore, journal: Journal, key: ObjectKey, target: str) -> Opened:
    """A new upload, in the journal before its first part is sent."""
    upload_id = store.create_upload(key)
    journal.begin_upload(upload_id, key, target)
    return Opened(key, upload_id)


def resume(store: ObjectStore, journal: Journal, beginning: Beginning, target: str) -> Opened | None:
    """An upload that nobody alive owns and that begins so; from now on it is ours, and for `target`. Raises StoreError."""
    while (record := journal.claim_upload(beginning, target)) is not None:
        try:
            held = _held(store, record)
        except ObjectMissing:  # finished, aborted or expired at the store
            journal.drop_upload(record.upload_id)
            continue
        except BaseException as error:
            _release(journal, record)
            if not isinstance(error, StoreError) or error.retryable:
                raise  # whoever comes again when the store is well need not send all of it
            log.warning("The upload for %s cannot be resumed: %s", target, error)
            return None
        log.info("Resuming the upload for %s: %d part(s) are stored", target, len(held))
        return Opened(record.key, record.upload_id, held)
    return None


def _release(journal: Journal, record: UploadRecord) -> None:
    try:
        journal.release_upload(record.upload_id)
    except FsError as error:
        log.warning("The upload for %s cannot be resumed before this process ends: %s", record.target, error)


def _held(store: ObjectStore, record: UploadRecord) -> Mapping[int, Part]:
    """The journal's parts that the store really has."""
    listed = {part.number: part for part in store.list_parts(record.key, record.upload_id)}
    held = {}
    for part in record.parts:
        there = listed.get(part.number)
        if there is None or (there.size, there.etag) != (part.size, part.etag):
            continue
        if part.source is not None or part.sha256 is not None or _MD5.fullmatch(part.etag):
            held[part.number] = part
    return held
