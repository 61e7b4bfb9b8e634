"""Previews of revisions: made once, kept in the bucket, found in memory.

Owns: the previews' objects, the flights of those being made, the cache, the background thread. Used by: view, commands, app.
Threading: any thread; one lock for memory, never held across the store, the catalog or a decoder.

A preview belongs to a revision, so a rename or a change of the file never makes a wrong one. It is stored first, then named in the
catalog. Failure is a state there: a grey picture is shown, and only another decoder, or (if the machine was to blame) some
time, brings another try.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field, replace
from typing import Protocol

from typing_extensions import Buffer

from archivia_fs.errors import Busy
from archivia_fs.store.base import ObjectStore
from archivia_fs.types import ObjectKey, Revision, RevisionId
from archivia_fs.views.thumbnails import SIDES
from archivia_fs.views.thumbnails.facts import to_json
from archivia_fs.views.thumbnails.maker import Look, Made, Maker
from archivia_fs.views.thumbnails.placeholder import PLACEHOLDER, PLACEHOLDER_ETAG
from archivia_fs.views.thumbnails.turns import PATIENCE, Demand
from catalog.previews import PreviewRecord, PreviewState

log = logging.getLogger(__name__)

PREFIX = "previews/"
CACHE_BYTES = 16 * 1024**2
FLIGHT_SECONDS = 180.0  # that a second caller waits for the first
RETRY_SECONDS = (
    3600,
    24 * 3600,
    7 * 24 * 3600,
)  # after the first, second, third failure that may have been the machine's


class States(Protocol):
    """What the catalog keeps of previews (catalog.previews.Previews)."""

    def get(self, revision: RevisionId) -> PreviewRecord | None: ...
    def many(self, ids: Collection[RevisionId]) -> Mapping[RevisionId, PreviewRecord]: ...
    def twin(self, revision: RevisionId) -> PreviewRecord | None: ...
    def save(self, record: PreviewRecord) -> None: ...


class Archive(Protocol):
    """What the catalog knows of bytes (catalog.Catalog)."""

    def revision(self, revision_id: RevisionId) -> Revision: ...
    def revision_paths(self, revision_id: RevisionId, limit: int = 100) -> Sequence[str]: ...


def shown_size(record: PreviewRecord, side: int) -> int:
    """Bytes of the JPEG that is shown with at most `side` pixels a side."""
    return len(PLACEHOLDER) if record.key is None else record.sizes[SIDES.index(side)]


def shown_etag(record: PreviewRecord, side: int) -> str:
    """The entity tag of that JPEG, unquoted."""
    return PLACEHOLDER_ETAG if record.key is None else f"{record.etag}-{side}"


def _landed(flight: Future[PreviewRecord], deadline: float) -> PreviewRecord:
    try:
        return flight.result(max(0.0, deadline - time.monotonic()))
    except FutureTimeout:
        raise Busy("The preview is still being made; try again in a moment.") from None


class StoredBytes:
    """A Content over a revision, for whoever reads a few places of it: nothing is read ahead, nothing is kept."""

    def __init__(self, store: ObjectStore, revision: Revision) -> None:
        self._store = store
        self._revision = revision

    @property
    def size(self) -> int:
        return self._revision.size

    @property
    def etag(self) -> str:
        return self._revision.id

    def pread(self, offset: int, size: int) -> Buffer:
        """Up to `size` bytes from `offset`; shorter only at the end. Raises StoreError."""
        found = bytearray(max(0, min(size, self.size - offset)))
        stored = max(0, min(len(found), self._revision.stored - offset))
        if stored and self._revision.key is not None:
            self._store.read_into(self._revision.key, offset, memoryview(found)[:stored])
        return found

    def expect(self, start: int, end: int) -> None:
        """Nobody reads this in order."""

    def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True, slots=True)
class _Flight:
    """A preview that is being made."""

    demand: Demand
    record: Future[PreviewRecord] = field(default_factory=Future)


class Previews:
    """The previews of an archive."""

    def __init__(
        self, states: States, archive: Archive, store: ObjectStore, maker: Maker, *, cache_bytes: int = CACHE_BYTES
    ) -> None:
        self._states = states
        self._archive = archive
        self._store = store
        self._maker = maker
        self._cache_bytes = cache_bytes
        self._lock = threading.Lock()
        self._flights: dict[str, _Flight] = {}  # by SHA-256; by revision while that is pending
        self._cache: OrderedDict[tuple[ObjectKey, int], bytes] = OrderedDict()
        self._cached = 0

    def known(self, ids: Collection[RevisionId]) -> Mapping[RevisionId, PreviewRecord]:
        """What there is already of these revisions; never waits for a decoder."""
        return self._states.many(ids) if ids else {}

    def is_settled(self, revision: RevisionId) -> bool:
        """Whether there is nothing to do for it."""
        known = self._states.get(revision)
        return known is not None and self._is_settled(known)

    def look(self, revision: RevisionId) -> Look:
        """What the bytes are, from a few reads. Raises StoreError, NotFound."""
        return self._maker.look(StoredBytes(self._store, self._archive.revision(revision)))

    def ensure(
        self, revision: RevisionId, look: Look | None = None, *, urgent: bool = True, patience: float = PATIENCE
    ) -> PreviewRecord:
        """The preview's record, made now if there is none; however many ask at once, for whichever copies of the same bytes, it is
        made once. `look`: if the caller has looked already. `urgent`: somebody waits for it, so it goes before what nobody waits
        for. `patience`: seconds to wait for a turn. Raises StoreError, Busy, NotFound."""
        demand = Demand(urgent, patience)
        deadline = time.monotonic() + FLIGHT_SECONDS
        while True:
            known = self._states.get(revision)
            if known is not None and self._is_settled(known):
                return known
            content = self._archive.revision(revision)
            with self._lock:
                flight = self._flights.get(content.sha256 or revision)
                if flight is None:
                    mine = self._flights[content.sha256 or revision] = _Flight(demand)
                    break
            if urgent:
                self._maker.hurry(flight.demand)
            record = _landed(flight.record, deadline)
            if record.revision == revision:
                return record  # else that of a copy, which ours has now too
        try:
            record = self._make(content, look, demand)
        except BaseException as error:
            self._land(content)
            mine.record.set_exception(error)
            raise
        self._land(content)
        mine.record.set_result(record)
        return record

    def read(self, record: PreviewRecord, side: int) -> bytes:
        """The JPEG with at most `side` (256, 512, 1200) pixels a side. Raises StoreError; ObjectMissing if the bucket lost it."""
        if record.key is None:
            return PLACEHOLDER
        index = SIDES.index(side)
        cached = self._remembered(record.key, side)
        if cached is not None:
            return cached
        data = bytearray(record.sizes[index])
        self._store.read_into(record.key, sum(record.sizes[:index]), memoryview(data))
        self._remember(record.key, side, bytes(data))
        return bytes(data)

    def lost(self, record: PreviewRecord) -> PreviewRecord:
        """The bucket has lost the preview: make it again. Raises as ensure."""
        self._states.save(replace(record, state=PreviewState.PLACEHOLDER, key=None, decoder="", retry_ns=0))
        return self.ensure(record.revision)

    def _land(self, content: Revision) -> None:
        with self._lock:
            del self._flights[content.sha256 or content.id]

    def _is_settled(self, record: PreviewRecord) -> bool:
        if record.state in (PreviewState.EMBEDDED, PreviewState.DECODED):
            return True
        return record.decoder == self._maker.decoder and (record.retry_ns is None or time.time_ns() < record.retry_ns)

    def _make(self, revision: Revision, look: Look | None, demand: Demand) -> PreviewRecord:
        known = self._states.get(revision.id)  # again: whoever was before us may just have landed
        if known is not None and self._is_settled(known):
            return known
        twin = self._states.twin(revision.id)
        if twin is not None and self._is_settled(twin):
            record = replace(twin, revision=revision.id)
        else:
            content = StoredBytes(self._store, revision)
            look = look or self._maker.look(content)
            record = self._record(revision.id, self._maker.make(content, look, demand), known)
        self._states.save(record)
        return record

    def _record(self, revision: RevisionId, made: Made, known: PreviewRecord | None) -> PreviewRecord:
        record = PreviewRecord(
            revision, made.state, to_json(made.facts), decoder=self._maker.decoder, made_ns=time.time_ns()
        )
        if made.pictures:
            return self._stored(record, made.pictures)
        if made.state is PreviewState.NONE:
            return replace(record, reason=made.reason)
        attempts = 1 + (known.attempts if known is not None else 0)
        retry_ns = None
        if made.again and attempts <= len(RETRY_SECONDS):
            retry_ns = time.time_ns() + RETRY_SECONDS[attempts - 1] * 10**9
        if attempts == 1:
            where = ", ".join(self._archive.revision_paths(revision, 1)) or f"revision {revision}"
            log.warning("There is no preview of %s, a grey picture stands for it. %s", where, made.reason)
        return replace(record, reason=made.reason, failure=made.failure or "", attempts=attempts, retry_ns=retry_ns)

    def _stored(self, record: PreviewRecord, pictures: Sequence[bytes]) -> PreviewRecord:
        body = b"".join(pictures)
        etag = hashlib.sha256(body).hexdigest()[:32]
        key = ObjectKey(f"{PREFIX}{etag[:2]}/{etag}")
        self._store.put(key, body, zlib.crc32(body))
        for side, picture in zip(SIDES, pictures, strict=True):
            self._remember(key, side, picture)
        small, medium, large = map(len, pictures)
        return replace(record, key=key, sizes=(small, medium, large), etag=etag)

    def _remembered(self, key: ObjectKey, side: int) -> bytes | None:
        with self._lock:
            data = self._cache.get((key, side))
            if data is not None:
                self._cache.move_to_end((key, side))
            return data

    def _remember(self, key: ObjectKey, side: int, data: bytes) -> None:
        with self._lock:
            self._cached += len(data) - len(self._cache.pop((key, side), b""))
            self._cache[key, side] = data
            while self._cached > self._cache_bytes:
                _, old = self._cache.popitem(last=False)
                self._cached -= len(old)
