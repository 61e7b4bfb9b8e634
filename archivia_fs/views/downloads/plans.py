"""Documents laid out for download: made from one state of the catalog, kept until something in them changes.

Owns: the cache of plans. Used by: view. Threading: any thread; the lock guards memory only, a document is laid out by one thread
at a time.

A listing needs sizes and ETags only, which stay known for many documents; whole plans are kept for the last few.

METS and CSV tell what is known of the files, and that grows while the document stays as it is: checksums are computed, pictures
looked into. It shows from time to time, but not while somebody downloads the document or may go on with it: a ZIP of 100 GB
that had got another ETag on the way would begin again.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from archivia_fs.errors import NotFound
from archivia_fs.types import ChangeKind, Effects, InodeNo
from archivia_fs.views.downloads.document import Document, read_document
from archivia_fs.views.downloads.plan import Plan, lay_out
from archivia_fs.views.downloads.text import Text
from archivia_fs.views.downloads.touched import Touched
from catalog.catalog import Catalog

PLANS_BYTES = 24 * 1024**2  # of plans in memory; the last one stays, whatever its size
SUMMARIES_MAX = 30_000  # documents whose sizes are remembered, about 1 KB each
PENDING_SECONDS = (
    30.0  # after which it is asked what is known by now; then after twice that, and so on, if that is nothing new
)
PENDING_MOST = 3600.0
PENDING_FACTOR = 20  # ... but no sooner than after so many times what it takes to ask
RESUME_SECONDS = 24 * 3600.0  # that a download can be gone on with; as long as gc spares the bytes of old versions
BUILDERS = 8  # documents that are laid out at once


@dataclass(frozen=True, slots=True)
class Shape:
    """A computed file: its size in bytes, and its entity tag without quotes."""

    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What is known of a document for listings, as of change number `seq`. `path`: the folders it is in, and itself; `name`: its
    own. `pause`: the seconds after which, `until` (by time.monotonic) when more may be known of it."""

    path: tuple[InodeNo, ...]
    name: str
    mets: Shape
    table: Shape
    zip: Shape
    bag: Shape
    changed_ns: int
    seq: int
    pause: float
    until: float

    @property
    def parent(self) -> InodeNo:
        """The folder it is in."""
        return self.path[-2]


@dataclass(slots=True)
class _Whole:
    """A plan, and how many bytes of memory it takes. `state`: of the document it was made from (Document.state); `settled`: nothing
    more will be known of that than the plan tells."""

    plan: Plan
    state: str
    settled: bool
    memory: int
    readers: int = 0
    resumable_until: float = 0.0

    @property
    def stays(self) -> bool:
        """Whether somebody downloads it, or may go on, and what is laid out anew would be another one."""
        return not self.settled and (self.readers > 0 or time.monotonic() < self.resumable_until)


