"""The tree /Downloads: `<document>.zip` and `<document>_bag.zip` beside a folder per document with its METS and CSV.

Owns: names and nodes. Used by: the Vfs, through the View protocol. Threading: any thread.
A node's id names the bytes it shows, so nobody ever reads another state than the one whose size was told.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator, Sequence

from archivia_fs.content import Content
from archivia_fs.errors import Changed, NotFound
from archivia_fs.types import DOCUMENTS_INODE, Caller, InodeNo, lookup_key
from archivia_fs.vfs.view import Archive, ViewNode
from archivia_fs.views.downloads.checksums import Checksums
from archivia_fs.views.downloads.content import ZipContent
from archivia_fs.views.downloads.document import read_names
from archivia_fs.views.downloads.names import free_name
from archivia_fs.views.downloads.plan import complete
from archivia_fs.views.downloads.plans import Plans, Shape, Summary
from catalog.catalog import Catalog

NAME = "Downloads"


class Kind(enum.StrEnum):
    ROOT = "root"
    COLLECTION = "collection"
    FOLDER = "folder"
    ZIP = "zip"
    BAG = "bag"
    METS = "mets"
    TABLE = "table"


_FOLDERS = (Kind.COLLECTION, Kind.FOLDER)
_SUFFIXES = {Kind.ZIP: ".zip", Kind.BAG: "_bag.zip"}


class DownloadsView:
    """Rights are the archive's: nothing is told of a document that may not be read."""

    name = NAME

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._plans = Plans(catalog)
        self._checksums = Checksums(catalog)

    def root(self) -> ViewNode:
        return ViewNode(f"{Kind.ROOT} {DOCUMENTS_INODE}", NAME, True, 0)

    def entries(self, archive: Archive, caller: Caller, node: ViewNode) -> Sequence[ViewNode]:
        """In name order. Lays out every document that is not known yet. Raises NotFound, AccessDenied."""
        found = []
        for name, kind, ino in self._names(archive, caller, *_parts(node)):
            try:
                found.append(self._node(archive, name, kind, ino))
            except NotFound:  # removed just now
                continue
        return sorted(found, key=lambda each: each.name)

    def lookup(self, archive: Archive, caller: Caller, node: ViewNode, name: str) -> ViewNode:
        """Raises NotFound, AccessDenied."""
        key = lookup_key(name)
        for found, kind, ino in self._names(archive, caller, *_parts(node)):
            if lookup_key(found) == key:
                return self._node(archive, found, kind, ino)
        raise NotFound(f"There is no {name!r} here; downloads are made of folders only.")

    def open(self, archive: Archive, caller: Caller, node: ViewNode) -> Content:
        """At once, but where checksums are pending: these are computed first. Raises Changed if the document is not what `node` was
        any more, StoreError, AccessDenied."""
        kind, ino = _parts(node)
        with contextlib.ExitStack() as held:
            held.callback(self._catalog.reading())
            summary, plan = self._plans.plan(ino)
            archive.lookup(caller, summary.parent, summary.name)  # may the caller still?
            if _shape(summary, kind).etag != node.etag:
                raise Changed("The document has changed; look the download up again.")
            if kind in (Kind.METS, Kind.TABLE):
                return plan.mets if kind is Kind.METS else plan.table
            held.callback(self._plans.hold(ino, plan))
            whole = complete(plan, lambda revision: self._checksums.get(archive, revision), hashes=kind is Kind.BAG)
            if whole is not plan:
                self._plans.improve(ino, plan, whole)
            chosen = whole.zip if kind is Kind.ZIP else whole.bag
            return ZipContent(chosen.layout, chosen.sources, archive.revision, held.pop_all().close)

    def _names(self, archive: Archive, caller: Caller, kind: Kind, ino: InodeNo) -> Iterator[tuple[str, Kind, InodeNo]]:
        """What a folder shows, without laying anything out. A folder keeps its name; a computed file whose name is taken gets
        " (2)"."""
        taken: dict[str, int] = {}
        folders = [entry for entry in archive.readdir(caller, ino) if entry.stat.is_dir]
        for entry in folders:
            taken[lookup_key(entry.name)] = 1
            yield entry.name, Kind.COLLECTION if kind is Kind.ROOT else Kind.FOLDER, entry.stat.ino
        if kind is Kind.ROOT:
            return
        if kind is Kind.FOLDER:
            for name, computed in zip(read_names(self._catalog, ino), (Kind.METS, Kind.TABLE), strict=True):
                yield free_name(name, taken, lookup_key), computed, ino
        for archived, suffix in _SUFFIXES.items():
            for entry in folders:
                yield free_name(entry.name + suffix, taken, lookup_key), archived, entry.stat.ino

    def _node(self, archive: Archive, name: str, kind: Kind, ino: InodeNo) -> ViewNode:
        if kind in _FOLDERS:
            return ViewNode(f"{kind} {ino}", name, True, archive.getattr(ino).mtime_ns)
        summary = self._plans.summary(ino)
        shape = _shape(summary, kind)
        return ViewNode(f"{kind} {ino} {shape.etag}", name, False, summary.changed_ns, shape.size, shape.etag)


def _parts(node: ViewNode) -> tuple[Kind, InodeNo]:
    kind, ino = node.id.split(" ")[:2]
    return Kind(kind), InodeNo(int(ino))


def _shape(summary: Summary, kind: Kind) -> Shape:
    return {Kind.ZIP: summary.zip, Kind.BAG: summary.bag, Kind.METS: summary.mets, Kind.TABLE: summary.table}[kind]
