"""check: does the catalog fit the store, and itself? Nothing is read but names and sizes.

Owns: the comparison of the catalog's objects with the store's list. Used by: commands. Threading: one thread; safe beside gateways.
Both sides come in the order of their keys, so memory is constant. scrub is what reads the bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from archivia_fs.errors import NotFound, ObjectMissing
from archivia_fs.store.base import ObjectStore, StoredObject
from archivia_fs.types import Revision
from archivia_fs.vfs.transfers import OBJECT_PREFIX, revision_of
from catalog.catalog import Catalog

PAGE = 1000  # revisions

_PREFIX = re.compile(r"[^/]*/?")


@dataclass(frozen=True, slots=True)
class BadObject:
    """A revision in use whose object is missing or has another size."""

    revision: str
    key: str
    reason: str
    paths: Sequence[str]


@dataclass(slots=True)
class CheckReport:
    """`contradictions`: of the catalog with itself, in words."""

    revisions: int = 0
    bytes: int = 0
    bad_objects: list[BadObject] = field(default_factory=list)
    contradictions: Sequence[str] = ()

    @property
    def sound(self) -> bool:
        return not self.bad_objects and not self.contradictions


class Check:
    """`progress` hears the report now and then."""

    def __init__(
        self, catalog: Catalog, store: ObjectStore, *, progress: Callable[[CheckReport], None] | None = None
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._progress = progress
        self.report = CheckReport()

    def run(self) -> CheckReport:
        """All of it. Raises StoreError, CatalogError."""
        self.report.contradictions = self._catalog.contradictions()
        listed: _Listing | None = None
        for revision in self._revisions():
            assert revision.key is not None
            prefix = _prefix(revision.key)
            if listed is None or listed.prefix != prefix:
                listed = _Listing(self._store, prefix, revision.key)
            size = listed.size_of(revision.key)
            if size is None or _wrong(revision, size):
                self._confirm(revision)
            self.report.revisions += 1
            self.report.bytes += revision.stored
        return self.report

    def _revisions(self) -> Iterator[Revision]:
        after = ("", "")
        while page := self._catalog.objects_in_use(PAGE, after):
            yield from page
            after = (str(page[-1].key), page[-1].id)
            if self._progress is not None:
                self._progress(self.report)

    def _confirm(self, revision: Revision) -> None:
        """The list may be older than the revision, or the revision gone by now: ask again about this one."""
        assert revision.key is not None
        try:
            size = self._store.head(revision.key).size
        except ObjectMissing:
            reason = "the object is missing"
        else:
            wrong = _wrong(revision, size)
            if wrong is None:
                return
            reason = wrong
        try:
            self._catalog.revision(revision.id)
        except NotFound:
            return
        paths = self._catalog.revision_paths(revision.id)
        self.report.bad_objects.append(BadObject(revision.id, revision.key, reason, paths))


class _Listing:
    """The store's list under a prefix, walked once: keys are asked for in ascending order."""

    def __init__(self, store: ObjectStore, prefix: str, first: str) -> None:
        self.prefix = prefix
        self._objects = store.list(prefix, first[:-1])
        self._at: StoredObject | None = next(self._objects, None)

    def size_of(self, key: str) -> int | None:
        wanted = key.encode()
        while self._at is not None and self._at.key.encode() < wanted:
            self._at = next(self._objects, None)
        return self._at.size if self._at is not None and self._at.key == key else None


def _prefix(key: str) -> str:
    """What is listed at once: all of our own objects, or the top folder of adopted ones."""
    if key.startswith(OBJECT_PREFIX):
        return OBJECT_PREFIX
    found = _PREFIX.match(key)
    assert found is not None
    return found[0]


def _wrong(revision: Revision, size: int) -> str | None:
    """An object may be longer than what a revision has of it (truncate moves no byte), but not one that was made for it."""
    assert revision.key is not None
    exact = revision_of(revision.key) == revision.id
    if size < revision.stored or (exact and size != revision.stored):
        return f"the object has {size} bytes instead of {revision.stored}"
    return None
