"""What moves bytes between the core and the object store: the store, its worker pools, the budget and the block cache.

Owns: the worker threads for parts and for read-ahead. Used by: vfs, writer, uploader, reader. Threading: any thread.
One instance per gateway, so that all streams of all doors share one set of bounds.
"""

from __future__ import annotations

import threading
import uuid
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from archivia_fs.store.base import ObjectStore
from archivia_fs.types import Beginning, ObjectKey, Part, RevisionId, UploadId, UploadRecord
from archivia_fs.vfs.block_cache import BlockCache
from archivia_fs.vfs.budget import Budget
from archivia_fs.vfs.buffers import Buffers
from archivia_fs.vfs.spill import SpillArea
from archivia_fs.vfs.upload_plan import UploadPlan

UPLOAD_WORKERS = 6  # parts in flight; more brought nothing against SeaweedFS on 2 cores
DOWNLOAD_WORKERS = 8  # blocks in flight, for all readers together
OBJECT_PREFIX = "objects/"
IDLE_SECONDS = 2.0  # without a byte, after which the memory of an upload may be wanted by others


class Journal(Protocol):
    """The upload journal in the catalog: what is uploaded but not yet named.

    `claim_upload` finds, of a gateway that is gone, an upload that begins like this, and makes it ours, for `target`;
    `release_upload` leaves ours to whoever claims it; `drop_upload` forgets it, and is False if it was not ours any more.
    """

    def begin_upload(self, upload_id: UploadId, key: ObjectKey, target: str) -> None: ...
    def record_part(self, upload_id: UploadId, part: Part) -> None: ...
    def drop_upload(self, upload_id: UploadId) -> bool: ...
    def claim_upload(self, beginning: Beginning, target: str) -> UploadRecord | None: ...
    def release_upload(self, upload_id: UploadId) -> None: ...


class HasMemory(Protocol):
    """Who holds some of the write budget."""

    def put_aside(self, idle_seconds: float) -> None:
        """Give it back if it was not used for that long. Any thread; never waits for who uses it."""


class Transfers:
    """`memory` bytes bound all data buffers: 1/4 hold blocks for readers, 1/4 parts for writers. The rest is headroom for what
    is on its way through the kernel and sockets, for blocks that left the cache while somebody sends them, and for the allocator:
    with 3/8 for blocks, eight readers and eight writers took 310 MiB of 256 and the 90 of the libraries."""

    def __init__(
        self,
        store: ObjectStore,
        journal: Journal,
        *,
        memory: int,
        spill_dir: Path,
        spill_limit: int,
        plan: UploadPlan | None = None,
    ) -> None:
        self.store = store
        self.journal = journal
        self.plan = plan or UploadPlan()
        self.uploads = ThreadPoolExecutor(UPLOAD_WORKERS, "upload")
        self.downloads = ThreadPoolExecutor(DOWNLOAD_WORKERS, "download")
        self.write_budget = Budget(memory // 4, self._relieve)
        self.buffers = Buffers()
        self.cache = BlockCache(store, self.downloads, memory // 4)
        self.spill = SpillArea(spill_dir, spill_limit)
        self._holders: weakref.WeakSet[HasMemory] = weakref.WeakSet()
        self._holders_lock = threading.Lock()  # a leaf

    def know(self, holder: HasMemory) -> None:
        """When memory is short, whoever has let it lie idle is asked to put it aside."""
        with self._holders_lock:
            self._holders.add(holder)

    def _relieve(self) -> None:
        with self._holders_lock:
            holders = list(self._holders)
        for holder in holders:
            holder.put_aside(IDLE_SECONDS)

    def trim(self) -> None:
        """Give memory that was not needed lately back to the system; to be called every few seconds."""
        self.buffers.trim()
        self.cache.buffers.trim()

    def close(self) -> None:
        """Stop the workers; what they were doing is abandoned."""
        self.uploads.shutdown(wait=False, cancel_futures=True)
        self.downloads.shutdown(wait=False, cancel_futures=True)


def new_key() -> ObjectKey:
    """A fresh random key. Keys are opaque, so a rename never touches S3."""
    name = uuid.uuid4().hex
    return ObjectKey(f"{OBJECT_PREFIX}{name[:2]}/{name}")


def new_revision() -> RevisionId:
    """A fresh revision over an object that is there already."""
    return RevisionId(uuid.uuid4().hex)


def revision_of(key: ObjectKey) -> RevisionId:
    """The revision that an object is made for."""
    return RevisionId(key.rpartition("/")[2])
