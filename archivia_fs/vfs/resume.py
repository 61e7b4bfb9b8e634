"""Uploads that survive: what a dead gateway or a broken connection left in the store is taken over, part by part.

Owns: opening a multipart upload, anew or by taking one over. Used by: uploader. Threading: called in upload workers.

Nobody has to say that a copy goes on: whoever sends bytes again is recognized by them. A new stream's first part is looked up
in the journal; if an upload without a living owner begins with the same bytes, it is claimed, its parts are listed at the store,
and each part whose size, CRC-32 and MD5 (the ETag of a part) are those of the bytes in hand is not sent again.
"""

from __future__ import annotations

import hashlib
import logging
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from typing_extensions import Buffer

from archivia_fs.errors import ObjectMissing
from archivia_fs.store.base import ObjectStore
from archivia_fs.types import ObjectKey, Part, UploadId, UploadRecord
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
        if part is None or part.crc32 != crc32 or part.size != memoryview(body).nbytes:
            return None
        return part if part.etag == hashlib.md5(body, usedforsecurity=False).hexdigest() else None


def begin(store: ObjectStore, journal: Journal, key: ObjectKey, target: str) -> Opened:
    """A new upload, in the journal before its first part is sent."""
    upload_id = store.create_upload(key)
    journal.begin_upload(upload_id, key, target)
    return Opened(key, upload_id)


def resume(store: ObjectStore, journal: Journal, first: Buffer) -> Opened | None:
    """An upload that nobody alive owns and that begins with the part `first`; from now on it is ours."""
    record = journal.claim_upload(memoryview(first).nbytes, zlib.crc32(first))
    if record is None:
        return None
    try:
        held = _held(store, record)
    except ObjectMissing:  # finished, aborted or expired at the store
        journal.drop_upload(record.upload_id)
        return None
    log.info("Resuming the upload for %s: %d part(s) are stored", record.target, len(held))
    return Opened(record.key, record.upload_id, held)


def _held(store: ObjectStore, record: UploadRecord) -> Mapping[int, Part]:
    """The journal's parts that the store really has."""
    listed = {part.number: part for part in store.list_parts(record.key, record.upload_id)}
    held = {}
    for part in record.parts:
        there = listed.get(part.number)
        if there is not None and (there.size, there.etag) == (part.size, part.etag) and _MD5.fullmatch(part.etag):
            held[part.number] = part
    return held
