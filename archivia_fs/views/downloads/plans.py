"""Documents laid out for download: made from one state of the catalog, kept until something in them changes.

Owns: the cache of plans, and what makes one stale. Used by: view. Threading: any thread; the lock guards memory only, a document is
laid out by one thread at a time.

A listing needs sizes and ETags only, which stay known for many documents; whole plans are kept for the last few.
"""

from __future__ import annotations

import threading
import time
from array import array
from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, takewhile

from archivia_fs.types import Change, ChangeKind, Effects, InodeNo, RevisionId
from archivia_fs.views.downloads import bag
from archivia_fs.views.downloads.content import Source
from archivia_fs.views.downloads.document import Document, read_document
from archivia_fs.views.downloads.layout import Layout, Member
from archivia_fs.views.downloads.mets import mets
from archivia_fs.views.downloads.table import table
from archivia_fs.views.downloads.text import Text
from catalog.catalog import Catalog

PLANS_BYTES = 24 * 1024**2  # of plans in memory; the last one stays, whatever its size
SUMMARY_INODES = 1_000_000  # of all documents whose sizes are remembered; 8 bytes each
CHANGES_MAX = 10_000  # the last changes; who was not looked at since is laid out again
PENDING_SECONDS = 30.0  # after which it is asked again what was not known
PENDING_FACTOR = 20  # ... or after so many times what laying out takes

FILE_MODE = 0o100644  # of what is computed
BUILDERS = 8  # documents that are laid out at once
COMPUTED = 2  # METS and CSV: the first members of every ZIP
TAGS = 4  # the first members of every bag, before those of the ZIP


@dataclass(frozen=True, slots=True)
class Shape:
    """A computed file: its size in bytes, and its entity tag without quotes."""

    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class Archive:
    """A layout, and where the bytes of its members are."""

    layout: Layout
    sources: Sequence[Source]


@dataclass(frozen=True, slots=True)
class Plan:
    """A document laid out. `unhashed`: members of the ZIP whose SHA-256 is pending, with their lines in the bag's manifest."""

    mets: Text
    table: Text
    zip: Archive
    bag: Archive
    unhashed: Mapping[int, int]

    @property
    def memory(self) -> int:
        """About how many bytes this takes."""
        texts = sum(each.memory for each in (self.mets, self.table, *self.bag.sources[:TAGS]) if isinstance(each, Text))
        return texts + self.zip.layout.memory + self.bag.layout.memory + 128 * len(self.zip.sources)


@dataclass(slots=True)
class Summary:
    """What is known of a document for listings. `parent` and `name`: where it is; `inside`: the inodes in it, sorted; `above`: the
    folders it is in. No change up to number `seq` has touched it; `until` (by time.monotonic) nothing more needs to be asked
    of it."""

    parent: InodeNo
    name: str
    mets_name: str
    table_name: str
    mets: Shape
    table: Shape
    zip: Shape
    bag: Shape
    changed_ns: int
    seq: int
    until: float
    inside: array[int]
    above: frozenset[InodeNo]


@dataclass(slots=True)
class _Known:
    summary: Summary
    plan: Plan | None


class _Recent:
    """The last changes, so that one can ask what happened since. Of few changes each is looked up in the document, of many the
    document's inodes are looked up in them."""

    def __init__(self) -> None:
        self._changes: deque[Change] = deque()
        self._named: dict[InodeNo, int] = {}  # the last change of an inode
        self._within: dict[InodeNo, int] = {}  # ... and of a name in a folder
        self._forgotten = 0  # the last change that is not known any more

    @property
    def seq(self) -> int:
        """Of the last one; 0 without any."""
        return self._changes[-1].seq if self._changes else 0

    def add(self, change: Change) -> None:
        self._changes.append(change)
        self._named[change.ino] = change.seq
        if change.parent is not None:
            self._within[change.parent] = change.seq
        if len(self._changes) > CHANGES_MAX:
            self._forget(self._changes.popleft())

    def have_touched(self, summary: Summary) -> bool:
        """Whether something since `summary.seq` may have made other bytes of it."""
        seq, inside = summary.seq, summary.inside
        if seq < self._forgotten:
            return True
        if self.seq <= seq:
            return False
        if any(self._named.get(ino, 0) > seq for ino in summary.above):
            return True
        if self.seq - seq > len(inside):
            return any(self._named.get(ino, 0) > seq or self._within.get(ino, 0) > seq for ino in map(InodeNo, inside))
        since = takewhile(lambda change: change.seq > seq, reversed(self._changes))
        return any(_has(inside, change.ino) or _has(inside, change.parent or 0) for change in since)

    def _forget(self, change: Change) -> None:
        self._forgotten = change.seq
        for last, ino in ((self._named, change.ino), (self._within, change.parent)):
            if ino is not None and last.get(ino) == change.seq:
                del last[ino]


