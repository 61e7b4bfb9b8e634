"""gc: what nobody needs any more leaves the store.

Owns: the order in which things go (the catalog's row first, then the bytes, so a crash leaves bytes without a row and never a row
without bytes) and what is spared. Used by: commands. Threading: one thread; safe beside gateways that work.

These go: objects of revisions that no file has had for the grace period; uploads in the journal whose gateway is dead and that
nobody has gone on with for long; uploads and objects in the store that the catalog does not know, left by a crash, and previews
of pictures that are gone, if they are older than the grace period.
Only keys that we could have made are looked at, so other things in the bucket are safe.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from archivia_fs.errors import ConfigError, FsError
from archivia_fs.store.base import ObjectStore, StoredObject
from archivia_fs.types import ObjectKey, UploadId
from archivia_fs.vfs.transfers import OBJECT_PREFIX
from catalog.catalog import Catalog

T = TypeVar("T")

GRACE = 24 * 3600.0  # seconds; whoever has an older version open can read it that long
UPLOAD_AGE = 7 * 24 * 3600.0  # seconds in which an interrupted upload can be resumed
BATCH = 500  # rows, keys or uploads at once

PREVIEW_PREFIX = "previews/"

_PREVIEW = re.compile(re.escape(PREVIEW_PREFIX) + r"[0-9a-f]{2}/[^/]+")
_OURS = re.compile(re.escape(OBJECT_PREFIX) + r"([0-9a-f]{2})/\1[0-9a-f]{30}")  # as vfs.transfers.new_key makes them


@dataclass(slots=True)
class GcReport:
    """What went (or, in a dry run, would go). `bytes`: of released and unknown objects and of the parts of expired uploads, as
    far as sizes are known, and of previews. `failed`: what the store did not let go, in words; the next run tries again."""

    revisions: int = 0
    objects: int = 0
    expired_uploads: int = 0
    unknown_uploads: int = 0
    unknown_objects: int = 0
    previews: int = 0
    bytes: int = 0
    failed: list[str] = field(default_factory=list)


class Gc:
    """`grace` and `upload_age` in seconds; both are also the time a gateway has to name what it has stored. `progress` hears the
    report after each step."""

    def __init__(
        self,
        catalog: Catalog,
        store: ObjectStore,
        *,
        grace: float = GRACE,
        upload_age: float = UPLOAD_AGE,
        dry_run: bool = False,
        progress: Callable[[GcReport], None] | None = None,
    ) -> None:
        self._catalog = catalog
        self._store = store
        now = time.time_ns()
        self._before = now - int(grace * 1e9)
        self._uploads_before = now - int(upload_age * 1e9)
        self._dry_run = dry_run
        self._progress = progress
        self.report = GcReport()

    def run(self, *, force: bool = False) -> GcReport:
        """All of it. Raises StoreError, CatalogError; and ConfigError, unless `force`, if the catalog does not know most of the
        objects in the bucket: it may be another archive's, or an old backup. Nothing is deleted then."""
        if not force:
            self._check_bucket()
        if not self._dry_run:
            self._catalog.forget_orphans()  # their bytes go when the grace period is over
        self._released()
        self._expired_uploads()
        self._unknown_uploads()
        self._unknown_objects()
        self._previews()
        return self.report

    def _check_bucket(self) -> None:
        known = unknown = 0
        for batch in _batches(self._store.list(OBJECT_PREFIX)):
            ours = {found.key for found in batch if _OURS.fullmatch(found.key) and self._is_old(found.modified_ns)}
            strangers = len(self._catalog.unknown_objects(ours))
            unknown += strangers
            known += len(ours) - strangers
        if unknown > known:
            raise ConfigError(
                f"The catalog does not know {unknown} of {unknown + known} objects in the bucket. Is it this bucket's catalog, and "
                "not an older backup? (ARCHIVIA_CATALOG_URL, ARCHIVIA_S3_BUCKET.) If it is, `gc --force` deletes them."
            )

    def _released(self) -> None:
        if self._dry_run:
            for each in self._catalog.releasable(self._before):
                self._count(each.key, each.stored)
            return
        while freed := self._catalog.drop_released(self._before, BATCH):
            for each in freed:
                if each.key is None or self._delete(each.key):
                    self._count(each.key, each.stored)
            self._tell()

    def _count(self, key: ObjectKey | None, size: int) -> None:
        self.report.revisions += 1
        if key is not None:
            self.report.objects += 1
            self.report.bytes += size

    def _expired_uploads(self) -> None:
        for record in self._catalog.expired_uploads(self._uploads_before):
            if self._dry_run or (self._catalog.expire_upload(record) and self._abort(record.key, record.upload_id)):
                self.report.expired_uploads += 1
                self.report.bytes += sum(part.size for part in record.parts)
                self._tell()

    def _unknown_uploads(self) -> None:
        pending = (
            each
            for each in self._store.list_uploads(OBJECT_PREFIX)
            if _OURS.fullmatch(each.key) and self._is_old(each.started_ns)
        )
        for batch in _batches(pending):
            unknown = self._catalog.unknown_uploads({each.upload_id for each in batch})
            for each in batch:
                if each.upload_id in unknown and (self._dry_run or self._abort(each.key, each.upload_id)):
                    self.report.unknown_uploads += 1
            self._tell()

    def _unknown_objects(self) -> None:
        for found in self._strangers(OBJECT_PREFIX, _OURS, self._catalog.unknown_objects):
            self.report.unknown_objects += 1
            self.report.bytes += found.size

    def _previews(self) -> None:
        for found in self._strangers(PREVIEW_PREFIX, _PREVIEW, self._catalog.previews.unknown_objects):
            self.report.previews += 1
            self.report.bytes += found.size

    def _strangers(
        self, prefix: str, ours: re.Pattern[str], unknown: Callable[[Set[ObjectKey]], Set[ObjectKey]]
    ) -> Iterator[StoredObject]:
        """Old objects with keys of ours that are `unknown`; each is gone when it is given."""
        stored = (
            each for each in self._store.list(prefix) if ours.fullmatch(each.key) and self._is_old(each.modified_ns)
        )
        for batch in _batches(stored):
            strangers = unknown({each.key for each in batch})
            for each in batch:
                if each.key in strangers and (self._dry_run or self._delete(each.key)):
                    yield each
            self._tell()

    def _is_old(self, moment_ns: int) -> bool:
        """Before the grace period. A store that does not tell the time (0) tells nothing about age, so that is spared."""
        return 0 < moment_ns < self._before

    def _delete(self, key: ObjectKey) -> bool:
        return self._try(lambda: self._store.delete(key), f"object {key}")

    def _abort(self, key: ObjectKey, upload_id: UploadId) -> bool:
        return self._try(lambda: self._store.abort_upload(key, upload_id), f"upload {upload_id} of {key}")

    def _try(self, work: Callable[[], None], what: str) -> bool:
        """One thing that the store keeps does not stop the others; as orphan it is found again by the next run."""
        try:
            work()
        except FsError as error:
            self.report.failed.append(f"{what}: {error}")
            return False
        return True

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self.report)


def _batches(found: Iterable[T]) -> Iterator[list[T]]:
    waiting = iter(found)
    while batch := list(islice(waiting, BATCH)):
        yield batch