class Plans:
    """The documents of a catalog, laid out when they are asked for."""

    def __init__(self, catalog: Catalog, *, plans_bytes: int = PLANS_BYTES) -> None:
        self._catalog = catalog
        self._plans_bytes = plans_bytes
        self._building = [threading.Lock() for _ in range(BUILDERS)]
        self._lock = threading.Lock()
        self._summaries: OrderedDict[InodeNo, Summary] = OrderedDict()
        self._wholes: OrderedDict[InodeNo, _Whole] = OrderedDict()
        self._memory = 0
        self._resets = 0
        self._touched = Touched(catalog)
        catalog.subscribe(self._on_effects)

    def summary(self, ino: InodeNo) -> Summary:
        """Of a folder, as the catalog is now. Raises NotFound, CatalogError."""
        return self._fresh(ino) or self.plan(ino)[0]

    def plan(self, ino: InodeNo) -> tuple[Summary, Plan]:
        """As `summary`, with all of it."""
        with self._building[ino % BUILDERS]:
            summary = self._fresh(ino)
            with self._lock:
                whole, resets = self._wholes.get(ino), self._resets
                if summary is not None and whole is not None:
                    self._wholes.move_to_end(ino)
                    return summary, whole.plan
            started = time.monotonic()
            try:
                document = read_document(self._catalog, ino)
            except NotFound:
                with self._lock:
                    self._summaries.pop(ino, None)
                    self._forget(ino)
                raise
            if whole is None or not whole.stays or whole.state != document.state:
                plan = lay_out(document)
                whole = _Whole(plan, document.state, _is_settled(document, plan), plan.memory)
            summary = _summary(document, whole, self._summaries.get(ino), time.monotonic() - started)
            self._keep(ino, summary, whole, resets)
            return summary, whole.plan

    def improve(self, ino: InodeNo, old: Plan, new: Plan) -> None:
        """Keep `new`, which knows more checksums, instead of `old`."""
        with self._lock:
            whole = self._wholes.get(ino)
            if whole is not None and whole.plan is old:
                whole.plan = new

    def hold(self, ino: InodeNo, plan: Plan) -> Callable[[], None]:
        """Somebody downloads it: until the document changes it stays as it is, and RESUME_SECONDS longer than until all have called
        what this returns (once)."""
        with self._lock:
            whole = self._wholes.get(ino)
            if whole is None or whole.plan.zip.layout.etag != plan.zip.layout.etag:
                whole = None
            else:
                whole.readers += 1

        def release() -> None:
            if whole is not None:
                with self._lock:
                    whole.readers -= 1
                    whole.resumable_until = time.monotonic() + RESUME_SECONDS

        return release

    def _fresh(self, ino: InodeNo) -> Summary | None:
        with self._lock:
            summary = self._summaries.get(ino)
            if summary is None or time.monotonic() > summary.until:
                return None
            self._summaries.move_to_end(ino)
        return None if self._touched.since(summary.seq, summary.path) else summary

    def _keep(self, ino: InodeNo, summary: Summary, whole: _Whole, resets: int) -> None:
        with self._lock:
            if resets != self._resets:
                return
            self._summaries[ino] = summary
            self._summaries.move_to_end(ino)
            while len(self._summaries) > SUMMARIES_MAX:
                self._summaries.popitem(last=False)
            self._forget(ino)
            self._wholes[ino] = whole
            self._memory += whole.memory
            self._shrink()

    def _shrink(self) -> None:
        """The oldest go first, those that are downloaded last, the newest never."""
        for spared in (True, False):
            for ino in list(self._wholes)[:-1]:
                if self._memory <= self._plans_bytes:
                    return
                if not (spared and self._wholes[ino].stays):
                    self._forget(ino)

    def _forget(self, ino: InodeNo) -> None:
        whole = self._wholes.pop(ino, None)
        if whole is not None:
            self._memory -= whole.memory

    def _on_effects(self, effects: Effects) -> None:
        self._touched.on_effects(effects)
        if any(change.kind is ChangeKind.RESET for change in effects.changes):
            with self._lock:
                self._resets += 1
                self._summaries.clear()


def _is_settled(document: Document, plan: Plan) -> bool:
    return not plan.unhashed and not plan.zip.layout.unknown and all(item.checked for item in document.items)


def _summary(document: Document, whole: _Whole, before: Summary | None, took: float) -> Summary:
    plan = whole.plan
    zipped = Shape(plan.zip.layout.size, plan.zip.layout.etag)
    is_new = before is None or before.zip != zipped
    pause = max(
        PENDING_SECONDS if before is None or is_new else min(2 * before.pause, PENDING_MOST), PENDING_FACTOR * took
    )
    return Summary(
        tuple(document.above), document.name, _shape(plan.mets), _shape(plan.table), zipped,
        Shape(plan.bag.layout.size, plan.bag.layout.etag), document.changed_ns, document.seq, pause,
        float("inf") if whole.settled else time.monotonic() + pause,
    )  # fmt: skip


def _shape(text: Text) -> Shape:
    return Shape(text.size, text.etag)