def _has(inside: array[int], ino: int) -> bool:
    at = bisect_left(inside, ino)
    return at < len(inside) and inside[at] == ino


class Plans:
    """The documents of a catalog, laid out when they are asked for."""

    def __init__(self, catalog: Catalog, *, plans_bytes: int = PLANS_BYTES) -> None:
        self._catalog = catalog
        self._plans_bytes = plans_bytes
        self._building = [threading.Lock() for _ in range(BUILDERS)]
        self._lock = threading.Lock()
        self._known: OrderedDict[InodeNo, _Known] = OrderedDict()
        self._inodes = 0
        self._recent = _Recent()
        self._epoch = 0
        catalog.subscribe(self._on_effects)

    def summary(self, ino: InodeNo) -> Summary:
        """Of a folder, as the catalog is now. Raises NotFound, CatalogError."""
        known = self._fresh(ino)
        return known.summary if known is not None else self.plan(ino)[0]

    def plan(self, ino: InodeNo) -> tuple[Summary, Plan]:
        """As `summary`, with all of it."""
        with self._building[ino % BUILDERS]:
            known = self._fresh(ino)
            if known is not None and known.plan is not None:
                return known.summary, known.plan
            with self._lock:
                epoch = self._epoch
            started = time.monotonic()
            document = read_document(self._catalog, ino)
            plan = lay_out(document)
            summary = _summary(document, plan, time.monotonic() - started)
            self._keep(ino, _Known(summary, plan), epoch)
            return summary, plan

    def improve(self, ino: InodeNo, old: Plan, new: Plan) -> None:
        """Keep `new`, which knows more checksums, instead of `old`."""
        with self._lock:
            known = self._known.get(ino)
            if known is not None and known.plan is old:
                known.plan = new

    def _fresh(self, ino: InodeNo) -> _Known | None:
        with self._lock:
            known = self._known.get(ino)
            if known is None:
                return None
            if time.monotonic() > known.summary.until or self._recent.have_touched(known.summary):
                self._drop(ino)
                return None
            known.summary.seq = max(known.summary.seq, self._recent.seq)
            self._known.move_to_end(ino)
            return known

    def _keep(self, ino: InodeNo, known: _Known, epoch: int) -> None:
        with self._lock:
            if epoch != self._epoch:
                return
            self._drop(ino)
            self._known[ino] = known
            self._inodes += len(known.summary.inside)
            while self._inodes > SUMMARY_INODES and len(self._known) > 1:
                self._drop(next(iter(self._known)))
            left = self._plans_bytes
            for other in reversed(self._known.values()):
                left -= 0 if other.plan is None else other.plan.memory
                if left < 0 and other is not known:
                    other.plan = None

    def _drop(self, ino: InodeNo) -> None:
        known = self._known.pop(ino, None)
        if known is not None:
            self._inodes -= len(known.summary.inside)

    def _on_effects(self, effects: Effects) -> None:
        with self._lock:
            for change in effects.changes:
                if change.kind is ChangeKind.RESET:
                    self._epoch += 1
                    self._known.clear()
                    self._inodes = 0
                    self._recent = _Recent()
                else:
                    self._recent.add(change)


def lay_out(document: Document) -> Plan:
    """The ZIP and the bag of a document; pure."""
    described, listed = mets(document), table(document)
    sources: list[Source] = [described, listed, *(item.revision for item in document.items)]
    layout = Layout(_members(document, described, listed))
    plan_bag, unhashed = _bag(document, described, listed, layout.etag, sources)
    return Plan(described, listed, Archive(layout, sources), plan_bag, unhashed)


def complete(plan: Plan, digests: Callable[[RevisionId], tuple[str, int]], *, hashes: bool) -> Plan:
    """`plan` with all CRC-32s, and with `hashes` all SHA-256s too; itself if it has them. `digests` gives both of a revision."""
    missing = plan.zip.layout.unknown | (plan.unhashed.keys() if hashes else set())
    if not missing:
        return plan
    found: dict[int, tuple[str, int]] = {}
    for member in sorted(missing):
        source = plan.zip.sources[member]
        assert isinstance(source, str)
        found[member] = digests(source)
    crcs = {member: crc for member, (_, crc) in found.items()}
    zip_layout = plan.zip.layout.with_checksums(crcs)
    bag_crcs = {TAGS + member: crc for member, crc in crcs.items()}
    sources = list(plan.bag.sources)
    tags = [source.data() for source in sources[:TAGS] if isinstance(source, Text)]
    lines = tags[bag.MANIFEST].split(b"\n")
    for member, line in plan.unhashed.items():
        if member in found:
            lines[line] = found[member][0].encode() + lines[line][len(bag.PENDING) :]
    tags[bag.MANIFEST] = b"\n".join(lines)
    tags = bag.tagged(tags[:-1])
    for index, data in enumerate(tags):
        sources[index] = computed = Text.of(data)
        bag_crcs[index] = computed.crc32
    return replace(
        plan,
        zip=Archive(zip_layout, plan.zip.sources),
        bag=Archive(plan.bag.layout.with_checksums(bag_crcs), sources),
        unhashed={member: line for member, line in plan.unhashed.items() if member not in found},
    )


def _members(document: Document, described: Text, listed: Text, folder: str = "") -> Iterator[Member]:
    yield _computed(folder + document.mets_name, described, document)
    yield _computed(folder + document.table_name, listed, document)
    for item in document.items:
        yield Member(folder + item.path, item.size, item.mtime_ns, item.mode, item.crc32, item.revision or "")


def _bag(
    document: Document, described: Text, listed: Text, etag: str, sources: Sequence[Source]
) -> tuple[Archive, Mapping[int, int]]:
    """The same members under `data/`. Its manifest follows from the ZIP, so the ZIP's `etag` names it before it is known."""
    files = [(COMPUTED + index, item) for index, item in enumerate(document.items) if not item.is_folder]
    lines = [(document.mets_name, described.sha256), (document.table_name, listed.sha256)]
    lines += [(item.path, item.sha256 or bag.PENDING) for _, item in files]
    sizes = [described.size, listed.size, *(item.size for _, item in files)]
    payload = bag.manifest((f"data/{path}", digest) for path, digest in lines)
    tags = [Text.of(tag) for tag in bag.tagged([*bag.about(document, sizes), payload])]
    top = [
        replace(
            _computed(f"{document.stem}/{name}", tag, document),
            identity=f"{tag.sha256 if index < bag.MANIFEST else name} of {etag}",
        )
        for index, (name, tag) in enumerate(zip(bag.NAMES, tags, strict=True))
    ]
    layout = Layout(chain(top, _members(document, described, listed, f"{document.stem}/data/")))
    unhashed = {index: line for line, (index, item) in enumerate(files, COMPUTED) if item.sha256 is None}
    return Archive(layout, [*tags, *sources]), unhashed


def _computed(path: str, text: Text, document: Document) -> Member:
    return Member(path, text.size, document.changed_ns, FILE_MODE, text.crc32, text.sha256)


def _summary(document: Document, plan: Plan, took: float) -> Summary:
    settled = not plan.unhashed and not plan.zip.layout.unknown and all(item.checked for item in document.items)
    until = float("inf") if settled else time.monotonic() + max(PENDING_SECONDS, PENDING_FACTOR * took)
    described, listed = plan.mets, plan.table
    return Summary(
        document.parent, document.name, document.mets_name, document.table_name, _shape(described), _shape(listed),
        Shape(plan.zip.layout.size, plan.zip.layout.etag), Shape(plan.bag.layout.size, plan.bag.layout.etag),
        document.changed_ns, document.seq, until, array("Q", sorted({document.ino, *(i.ino for i in document.items)})),
        frozenset(document.above),
    )  # fmt: skip


def _shape(text: Text) -> Shape:
    return Shape(text.size, text.etag)
